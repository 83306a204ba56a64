"""`workhorse tasks`."""

import dataclasses
from collections.abc import Sequence

from workhorse.algorithms.recipes import best_recipe, recipes
from workhorse.cli.options import parse
from workhorse.environments.registry import TASKS

__all__ = ["run"]


@dataclasses.dataclass
class TasksOptions:
    """List the tasks, their simulators and their recipes."""


def run(arguments: Sequence[str]) -> int:
    """List the tasks and return the exit code."""
    parse(TasksOptions, arguments)
    known: dict[str, list[str]] = {}
    for row in recipes():
        known.setdefault(row.task, []).append(row.algorithm + ("*" if row == best_recipe(row.task) else ""))
    width = max(map(len, TASKS))
    for task in TASKS.values():
        made_for = ", ".join(known.get(task.id, [])) or "-"
        print(f"{task.id:<{width}}  {task.kind:<7}  {made_for:<16}  {task.summary}")
    print("\nRecipes: * is used if no --algorithm is given. You can also train on any environment registered with")
    print("Gymnasium, by its id, or as module:id to import a module first.")
    return 0
