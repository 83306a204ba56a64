"""Permutation test of two variants: it holds its level whatever the distribution of the scores, from few runs on.

If two variants are equal, which of their runs got which label is chance. So the difference found is compared with the
differences under all other ways of labelling the same runs. Nothing is assumed of the scores: they may have two modes,
long tails, or failures.
"""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from workhorse.statistics.comparison import Comparison
from workhorse.statistics.intervals import Interval

__all__ = [
    "LEAST_COMPARED",
    "look_shares",
    "monitored_test",
    "permutation_p_values",
    "permutation_test",
    "runs_for_level",
    "smallest_p",
]

LEAST_COMPARED = 5
"""Fewest runs a side that are compared: with 4 there are 70 labellings, so that p is never below .028."""

MOST_LABELLINGS = 20_000
"""Labellings that are enumerated; above, as many are drawn, the same ones each time."""

_MOST_AT_ONCE = 1 << 21
"""Labellings times pairs of sides that are held at a time: 16 MB."""


def permutation_test(sample: ArrayLike, other: ArrayLike, confidence: float = 0.95) -> Comparison:
    """Test that two distributions are equal, two-sided, by permutation of Welch's t.

    p is the share of the labellings whose |t| is at least the one found, the labelling found among them. The interval
    holds every shift of `sample` that the test does not reject at 1 - confidence, so it excludes 0 where
    p < 1 - confidence. It is infinite where the runs are too few for any shift to be rejected.

    Equal distributions are called different with a chance of at most 1 - confidence, exactly. Because t is divided by
    its own error, the test also holds, for many runs, where only the *means* are equal (Chung and Romano 2013).

    Args:
        sample: independent values, at least two.
        other: those of the other side, at least two.
        confidence: of the interval.

    Raises:
        ValueError: fewer than two values on a side, or a value that is not finite.

    Example:
        >>> found = permutation_test([5.0, 6.0, 7.0, 8.0, 9.0], [0.0, 1.0, 2.0, 3.0, 4.0])
        >>> round(found.p_value, 4), [round(end, 2) for end in found.difference[:3]]
        (0.0079, [5.0, 2.5, 7.5])

    Source: Chung and Romano 2013, "Exact and asymptotically robust permutation tests"; Janssen 1997.
    """
    shifted = _Shifted(*_sides(sample, other))
    p = shifted.p_value(0.0)
    low, high = (shifted.end(side, 1 - confidence, p) for side in (-1, 1))
    return Comparison(Interval(shifted.difference, low, high, "permutation"), p, "permutation of Welch's t")


