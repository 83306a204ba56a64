"""`workhorse cost RUN`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from workhorse.cli.options import Count, parse
from workhorse.core.errors import UsageError
from workhorse.reports.wording import amount_text, duration_text
from workhorse.runs.cost import Ledger, Price, PriceBook, price
from workhorse.runs.folder import RunFolder

if TYPE_CHECKING:
    import polars as pl

    from workhorse.distributed.simulation import Measurements

__all__ = ["run"]

MOST_CORES = 100_000
"""A projection simulates every core's messages one by one, so it takes seconds here and minutes above."""


@dataclasses.dataclass
class CostOptions:
    """What `cost` takes."""

    run: tyro.conf.Positional[str]
    """The run folder, as in runs/<id>."""
    project: bool = False
    """Say what the run would take on another number of cores; needs --cores."""
    cores: Count | None = None
    """Cores to project to; goes with --project."""
    exchange: Literal["scalars", "parameters"] | None = None
    """What the cores would tell each other; by default the cheaper in bytes; goes with --project."""
    prices: str | None = None
    """Price book; by default as said above."""


DESCRIPTION = (
    "Core-hours of a run, and what they cost by a price book. A price book is a TOML file with a `currency` and one "
    "[[core]] for each kind of core, with `kind`, `price_per_core_hour` and `source`; the first that matches the "
    "processor's name counts. It is the file given as --prices, or else the one named by $WORKHORSE_PRICES, or else "
    "prices.toml in the current folder, or else ~/.config/workhorse/prices.toml, or else the built-in assumption."
)


def run(arguments: Sequence[str]) -> int:
    """Print what a run cost, or would cost on other cores; the exit code."""
    options = parse(CostOptions, "cost", arguments, DESCRIPTION)
    _check(options)
    folder = RunFolder.open(options.run)
    ledger, book = Ledger.of(folder), PriceBook.find(options.prices)
    found = price(ledger, book)
    if options.cores is not None:
        _print_projection(folder, ledger, book, options.cores, options.exchange)
        return 0
    manifest = folder.manifest()
    print(f"run         {folder.path}  ({manifest.task} by {manifest.algorithm}, seed {manifest.seed})")
    print(f"env steps   {ledger.env_steps:,}")
    print(f"wall time   {duration_text(ledger.wall_s)}")
    print(f"core-hours  {amount_text(ledger.core_hours)}")
    print(f"money       {amount_text(found.total)} {found.currency}")
    print()
    _print_table(found)
    print()
    print(_origin(book))
    if ledger.estimated:
        print(
            "Estimated: the run began before ledgers were kept. What came before is its manifest's threads times its "
            "metrics' wall time, without evaluations."
        )
    return 0


def _check(options: CostOptions) -> None:
    """Options that say nothing together are errors."""
    if options.project and options.cores is None:
        raise UsageError("--project needs the number of cores to project to: add --cores, as in --cores 1440.")
    if not options.project and options.cores is not None:
        raise UsageError(f"--cores {options.cores} is for a projection to other cores: add --project, or leave it out.")
    if not options.project and options.exchange is not None:
        raise UsageError(f"--exchange {options.exchange} is for a projection: add --project, or leave it out.")
    if options.cores is not None and not 1 <= options.cores <= MOST_CORES:
        raise UsageError(f"--cores must be at least 1 and at most {MOST_CORES:,}: got {options.cores}.")


