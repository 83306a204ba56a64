"""Rules that end a study: `failure_rate width < 0.3`, and `2 core-hours`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from workhorse.core.errors import UsageError, nearest

__all__ = ["SEEDS_ADDED", "STATISTICS", "Budget", "Until"]

SEEDS_ADDED = 5
"""Number of seeds that `until` adds to a cell at a time; the looks of the test that follows are as far apart."""

STATISTICS: dict[str, Literal["mean", "proportion"]] = {
    "failure_rate": "proportion",
    "success_rate": "proportion",
    "mean_return": "mean",
}
"""Statistics that `until` can name, and the kind of interval that each has."""

_HOURS = {"core-seconds": 1 / 3600, "core-minutes": 1 / 60, "core-hours": 1.0, "core-days": 24.0}


@dataclass(frozen=True)
class Until:
    """Largest width of every cell's interval.

    Attributes:
        statistic: one of `STATISTICS`.
        width: from end to end; in the task's units for `mean_return`.
    """

    statistic: str
    width: float

    @property
    def text(self) -> str:
        """The rule as text."""
        return f"{self.statistic} width < {self.width!r}"

    @property
    def estimand(self) -> Literal["mean", "proportion"]:
        """The kind of interval."""
        return STATISTICS[self.statistic]

    @staticmethod
    def of(text: str) -> Until:
        """Read a rule.

        Raises:
            UsageError: another form, an unknown statistic, or a width out of range.

        Example:
            >>> Until.of("failure_rate width < 0.3")
            Until(statistic='failure_rate', width=0.3)
        """
        found = re.fullmatch(r"\s*([\w-]+)\s+width\s*<\s*(\S+)\s*", text)
        if found is None:
            raise UsageError(
                f"`until` must be of the form 'STATISTIC width < NUMBER', such as 'failure_rate width < 0.3': "
                f"got {text!r}."
            )
        statistic, width = found[1], _positive(found[2], f"the width in {text!r}")
        if statistic not in STATISTICS:
            close = nearest(statistic, list(STATISTICS))
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise UsageError(f"Unknown statistic {statistic!r}; known are {', '.join(STATISTICS)}.{hint}")
        if STATISTICS[statistic] == "proportion" and width > 1:
            raise UsageError(
                f"A rate's interval is at most 1 wide, so {text!r} is always true: choose a smaller width."
            )
        return Until(statistic, width)


@dataclass(frozen=True)
class Budget:
    """Limit of a study in core-hours."""

    core_hours: float

    @property
    def text(self) -> str:
        """The budget as text."""
        return f"{self.core_hours!r} core-hours"

    @staticmethod
    def of(text: str) -> Budget:
        """Read a budget.

        Raises:
            UsageError: another form, an unknown unit, or a number that is not above 0.

        Example:
            >>> Budget.of("90 core-minutes").core_hours
            1.5
        """
        found = re.fullmatch(r"\s*([^\s]+?)\s*([a-z]+-[a-z]+)\s*", text)
        unit = found[2] if found else ""
        unit = unit if unit.endswith("s") else f"{unit}s"
        if found is None or unit not in _HOURS:
            units = ", ".join(_HOURS)
            raise UsageError(f"`budget` must be a number and a unit ({units}), such as '2 core-hours': got {text!r}.")
        return Budget(_positive(found[1], f"the number in {text!r}") * _HOURS[unit])


def _positive(word: str, what: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"Expected {what} to be a number above 0, got {word!r}.")
    return value
