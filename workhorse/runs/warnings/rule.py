"""Rules, and the rows of metrics that they read."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FORWARD_PASS",
    "FREE",
    "Column",
    "Judge",
    "Rows",
    "Rule",
    "gain",
    "has_gained",
    "has_not_gained",
    "register",
]

Column = NDArray[np.float64]

FREE = "nothing: it reads metrics that are there anyway"
FORWARD_PASS = "a forward pass of both networks an iteration, with the other metrics of `measure_health`"


class Rows:
    """Metrics of a run so far, by column.

    Attributes:
        settings: of the algorithm.
    """

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.settings = settings
        self._columns: dict[str, Column] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: Mapping[str, object]) -> None:
        """Add an iteration's metrics; a column that it lacks is NaN there."""
        for name, value in row.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                column = self._columns.get(name)
                if column is None or len(column) <= self._count:
                    longer = np.full(max(64, 2 * self._count), np.nan)
                    if column is not None:
                        longer[: len(column)] = column
                    self._columns[name] = column = longer
                column[self._count] = value
        self._count += 1

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def setting(self, name: str) -> float | None:
        """Return a setting of the algorithm that is a number; None where it has none."""
        value = self.settings.get(name)
        return float(value) if isinstance(value, int | float) else None

    def newest(self, name: str) -> float:
        """Return a column's value in the newest iteration; NaN where it has none."""
        column = self._columns.get(name)
        return math.nan if column is None or len(column) < self._count else float(column[self._count - 1])

    def column(self, name: str) -> Column:
        """Return a column's value in every iteration; NaN where it has none."""
        found = np.full(self._count, np.nan)
        there = self._columns.get(name, np.empty(0))[: self._count]
        found[: len(there)] = there
        return found

    def last(self, name: str, count: int) -> Column:
        """Return a column's finite values in the newest `count` iterations."""
        column = self._columns.get(name, np.empty(0))
        found = column[max(self._count - count, 0) : self._count]
        return found[np.isfinite(found)]

    def all(self, name: str) -> Column:
        """Return a column's finite values."""
        return self.last(name, self._count)


Judge = Callable[[Rows], str | None]
"""Function that returns a sentence about the rows so far where a rule's condition holds, else None."""


@dataclass(frozen=True)
class Rule:
    """A condition on a run's metrics, with everything that a reader of its warning should know.

    Attributes:
        name: short, for the record.
        meaning: what is wrong when the warning is right.
        condition: in words.
        misleads: when it warns without a reason, or is silent.
        remedy: what to do.
        source: where the rule comes from.
        persistence: iterations in a row for which the condition must hold.
        cost: of measuring what it reads.
        judge: decides whether the condition holds; None where something else than a run's metrics is looked at.
    """

    name: str
    meaning: str
    condition: str
    misleads: str
    remedy: str
    source: str
    persistence: int = 1
    cost: str = FREE
    judge: Judge | None = None

    @property
    def explained(self) -> dict[str, str]:
        """The rule for people, by heads: rule, cost, misleads, remedy, source."""
        lasting = "at once" if self.persistence == 1 else f"for {self.persistence} iterations in a row"
        return {
            "rule": f"{self.condition}; {lasting}.",
            "cost": f"{self.cost}.",
            "misleads": f"{self.misleads}.",
            "remedy": self.remedy,
            "source": f"{self.source}.",
        }


def register(rules: list[Rule], **fields: object) -> Callable[[Judge], Judge]:
    """Decorator that appends the rule of these `fields` to `rules`, with the decorated function as its judge."""

    def with_judge(judge: Judge) -> Judge:
        rules.append(Rule(**fields, judge=judge))  # type: ignore[arg-type]
        return judge

    return with_judge


def gain(values: Column, most: int = 10) -> tuple[float, float]:
    """Return the mean of the last values less that of the first ones, and its standard error."""
    count = max(min(most, len(values) // 3), 1)
    first, last = values[:count], values[-count:]
    if count < 3:
        return 0.0, math.inf
    error = math.sqrt((first.var(ddof=1) + last.var(ddof=1)) / count) + 1e-12
    return float(last.mean() - first.mean()), error


def has_not_gained(rows: Rows) -> bool:
    """Tell whether the training return is no better than it was; False where too few episodes ended to tell."""
    returns = rows.all("training_return")
    gained, error = gain(returns)
    return len(returns) >= 9 and gained <= 2 * error


def has_gained(rows: Rows) -> bool:
    """Tell whether the training return is better than it was, by two standard errors; False where it cannot be told."""
    gained, error = gain(rows.all("training_return"))
    return gained > 2 * error
