"""`workhorse diagnose RUN`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import tyro

from workhorse.cli.options import Count, parse

__all__ = ["run"]

Part = Literal["gradients", "values", "trust-region", "landscape"]

DEFAULT_BUDGET = 1_000_000
"""Steps of an iteration for gradients, and for values, where none were named."""


@dataclasses.dataclass
class DiagnoseOptions:
    """What `diagnose` takes."""

    run: tyro.conf.Positional[str]
    """The run folder, as in runs/<id>, finished or not."""
    at: tuple[int, ...] = ()
    """Iterations to look at, of those whose state was kept; by default the first, the last and two between."""
    only: tuple[Part, ...] = ("gradients", "values", "trust-region")
    """What to measure; landscape, which takes minutes and more for each iteration, is only measured when asked for."""
    budget: Count | None = None
    """Environment steps for each iteration looked at; by default 1,000,000 for gradients and for values, and for the
    landscape as many as it takes."""
    estimates: int = 10
    """Independent estimates of each gradient."""
    grid: int = 31
    """Points of the landscape along each axis."""
    pairs: Count = 20_000
    """Environment steps of each of its points."""
    threads: int = 0
    """Simulation threads; 0 for one a core."""


def run(arguments: Sequence[str]) -> int:
    """Measure what a policy gradient method assumes, on a run, and print it; the exit code."""
    options = parse(
        DiagnoseOptions,
        "diagnose",
        arguments,
        "Measure what a policy gradient assumes, on a run that was made without it: whether its gradient estimates "
        "agree, what its value function is worth, whether its trust region held, and what its surrogate has to do with "
        "the reward. What was measured before is not measured again.",
    )
    from workhorse.runs.folder import RunFolder

    folder = RunFolder.open(options.run)
    from workhorse.reports.run_page import write_run_report
    from workhorse.runs.history import kept_iterations, opened

    if "trust-region" in options.only:
        _trust_region(folder)
    parts: list[Any] = [part for part in ("gradients", "values", "landscape") if part in options.only]
    if parts:
        with opened(folder.path, options.threads) as history:
            at = options.at or _spread(kept_iterations(folder))
            for iteration in at:
                history.kept(iteration)
            for iteration in at:
                for part in parts:
                    _show(history, part, iteration, options)
    print(f"The page to look at: {write_run_report(folder.path)}")
    return 0


def _show(history: Any, part: Any, iteration: int, options: DiagnoseOptions) -> None:
    """Print what a part found at an iteration; of an iteration that was not named, also that it has nothing to show."""
    from workhorse.diagnostics.plane import NoStep

    try:
        _SHOWN[part](_measured(history, part, iteration, options))
    except NoStep as error:
        if options.at:
            raise
        print(error)


def _measured(history: Any, part: Any, iteration: int, options: DiagnoseOptions) -> dict[str, Any]:
    """What a part found at an iteration, now or before."""
    from workhorse.diagnostics import store

    asked = _asked(part, options)
    record = store.read(history.folder, part, iteration, asked)
    if record is not None:
        return record
    found = _MEASURED[part](history, iteration, options, asked)
    return store.write(history.folder, part, found.to_json(), asked)


def _asked(part: Any, options: DiagnoseOptions) -> dict[str, int]:
    """What the result of a part depends on."""
    if part == "landscape":
        return {"grid": options.grid, "pairs": options.pairs}
    budget = {"budget": options.budget or DEFAULT_BUDGET}
    return budget | ({"estimates": options.estimates} if part == "gradients" else {})


def _gradients(history: Any, iteration: int, options: DiagnoseOptions, asked: dict[str, int]) -> Any:
    from workhorse.diagnostics.gradients import study_gradients

    budget = asked["budget"]
    with _Bar(f"gradients of iteration {iteration}", budget) as bar:
        return study_gradients(
            history,
            iteration,
            env_steps=budget,
            estimates=options.estimates,
            threads=options.threads,
            progress=bar.advance,
        )


def _values(history: Any, iteration: int, options: DiagnoseOptions, asked: dict[str, int]) -> Any:
    from workhorse.diagnostics.values import study_values

    budget = asked["budget"]
    with _Bar(f"values of iteration {iteration}", budget) as bar:
        return study_values(history, iteration, env_steps=budget, threads=options.threads, progress=bar.advance)


def _landscape(history: Any, iteration: int, options: DiagnoseOptions, asked: dict[str, int]) -> Any:
    """Measure a plane; one that was stopped is gone on with."""
    from workhorse.diagnostics import store
    from workhorse.diagnostics.landscape import env_steps_needed, study_landscape

    unfinished = store.Unfinished(history.folder, "landscape", iteration, asked)
    needed = env_steps_needed(options.grid, options.pairs, history.spec.max_episode_steps or 1, 1)
    with _Bar(f"landscape of iteration {iteration}", needed) as bar:
        try:
            found = study_landscape(
                history,
                iteration,
                grid=options.grid,
                pairs=options.pairs,
                env_steps=options.budget,
                threads=options.threads,
                progress=bar.advance,
                unfinished=unfinished,
            )
        except KeyboardInterrupt:
            unfinished.keep()
            raise
    unfinished.forget()
    return found


def _spread(kept: list[int]) -> list[int]:
    """The first, the last and two between."""
    return sorted({kept[round(place * (len(kept) - 1) / 3)] for place in range(4)}) if kept else []


def _trust_region(folder: Any) -> None:
    from workhorse.diagnostics.trust_region import trust_region

    for row in trust_region(folder):
        print(row.sentence)


def _print_gradients(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    own = record["own_samples"]
    title = (
        f"iteration {record['iteration']}: {record['estimates']} estimates of the gradient of {record['parameters']:,} "
        f"parameters, reference of {record['reference_samples']:,} steps"
    )
    table = Table("steps", "cosine of two [95 %]", "to the reference", "", title=title, title_justify="left")
    for row in record["gradients"]:
        words = f"{row['cosine']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        notes = [
            *(["the run's own"] if row["samples"] == own else []),
            *([] if row["p_value"] <= 0.05 else ["no agreement"]),
        ]
        table.add_row(f"{row['samples']:,}", words, f"{row['to_reference']:.3f}", ", ".join(notes))
    for row in record["steps"]:
        words = f"{row['cosine']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        table.add_row(f"step of {row['samples']:,}", words, f"{row['to_reference']:.3f}", "")
    Console().print(table)
    if not record["steps"]:
        print("The algorithm takes no step here: its learning rate has come to zero.")
    scale = record["noise_scale"]
    if scale is None:
        print("The noise is too large for this budget to say how large: no gradient was found in it.")
        return
    own_cosine = next(row["cosine"] for row in record["gradients"] if row["samples"] == own)
    print(
        f"cosine {own_cosine:.2f} at {own:,}; .5 needs {scale:,.0f}, .9 needs {9 * scale:,.0f} steps "
        "(the noise scale, and nine times it)"
    )


def _print_values(record: dict[str, Any]) -> None:
    def share(name: str) -> str:
        return "-" if record[name] is None else f"{record[name]:.2f}"

    print(
        f"value function at iteration {record['iteration']}, {record['states']} states never trained on, "
        f"{record['returns']} returns of up to {record['horizon']:,} steps from each:"
    )
    print(
        f"  explains {share('own_explained')} of its own targets, {share('return_explained')} of single returns, "
        f"{share('truth_explained')} of the truth"
    )
    print(
        f"  is off by {share('own_error')} of its targets, {share('return_error')} of single returns, "
        f"{share('truth_error')} of the truth, on average"
    )
    print(
        f"  bias {record['bias']:.3g} (standard error {record['bias_error']:.2g}); the truth spreads by "
        f"{record['truth_spread']:.3g} over states, returns by {record['return_spread']:.3g} from one state"
    )


def _print_landscape(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    surface, axis, line = record["surfaces"][-1], record["axis"], record["line"]
    places = [(x, y) for y in axis for x in axis]
    rewards = [reward for row in surface["reward"] for reward in row]
    best, (at_x, at_y) = max(zip(rewards, places, strict=True))
    print(
        f"iteration {record['iteration']}: {record['grid']} x {record['grid']} points of about {record['pairs']:,} "
        f"steps, {record['episodes']:,} whole episodes; a step of length {record['step_length']:.3g} and a random "
        f"direction of length {record['random_length']:.3g} in {record['parameters']:,} parameters"
    )
    print(f"best point: {at_x:.1f} steps, {at_y:.1f} random: {best:,.4g}; at the policy itself: {rewards[0]:,.4g}")
    table = Table("steps a point", "smoothness [95 %]")
    for row in record["surfaces"]:
        table.add_row(f"{row['pairs']:,}", f"{row['smoothness']:.2f} [{row['low']:.2f}, {row['high']:.2f}]")
    Console().print(table)
    table = Table("along the step", "reward", "change [95 %]", "the reward", "surrogate")
    for row in line:
        surrogate = "" if row["verdict"] == "-" else _number(row["surrogate"])
        change = "" if row["verdict"] == "-" else f"{row['change']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]"
        table.add_row(f"{row['x']:g}", f"{row['reward']:,.4g}", change, _LINE_WORDS[row["verdict"]], surrogate)
    Console().print(table)


_LINE_WORDS = {"-": "", "raises": "rises", "lowers": "falls", "cannot be told": "cannot be told"}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3g}"


_MEASURED = {"gradients": _gradients, "values": _values, "landscape": _landscape}
_SHOWN = {"gradients": _print_gradients, "values": _print_values, "landscape": _print_landscape}


class _Bar:
    """A bar of steps, on a terminal."""

    def __init__(self, what: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,}"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(what, total=total)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, env_steps: int) -> None:
        self._progress.advance(self._task, env_steps)
