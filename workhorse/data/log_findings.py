"""What a check of a log finds, and its words."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from workhorse.core.spec import EnvSpec
from workhorse.data.dataset import Dataset

__all__ = ["Check", "LogFinding", "OwnSteps", "Said", "listed", "note", "rows_named", "stop"]

LISTED = 5
"""Numbers that a finding names."""


class LogFinding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        topic: what.
        verdict: `ok`; `note` for what a user should know; `stop` for a fault.
        text: sentences, the rows among them.
    """

    topic: str
    verdict: Literal["ok", "note", "stop"]
    text: str


class OwnSteps(NamedTuple):
    """Random play of the task that a log is of.

    Attributes:
        spec: of the task.
        first_obs: initial observations, (M, ...).
        obs: (N, ...).
        reward: (N,).
    """

    spec: EnvSpec
    first_obs: np.ndarray
    obs: np.ndarray
    reward: np.ndarray


Said = tuple[Literal["note", "stop"], str]
"""Verdict and text of a finding whose topic is known."""

Check = Callable[[Dataset, OwnSteps | None], Iterator[Said]]
"""Function that yields what is wrong with a log; nothing where all is well."""


def stop(text: str) -> Said:
    """Return a fault."""
    return "stop", text


def note(text: str) -> Said:
    """Return what a user should know."""
    return "note", text


def listed(numbers: np.ndarray) -> str:
    """Return the first numbers in words.

    Example:
        >>> listed(np.array([3])), listed(np.arange(9))
        ('3', '0, 1, 2, 3, 4 and 4 more')
    """
    shown = ", ".join(map(str, np.asarray(numbers)[:LISTED].tolist()))
    return shown + (f" and {len(numbers) - LISTED} more" if len(numbers) > LISTED else "")


def rows_named(rows: np.ndarray) -> str:
    """Return the first numbers of rows in words.

    Example:
        >>> rows_named(np.array([3])), rows_named(np.arange(9))
        ('row 3', 'rows 0, 1, 2, 3, 4 and 4 more')
    """
    return f"row{'s' if len(rows) > 1 else ''} {listed(rows)}"
