"""Say what is wrong with a task's id, before JAX is imported."""

from __future__ import annotations

import importlib.util
import os
import re

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError, nearest, unknown
from workhorse.environments.registry import TASKS

__all__ = ["PACKAGES", "check_task", "older_task"]

PACKAGES = {
    "ALE": ("ale-py", "ale_py"),
    "MiniGrid": ("minigrid", "minigrid"),
    "BabyAI": ("minigrid", "minigrid"),
    "MinAtar": ("minatar", "minatar.gym"),
    "procgen": ("procgen", "procgen"),
    "highway": ("highway-env", "highway_env"),
    "FetchReach": ("gymnasium-robotics", "gymnasium_robotics"),
    "FetchPush": ("gymnasium-robotics", "gymnasium_robotics"),
    "AntMaze": ("gymnasium-robotics", "gymnasium_robotics"),
    "PointMaze": ("gymnasium-robotics", "gymnasium_robotics"),
    "AdroitHandDoor": ("gymnasium-robotics", "gymnasium_robotics"),
    "FlappyBird": ("flappy-bird-gymnasium", "flappy_bird_gymnasium"),
}
"""Beginnings of ids that other packages register: the package, and the module that registers them."""


def check_task(task: str) -> str | None:
    """Refuse what is no task, before JAX is imported; an id that resembles none is left to the Gymnasium adapter.

    Returns:
        What a user should know of the task, if anything: a newer version of it.

    Raises:
        UsageError: a run, a study file, an algorithm, or an id that is misspelt or whose package is not there.
    """
    if task in TASKS or ":" in task:
        return None
    if os.path.exists(os.path.join(task, "manifest.json")):
        raise UsageError(f"Expected a task, but {task} is a run: `workhorse resume {task}` continues it.")
    if os.path.exists(os.path.join(task, "study.json")) or task.endswith((".yaml", ".yml")):
        raise UsageError(f"Expected a task, but {task} is a study: `workhorse study {task}` conducts it.")
    if task in registry.entries():
        raise UsageError(
            f"Expected a task, but {task} is an algorithm: write `workhorse train TASK --algorithm {task}`; "
            "`workhorse tasks` lists the tasks."
        )
    package, module = PACKAGES.get(re.split(r"[/-]", task)[0], ("", ""))
    newer = older_task(task)
    if not (package or newer or nearest(task, TASKS)):
        return None
    if _is_registered(task):
        return newer and (
            f"{task} is an older version of {newer}: it goes through Gymnasium, step by step, where {newer} has a "
            "simulator of Workhorse's own, which is many times as fast."
        )
    if package:
        raise UsageError(_of_a_package(task, package, module))
    if newer:
        raise UsageError(f"Unknown task {task!r}: its newest version is {newer}. Train on that one.")
    raise unknown("task", task, list(TASKS), "workhorse tasks")


def _of_a_package(task: str, package: str, module: str) -> str:
    """Return how to train on a task that another package registers."""
    images = (
        " Its observations are images, which today's policies read as one long vector: expect little."
        if package in ("ale-py", "procgen")
        else ""
    )
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        return (
            f"{task} comes with the package {package}, which is not installed: `pip install {package}`, then train on "
            f"{module}:{task}.{images}"
        )
    return f"{task} is registered by the module {module}: write it as {module}:{task}.{images}"


def older_task(task: str) -> str | None:
    """Return the task of the table of which this is another version.

    Example:
        >>> older_task("HalfCheetah-v4"), older_task("CartPole-v1"), older_task("Nothing-v0")
        ('HalfCheetah-v5', None, None)
    """
    name = task.rpartition("-v")[0]
    newest = next((known for known in TASKS if known.rpartition("-v")[0] == name), None)
    return newest if name and newest != task else None


def _is_registered(task: str) -> bool:
    import gymnasium

    return task in gymnasium.registry
