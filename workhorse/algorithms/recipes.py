"""Per-task settings that are known to work, each with its source, read from `recipes.toml`. Imports no JAX."""

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Recipe", "best_recipe", "recipe", "recipes"]

DEFAULT_ALGORITHM = "openai-es"
DEFAULT_OFFLINE, DEFAULT_IMITATION = "iql", "dagger"
DEFAULT_ENV_STEPS = 1_000_000

OWN_BOUNDS = ("Pendulum-v1", "InvertedPendulum-v5", "Pusher-v5", "Humanoid-v5", "HumanoidStandup-v5")
"""Tasks with recipes whose actions have other bounds than [-1, 1]. Their recipes were measured, or published, without
`rescale_actions`, and leave it off."""


@dataclass(frozen=True)
class Recipe:
    """Settings of an algorithm for a task.

    Attributes:
        task: the task's id.
        algorithm: the algorithm's name.
        settings: the options that differ from the algorithm's defaults.
        env_steps: the budget it is meant for, in environment steps.
        source: where the settings come from: a publication, or a measurement of this project.
        best: whether `workhorse train TASK` takes it when no algorithm is named.
        reaches: the mean return over seeds measured with it and its budget; "" where it was not measured.
    """

    task: str
    algorithm: str
    settings: dict[str, Any]
    env_steps: int
    source: str
    best: bool = False
    reaches: str = ""

    @property
    def name(self) -> str:
        return f"{self.task}/{self.algorithm}"


@functools.cache
def recipes() -> tuple[Recipe, ...]:
    """Every recipe, in the file's order."""
    with open(Path(__file__).with_name("recipes.toml"), "rb") as file:
        tables = tomllib.load(file)
    shared, reached = tables.pop("several"), tables.pop("reaches")
    rows = [(task, algorithm, table) for task, row in tables.items() for algorithm, table in row.items()]
    for table in shared:
        names, algorithms = table.pop("tasks"), table.pop("algorithms")
        rows += [(task, algorithm, table) for task in names for algorithm in algorithms]
    found = []
    for task, algorithm, table in rows:
        settings = {"rescale_actions": False, **table} if task in OWN_BOUNDS else dict(table)
        about = {key: settings.pop(key) for key in ("env_steps", "source", "best") if key in settings}
        about["reaches"] = reached.get(f"{task}/{algorithm}", "")
        found.append(Recipe(task, algorithm, settings, int(about.pop("env_steps")), **about))
    return tuple(found)


def recipe(task: str, algorithm: str) -> Recipe | None:
    """The recipe of an algorithm for a task, or None where there is none."""
    return next((row for row in recipes() if (row.task, row.algorithm) == (task, algorithm)), None)


def best_recipe(task: str) -> Recipe | None:
    """The recipe that `workhorse train TASK` takes, or None where the task has none."""
    rows = [row for row in recipes() if row.task == task]
    return next((row for row in rows if row.best), rows[0] if rows else None)
