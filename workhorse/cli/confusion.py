"""`workhorse diagnose LOG --only confusion`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

import tyro

from workhorse.cli.environment_options import EnvironmentOptions, task_options_of
from workhorse.cli.options import Count, parse
from workhorse.cli.places import RunPath

__all__ = ["asks_for_confusion", "run"]


@dataclasses.dataclass
class ConfusionOptions(EnvironmentOptions):
    """Examine demonstrations for causal confusion: whether the previous action misleads a policy that imitates them.

    How well does it predict the next one? What does each factor of the observation add on held-out demonstrations, and
    cost in the task? Which factors do a few episodes, or questions to an expert, choose?
    """

    log: tyro.conf.Positional[str] = tyro.MISSING
    """The demonstrations, in any format that `workhorse dataset` reads."""
    only: Literal["confusion"] = "confusion"
    """What to measure; a log has no other part."""
    evaluate_on: str | None = None
    """The task, to act in; without it nothing is said of what a factor costs."""
    expert: RunPath | None = None
    """A run whose policy answers questions; without one, only the returns of episodes choose."""
    interventions: Count = 20
    """Episodes under drawn masks, and questions to the expert."""
    episodes: Count = 16
    """Episodes that each policy is judged by."""
    updates: Count = 10_000
    """Updates of each fit."""
    factors: tuple[int, ...] = ()
    """Components of each factor, one after the other; the previous action, at the end, counts as one."""
    seed: int = 0
    """Seed of all random numbers."""
    threads: int = 1
    """Simulation threads, which do not affect the numbers."""
    out: str | None = None
    """Folder for the page, the numbers and the policy; by default the log's path with -confusion after it."""


def asks_for_confusion(arguments: Sequence[str]) -> bool:
    """Tell whether `--only confusion` is among the words, the only part that is measured of a log.

    Example:
        >>> asks_for_confusion(["logs/mine", "--only", "confusion"]), asks_for_confusion(["runs/mine"])
        (True, False)
    """
    return "--only=confusion" in arguments or ("--only", "confusion") in itertools.pairwise(arguments)


def run(arguments: Sequence[str]) -> int:
    """Examine a log, print what was found, and return the exit code."""
    options = parse(ConfusionOptions, arguments)
    from workhorse.api.confusion import diagnose_confusion

    passed = ("evaluate_on", "expert", "interventions", "episodes", "updates", "factors", "seed", "threads", "out")
    found = diagnose_confusion(
        options.log,
        task_options=task_options_of(options) or None,
        told=lambda sentence: print(f"({sentence})", flush=True),
        **{name: getattr(options, name) for name in passed},
    )
    print("\n".join(found.confusion.sentences))
    print(f"Report: {found.folder / 'report.html'}")
    print(f"Policy: {found.folder / 'policy'}")
    return 0
