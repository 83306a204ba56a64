"""Confidence intervals, each with its estimand named first."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, ndtr, ndtri, stdtrit

__all__ = [
    "LEAST_RUNS",
    "Interval",
    "bootstrap_interval",
    "difference_interval",
    "iqm_interval",
    "mean_interval",
    "proportion_interval",
    "rate_bound_without_events",
]

LEAST_RUNS = 3
"""Fewest runs for which an interval of their mean is drawn: the spread of two tells next to nothing."""


class Interval(NamedTuple):
    """An estimate, the ends of its interval, and how it was made."""

    value: float
    low: float
    high: float
    method: str


def mean_interval(sample: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of the distribution a sample was drawn from, with Student's t interval.

    mean +- t_{n-1} * s / sqrt(n), s the standard deviation with n - 1. The interval is over what varies between the
    sample's members alone: over the episodes of *one* policy it says nothing about another training seed.

    Args:
        sample: independent values, at least one.
        confidence: coverage aimed at, in (0, 1).

    Returns:
        The mean; the interval is infinite for a single value.

    Raises:
        ValueError: an empty sample, or a value that is NaN.

    Example:
        >>> estimate = mean_interval([1.0, 2.0, 3.0])
        >>> round(estimate.value, 3), round(estimate.low, 3), round(estimate.high, 3)
        (2.0, -0.484, 4.484)

    Source: Student 1908, "The probable error of a mean".
    """
    values = _sample(sample, 1)
    _check_confidence(confidence)
    mean = float(values.mean())
    if values.size == 1:
        return Interval(mean, -np.inf, np.inf, "Student t")
    half = float(stdtrit(values.size - 1, 0.5 + confidence / 2) * values.std(ddof=1) / np.sqrt(values.size))
    return Interval(mean, mean - half, mean + half, "Student t")


def difference_interval(sample: ArrayLike, other: ArrayLike, confidence: float = 0.95) -> Interval:
    """The difference of two distributions' means, sample - other, with Welch's t interval.

    d +- t_v * sqrt(s1^2 / n1 + s2^2 / n2), v by Welch and Satterthwaite: neither equal variances nor equal sizes are
    assumed.

    Args:
        sample: independent values, at least two.
        other: those of the other side, at least two.
        confidence: coverage aimed at, in (0, 1).

    Raises:
        ValueError: fewer than two values on a side, or a value that is NaN.

    Example:
        >>> found = difference_interval([3.0, 4.0, 5.0], [1.0, 2.0, 3.0])
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
        (2.0, -0.267, 4.267)

    Source: Welch 1947, "The generalization of Student's problem when several different population variances are
    involved".
    """
    x, y = _sample(sample, 2), _sample(other, 2)
    _check_confidence(confidence)
    difference = float(x.mean() - y.mean())
    error, freedom = welch_error(x, y)
    half = float(stdtrit(freedom, 0.5 + confidence / 2) * error) if error > 0 else 0.0
    return Interval(difference, difference - half, difference + half, "Welch t")


