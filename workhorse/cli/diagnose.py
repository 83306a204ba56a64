"""`workhorse diagnose RUN`."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import tyro

from workhorse.cli.options import Count, parse
from workhorse.cli.places import RunPath

if TYPE_CHECKING:  # imported by the functions below, so that `--help` needs no JAX
    from workhorse.diagnostics import store
    from workhorse.diagnostics.trust_region import Promise
    from workhorse.runs.folder import RunFolder
    from workhorse.runs.history import History

__all__ = ["run"]

Topic = Literal["gradients", "values", "baselines", "trust-region", "landscape"]

USUAL: tuple[Topic, ...] = ("gradients", "values", "trust-region")

DEFAULT_BUDGET = 1_000_000
"""Environment steps for gradients, values and baselines, each, at an iteration."""


@dataclasses.dataclass
class DiagnoseOptions:
    """Check the assumptions of a policy gradient on a finished or unfinished run.

    Do its gradient estimates agree? How good is its value function? Did its trust region hold? Does its surrogate
    follow the reward? Earlier measurements are kept and not repeated.
    """

    run: tyro.conf.Positional[RunPath]
    """The run folder, as in runs/<id>, finished or not."""
    at: tuple[int, ...] = ()
    """Iterations to measure, among those whose state was kept; by default the first, the last and two between."""
    only: tuple[Topic, ...] = ()
    """Parts to measure; by default gradients, values and trust-region. The others take minutes or more."""
    budget: Count | None = None
    """Environment steps for each part at each iteration; by default 1,000,000, and for the landscape no limit."""
    estimates: int = 10
    """Independent estimates of each gradient, at least 3."""
    grid: int = 31
    """Points of the landscape along each axis."""
    pairs: Count = 20_000
    """Environment steps at each point of the landscape."""
    threads: int = 0
    """Simulation threads; 0 uses one for each core."""


def run(arguments: Sequence[str]) -> int:
    """Measure the assumptions of a policy gradient on a run, print them, and return the exit code."""
    options = parse(DiagnoseOptions, arguments)
    from workhorse.runs.folder import RunFolder

    folder = RunFolder.open(options.run)
    from workhorse.reports.run_page import write_run_report
    from workhorse.runs.history import kept_iterations, opened

    wanted = options.only or USUAL
    promises = _promises(folder, options) if "trust-region" in wanted else ()
    parts: list[store.Part] = [part for part in ("gradients", "values", "baselines", "landscape") if part in wanted]
    if not parts:
        _print_promises(promises)
    else:
        with opened(folder.path, options.threads) as history:
            at = options.at or _spread(kept_iterations(folder))
            for iteration in at or (0,):
                history.measurable(iteration)
            parts = _possible(history, parts, options)
            _print_promises(promises)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop as at Ctrl-C
            try:
                for iteration in at:
                    for part in parts:
                        _show(history, part, iteration, options)
            except KeyboardInterrupt:
                print(f"Stopped; measurements are kept. Continue with: workhorse diagnose {folder.path} ...")
                raise
    print(f"Report: {write_run_report(folder.path)}")
    return 0


def _promises(folder: RunFolder, options: DiagnoseOptions) -> Sequence[Promise]:
    """Return the limits of the trust region beside what was seen; none for a run without metrics, unless asked for."""
    from workhorse.diagnostics.trust_region import trust_region

    if not (options.only or folder.has_metrics):
        print(f"Left out: the trust region, because {folder.path} has no metrics yet.")
        return ()
    return trust_region(folder)


def _print_promises(promises: Sequence[Promise]) -> None:
    for promise in promises:
        print(promise.sentence)


def _possible(history: History, parts: list[store.Part], options: DiagnoseOptions) -> list[store.Part]:
    """Return the parts that this run allows to measure.

    Raises:
        UsageError: a part that was named cannot be measured, or none can.
    """
    from workhorse.core.errors import UsageError
    from workhorse.diagnostics.baselines import check_baselines
    from workhorse.diagnostics.gradients import check_estimates, check_gradients
    from workhorse.diagnostics.landscape import check_landscape
    from workhorse.diagnostics.values import check_values

    checks: dict[store.Part, Callable[[], object]] = {
        "gradients": lambda: check_gradients(history, _budget(options), options.estimates),
        "values": lambda: check_values(history, _budget(options)),
        "baselines": lambda: check_baselines(history, _budget(options), options.estimates),
        "landscape": lambda: check_landscape(history, options.grid, options.pairs, options.budget),
    }
    check_estimates(options.estimates)
    possible, errors = [], []
    for part in parts:
        try:
            checks[part]()
            possible.append(part)
        except UsageError as error:
            errors.append(error)
    if errors and (options.only or not possible):
        raise errors[0]
    for error in errors:
        print(f"Left out: {error}")
    return possible


def _budget(options: DiagnoseOptions) -> int:
    return DEFAULT_BUDGET if options.budget is None else options.budget


def _show(history: History, part: store.Part, iteration: int, options: DiagnoseOptions) -> None:
    """Measure and print one part at an iteration."""
    from workhorse.cli.diagnosis_display import SHOWN
    from workhorse.diagnostics.plane import NoStep

    try:
        SHOWN[part](_measured(history, part, iteration, options))
    except NoStep as error:
        if options.at:  # the user named this iteration
            raise
        print(error)


def _measured(history: History, part: store.Part, iteration: int, options: DiagnoseOptions) -> dict[str, Any]:
    """Return the record of a part at an iteration, measured now or kept from before."""
    from workhorse.core.digest import digest
    from workhorse.diagnostics import store

    asked = _asked(part, options)
    record = store.read(history.folder, part, iteration, asked)
    if record is not None:
        return record
    seen = f"{digest(history.measurable(iteration).state):016x}"
    if part == "landscape":
        found = _landscape(history, iteration, options, asked)
    else:
        found = _by_budget(history, part, iteration, options)
    return store.write(history.folder, part, {**store.plain_json(found), "digest": seen}, asked)


def _asked(part: store.Part, options: DiagnoseOptions) -> dict[str, int]:
    """Return the options that the result of a part depends on."""
    if part == "landscape":
        return {"grid": options.grid, "pairs": options.pairs}
    budget = {"budget": _budget(options)}
    return budget | ({"pairs": 5} if part == "values" else {"estimates": options.estimates})


def _by_budget(history: History, part: store.Part, iteration: int, options: DiagnoseOptions) -> object:
    """Measure the gradients, the values or the baselines within the budget."""
    from workhorse.diagnostics.baselines import study_baselines
    from workhorse.diagnostics.gradients import study_gradients
    from workhorse.diagnostics.values import study_values

    with _progress(f"{part} of iteration {iteration}", _budget(options)) as progress:
        given: dict[str, Any] = {"env_steps": _budget(options), "threads": options.threads, "progress": progress}
        if part == "values":
            return study_values(history, iteration, **given)
        study = study_gradients if part == "gradients" else study_baselines
        return study(history, iteration, estimates=options.estimates, **given)


def _landscape(history: History, iteration: int, options: DiagnoseOptions, asked: dict[str, int]) -> object:
    """Measure a plane, from where an earlier measurement was stopped."""
    from workhorse.diagnostics import store
    from workhorse.diagnostics.landscape import env_steps_needed, study_landscape

    unfinished = store.Unfinished(history.folder, "landscape", iteration, asked)
    needed = env_steps_needed(options.grid, options.pairs, history.spec.max_episode_steps or 1, 1)
    with _progress(f"landscape of iteration {iteration}", needed) as progress:
        try:
            found = study_landscape(
                history,
                iteration,
                grid=options.grid,
                pairs=options.pairs,
                env_steps=options.budget,
                threads=options.threads,
                progress=progress,
                unfinished=unfinished,
            )
        except KeyboardInterrupt:
            unfinished.keep()
            raise
    unfinished.forget()
    return found


def _spread(kept: list[int]) -> list[int]:
    """Return the first, the last and two iterations between."""
    return sorted({kept[round(place * (len(kept) - 1) / 3)] for place in range(4)}) if kept else []


@contextlib.contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar of environment steps on a terminal; yields the function that moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda env_steps: bar.advance(task, env_steps)
