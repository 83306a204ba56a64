"""`workhorse diagnose RUN`."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Sequence
from typing import Any, Literal

import tyro

from workhorse.cli.options import Count, parse

__all__ = ["run"]

Part = Literal["gradients", "values", "baselines", "trust-region", "landscape"]

USUAL: tuple[Part, ...] = ("gradients", "values", "trust-region")

ENOUGH_ESTIMATES = 6
"""Fewer can agree by chance at the 5 % level, whatever they are."""

DEFAULT_BUDGET = 1_000_000
"""Steps of an iteration for gradients, values and baselines, each, where none were named."""


@dataclasses.dataclass
class DiagnoseOptions:
    """What `diagnose` takes."""

    run: tyro.conf.Positional[str]
    """The run folder, as in runs/<id>, finished or not."""
    at: tuple[int, ...] = ()
    """Iterations to look at, of those whose state was kept; by default the first, the last and two between."""
    only: tuple[Part, ...] = ()
    """What to measure; by default gradients, values and trust-region, as far as the run allows. Baselines and the
    landscape take minutes and more."""
    budget: Count | None = None
    """Environment steps for each part at each iteration; by default 1,000,000 for gradients, values and baselines, and
    for the landscape as many as it takes."""
    estimates: int = 10
    """Independent estimates of each gradient, at least 3."""
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

    wanted = options.only or USUAL
    promises = _promises(folder, options) if "trust-region" in wanted else ()
    parts: list[Any] = [part for part in ("gradients", "values", "baselines", "landscape") if part in wanted]
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
                signal.signal(signal.SIGTERM, signal.default_int_handler)  # it stops as Ctrl-C does
            try:
                for iteration in at:
                    for part in parts:
                        _show(history, part, iteration, options)
            except KeyboardInterrupt:
                print(f"Stopped. What was measured is kept: `workhorse diagnose {folder.path} ...` goes on from there.")
                raise
    print(f"The page to look at: {write_run_report(folder.path)}")
    return 0


def _promises(folder: Any, options: DiagnoseOptions) -> Sequence[Any]:
    """What the trust region promises and what was seen; nothing, if it was not named, of a run without metrics yet."""
    from workhorse.diagnostics.trust_region import trust_region

    if not (options.only or folder.has_metrics):
        print(f"Left out: {folder.path} has no metrics yet, which say how the trust region held.")
        return ()
    return trust_region(folder)


def _possible(history: Any, parts: list[Any], options: DiagnoseOptions) -> list[Any]:
    """The parts that can be measured of this run; one that was named and cannot be is an error before any work."""
    from workhorse.core.errors import UsageError
    from workhorse.diagnostics.baselines import check_baselines
    from workhorse.diagnostics.gradients import check_estimates, check_gradients
    from workhorse.diagnostics.landscape import check_landscape
    from workhorse.diagnostics.values import check_values

    checks = {
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
    from workhorse.core.digest import digest
    from workhorse.diagnostics import store

    asked = _asked(part, options)
    record = store.read(history.folder, part, iteration, asked)
    if record is not None:
        return record
    seen = f"{digest(history.measurable(iteration).learner):016x}"
    found = _MEASURED[part](history, iteration, options, asked)
    return store.write(history.folder, part, {**found.to_json(), "digest": seen}, asked)


def _asked(part: Any, options: DiagnoseOptions) -> dict[str, int]:
    """What the result of a part depends on."""
    if part == "landscape":
        return {"grid": options.grid, "pairs": options.pairs}
    budget = {"budget": _budget(options)}
    return budget | ({"pairs": 5} if part == "values" else {"estimates": options.estimates})


def _gradients(history: Any, iteration: int, options: DiagnoseOptions, asked: dict[str, int]) -> Any:
    from workhorse.diagnostics.gradients import study_gradients

    return _by_estimates(study_gradients, f"gradients of iteration {iteration}", history, iteration, options, asked)


def _by_estimates(
    study: Any, words: str, history: Any, iteration: int, options: DiagnoseOptions, asked: dict[str, int]
) -> Any:
    with _Bar(words, asked["budget"]) as bar:
        return study(
            history,
            iteration,
            env_steps=asked["budget"],
            estimates=options.estimates,
            threads=options.threads,
            progress=bar.advance,
        )


def _values(history: Any, iteration: int, options: DiagnoseOptions, asked: dict[str, int]) -> Any:
    from workhorse.diagnostics.values import study_values

    budget = asked["budget"]
    with _Bar(f"values of iteration {iteration}", budget) as bar:
        return study_values(history, iteration, env_steps=budget, threads=options.threads, progress=bar.advance)


def _baselines(history: Any, iteration: int, options: DiagnoseOptions, asked: dict[str, int]) -> Any:
    from workhorse.diagnostics.baselines import study_baselines

    return _by_estimates(study_baselines, f"baselines of iteration {iteration}", history, iteration, options, asked)


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


def _print_promises(promises: Sequence[Any]) -> None:
    for promise in promises:
        print(promise.sentence)


def _print_gradients(record: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from workhorse.statistics.gradient_quality import expected_cosine

    own = record["own_samples"]
    title = (
        f"iteration {record['iteration']}: {record['estimates']} estimates of the gradient of {record['parameters']:,} "
        f"parameters, reference of {record['reference_samples']:,} steps"
    )
    if record.get("step_reference_samples"):  # records of before have none
        title += f", {record['step_reference_samples']:,} for the step"
    scale = record["noise_scale"]
    heads = ("steps", "cosine of two [95 %]", "by B", "to reference", "")
    table = Table(*heads, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for row in record["gradients"]:
        words = _cosine(row)
        notes = ["the run's own"] if row["samples"] == own else []
        if record["estimates"] < ENOUGH_ESTIMATES:
            notes.append("too few to tell")
        elif row["p_value"] is None or row["p_value"] > 0.05:
            notes.append("no agreement")
        predicted = "-" if scale is None else f"{expected_cosine(scale, row['samples']):.3f}"
        table.add_row(f"{row['samples']:,}", words, predicted, _number(row["to_reference"]), ", ".join(notes))
    for row in record["steps"]:
        table.add_row(f"step of {row['samples']:,}", _cosine(row), "", _number(row["to_reference"]), "")
    Console().print(table)
    if not record["steps"]:
        print("The algorithm takes no step here: its learning rate has come to zero.")
    if scale is None:
        print("The noise is too large for this budget to say how large: no gradient was found in it.")
        return
    own_cosine = next(row["cosine"] for row in record["gradients"] if row["samples"] == own)
    print(
        f"cosine {own_cosine:.2f} at {own:,}; .5 needs {scale:,.0f}, .9 needs {9 * scale:,.0f} steps "
        "(the noise scale, and nine times it)"
    )


def _cosine(row: dict[str, Any]) -> str:
    return f"{_number(row['cosine'])} [{_number(row['low'])}, {_number(row['high'])}]"


def _number(value: float | None, form: str = ".3f") -> str:
    """A number as text; a dash where there is none."""
    return "-" if value is None else f"{value:{form}}"


def _print_values(record: dict[str, Any]) -> None:
    print(
        f"value function at iteration {record['iteration']}, {record['states']} states never trained on, "
        f"{record['returns']} returns of up to {record['horizon']:,} steps from each:"
    )
    own, returns, truth = (_share(record, f"{name}_explained") for name in ("own", "return", "truth"))
    print(f"  explains {own} of its own targets, {returns} of single returns, {truth} of the truth")
    own, returns, truth = (_share(record, f"{name}_error") for name in ("own", "return", "truth"))
    print(f"  is off by {own} of its targets, {returns} of single returns, {truth} of the truth, on average")
    print(
        f"  bias {_number(record['bias'], '.3g')} (standard error {_number(record['bias_error'], '.2g')}); the truth "
        f"spreads by {_number(record['truth_spread'], '.3g')} over states, returns by "
        f"{_number(record['return_spread'], '.3g')} from one state"
    )
    learnt, unseen = record["learnt"], record["unseen"]
    for words, one in (("on steps learnt from", learnt), ("on fresh steps", unseen)):
        own, returns, truth = (_share(one, f"{name}_error") for name in ("own", "return", "truth"))
        off = f"{own} of its targets, {returns} of single returns, {truth} of the truth"
        print(f"  an update later, {words}, off by {off}")


def _share(record: dict[str, Any], name: str) -> str:
    return _number(record[name], ".2f")


def _print_baselines(record: dict[str, Any]) -> None:
    for kind, words in (("whole", "whole returns less a baseline"), ("own", "the run's own advantages")):
        title = f"iteration {record['iteration']}, {words}: cosine of two of {record['estimates']} gradients"
        _print_baseline_table(record, kind, title)
    print(
        f"V*, fitted to {record['fitted_pairs']:,} returns, explains {_share(record, 'true_explained')} of "
        f"{record['judged_pairs']:,} fresh ones and is off by {_share(record, 'true_error')} of them on average; "
        f"the agent's value {_share(record, 'agent_explained')} and {_share(record, 'agent_error')}"
    )


def _print_baseline_table(record: dict[str, Any], kind: str, title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = [row for row in record["rows"] if row["returns"] == kind]
    own, most = record["own_samples"], max(row["samples"] for row in rows)
    heads = (f"of {own:,}", f"of {most:,} [95 %]", "noise scale", "variance, % of none")
    table = Table("baseline", *heads, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in dict.fromkeys(row["baseline"] for row in rows):
        first, last = (
            next(row for row in rows if (row["baseline"], row["samples"]) == (name, size)) for size in (own, most)
        )
        scale = "-" if last["noise_scale"] is None else f"{last['noise_scale']:,.0f}"
        ratio = "100" if name == "none" else _interval(_step(record, kind, most, name), *_RATIO, form=".2g", times=100)
        table.add_row(name, f"{first['cosine']:.2f}", _interval(last, "cosine", "low", "high"), scale, ratio)
    Console().print(table)
    steps = [_step(record, kind, most, *pair) for pair in (("agent", "constant"), ("true", "agent"))]
    gains = (f"{step['baseline']} over {step['other']} {_interval(step, *_DIFFERENCE)}" for step in steps)
    print(f"cosine gained at {most:,}: {', '.join(gains)}")


_RATIO, _DIFFERENCE = ("ratio", "ratio_low", "ratio_high"), ("difference", "low", "high")


def _step(record: dict[str, Any], kind: str, samples: int, baseline: str, other: str = "none") -> dict[str, Any]:
    """One baseline beside another."""
    wanted = (kind, samples, baseline, other)
    return next(
        row for row in record["steps"] if (row["returns"], row["samples"], row["baseline"], row["other"]) == wanted
    )


def _interval(row: dict[str, Any], *names: str, form: str = ".2f", times: float = 1.0) -> str:
    value, low, high = ("-" if row[name] is None else f"{times * row[name]:{form}}" for name in names)
    return f"{value} [{low}, {high}]"


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
        surrogate = "" if row["verdict"] == "-" else _number(row["surrogate"], "+.3g")
        change = "" if row["verdict"] == "-" else f"{row['change']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]"
        table.add_row(f"{row['x']:g}", f"{row['reward']:,.4g}", change, _LINE_WORDS[row["verdict"]], surrogate)
    Console().print(table)


_LINE_WORDS = {"-": "", "raises": "rises", "lowers": "falls", "cannot be told": "cannot be told"}


_MEASURED = {"gradients": _gradients, "values": _values, "baselines": _baselines, "landscape": _landscape}
_SHOWN = {
    "gradients": _print_gradients,
    "values": _print_values,
    "baselines": _print_baselines,
    "landscape": _print_landscape,
}


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
