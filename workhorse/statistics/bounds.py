"""Intervals that go beyond what is possible: cut at the bound, and marked."""

import math

from workhorse.statistics.intervals import Interval

__all__ = ["cut_ends", "within"]

_LEAST, _MOST = "the least possible", "the most possible"


def within(interval: Interval, low: float = -math.inf, high: float = math.inf) -> Interval:
    """Cut an interval at the least and the most that a value can be, and say so in its method.

    Student's interval knows no bounds: three episodes of a task that pays at most 500 can have one up to 546. The
    estimate is not moved. *A cut does not make the interval right*, it keeps it from saying what cannot be: the sample
    is skewed against its bound, and such intervals cover less than they claim.

    Args:
        interval: of a mean; one whose ends are not finite, which says that nothing is known, is returned as it is.
        low: the least that the mean can be.
        high: the most that it can be.

    Returns:
        The interval with its ends inside [low, high]. Its method names each end that was cut.

    Example:
        >>> within(Interval(433.0, 320.0, 546.0, "Student t"), 0.0, 500.0)
        Interval(value=433.0, low=320.0, high=500.0, method='Student t, cut at 500, the most possible')
        >>> within(Interval(433.0, 420.0, 446.0, "Student t"), 0.0, 500.0).method
        'Student t'
    """
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return interval
    method = interval.method
    if interval.low < low:
        method += f", cut at {low:,.10g}, {_LEAST}"
    if interval.high > high:
        method += f", cut at {high:,.10g}, {_MOST}"
    return interval._replace(low=max(interval.low, low), high=min(interval.high, high), method=method)


def cut_ends(interval: Interval) -> tuple[bool, bool]:
    """Tell which ends of an interval `within` has cut: the lower, the upper.

    Example:
        >>> cut_ends(within(Interval(1.0, 0.0, 2.0, "Student t"), 0.0, 1.5))
        (False, True)
    """
    return _LEAST in interval.method, _MOST in interval.method