def _print_table(found: Price) -> None:
    rows = [("kind of core", "core-hours", f"{found.currency}/core-hour", found.currency, "entry")]
    for line in found.lines:
        of = f"{line.entry.number}: {line.entry.kind}"
        rows.append(
            (
                line.kind,
                amount_text(line.core_hours),
                f"{line.entry.price_per_core_hour:g}",
                amount_text(line.money),
                of,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for kind, hours, each, money, of in rows:
        print(f"{kind:<{widths[0]}}  {hours:>{widths[1]}}  {each:>{widths[2]}}  {money:>{widths[3]}}  {of}")


def _origin(book: PriceBook) -> str:
    """Where the prices come from."""
    if book.is_built_in:
        return (
            f"Prices: the built-in {book.path}\n"
            "They are an assumption and nobody's offer: write your own into prices.toml."
        )
    sources = "; ".join(f"entry {entry.number}: {entry.source}" for entry in book.entries)
    return f"Prices: {book.path} ({sources})"


def _print_projection(
    folder: RunFolder,
    ledger: Ledger,
    book: PriceBook,
    cores: int,
    exchange: Literal["scalars", "parameters"] | None,
) -> None:
    """What the run would take on so many cores, and what that rests on."""
    from workhorse.distributed.simulation import project

    measured, notes = _measurements_of(folder, ledger, exchange)
    found = project(measured, cores)
    run_wall_s = measured.iteration_seconds * measured.iterations
    speed_up = run_wall_s / found.wall_s
    shares = _shares(folder, ledger)
    there = Ledger({kind: share * found.core_hours * 3600 for kind, share in shares.items()}, found.wall_s)
    cost = price(there, book)
    manifest = folder.manifest()
    print(f"run         {folder.path}  ({manifest.task} by {manifest.algorithm}, seed {manifest.seed})")
    print(f"measured    {duration_text(run_wall_s)} on {_cores(measured.cores)}, {measured.iterations:,} iterations")
    print(f"projected   {_cores(cores)} and one for the coordinator, exchanging {measured.exchange}")
    print(f"wall time   {duration_text(found.wall_s)}")
    print(f"speed-up    {amount_text(speed_up)} times the run")
    efficiency = 100 * speed_up * measured.cores / cores
    print(f"efficiency  {efficiency:.3g} %  (core-time of the run over that of the {_cores(cores)})")
    print(f"core-hours  {amount_text(found.core_hours)}")
    print(f"money       {amount_text(cost.total)} {cost.currency}")
    print()
    _print_table(cost)
    print()
    print(_origin(book))
    print("This is a simulation, not a measurement. It assumes:")
    priced = "The cores are of the run's own kinds, in the run's own shares, and the coordinator's core is paid too."
    for sentence in (*notes, *found.assumptions, priced):
        print(f"- {sentence}")


def _measurements_of(
    folder: RunFolder, ledger: Ledger, exchange: Literal["scalars", "parameters"] | None = None
) -> tuple[Measurements, tuple[str, ...]]:
    """What the simulation needs of a run, and a sentence on everything that its records do not say outright.

    Seconds are those of every iteration but the first, which compiles. A run on one machine records no time of single
    chunks: each is taken to have held its share of the run's cores. One of a cluster records its workers' seconds.

    Raises:
        UsageError: fewer than two iterations were recorded, or the records are damaged.
    """
    from workhorse.algorithms.evolution.mirrored_search import MirroredSearch
    from workhorse.distributed.exchange import ExchangeCost, choose
    from workhorse.distributed.simulation import Measurements
    from workhorse.math import noise
    from workhorse.runs.metrics import read_metrics
    from workhorse.training.plan import Plan
    from workhorse.training.workforce import num_chunks

    manifest, rows = folder.manifest(), read_metrics(folder)
    seconds = _iteration_seconds(folder, rows)
    iteration_s = sum(seconds[1:]) / len(seconds[1:])
    plan = Plan(
        manifest.task, manifest.task_options, manifest.algorithm, manifest.settings, manifest.seed, manifest.slots
    )
    algorithm = plan.learning(plan.spec()).algorithm
    chunks = num_chunks(algorithm.num_members * algorithm.episodes_per_member, manifest.slots)
    held = sum(ledger.core_seconds.values())
    cores = max(1, round(held / ledger.wall_s)) if ledger.wall_s and held else manifest.threads
    first = (
        f"Iterations 2 to {len(seconds):,} are measured; the first, {seconds[0]:.3g} s, compiles, and is left out, as "
        "are evaluations and checkpoints."
    )
    mirrored = isinstance(algorithm, MirroredSearch)
    makers = min(cores, noise.num_blocks(algorithm.num_params)) if mirrored else 1
    chunk_s, update_s, told = _chunk_and_update_seconds(rows, iteration_s, cores, chunks, makers)
    steps = _mean(rows, "steps")
    if not (chunk_s > 0 and update_s >= 0 and steps > 0):
        raise UsageError(
            f"Expected steps and seconds above 0 in {folder.metrics} to project from, got {steps:g} steps an iteration "
            f"and {chunk_s:g} s a chunk: the file is damaged. Restore it from a copy."
        )
    variation, note = _length_variation(folder)
    measured = Measurements(
        env_steps_per_iteration=steps,
        num_members=algorithm.num_members,
        slots=manifest.slots,
        num_params=algorithm.num_params,
        observation_size=algorithm.spec.observation.size,
        iteration_seconds=iteration_s,
        cores=cores,
        chunk_seconds=(chunk_s,),
        update_seconds=update_s,
        episode_length_variation=variation,
        iterations=len(seconds),
        episodes_per_member=algorithm.episodes_per_member,
        exchange=choose(exchange or "auto", ExchangeCost.of(algorithm)),
        block_size=noise.BLOCK_SIZE if mirrored else None,
    )
    return measured, (first, *told, note)


def _chunk_and_update_seconds(
    rows: pl.DataFrame, iteration_s: float, cores: int, chunks: int, makers: int
) -> tuple[float, float, tuple[str, ...]]:
    """What a chunk takes on one core, what an update takes one process, and sentences about them.

    Args:
        rows: the run's metrics.
        iteration_s: seconds of an iteration.
        cores: cores the run had.
        chunks: chunks of an iteration.
        makers: threads among which a run on one machine shares its update.
    """
    workers = _mean(rows, "workers")
    if workers:
        alone = rows["workers"].null_count()
        cores_per_worker = max(1, cores // max(1, round(workers)))
        chunk_s = _mean(rows, "workers_busy_s") / chunks * cores_per_worker
        mixed = f"{alone:,} of {len(rows):,} iterations ran without the cluster; the measurements mix both."
        return chunk_s, _mean(rows, "workers_updating_s") / workers, (mixed,) if alone else ()
    update_s = _mean(rows, "update_s")
    told = [
        "A chunk takes its share of what the run's cores were held for, their idle moments included: what one thread "
        "did alone is projected as if many could share it."
    ]
    if not update_s:
        told.append(
            "The time of the update was not recorded apart and counts as the chunks': with many parameters, and many "
            "cores, the projection is too good."
        )
    return max(iteration_s - update_s, 0.0) * cores / chunks, update_s * makers, tuple(told)


def _iteration_seconds(folder: RunFolder, rows: pl.DataFrame) -> list[float]:
    """Seconds of each iteration, from the clock in the metrics."""
    at = rows["wall_s"].to_list() if "wall_s" in rows.columns else []
    if len(at) < 2:
        raise UsageError(
            f"Expected at least 2 iterations in {folder.metrics} to project from, found {len(at)}: the first says "
            "nothing, because it compiles. Train for longer."
        )
    seconds = [after - before for before, after in zip([0.0, *at], at, strict=False)] if None not in at else [math.nan]
    if not all(second > 0 for second in seconds):
        raise UsageError(
            f"Expected a clock that goes on in every row of `wall_s` in {folder.metrics}, found another: the file is "
            "damaged. Restore it from a copy."
        )
    return seconds


def _mean(rows: pl.DataFrame, name: str) -> float:
    """Mean of a metric over the iterations but the first; 0 where it was not recorded."""
    values = rows[name][1:].drop_nulls().to_list() if name in rows.columns else []
    return sum(values) / len(values) if values else 0.0


def _length_variation(folder: RunFolder) -> tuple[float, str]:
    """Standard deviation of the episodes' lengths over their mean, from the evaluations, and a sentence about it."""
    lengths = [length for file in sorted(folder.evaluations.glob("*.json")) for length in _lengths(file)]
    mean = sum(lengths) / len(lengths) if lengths else 0.0
    if not mean:
        return 0.0, "All episodes are taken to be equally long, because no evaluation was recorded."
    deviation = math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths))
    return deviation / mean, (
        f"Lengths of episodes vary as in the run's {len(lengths):,} evaluated ones, by {100 * deviation / mean:.0f} % "
        "of their mean; those of training may vary more."
    )


def _lengths(file: Path) -> list[float]:
    """Lengths of an evaluation's episodes."""
    try:
        return [float(length) for length in json.loads(file.read_bytes())["lengths"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"Expected an evaluation with its episodes' `lengths` in {file}, but it cannot be read ({error}): the "
            "file is damaged. Move it away."
        ) from error


def _shares(folder: RunFolder, ledger: Ledger) -> dict[str, float]:
    """Each kind's share of the run's core-time."""
    total = sum(ledger.core_seconds.values())
    if not total:
        return dict.fromkeys(Ledger().charge(folder.manifest().hardware.cpu, 1, 0).core_seconds, 1.0)
    return {kind: seconds / total for kind, seconds in ledger.core_seconds.items()}


def _cores(count: int) -> str:
    return f"{count:,} core{'' if count == 1 else 's'}"
