"""Confidence intervals, each with its estimand named first."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, ndtr, ndtri, stdtrit

__all__ = [
    "LEAST_IQM_RUNS",
    "LEAST_RUNS",
    "Interval",
    "bootstrap_interval",
    "cut",
    "difference_interval",
    "iqm_interval",
    "mean_interval",
    "proportion_interval",
    "rate_bound_without_events",
    "score_interval",
]

LEAST_RUNS = 3
"""Fewest runs for which an interval of their mean is drawn: the spread of two tells next to nothing."""

LEAST_IQM_RUNS = 5
"""Fewest runs for which an interval of their IQM is drawn."""

RESAMPLES = 10_000
"""Resamples of the intervals that need no generator: the same ones each time."""

_MOST_RESAMPLED = 50
"""Runs above which Student's t needs no help: it covers 94 % where one seed in four fails."""


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


def score_interval(sample: ArrayLike, confidence: float = 0.95, first: int = 0) -> Interval:
    """The mean score of the seeds that a sample was drawn from, with an interval for scores of any shape.

    The interval reaches from the lowest to the highest end of these:

    - Student's t, which is right for bell-shaped scores;
    - the percentile bootstrap, expanded for few runs as in `aggregates.aggregate_interval`, which follows scores that
      lean to one side: where one seed in four fails, Student's t covers 91 % at 15 runs, and the two together 93 %;
    - where `first` is given, mean +- t_{first-1} * s_first / sqrt(n), with the spread of the first runs alone. If runs
      were added until the interval was narrow, the spread of all of them is too small, because that is what ended the
      study; that of the first ones is not (Stein 1945).

    *Below 10 runs no interval made of the scores holds what they have not shown*: 5 runs see no failure in 24 % of
    studies where one seed in four fails.

    Args:
        sample: independent scores, at least three, in the order in which they were made.
        confidence: coverage aimed at, in (0, 1).
        first: number of runs that were made whatever they returned; 0 where all were.

    Raises:
        ValueError: fewer than three values, or a value that is NaN.

    Example:
        >>> found = score_interval([0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
        >>> [round(end, 3) for end in found[:3]], [round(end, 3) for end in mean_interval([0.0] + [1.0] * 9)[:3]]
        ([0.9, 0.6, 1.126], [0.9, 0.674, 1.126])

    Source: Hesterberg 2015, "What teachers should know about the bootstrap"; Stein 1945, "A two-sample test for a
    linear hypothesis whose power is independent of the variance".
    """
    values = _sample(sample, 3)
    found = mean_interval(values, confidence)
    low, high, method = found.low, found.high, "Student t"
    if len(values) <= _MOST_RESAMPLED:
        wider = math.sqrt(len(values) / (len(values) - 1))  # resamples vary less than samples do, by this factor
        ends = _percentile_ends(np.sort(values), _mean_weights(len(values)), confidence, wider)
        low, high, method = min(low, ends[0]), max(high, ends[1]), "Student t or bootstrap, the wider"
    if 2 <= first < len(values):
        spread = values[:first].std(ddof=1) / np.sqrt(len(values))
        half = float(stdtrit(first - 1, 0.5 + confidence / 2) * spread)
        low, high = min(low, found.value - half), max(high, found.value + half)
        method = f"{method}, or the spread of the first {first}"
    return Interval(found.value, low, high, method)


def iqm_interval(sample: ArrayLike, confidence: float = 0.95) -> Interval:
    """The interquartile mean of the distribution a sample was drawn from, with a percentile bootstrap interval.

    The estimate is the mean without the g = floor(n / 4) lowest and highest values. The interval ends at the
    percentiles Phi(-+ t_{n-1}) of 10,000 resamples (the same ones each time): t's tails in the place of a normal's.

    For scores with two modes this is the interval that covers what it says: with 5 and 10 runs 94 and 96 %, where
    Tukey and McLaughlin's trimmed t covers 63 and 89 %. *Below 5 runs nothing does*: the lowest and the highest of 4
    values hold the middle of a distribution in 88 %.

    Args:
        sample: independent values, at least `LEAST_IQM_RUNS`.
        confidence: coverage aimed at, in (0, 1).

    Raises:
        ValueError: fewer values than that, or a value that is NaN.

    Example:
        >>> found = iqm_interval([1.0, 2.0, 3.0, 4.0, 100.0, 5.0, 6.0, 0.0])
        >>> round(found.value, 3), found.high > 6, found.method
        (3.5, True, 'percentile bootstrap, t tails')
    """
    values = np.sort(_sample(sample, LEAST_IQM_RUNS))
    cut = len(values) // 4
    low, high = _percentile_ends(values, _iqm_weights(len(values)), confidence)
    return Interval(float(values[cut : len(values) - cut].mean()), low, high, "percentile bootstrap, t tails")


def cut(interval: Interval, bounds: tuple[float, float]) -> Interval:
    """Return an interval without what is impossible: values below or above the `bounds` of the estimand.

    The estimand lies within its bounds, so the cut interval holds it exactly as often as the whole one. Whoever prints
    it marks the end that was cut (`reports.wording.interval_text` does).

    Example:
        >>> cut(Interval(426.0, 315.0, 538.0, "Student t"), (0.0, 500.0))
        Interval(value=426.0, low=315.0, high=500.0, method='Student t')
    """
    low, high = bounds
    return interval._replace(low=min(max(interval.low, low), high), high=max(min(interval.high, high), low))


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


def _percentile_ends(
    ascending: np.ndarray, weights: np.ndarray, confidence: float, wider: float = 1.0
) -> tuple[float, float]:
    """Return the percentiles Phi(-+ wider * t_{n-1}) of a statistic that is a weighted sum of a resample's values."""
    _check_confidence(confidence)
    tail = float(ndtr(wider * stdtrit(len(ascending) - 1, (1 - confidence) / 2)))
    low, high = np.quantile(weights @ ascending, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=32)
def _mean_weights(count: int) -> np.ndarray:
    """Weights [resample, rank] of the sorted sample in the mean of each resample."""
    return _weights(_ranks(count), count)


@lru_cache(maxsize=8)
def _iqm_weights(count: int) -> np.ndarray:
    """Weights [resample, rank] of the sorted sample in the IQM of each resample."""
    return _weights(np.sort(_ranks(count), axis=1)[:, count // 4 : count - count // 4], count)


def _ranks(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, count, (RESAMPLES, count))


def _weights(ranks: np.ndarray, count: int) -> np.ndarray:
    """Return how often each rank is in each row, as a share of the row."""
    places = ranks + count * np.arange(len(ranks))[:, None]
    return np.bincount(places.ravel(), minlength=count * len(ranks)).reshape(-1, count) / ranks.shape[1]


def _sample(sample: ArrayLike, least: int) -> np.ndarray:
    values = np.asarray(sample, np.float64).ravel()
    if values.size < least:
        count = "none" if values.size == 0 else str(values.size)
        word = {1: "one value", 2: "two values", 3: "three values", 5: "five values"}[least]
        raise ValueError(f"An interval needs at least {word}, got {count}.")
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} of {values.size} values are NaN: an interval needs numbers.")
    return values


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence must be in (0, 1), got {confidence}.")
