"""`workhorse tasks`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from workhorse.algorithms.recipes import best_recipe, recipes
from workhorse.cli.options import parse
from workhorse.environments.registry import TASKS

__all__ = ["run"]


@dataclasses.dataclass
class TasksOptions:
    """What `tasks` takes: nothing."""


def run(arguments: Sequence[str]) -> int:
    """List the tasks; the exit code."""
    parse(TasksOptions, "tasks", arguments, "List the tasks, what simulates them, and the recipes there are for them.")
    known: dict[str, list[str]] = {}
    for row in recipes():
        known.setdefault(row.task, []).append(row.algorithm + ("*" if row == best_recipe(row.task) else ""))
    width = max(map(len, TASKS))
    for task in TASKS.values():
        made_for = ", ".join(known.get(task.id, [])) or "-"
        print(f"{task.id:<{width}}  {task.kind:<7}  {made_for:<16}  {task.summary}")
    print("\nRecipes: * is taken where no --algorithm is named. Any environment registered with Gymnasium can be")
    print("trained as well, by its id, or as module:id where a module has to be imported first.")
    return 0
