"""What rivals earned, kept: a table that is shipped for the shipped tasks, and what the user measured here."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workhorse.advice.rivals import Outcome, cheapest_within
from workhorse.core.errors import UsageError
from workhorse.core.files import read_file, write_file, writing

__all__ = ["TaskRivals", "find_rivals", "folder_of", "read_rivals", "save_rivals", "shipped_rivals"]

SHIPPED = Path(__file__).parent / "rivals.json"
FOLDER = Path("rivals")
"""Folder, in the current one, of what was measured here."""
FILE = "rivals.json"


@dataclass(frozen=True)
class TaskRivals:
    """The rivals of one task, as they were measured together.

    Attributes:
        task, options: which.
        budget_s: core-seconds that they had together.
        floor: mean return of the best policy that does nothing of use.
        outcomes: of each rival, the cheapest kinds first.
        made_by: the command.
        date, machine: when and where, in words.
    """

    task: str
    options: Mapping[str, Any]
    budget_s: float
    floor: float
    outcomes: tuple[Outcome, ...]
    made_by: str
    date: str
    machine: str

    def cheapest_within(self, result: float, share: float = 0.05) -> Outcome | None:
        """Return the cheapest rival that earns what a learner earned, see `rivals.cheapest_within`."""
        return cheapest_within(self.outcomes, result, self.floor, share)

    @property
    def best(self) -> Outcome | None:
        """The rival that earns most."""
        there = [one for one in self.outcomes if one.returns]
        return max(there, key=lambda one: one.interval.value, default=None)

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**vars(self), "options": dict(self.options), "outcomes": [one.record() for one in self.outcomes]}

    @staticmethod
    def of(record: Mapping[str, Any], where: str) -> "TaskRivals":
        """Return what `record` wrote.

        Raises:
            UsageError: it is none.
        """
        try:
            row = dict(record)
            return TaskRivals(outcomes=tuple(Outcome.of(one) for one in row.pop("outcomes")), **row)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise UsageError(
                f"{where} does not hold the rivals of a task ({error}): measure them again with `workhorse rivals`."
            ) from None


def folder_of(task: str, options: Mapping[str, Any], root: Path = FOLDER) -> Path:
    """Return the folder of a task's rivals: its id, and a digest of its options where there are any.

    Example:
        >>> folder_of("CartPole-v1", {}).name, folder_of("mine:Tank-v0", {"size": 4}).name
        ('CartPole-v1', 'mine-Tank-v0-1bde5590')
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", task).strip(".-")
    if options:
        text = json.dumps(dict(options), sort_keys=True, default=str)
        name += f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return root / name


def save_rivals(found: TaskRivals, root: Path = FOLDER) -> Path:
    """Write the rivals of a task, and return the file."""
    folder = folder_of(found.task, found.options, root)
    with writing("the rivals", folder / FILE):
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / FILE, (json.dumps(found.record(), indent=1) + "\n").encode())
    return folder / FILE


def read_rivals(file: Path) -> TaskRivals:
    """Read the rivals of a task.

    Raises:
        UsageError: the file is damaged.
    """
    try:
        record = json.loads(read_file(file))
    except (ValueError, OSError) as error:
        raise UsageError(
            f"{file} cannot be read ({error}): measure the rivals again with `workhorse rivals`."
        ) from None
    return TaskRivals.of(record, str(file))


def shipped_rivals() -> Sequence[TaskRivals]:
    """Return the rivals of the shipped tasks, as they were measured for docs/benchmarks.md."""
    if not SHIPPED.exists():
        return ()
    return [TaskRivals.of(row, str(SHIPPED)) for row in json.loads(SHIPPED.read_text())["tasks"]]


def find_rivals(task: str, options: Mapping[str, Any], root: Path = FOLDER) -> TaskRivals | None:
    """Return the rivals of exactly this task: those measured here, else the shipped ones; None where there are none.

    A damaged file of the user's counts as none.
    """
    wanted = json.loads(json.dumps(dict(options), default=str))
    file = folder_of(task, options, root) / FILE
    if file.is_file():
        try:
            return read_rivals(file)
        except UsageError:
            pass
    return next((one for one in shipped_rivals() if one.task == task and dict(one.options) == wanted), None)
