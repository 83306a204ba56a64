"""`workhorse diagnose RUN`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import tyro

from workhorse.cli.options import Count, parse

__all__ = ["run"]

Part = Literal["gradients", "trust-region"]


@dataclasses.dataclass
class DiagnoseOptions:
    """What `diagnose` takes."""

    run: tyro.conf.Positional[str]
    """The run folder, as in runs/<id>, finished or not."""
    at: tuple[int, ...] = ()
    """Iterations to look at, of those whose state was kept; by default the first, the last and two between."""
    only: tuple[Part, ...] = ("gradients", "trust-region")
    """What to measure."""
    budget: Count = 1_000_000
    """Environment steps for each iteration looked at."""
    estimates: int = 10
    """Independent estimates of each gradient."""
    threads: int = 0
    """Simulation threads; 0 for one a core."""


def run(arguments: Sequence[str]) -> int:
    """Measure what a policy gradient method assumes, on a run, and print it; the exit code."""
    options = parse(
        DiagnoseOptions,
        "diagnose",
        arguments,
        "Measure what a policy gradient assumes, on a run that was made without it: whether its gradient estimates "
        "agree, and whether its trust region held. What was measured before is not measured again.",
    )
    from workhorse.runs.folder import RunFolder

    folder = RunFolder.open(options.run)
    from workhorse.reports.run_page import write_run_report
    from workhorse.runs.history import kept_iterations, opened

    if "trust-region" in options.only:
        _trust_region(folder)
    if "gradients" in options.only:
        from workhorse.diagnostics.gradients import study_gradients
        from workhorse.diagnostics.store import read_gradients, write_gradients

        with opened(folder.path, options.threads) as history:
            at = options.at or _spread(kept_iterations(folder))
            for iteration in at:
                history.kept(iteration)
            for iteration in at:
                asked = {"budget": options.budget, "estimates": options.estimates}
                record = read_gradients(folder, iteration, asked)
                if record is None:
                    with _Bar(f"iteration {iteration}", options.budget) as bar:
                        found = study_gradients(
                            history,
                            iteration,
                            env_steps=options.budget,
                            estimates=options.estimates,
                            threads=options.threads,
                            progress=bar.advance,
                        )
                    record = write_gradients(folder, found.to_json(), asked)
                _print_gradients(record)
    print(f"The page to look at: {write_run_report(folder.path)}")
    return 0


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
