"""Confidence intervals, each with its estimand named first."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

__all__ = ["Interval", "mean_interval"]


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
        ValueError: an empty sample.

    Example:
        >>> estimate = mean_interval([1.0, 2.0, 3.0])
        >>> round(estimate.value, 3), round(estimate.low, 3), round(estimate.high, 3)
        (2.0, -0.484, 4.484)

    Source: Student 1908, "The probable error of a mean".
    """
    values = np.asarray(sample, np.float64).ravel()
    if values.size == 0:
        raise ValueError("An interval needs at least one value, got none.")
    mean = float(values.mean())
    if values.size == 1:
        return Interval(mean, -np.inf, np.inf, "Student t")
    half = float(stdtrit(values.size - 1, 0.5 + confidence / 2) * values.std(ddof=1) / np.sqrt(values.size))
    return Interval(mean, mean - half, mean + half, "Student t")
