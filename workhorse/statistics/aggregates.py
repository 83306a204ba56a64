"""One number for many runs on many tasks, with its interval: IQM, median, mean, optimality gap, profiles.

Scores are arrays [runs, tasks] of what the runs of one algorithm returned, made comparable between tasks beforehand,
for instance by (x - random) / (human - random). The runs of a task are a sample; the tasks are not: every statement is
about these tasks. Whatever resamples draws runs anew *within* each task, so the tasks keep their number of runs.

Source: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtrit

from workhorse.statistics.intervals import Interval

__all__ = [
    "Profile",
    "aggregate_interval",
    "as_scores",
    "iqm",
    "mean",
    "median",
    "optimality_gap",
    "performance_profile",
    "profile_interval",
]

Statistic = Callable[[np.ndarray], np.ndarray]
"""Scores [..., runs, tasks] to one number each [...]."""

RESAMPLES = 50_000
_CHUNK_BYTES = 1 << 20
"""Resampled scores held at a time: what fits a core's cache."""


def as_scores(scores: ArrayLike) -> np.ndarray:
    """Scores as float64 [runs, tasks].

    Raises:
        ValueError: another shape, nothing in it, or a score that is NaN. A run that failed has a score too, or it has
            to be left out by whoever knows why; nothing here drops it.

    Example:
        >>> as_scores([1.0, 2.0])
        Traceback (most recent call last):
        ...
        ValueError: Scores are an array [runs, tasks], got 1 axis of length 2: for one task use scores[:, None].
    """
    values = np.asarray(scores, np.float64)
    if values.ndim == 1:
        raise ValueError(
            f"Scores are an array [runs, tasks], got 1 axis of length {len(values)}: for one task use scores[:, None]."
        )
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"Scores are an array [runs, tasks] with something in it, got shape {values.shape}.")
    bad = np.isnan(values)
    if bad.any():
        run, task = np.argwhere(bad)[0]
        raise ValueError(
            f"{int(bad.sum())} of {values.size} scores are NaN, the first that of run {run} on task {task}: give a run "
            "that failed the score it deserves."
        )
    return values


# --- estimates: [..., runs, tasks] -> [...] ---


def mean(scores: np.ndarray) -> np.ndarray:
    """The mean over tasks of the expected score. Outliers move it as far as they like.

    Example:
        >>> float(mean(np.array([[1.0, 2.0], [2.0, 2.0], [1.0, 1.0], [2.0, 1.0]])))
        1.5
    """
    return scores.mean((-2, -1))


def median(scores: np.ndarray) -> np.ndarray:
    """The median over tasks of the expected score: half of the tasks may be zero without being seen.

    Example:
        >>> float(median(np.array([[0.0, 1.0, 5.0], [0.0, 3.0, 7.0]])))
        2.0
    """
    return np.median(scores.mean(-2), -1)


def iqm(scores: np.ndarray) -> np.ndarray:
    """The interquartile mean: the mean of what is left of all runs on all tasks without a quarter at either end.

    Of N = runs * tasks scores, floor(N / 4) are cut at each end. Outliers do not move it, and it uses half of the data
    where the median uses one or two points.

    Example:
        >>> float(iqm(np.array([[0.0], [1.0], [3.0], [100.0]])))
        2.0
    """
    flat = scores.reshape(*scores.shape[:-2], -1)
    count = flat.shape[-1]
    cut = count // 4
    return np.sort(flat, -1)[..., cut : count - cut].mean(-1)


def optimality_gap(scores: np.ndarray, target: float = 1.0) -> np.ndarray:
    """Return by how much the mean misses the target; scores above it count as the target. Lower is better.

    Example:
        >>> float(optimality_gap(np.array([[0.5, 3.0]])))
        0.25
    """
    return target - np.minimum(scores, target).mean((-2, -1))


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """The share of runs, over all tasks, that score above each threshold: F(t) = mean [x > t].

    Example:
        >>> performance_profile([[0.0, 1.0], [2.0, 3.0]], [0.0, 1.0, 5.0]).tolist()
        [0.75, 0.5, 0.0]
    """
    values = as_scores(scores).ravel()
    return (values > np.asarray(thresholds, np.float64)[..., None]).mean(-1)


# --- intervals ---