def permutation_p_values(samples: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the p value of `permutation_test` for many pairs of sides at once: [pairs, n] and [pairs, m] to [pairs].

    Example:
        >>> permutation_p_values(np.array([[3.0, 4.0, 5.0]]), np.array([[0.0, 1.0, 2.0]])).tolist()
        [0.1]
    """
    runs, theirs = samples.shape[1], others.shape[1]
    labels, found = _labellings(runs, theirs), []
    pooled = np.concatenate([samples, others], axis=1)
    pooled = pooled - pooled.mean(1, keepdims=True)  # large numbers with small differences lose no digits
    pooled /= np.maximum(np.abs(pooled).max(1, keepdims=True), 1e-300)
    step = max(_MOST_AT_ONCE // len(labels), 1)
    for start in range(0, len(pooled), step):
        values = pooled[start : start + step].T
        moments = labels @ values, labels @ values**2, values.sum(0), (values**2).sum(0)
        found.append(_share_as_far(_t(moments, (runs, theirs))[0]))
    return np.concatenate(found)


def smallest_p(runs: int, others: int) -> float:
    """Return the smallest p value of so many runs a side: 2 / labellings for sides of one size, else 1 / labellings.

    Example:
        >>> [round(smallest_p(n, n), 4) for n in (3, 4, 5, 6)]
        [0.1, 0.0286, 0.0079, 0.0022]
    """
    ways = min(math.comb(runs + others, runs), MOST_LABELLINGS)
    return (2 if runs == others and ways < MOST_LABELLINGS else 1) / ways


def runs_for_level(level: float) -> int:
    """Return the fewest runs a side whose smallest p value is below `level`.

    Example:
        >>> runs_for_level(0.05), runs_for_level(0.05 / 10)
        (5, 6)
    """
    return next(
        (n for n in range(LEAST_COMPARED, 12) if smallest_p(n, n) < level), math.ceil(math.log(2 / level) / math.log(4))
    )


def look_shares(sizes: Sequence[int]) -> list[float]:
    """Return the share of the significance that each look at a growing sample may spend: 1 / (k (k + 1)) at look k.

    Looks with fewer than `LEAST_COMPARED` runs are left out and spend nothing. The shares sum to less than 1 however
    many looks follow, so the number of looks need not be known beforehand.

    Example:
        >>> look_shares([3, 8, 13])
        [0.0, 0.5, 0.16666666666666666]
    """
    shares, number = [], 0
    for size in sizes:
        number += size >= LEAST_COMPARED
        shares.append(1 / (number * (number + 1)) if size >= LEAST_COMPARED else 0.0)
    return shares


def monitored_test(
    sample: ArrayLike, other: ArrayLike, sizes: Sequence[int], confidence: float = 0.95
) -> tuple[Comparison, int]:
    """Test that two distributions are equal where the runs so far decided whether more were made.

    The test looks at the first n runs of both sides for every n in `sizes`, and look k may spend the share s_k of the
    significance (`look_shares`). p is the smallest p_k / s_k. As a look's test is exact for its number of runs and the
    shares sum to at most 1, equal variants are called different with a chance of at most 1 - confidence, *whatever rule
    ended the runs*. The price is power: the last of three looks has a twelfth of the significance.

    Args:
        sample: values in the order in which they were made.
        other: those of the other side.
        sizes: runs a side at each look, fixed beforehand and growing; those beyond the shorter side are left out.
        confidence: of the interval, over all looks together.

    Returns:
        The comparison at the look that decides, and its number of runs a side.

    Raises:
        ValueError: no look has `LEAST_COMPARED` runs, or a value is not finite.

    Example:
        >>> found, runs = monitored_test(np.arange(10.0) + 20, np.arange(10.0), [5, 10])
        >>> round(found.p_value, 4), runs
        (0.0009, 10)
    """
    x, y = _sides(sample, other)
    looks = [
        (share, size)
        for size, share in zip(sizes, look_shares(sizes), strict=True)
        if share and size <= min(len(x), len(y))
    ]
    if not looks:
        raise ValueError(f"A comparison needs at least {LEAST_COMPARED} runs a side, got {min(len(x), len(y))}.")
    spent = [(permutation_p_values(x[None, :size], y[None, :size])[0] / share, share, size) for share, size in looks]
    p, share, size = min(spent, key=lambda look: (look[0], -look[2]))
    found = permutation_test(x[:size], y[:size], 1 - (1 - confidence) * share)
    return found._replace(p_value=min(float(p), 1.0), method=f"{found.method}, shared over looks"), size


_Sums = tuple[np.ndarray, np.ndarray, np.ndarray | float, np.ndarray | float]


class _Shifted:
    """The test of `sample` - shift against `other`, for many shifts: sums over each labelling, computed once."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self._sizes = len(x), len(y)
        self.difference = float(x.mean() - y.mean())
        pooled = np.concatenate([x, y])
        pooled = pooled - pooled.mean()  # large numbers with small differences lose no digits
        self._scale = float(np.abs(pooled).max()) or 1.0
        pooled = pooled / self._scale
        ours = np.arange(len(pooled)) < len(x)
        labels = _labellings(*self._sizes)
        self._count = labels @ ours.astype(float)  # of the values of `sample` that are labelled as such
        self._sum, self._square, self._shared = labels @ pooled, labels @ pooled**2, labels @ (pooled * ours)
        self._totals = float(pooled.sum()), float((pooled**2).sum()), float(pooled[ours].sum())
        self.error = self._scale * float(_t(self._moments(0.0), self._sizes)[1][0])

    def p_value(self, shift: float) -> float:
        """Share of the labellings that are at least as far apart as the one found, if `sample` is shifted by -shift."""
        return float(_share_as_far(_t(self._moments(shift / self._scale), self._sizes)[0]))

    def end(self, side: int, level: float, p: float) -> float:
        """Return the end of the interval on one side: the shift up to which the test does not reject at `level`."""
        if smallest_p(*self._sizes) >= level:
            return side * math.inf
        inside, step = self.difference, side * (self.error + 1e-9 * self._scale)
        outside = None
        if side * -self.difference > 0:  # 0 lies on this side, and p belongs to it
            inside, outside = (self.difference, 0.0) if p < level else (0.0, None)
        while outside is None:
            if self.p_value(inside + step) < level:
                outside = inside + step
            elif abs(step) > 1e3 * self._scale:  # further out t no longer changes
                return side * math.inf
            else:
                inside, step = inside + step, 2 * step
        for _ in range(50):
            middle = (inside + outside) / 2
            if abs(outside - inside) <= 1e-9 * self._scale:
                break
            inside, outside = (inside, middle) if self.p_value(middle) < level else (middle, outside)
        return 0.0 if p >= level and abs(inside) <= 1e-8 * self._scale else inside  # an end at 0, but for rounding

    def _moments(self, shift: float) -> _Sums:
        """Sums and sums of squares of what is labelled as `sample`, and of everything."""
        total, squares, ours = self._totals
        count = self._sizes[0]
        return (
            self._sum - shift * self._count,
            self._square - 2 * shift * self._shared + shift**2 * self._count,
            total - shift * count,
            squares - 2 * shift * ours + shift**2 * count,
        )


def _t(moments: _Sums, sizes: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return Welch's t and its error for every labelling, from sums and sums of squares of our side and of both."""
    total, squares, all_total, all_squares = moments
    (n, m), rest = sizes, all_total - total
    own = np.maximum(squares - total**2 / n, 0.0) / (n - 1)
    others = np.maximum(all_squares - squares - rest**2 / m, 0.0) / (m - 1)
    error = np.sqrt(own / n + others / m)
    apart = total / n - rest / m
    apart = np.where(np.abs(apart) < 1e-12, 0.0, apart)
    return apart / np.maximum(error, 1e-7), error


def _share_as_far(t: np.ndarray) -> np.ndarray:
    """Return the share of the labellings that are at least as far apart as the first, which is the one found."""
    far = np.abs(t)
    return (far >= far[0] * (1 - 1e-9) - 1e-9).mean(0)  # equal ones differ by rounding


@lru_cache(maxsize=16)
def _labellings(runs: int, others: int) -> np.ndarray:
    """Labellings [labelling, run], 1 for a run of the first side; the one found comes first."""
    size = runs + others
    if math.comb(size, runs) <= MOST_LABELLINGS:
        chosen = np.array(list(itertools.combinations(range(size), runs)))  # in order, so (0, 1, ...) comes first
        labels = np.zeros((len(chosen), size))
        np.put_along_axis(labels, chosen, 1.0, axis=1)
        return labels
    first = np.arange(size) < runs
    drawn = np.random.default_rng(0).permuted(np.tile(first, (MOST_LABELLINGS - 1, 1)), axis=1)
    return np.vstack([first, drawn]).astype(float)


def _sides(sample: ArrayLike, other: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    sides = tuple(np.asarray(side, np.float64).ravel() for side in (sample, other))
    if min(map(len, sides)) < 2:
        raise ValueError(f"A comparison needs at least two values a side, got {len(sides[0])} and {len(sides[1])}.")
    if not all(np.isfinite(side).all() for side in sides):
        raise ValueError("A comparison needs finite values: give a run that failed the score it deserves.")
    return sides[0], sides[1]
