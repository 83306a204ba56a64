"""`workhorse tasks [TASK]`."""

import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tyro

from workhorse.algorithms.recipes import Recipe, best_recipe, recipes
from workhorse.api.tasks import check_task
from workhorse.cli.options import parse
from workhorse.environments.registry import TASKS

if TYPE_CHECKING:  # imported by the function below, so that the list needs no simulator
    from workhorse.environments.task_description import TaskDescription, TaskOption

__all__ = ["run"]

WIDTH = 80


@dataclasses.dataclass
class TasksOptions:
    """List the tasks, or describe one: its sizes, options, limits and recipes."""

    task: tyro.conf.Positional[str | None] = None
    """Describe this task; your own as module:id."""


def run(arguments: Sequence[str]) -> int:
    """List the tasks, or describe one, and return the exit code."""
    task = parse(TasksOptions, arguments).task
    if task is None:
        _list_tasks()
        return 0
    check_task(task)
    from workhorse.environments.task_description import describe

    print("\n".join(_described(task, describe(task))))
    return 0


def _list_tasks() -> None:
    known: dict[str, list[str]] = {}
    for row in recipes():
        known.setdefault(row.task, []).append(row.algorithm + ("*" if row == best_recipe(row.task) else ""))
    width = max(map(len, TASKS))
    for task in TASKS.values():
        made_for = ", ".join(known.get(task.id, [])) or "-"
        print(f"{task.id:<{width}}  {task.kind:<7}  {made_for:<16}  {task.summary}")
    print("\nRecipes: * is used if no --algorithm is given. You can also train on any environment registered with")
    print("Gymnasium, by its id, or as module:id to import a module first. `workhorse tasks TASK` describes one.")


def _described(task: str, found: "TaskDescription") -> Iterator[str]:
    """Yield the lines of a task's description."""
    spec = found.spec
    yield f"{task}: {TASKS[task].summary}" if task in TASKS else task
    yield ""
    yield from _row("observation", found.observation)
    yield from _row("action", found.action)
    yield from _row("episode", _episode(spec.max_episode_steps, spec.step_seconds))
    if found.reward_threshold is not None:
        yield from _row("solved at", f"a mean return of {found.reward_threshold:,g}, by Gymnasium")
    yield from _row("simulator", found.simulator)
    yield from _row("resumed", _RESUMED[spec.resume])
    yield ""
    yield "Options, each as --task-option NAME=VALUE" if found.options else "It has no options."
    for option in found.options:
        yield from _option(option)
    rows = [row for row in recipes() if row.task == task]
    yield ""
    if not rows:
        yield "It has no recipe: the algorithm's defaults are used."
        return
    yield "Recipes; * is used if no --algorithm is given"
    for row in rows:
        yield from _recipe(row, best_recipe(task) == row)


_RESUMED = {
    "exact": "to the same bits",
    "journal": "to the same bits, by repeating the actions of its episodes",
    "episode": "from the start of its episodes: it is not deterministic",
}


def _row(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {name:<13}", subsequent_indent=" " * 15)


def _episode(steps: int | None, seconds: float | None) -> str:
    if steps is None:
        return "no limit" if seconds is None else f"no limit; a step is {seconds:g} s"
    return f"up to {steps:,} steps" + ("" if seconds is None else f" of {seconds:g} s, {steps * seconds:g} s in all")


def _option(option: "TaskOption") -> list[str]:
    default = "" if option.default is inspect.Parameter.empty else f"={_value(option.default)}"
    head = f"  {option.name}{default}"
    return [head, *textwrap.wrap(option.sentence, WIDTH, initial_indent="      ", subsequent_indent="      ")]


def _value(value: Any) -> str:
    """Return a default as it may be typed, a model file by its name alone."""
    text = str(value).replace(" ", "")
    return text.rpartition("/")[2] if isinstance(value, str) else text


def _recipe(row: Recipe, is_best: bool) -> list[str]:
    indented: Mapping[str, Any] = {"initial_indent": "      ", "subsequent_indent": "      "}
    settings = " ".join(_typed(name, value) for name, value in row.settings.items())
    reaches = f", reached {row.reaches}" if row.reaches else ""
    return [
        f"  {row.algorithm}{'*' if is_best else ''}: {row.env_steps:,} steps{reaches}",
        *textwrap.wrap(settings, WIDTH, break_on_hyphens=False, **indented),
        *textwrap.wrap(f"source: {row.source}", WIDTH, **indented),
    ]


def _typed(name: str, value: Any) -> str:
    """Return a setting as it is typed."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {' '.join(map(str, value)) if isinstance(value, list | tuple) else value}"