def aggregate_interval(
    scores: ArrayLike,
    statistic: Statistic,
    generator: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    expand: bool = True,
) -> Interval:
    """An aggregate of the runs' distributions on these tasks, with a stratified bootstrap interval.

    Args:
        scores: [runs, tasks].
        statistic: one of `iqm`, `median`, `mean`, `optimality_gap`, or another function of [..., runs, tasks].
        generator: where the resamples come from; the same generator gives the same interval.
        confidence: coverage aimed at, in (0, 1).
        resamples: number of resamples.
        expand: take wider percentiles for few runs, Phi(-sqrt(n / (n - 1)) t_{n-1}) in the place of (1 - confidence)
            / 2: a resample of n runs varies less than n runs do, by the factor sqrt((n - 1) / n), and its percentiles
            are a normal's where a t's are due (Hesterberg 2015). Without it the interval is the plain percentile
            bootstrap of the source, which covers too rarely at 3 to 10 runs.

    Returns:
        The estimate and its interval.

    Raises:
        ValueError: scores of the wrong kind, or fewer than 2 runs: they have no interval.

    Example:
        >>> found = aggregate_interval(np.arange(20.0).reshape(10, 2), iqm, np.random.default_rng(0), resamples=2000)
        >>> found.value, found.low < 9.5 < found.high
        (9.5, True)
    """
    values = as_scores(scores)
    tail, method = _tail(len(values), confidence, expand)
    if statistic is iqm and values.size <= 1 << 16:
        drawn = _iqm_of_resamples(values, generator, resamples)
    else:
        drawn = np.concatenate([statistic(sample) for sample in _resampled(values, generator, resamples)])
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(float(statistic(values)), float(low), float(high), method)


class Profile(NamedTuple):
    """A performance profile with a band.

    Attributes:
        thresholds, value: where, and the share of runs above.
        low, high: the pointwise interval.
        method: how it was made.
    """

    thresholds: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    method: str


def profile_interval(
    scores: ArrayLike,
    thresholds: ArrayLike,
    generator: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    expand: bool = True,
) -> Profile:
    """A performance profile with a pointwise stratified bootstrap band: at one threshold, not at all of them at once.

    A resample is the same for every threshold. Args and errors are those of `aggregate_interval`.
    """
    values, at = as_scores(scores), np.asarray(thresholds, np.float64)
    tail, method = _tail(len(values), confidence, expand)
    drawn = np.concatenate(
        [
            np.stack([(sample > threshold).mean((-2, -1)) for threshold in at], -1)
            for sample in _resampled(values, generator, resamples)
        ]
    )
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return Profile(at, performance_profile(values, at), low, high, method)


# --- within ---


def _resampled(values: np.ndarray, generator: np.random.Generator, resamples: int) -> Iterator[np.ndarray]:
    """Resamples [some, runs, tasks], each task's runs drawn with replacement."""
    flat = np.ascontiguousarray(values.T).ravel()
    for places in _places(values, generator, resamples):
        yield flat[places]


def _iqm_of_resamples(values: np.ndarray, generator: np.random.Generator, resamples: int) -> np.ndarray:
    """`iqm` of every resample, with the same bits: small whole numbers are sorted, the ranks, which is much quicker."""
    flat = np.ascontiguousarray(values.T).ravel()
    order = np.argsort(flat, kind="stable")
    rank = np.empty(len(flat), np.uint16)
    rank[order] = np.arange(len(flat))
    ascending, cut = flat[order], len(flat) // 4
    found = []
    for places in _places(values, generator, resamples):
        ranks = np.sort(rank.take(places).reshape(len(places), -1), axis=-1, kind="stable")  # a radix sort for 16 bits
        found.append(ascending.take(ranks[:, cut : len(flat) - cut]).mean(-1))
    return np.concatenate(found)


def _places(values: np.ndarray, generator: np.random.Generator, resamples: int) -> Iterator[np.ndarray]:
    """Return the index of the values of resamples [some, runs, tasks] in the scores of task after task."""
    runs, tasks = values.shape
    if resamples < 1:
        raise ValueError(f"An interval needs at least 1 resample, got {resamples}.")
    size = max(_CHUNK_BYTES // values.nbytes, 1)
    column = (np.arange(tasks) * runs).astype(np.int32 if values.size < 1 << 31 else np.int64)
    kind = np.uint16 if runs <= 1 << 16 else np.int64  # drawn quickly; 8 bits would not be
    for start in range(0, resamples, size):
        yield generator.integers(0, runs, (min(size, resamples - start), runs, tasks), dtype=kind) + column


def _tail(runs: int, confidence: float, expand: bool) -> tuple[float, str]:
    """The percentile to take at either end, and the method's name."""
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence must be in (0, 1), got {confidence}.")
    if runs < 2:
        raise ValueError(f"An interval needs at least 2 runs, got {runs}: run more seeds.")
    tail = (1 - confidence) / 2
    if not expand:
        return tail, "stratified bootstrap, percentile"
    wider = float(ndtr(math.sqrt(runs / (runs - 1)) * stdtrit(runs - 1, tail)))
    return wider, "stratified bootstrap, percentile expanded for few runs"
