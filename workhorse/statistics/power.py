"""Number of runs that a comparison needs, and the difference that a number of runs can show.

All of it is for two groups of equal size whose scores are normal with one standard deviation, compared by a two-sided t
test; a difference is stated in standard deviations (Cohen's d).

Source: Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", with the noncentral t distribution.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import nctdtr, stdtrit

__all__ = ["detectable_effect", "more_runs_needed", "power_of", "runs_needed"]

MOST_RUNS = 100_000
"""Largest number of runs that is searched."""


def power_of(effect: float, runs: int, significance: float = 0.05) -> float:
    """Return the chance that a two-sided t test with `runs` on each side rejects, when the true difference is `effect`.

    Args:
        effect: true difference over the standard deviation.
        runs: runs a side, at least 2.
        significance: the test's level, in (0, 1).

    Raises:
        ValueError: fewer than 2 runs a side, or a level out of range.

    Example:
        >>> round(power_of(1.0, 17), 3)
        0.807
    """
    if runs < 2:
        raise ValueError(f"A comparison needs at least 2 runs a side, got {runs}.")
    if not 0 < significance < 1:
        raise ValueError(f"The level of significance must be in (0, 1), got {significance}.")
    freedom, centre = 2 * runs - 2, abs(effect) * math.sqrt(runs / 2)
    critical = float(stdtrit(freedom, 1 - significance / 2))
    # SciPy gives NaN where a distribution function is too small for it
    beyond, other_side = np.nan_to_num([nctdtr(freedom, centre, critical), nctdtr(freedom, centre, -critical)])
    return float(1 - beyond + other_side)


def runs_needed(effect: float, power: float = 0.8, significance: float = 0.05) -> int | None:
    """The fewest runs a side that see a difference of `effect` with the chance `power`; None above 100,000.

    Example:
        >>> [runs_needed(effect) for effect in (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)]
        [64, 26, 17, 9, 6, 4]
    """
    _check_power(power, significance)
    if effect == 0 or power_of(effect, MOST_RUNS, significance) < power:
        return None
    low, high = 2, MOST_RUNS
    while low < high:
        middle = (low + high) // 2
        if power_of(effect, middle, significance) >= power:
            high = middle
        else:
            low = middle + 1
    return low


def detectable_effect(runs: int, power: float = 0.8, significance: float = 0.05) -> float:
    """Return the smallest difference, in standard deviations, that `runs` on each side show with the chance `power`.

    Example:
        >>> [round(detectable_effect(runs), 2) for runs in (3, 5, 10, 20, 30)]
        [3.07, 2.02, 1.32, 0.91, 0.74]
    """
    _check_power(power, significance)
    found: Any = brentq(lambda effect: power_of(effect, runs, significance) - power, 0.0, 100.0)
    return float(found)


def more_runs_needed(sample: ArrayLike, other: ArrayLike, power: float = 0.8, significance: float = 0.05) -> int | None:
    """Return how many more runs on each side would show a difference as large as the one between these samples.

    The difference found is taken for the true one, and chance makes it look too large more often than not when it has
    been selected for being large: read the number as a lower bound. None where more than 100,000 would be needed.

    Args:
        sample: what the runs of one side returned, at least two.
        other: what those of the other side did.

    Example:
        >>> more_runs_needed([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
        14
    """
    x, y = np.asarray(sample, np.float64), np.asarray(other, np.float64)
    if min(x.size, y.size) < 2:
        raise ValueError(f"A comparison needs at least 2 runs a side, got {x.size} and {y.size}.")
    pooled = ((x.size - 1) * x.var(ddof=1) + (y.size - 1) * y.var(ddof=1)) / (x.size + y.size - 2)
    difference = abs(float(x.mean() - y.mean()))
    if pooled == 0:
        return 0 if difference > 0 else None
    needed = runs_needed(difference / math.sqrt(pooled), power, significance)
    return None if needed is None else max(needed - min(x.size, y.size), 0)


def _check_power(power: float, significance: float) -> None:
    if not 0 < significance < power < 1:
        raise ValueError(f"The power must lie between the level of significance and 1, got {power} and {significance}.")
