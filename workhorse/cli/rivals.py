"""`workhorse rivals TASK`."""

import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import tyro

from workhorse.api.tasks import check_task
from workhorse.cli.environment_options import EnvironmentOptions, task_options_of
from workhorse.cli.options import parse

__all__ = ["run"]


@dataclasses.dataclass
class RivalsTask:
    """The task whose rivals are run."""

    task: tyro.conf.Positional[str]
    """The task, a Gymnasium id, or module:id for one of your own."""


@dataclasses.dataclass
class RivalsOptions(EnvironmentOptions, RivalsTask):
    """Run everything that is simpler than learning: rules, linear control, searches, planners, tree search.

    The cheapest comes first, all under one budget. Each is chosen on some initial states and scored on others, and its
    price counts every step and every core-second, trials and plans among them. A page with the frontier is written.
    """

    budget: float = 120.0
    """Core-seconds for all of them together."""
    episodes: int = 20
    """Episodes that each is scored on; planners may get fewer, so that the budget suffices."""
    only: tuple[str, ...] = ()
    """Run these rivals alone, by name."""
    seed: int = 0
    """Seed of all draws."""
    threads: int = 0
    """Simulation threads; 0 uses one for each core."""
    films: bool = False
    """Film an episode of each."""
    folder: str = "rivals"
    """Folder in which results are kept, one folder a task."""


def run(arguments: Sequence[str]) -> int:
    """Run the rivals of a task, print and draw what they earn, and return the exit code."""
    options = parse(RivalsOptions, arguments)
    task_options = task_options_of(options)
    check_task(options.task)
    from workhorse.advice.rivals import Outcome, frontier, run_rivals
    from workhorse.advice.store import TaskRivals, folder_of, save_rivals
    from workhorse.core.machine import describe_hardware
    from workhorse.reports.rivals_page import write_rivals_page
    from workhorse.reports.wording import interval_text, number_text, steps_text

    print(f"{'rival':<21}{'return [95 %]':<30}{'steps':>9}{'core-s':>9}{'real time':>11}")

    def told(one: Outcome) -> None:
        if not one.returns:
            print(f"{one.contender.algorithm:<21}{one.failure}", flush=True)
            return
        factor = "" if one.real_time_factor is None else f"{number_text(one.real_time_factor, 2)}x"
        row = f"{one.contender.algorithm:<21}{interval_text(one.interval):<30}"
        print(f"{row}{steps_text(one.steps):>9}{number_text(one.core_s, 2):>9}{factor:>11}", flush=True)
        if one.in_words:
            print(f"{'':<21}{one.in_words}", flush=True)
        if one.failure:
            print(f"{'':<21}{one.failure}", flush=True)

    root = Path(options.folder)
    outcomes = run_rivals(
        options.task,
        task_options,
        budget_s=options.budget,
        episodes=options.episodes,
        threads=options.threads,
        seed=options.seed,
        only=options.only,
        films=folder_of(options.task, task_options, root) / "films" if options.films else None,
        told=told,
    )
    floors = [one.interval.value for one in outcomes if one.contender.kind == "floor" and one.returns]
    hardware = describe_hardware()
    found = TaskRivals(
        options.task,
        task_options,
        options.budget,
        max(floors, default=float("nan")),
        tuple(outcomes),
        "workhorse rivals " + shlex.join(arguments),
        time.strftime("%Y-%m-%d"),
        f"{hardware.cores} cores of {hardware.cpu}",
    )
    save_rivals(found, root)
    print("\nWhat nothing cheaper equals:")
    for one in frontier(outcomes):
        name, price = one.contender.algorithm, number_text(one.core_s, 3)
        print(f"  {price:>8} core-seconds  {interval_text(one.interval):<28} {name}")
    print(f"\nThe page is {write_rivals_page(found, root)}")
    return 0
