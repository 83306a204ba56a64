"""Tests of whether A is better than B, one of them for repeated looks at a growing sample."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr

from workhorse.statistics.intervals import Interval, difference_interval, welch_error

__all__ = ["Comparison", "Look", "SequentialResult", "sequential_test", "welch_test"]


class Comparison(NamedTuple):
    """Difference of means, its interval, and the chance of one as large if there were none."""

    difference: Interval
    p_value: float
    method: str


def welch_test(sample: ArrayLike, other: ArrayLike, confidence: float = 0.95) -> Comparison:
    """Test that two distributions have the same mean, two-sided, by Welch's t.

    Args:
        sample: independent values, at least two.
        other: those of the other side, at least two.
        confidence: of the interval.

    Raises:
        ValueError: fewer than two values on a side, or a value that is NaN.

    Example:
        >>> round(welch_test([3.0, 4.0, 5.0], [1.0, 2.0, 3.0]).p_value, 4)
        0.0705
    """
    interval = difference_interval(sample, other, confidence)
    error, freedom = welch_error(np.asarray(sample, np.float64).ravel(), np.asarray(other, np.float64).ravel())
    if error == 0:
        return Comparison(interval, 1.0 if interval.value == 0 else 0.0, "Welch t")
    return Comparison(interval, float(2 * stdtr(freedom, -abs(interval.value) / error)), "Welch t")


class Look(NamedTuple):
    """One look: the difference of means so far, and the boundary beyond which it counts."""

    difference: float
    boundary: float


class SequentialResult(NamedTuple):
    """Outcome of a sequential test.

    Attributes:
        decision: "larger" or "smaller": the sample's mean is; "undecided" while looks are left; "no difference shown"
            after the last.
        looks: every look taken, up to the one that decided.
        planned: number of looks among which the error is divided.
    """

    decision: Literal["larger", "smaller", "undecided", "no difference shown"]
    looks: tuple[Look, ...]
    planned: int


def sequential_test(
    sample: Sequence[ArrayLike],
    other: Sequence[ArrayLike],
    generator: np.random.Generator,
    *,
    looks: int = 5,
    significance: float = 0.05,
    resamples: int = 10_000,
) -> SequentialResult:
    """Test that two distributions are equal, with a look after every batch of runs.

    At look k the difference of means over all batches so far is compared with a boundary. The boundaries come from
    exchanging labels at random within every batch: the k-th is the smallest one that leaves at most k / looks of the
    significance to the permutations that would have rejected by then. If the two distributions are equal, the chance
    of ever rejecting is at most `significance`, whatever the distribution. Fewer looks than planned are harmless; after
    the last planned look nothing may be added.

    Args:
        sample: batches of independent values, the k-th run before look k; at least one value each.
        other: as many batches of the other side.
        generator: of the permutations. Give an equally seeded one at each look, so that earlier looks are the same.
        looks: number of looks, fixed beforehand.
        significance: chance of rejecting where there is no difference, in (0, 1).
        resamples: permutations drawn.

    Raises:
        ValueError: more batches than looks, an unequal number of batches, or an empty one.

    Example:
        >>> batches = [[1.0, 2.0, 1.5, 1.8, 1.2]] * 2, [[5.0, 6.0, 5.5, 5.8, 5.2]] * 2
        >>> sequential_test(*batches, np.random.default_rng(0)).decision
        'smaller'

    Source: the group-sequential permutation scheme of Mathieu et al. 2023 (AdaStop, arXiv 2306.10882), for two groups,
    without its early acceptance.
    """
    batches = _batches(sample, other, looks)
    if not 0 < significance < 1:
        raise ValueError(f"The level of significance must be in (0, 1), got {significance}.")
    sums = np.zeros((2, resamples + 1))  # of the values labelled ours and theirs; the last column has the true labels
    counts = np.zeros(2)
    rejected = np.zeros(resamples + 1, bool)
    taken: list[Look] = []
    for look, (x, y) in enumerate(batches, 1):
        pooled = np.concatenate([x, y])
        chosen = np.tile(np.arange(pooled.size) < x.size, (resamples, 1))
        chosen = np.vstack([generator.permuted(chosen, axis=1), np.arange(pooled.size) < x.size])
        sums[0] += chosen @ pooled
        sums[1] += ~chosen @ pooled
        counts += (x.size, y.size)
        apart = sums[0] / counts[0] - sums[1] / counts[1]
        allowed = int(significance * look / looks * (resamples + 1)) - int(rejected.sum())
        waiting = np.sort(np.abs(apart[~rejected]))[::-1]
        boundary = float(waiting[max(allowed, 0)]) if len(waiting) > allowed else 0.0
        rejected |= np.abs(apart) > boundary + _slack(pooled)
        seen = float(apart[-1])
        taken.append(Look(seen, boundary))
        if rejected[-1]:
            return SequentialResult("larger" if seen > 0 else "smaller", tuple(taken), looks)
    return SequentialResult("undecided" if len(taken) < looks else "no difference shown", tuple(taken), looks)


def _batches(
    sample: Sequence[ArrayLike], other: Sequence[ArrayLike], looks: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the batches of both sides in pairs, checked."""
    ours, theirs = ([np.asarray(batch, np.float64).ravel() for batch in side] for side in (sample, other))
    if len(ours) != len(theirs):
        raise ValueError(f"Both sides need the same number of batches, got {len(ours)} and {len(theirs)}.")
    if not 1 <= len(ours) <= looks:
        raise ValueError(f"Expected 1 to {looks} batches, as many as looks planned, got {len(ours)}.")
    if min(map(len, (*ours, *theirs))) < 1:
        raise ValueError("A batch is empty: every look needs new runs of both sides.")
    return list(zip(ours, theirs, strict=True))


def _slack(values: np.ndarray) -> float:
    """Return a bound on the rounding error of a sum of these, so that equal differences compare as equal."""
    return 1e-12 * float(np.abs(values).max(initial=0.0)) * len(values)
