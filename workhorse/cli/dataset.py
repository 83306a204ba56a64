"""`workhorse dataset make|check|show|convert`."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any, Literal

import tyro

from workhorse.cli.environment_options import EnvironmentOptions, task_options_of
from workhorse.cli.options import Count, parse
from workhorse.cli.places import RunPath
from workhorse.core.errors import UsageError, nearest
from workhorse.data.dataset import Kind

__all__ = ["DatasetOptions", "run"]

ACTIONS = {
    "make": "dataset",
    "check": "dataset_check",
    "show": "dataset_files",
    "convert": "dataset_files",
}
"""Module of each action, which has a function of its name."""


@dataclasses.dataclass
class DatasetOptions:
    """Make logs of episodes, check them, show what is in one, and convert between formats.

    `workhorse dataset make --help` lists the options of an action.
    """

    action: tyro.conf.Positional[Literal["make", "check", "show", "convert"]]
    """What to do: make a log from a run, check one, show its card, or write it in another format."""


def run(arguments: Sequence[str]) -> int:
    """Run an action and return the exit code."""
    if not arguments or arguments[0].startswith("-"):
        parse(DatasetOptions, arguments)
    action, *rest = arguments
    if action not in ACTIONS:
        close = nearest(action, list(ACTIONS))
        raise UsageError(
            f"Expected make, check, show or convert, got {action!r}."
            + (f" Did you mean {' or '.join(close)}?" if close else "")
            + " `workhorse dataset --help` says what they do."
        )
    module = importlib.import_module(f"workhorse.cli.{ACTIONS[action]}")
    return getattr(module, action)(rest)


@dataclasses.dataclass
class DatasetMakeOptions(EnvironmentOptions):
    """Record a log of episodes on a task, with a card that says how it was made.

    Random actions, or policies of a run: its last one (expert), the first kept one that has come a third of the way
    from random actions to it (medium), half of each, or every step that the run took until then (medium-replay).
    """

    task: tyro.conf.Positional[str] = tyro.MISSING
    """The task, a Gymnasium id, or module:id for one of your own."""
    kind: Kind = tyro.MISSING
    """What the log holds."""
    out: str = tyro.MISSING
    """Folder of the log, which must not be there yet."""
    from_run: RunPath | None = None
    """Run on this task whose policies act; by default one is trained first, by sac-n or dqn."""
    steps: Count | None = None
    """Steps of the log; by default 100,000. A replay has the steps that it has."""
    seed: int = 0
    """Seed of initial states and actions, and of a run that is trained; equal seeds give equal logs."""
    explore: bool = True
    """Act with the exploration that the algorithm has; else without noise, one action in a state."""
    medium: float = 1 / 3
    """Share of the way from random actions to the last policy that `medium` has come at least."""
    runs: str = "runs"
    """Folder for a run that is trained."""
    threads: int = 0
    """Simulation threads, which do not affect the numbers; 0 uses one for each core."""
    trust: bool = False
    """Run code of a run from elsewhere: the modules of its task and algorithm. Remembered for the run."""
    quiet: bool = False
    """Print only the last lines."""


def make(arguments: Sequence[str]) -> int:
    """Make a log, say what is in it, and return the exit code."""
    options: Any = parse(DatasetMakeOptions, arguments)
    task_options = task_options_of(options)
    from workhorse.api.datasets import make as make_log
    from workhorse.display.run_display import display_for

    observer = display_for(options.quiet, None)
    with observer:
        log = make_log(
            options.task, options.kind, options.out, from_run=options.from_run, steps=options.steps, seed=options.seed,
            explore=options.explore, medium=options.medium, task_options=task_options or None, runs=options.runs,
            threads=options.threads, trust=options.trust, observer=observer,
            noted=(lambda sentence: None) if options.quiet else print,
        )  # fmt: skip
    card = log.card
    print(
        f"{options.out}: {card.num_steps:,} steps in {card.num_episodes:,} episodes, which return "
        f"{card.returns['mean']:,.1f} with a spread of {card.returns['std']:,.1f}"
    )
    for note in card.notes:
        print(f"  {note}")
    print(f"  digest {card.digest[:16]}; `workhorse dataset check {options.out}` looks for faults")
    return 0
