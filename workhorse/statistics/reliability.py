"""Steadiness of training within a run, across runs, and of a fixed policy.

Dispersion is an interquartile range, risk is a conditional value at risk (CVaR): the mean of the worst share `tail` of
the values. Worst means lowest for returns and their changes, highest for drawdowns.

Source: Chan et al. 2020, "Measuring the Reliability of Reinforcement Learning Algorithms" (arXiv 1912.05663).
Deviation: long-term risk takes the *largest* drawdowns; the parameters published with the source take the smallest,
which are about zero for every run.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "collapsed",
    "cvar",
    "dispersion_of_rollouts",
    "dispersion_over_time",
    "drawdown",
    "long_term_risk",
    "outlying",
    "short_term_risk",
]


def cvar(
    values: ArrayLike, tail: float = 0.05, side: Literal["lower", "upper"] = "lower", axis: int = -1
) -> np.ndarray:
    """The mean of the values at or beyond the quantile `tail` of one side.

    With at most 1 / tail values this is the extreme value alone.

    Example:
        >>> float(cvar([1.0, 2.0, 3.0, 4.0], 0.51)), float(cvar([0.0, 0.2, 0.8, 0.0], 0.25, "upper"))
        (1.5, 0.8)
    """
    x = np.moveaxis(np.asarray(values, np.float64), axis, -1)
    if not 0 < tail < 1:
        raise ValueError(f"The tail must be in (0, 1), got {tail}.")
    at = np.quantile(x, tail if side == "lower" else 1 - tail, axis=-1, keepdims=True)
    beyond = x <= at if side == "lower" else x >= at
    return (x * beyond).sum(-1) / beyond.sum(-1)


def _slopes(steps: ArrayLike, returns: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    at, y = np.asarray(steps, np.float64), np.asarray(returns, np.float64)
    if at.ndim != 1 or at.shape != y.shape or at.size < 2:
        raise ValueError(
            f"Steps and returns must be two rows of one length, at least 2, got shapes {at.shape} and {y.shape}."
        )
    if (np.diff(at) <= 0).any():
        raise ValueError("The steps of a curve must rise.")
    return at[1:], np.diff(y) / np.diff(at)


def dispersion_over_time(steps: ArrayLike, returns: ArrayLike, window: float) -> float:
    """Return the dispersion of a curve over time: the median over windows of the IQR of its slopes.

    Args:
        steps: where a run was evaluated, rising.
        returns: its return at each of them.
        window: width in steps of the windows that end at the curve's points.

    Raises:
        ValueError: curves that are none, or no window with two slopes in it.

    Example:
        >>> dispersion_over_time([0, 1, 2, 3], [0.0, 1.0, 0.0, 1.0], window=3)
        1.0
    """
    at, slope = _slopes(steps, returns)
    ranges = []
    for end in at:
        inside = slope[(at > end - window) & (at <= end)]
        if len(inside) > 1:
            ranges.append(np.subtract(*np.quantile(inside, [0.75, 0.25])))
    if not ranges:
        raise ValueError(f"No window of {window:g} steps holds two changes of the curve: take a wider one.")
    return float(np.median(ranges))


def short_term_risk(steps: ArrayLike, returns: ArrayLike, tail: float = 0.05) -> float:
    """The worst drops from a point of the curve to the next: lower CVaR of its slopes, return a step.

    Example:
        >>> round(short_term_risk([1, 2, 4, 5], [1.0, 2.0, 3.0, 4.0], tail=0.49), 3)
        0.5
    """
    return float(cvar(_slopes(steps, returns)[1], tail))


def drawdown(returns: ArrayLike) -> np.ndarray:
    """Return how far a curve is below its own best so far, at every point.

    Example:
        >>> float(drawdown([100.0, 150.0, 90.0, 120.0, 80.0, 200.0]).max())
        70.0
    """
    y = np.asarray(returns, np.float64)
    return np.maximum.accumulate(y, -1) - y


def long_term_risk(returns: ArrayLike, tail: float = 0.05) -> float:
    """Return the loss of what was learnt: upper CVaR of the drawdown.

    Example:
        >>> round(long_term_risk([0.3, 0.1, -0.5, 1.0], tail=0.25), 3)
        0.8
    """
    return float(cvar(drawdown(returns), tail, "upper"))


def collapsed(returns: ArrayLike, floor: float = 0.0, share: float = 0.5) -> bool:
    """Tell whether a run ends below half of its own best, both counted from a floor.

    final - floor < share * (best - floor). A run that never rose above the floor has not collapsed; it has failed.

    Args:
        returns: a run's curve; NaN are points that were not measured.
        floor: what counts as nothing, such as the random policy's return.
        share: half, unless said otherwise.

    Example:
        >>> collapsed([0.0, 900.0, 300.0]), collapsed([0.0, 900.0, 800.0]), collapsed([-5.0, -9.0])
        (True, False, False)
    """
    y = np.asarray(returns, np.float64)
    y = y[~np.isnan(y)]
    if y.size == 0:
        raise ValueError("A curve without points cannot be judged.")
    best = float(y.max()) - floor
    return best > 0 and float(y[-1]) - floor < share * best


def dispersion_of_rollouts(returns: ArrayLike) -> float:
    """IQR of the returns of one fixed policy's episodes.

    Example:
        >>> dispersion_of_rollouts([-1.0, 2.0, 5.0, 7.0, 3.0])
        3.0
    """
    low, high = np.quantile(np.asarray(returns, np.float64), [0.25, 0.75])
    return float(high - low)


def outlying(values: ArrayLike, cut: float = 5.0) -> np.ndarray:
    """Mark the values that stand apart from the others, (n,); none below 5 values.

    Those with .6745 |x - median| / MAD above `cut`, MAD the median absolute deviation; where over half of the values
    are equal, and MAD is zero, those with .7979 |x - median| / (mean absolute deviation) above 3.5. Of ten normal
    values one stands apart by chance in 4 samples of a hundred at a cut of 5, and in 14 at the source's 3.5.

    Example:
        >>> outlying([98.0, 101.0, 100.0, 12.0, 103.0, 99.0]).tolist()
        [False, False, False, True, False, False]

    Source: Iglewicz and Hoaglin 1993, "How to detect and handle outliers". Deviation: the cut.
    """
    x = np.asarray(values, np.float64)
    if x.size < 5:
        return np.zeros(x.shape, bool)
    apart = np.abs(x - np.median(x))
    middle = float(np.median(apart))
    if middle > 0:
        return 0.6745 * apart > cut * middle
    return 0.7979 * apart > 3.5 * apart.mean()
