"""Steps until a threshold is reached, when some runs do not reach it within their budget.

A run that did not reach it is censored: it needed *more* than its budget. Dropping it, or counting the budget as its
time, makes an unreliable algorithm look fast.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from workhorse.statistics.intervals import Interval

__all__ = ["Reached", "first_reach", "median_steps", "share_reached"]


class Reached(NamedTuple):
    """The share of runs that have reached the threshold by each number of steps, with a pointwise band."""

    steps: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def first_reach(steps: ArrayLike, returns: ArrayLike, threshold: float) -> tuple[float, bool]:
    """Return when a run's curve first reaches the threshold: (steps, True), or (its last step, False).

    NaN returns are points that were not measured. Nothing is read in between points: the answer is a measured point.

    Args:
        steps: where a run was evaluated, rising.
        returns: its return at each of them.
        threshold: what is to be reached.

    Raises:
        ValueError: no points, steps that fall, or unequal lengths.

    Example:
        >>> first_reach([10, 20, 30], [1.0, 6.0, 4.0], 5.0), first_reach([10, 20], [1.0, 2.0], 5.0)
        ((20.0, True), (20.0, False))
    """
    at, curve = np.asarray(steps, np.float64), np.asarray(returns, np.float64)
    if at.ndim != 1 or at.shape != curve.shape or at.size == 0:
        raise ValueError(f"Steps and returns must be two rows of one length, got shapes {at.shape} and {curve.shape}.")
    if (np.diff(at) < 0).any():
        raise ValueError("The steps of a curve must not fall.")
    there = np.flatnonzero(curve >= threshold)
    return (float(at[there[0]]), True) if there.size else (float(at[-1]), False)


def share_reached(steps: ArrayLike, reached: ArrayLike, confidence: float = 0.95) -> Reached:
    """Estimate the share of runs that need at most t steps, after Kaplan and Meier.

    1 - F(t) = prod over times t_i <= t of (1 - d_i / n_i), d_i runs reaching it at t_i of the n_i still under way. The
    band is Greenwood's on the log(-log) scale, which keeps it within [0, 1].

    Args:
        steps: when a run reached the threshold, or when it stopped without.
        reached: which of the two.
        confidence: of the pointwise band.

    Raises:
        ValueError: no runs, or unequal lengths.

    Example:
        >>> found = share_reached([10, 20, 30, 30], [True, True, False, False])
        >>> found.steps.tolist(), found.value.tolist()
        ([10.0, 20.0], [0.25, 0.5])

    Source: Kaplan and Meier 1958; Kalbfleisch and Prentice 1980 for the scale of the band.
    """
    at, there = np.asarray(steps, np.float64).ravel(), np.asarray(reached, bool).ravel()
    if at.shape != there.shape or at.size == 0:
        raise ValueError(f"Expected as many steps as outcomes, at least 1, got {at.size} and {there.size}.")
    times = np.unique(at[there])
    events = np.array([(there & (at == time)).sum() for time in times], np.float64)
    under_way = np.array([(at >= time).sum() for time in times], np.float64)
    left = np.cumprod(1 - events / under_way)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(events / (under_way * (under_way - events)))
        error = np.sqrt(greenwood) / np.abs(np.log(left))
        quantile = float(ndtri(0.5 + confidence / 2))
        low = 1 - left ** np.exp(-quantile * error)
        high = 1 - left ** np.exp(quantile * error)
    last = left == 0  # everybody is there, and the scale ends
    low = np.where(last, np.concatenate([[0.0], low[:-1]])[: len(low)], low)
    return Reached(times, 1 - left, np.where(np.isnan(low), 0.0, low), np.where(last, 1.0, high))


def median_steps(steps: ArrayLike, reached: ArrayLike, confidence: float = 0.95) -> Interval:
    """The number of steps by which half of all runs reach the threshold, with Brookmeyer and Crowley's interval.

    Infinite where fewer than half of the runs reach it, and so is an end of the interval that the data do not bound.

    Args and errors are those of `share_reached`.

    Example:
        >>> median_steps([10, 20, 30, 40], [True, True, True, False]).value
        20.0

    Source: Brookmeyer and Crowley 1982.
    """
    found = share_reached(steps, reached, confidence)

    def first(curve: np.ndarray) -> float:
        there = np.flatnonzero(curve >= 0.5 - 1e-12)
        return float(found.steps[there[0]]) if there.size else float("inf")

    return Interval(first(found.value), first(found.high), first(found.low), "Kaplan-Meier")