def welch_error(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Standard error of a difference of means, and its degrees of freedom by Welch and Satterthwaite."""
    parts = [values.var(ddof=1) / len(values) for values in (x, y)]
    total = parts[0] + parts[1]
    if total == 0:
        return 0.0, float(len(x) + len(y) - 2)
    freedom = total**2 / (parts[0] ** 2 / (len(x) - 1) + parts[1] ** 2 / (len(y) - 1))
    return float(np.sqrt(total)), float(freedom)


def iqm_interval(sample: ArrayLike, confidence: float = 0.95) -> Interval:
    """The interquartile mean of the distribution a sample was drawn from, with Tukey and McLaughlin's t interval.

    The estimate is the mean without the g = floor(n / 4) lowest and highest values; with s_w the standard deviation of
    the sample whose cut values are replaced by the nearest kept ones, and h = n - 2 g,

        IQM +- t_{h-1} * s_w * sqrt((n - 1) / (h (h - 1)))

    For fewer than 4 values nothing is cut, and this is Student's t interval of the mean.

    Args:
        sample: independent values, at least two.
        confidence: coverage aimed at, in (0, 1).

    Raises:
        ValueError: fewer than two values, or a value that is NaN.

    Example:
        >>> found = iqm_interval([1.0, 2.0, 3.0, 4.0, 100.0, 5.0, 6.0, 0.0])
        >>> round(found.value, 3), found.method
        (3.5, 'trimmed t')

    Source: Tukey and McLaughlin 1963; Wilcox, "Introduction to Robust Estimation and Hypothesis Testing", 4.3.
    """
    values = np.sort(_sample(sample, 2))
    _check_confidence(confidence)
    count = len(values)
    cut = count // 4
    kept = values[cut : count - cut]
    winsorised = np.clip(values, kept[0], kept[-1])
    squares = float(((winsorised - winsorised.mean()) ** 2).sum())
    error = np.sqrt(squares / (len(kept) * (len(kept) - 1)))
    half = float(stdtrit(len(kept) - 1, 0.5 + confidence / 2) * error)
    return Interval(float(kept.mean()), float(kept.mean()) - half, float(kept.mean()) + half, "trimmed t")


def bootstrap_interval(
    sample: ArrayLike,
    statistic: Callable[[np.ndarray], np.ndarray],
    generator: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    method: str = "bca",
) -> Interval:
    """A functional of the distribution a sample was drawn from, with a bootstrap interval.

    Methods:
        bca: percentiles corrected for bias and for an error that grows with the value (Efron 1987), and expanded for
            small samples as in `aggregates.aggregate_interval`.
        percentile: plain percentiles. They cover too rarely for small samples; here for comparison.

    Args:
        sample: independent values, at least three.
        statistic: numbers [..., n] to one each [...], such as a mean over the last axis.
        generator: where the resamples come from.
        confidence: coverage aimed at, in (0, 1).
        resamples: how many.
        method: one of the above.

    Raises:
        ValueError: fewer than three values, a value that is NaN, or an unknown method.

    Example:
        >>> found = bootstrap_interval(np.arange(20.0), lambda x: x.mean(-1), np.random.default_rng(0))
        >>> found.value, found.low < 9.5 < found.high
        (9.5, True)
    """
    values = _sample(sample, 3)
    _check_confidence(confidence)
    if method not in ("bca", "percentile"):
        raise ValueError(f"The method must be bca or percentile, got {method!r}.")
    estimate, count, tail = float(statistic(values)), len(values), (1 - confidence) / 2
    drawn = statistic(values[generator.integers(0, count, (resamples, count))])
    if method == "percentile":
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return Interval(estimate, float(low), float(high), "percentile bootstrap")
    below = ((drawn < estimate).mean() + (drawn <= estimate).mean()) / 2
    if not 0 < below < 1:  # every resample gives the same: the sample is constant
        return Interval(estimate, estimate, estimate, "BCa bootstrap, expanded")
    bias = ndtri(below)
    without = statistic(np.stack([np.delete(values, place) for place in range(count)]))
    apart = without.mean() - without
    spread = float((apart**2).sum())
    acceleration = float((apart**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    far = np.sqrt(count / (count - 1)) * stdtrit(count - 1, tail)
    ends = bias + np.array([far, -far])
    tails = ndtr(bias + ends / np.maximum(1 - acceleration * ends, 1e-3))
    low, high = np.quantile(drawn, tails)
    return Interval(estimate, float(low), float(high), "BCa bootstrap, expanded")


def proportion_interval(events: int, trials: int, confidence: float = 0.95) -> Interval:
    """The chance of an event, such as a failed seed, with Clopper and Pearson's exact interval.

    The ends are those chances at which what was seen, or more of it, would have had a chance of (1 - confidence) / 2:
    the coverage is never below what was asked for, and usually above.

    Args:
        events: how often it happened, in [0, trials].
        trials: how often it could have.
        confidence: least coverage, in (0, 1).

    Raises:
        ValueError: numbers out of range.

    Example:
        >>> three_of_ten = proportion_interval(3, 10)
        >>> round(three_of_ten.low, 3), round(three_of_ten.high, 3)
        (0.067, 0.652)

    Source: Clopper and Pearson 1934.
    """
    if trials < 1 or not 0 <= events <= trials:
        raise ValueError(f"A proportion needs 0 <= events <= trials and a trial, got {events} of {trials}.")
    _check_confidence(confidence)
    tail = (1 - confidence) / 2
    low = float(betaincinv(events, trials - events + 1, tail)) if events else 0.0
    high = float(betaincinv(events + 1, trials - events, 1 - tail)) if events < trials else 1.0
    return Interval(events / trials, low, high, "Clopper-Pearson")


def rate_bound_without_events(trials: int, confidence: float = 0.95) -> float:
    """Return the upper bound of the chance of an event that never happened in n trials: 1 - (1 - confidence)^(1 / n).

    One-sided; about 3 / n at 95 %, the rule of three. Ten seeds without a failure exclude a failure rate above 26 %,
    no less.

    Raises:
        ValueError: numbers out of range.

    Example:
        >>> [round(rate_bound_without_events(n), 3) for n in (10, 30, 300)]
        [0.259, 0.095, 0.01]

    Source: Hanley and Lippman-Hand 1983, "If nothing goes wrong, is everything all right?".
    """
    if trials < 1:
        raise ValueError(f"A rate needs at least 1 trial, got {trials}.")
    _check_confidence(confidence)
    return float(1 - (1 - confidence) ** (1 / trials))


def _sample(sample: ArrayLike, least: int) -> np.ndarray:
    values = np.asarray(sample, np.float64).ravel()
    if values.size < least:
        count = "none" if values.size == 0 else str(values.size)
        word = {1: "one value", 2: "two values", 3: "three values"}[least]
        raise ValueError(f"An interval needs at least {word}, got {count}.")
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} of {values.size} values are NaN: an interval needs numbers.")
    return values


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence must be in (0, 1), got {confidence}.")
