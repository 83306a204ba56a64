"""Measurements of a run's own iterations that a projection to other cores needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workhorse.core.algorithm import Population, Rebuildable
from workhorse.core.errors import UsageError
from workhorse.core.files import list_folder
from workhorse.core.records import AtLeastZero, read_value
from workhorse.runs.cost import Ledger
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import owner_of
from workhorse.runs.sealed import read_record

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Measured", "algorithm_of", "measure"]


@dataclass(frozen=True)
class Measured:
    """Means over a run's iterations without the first, which compiles.

    Attributes:
        iteration_s: seconds of an iteration.
        iterations: iterations of the whole run.
        cores: cores the run held.
        num_chunks: chunks of episodes in an iteration.
        slots: episodes of a chunk.
        chunk_s: seconds of a chunk on one core.
        length_variation: standard deviation of the episodes' lengths over their mean.
        update_s: seconds of an update in one process that computes all of it.
        update_blocks: parts into which processes of a node can divide an update; 1 where it cannot be divided.
        notes: sentences on what the run's records do not say outright.
    """

    iteration_s: float
    iterations: int
    cores: int
    num_chunks: int
    slots: int
    chunk_s: float
    length_variation: float
    update_s: float
    update_blocks: int
    notes: tuple[str, ...] = ()


def algorithm_of(folder: RunFolder) -> Population:
    """Build the algorithm of a run again, which must be one that judges a population by whole episodes.

    Raises:
        UsageError: it learns from rollouts, which no cluster gathers.
    """
    from workhorse.runs.train import plan_of

    plan = plan_of(folder.manifest())
    algorithm = plan.make_algorithm(plan.spec())
    if not isinstance(algorithm, Population):
        raise UsageError(
            f"Expected a run of an evolution strategy to project to other cores, got {plan.algorithm} in "
            f"{folder.path}: it does not run on a cluster. Leave out --project."
        )
    return algorithm


def measure(folder: RunFolder, ledger: Ledger, algorithm: Population) -> Measured:
    """Read from the records of a run what a projection needs.

    A run on one machine records no time of single chunks: each is taken to have held its share of the run's cores. A
    run on a cluster records the seconds that its workers were busy.

    Raises:
        UsageError: fewer than two iterations were recorded, or the records are damaged.
    """
    from workhorse.runs.metrics import read_metrics
    from workhorse.training.episodes import num_chunks

    manifest, rows = folder.manifest(), read_metrics(folder)
    seconds = _iteration_seconds(folder, rows)
    iteration_s = sum(seconds[1:]) / len(seconds[1:])
    chunks = num_chunks(algorithm.num_members * algorithm.episodes_per_member, manifest.slots)
    held = sum(ledger.core_seconds.values())
    cores = max(1, round(held / ledger.wall_s)) if ledger.wall_s and held else manifest.threads
    blocks = algorithm.num_blocks if isinstance(algorithm, Rebuildable) else 1
    chunk_s, update_s, told = _chunk_and_update_seconds(rows, iteration_s, cores, chunks, blocks)
    if not (chunk_s > 0 and update_s >= 0):
        raise UsageError(
            f"Expected seconds above 0 in {folder.metrics} to project from, got {chunk_s:g} s a chunk: the file is "
            "damaged. Restore it from a copy."
        )
    variation, note = _length_variation(folder)
    first = (
        f"Iterations 2 to {len(seconds):,} are measured; the first, {seconds[0]:.3g} s, compiles, and is left out, as "
        "are evaluations and checkpoints."
    )
    return Measured(
        iteration_s=iteration_s,
        iterations=len(seconds),
        cores=cores,
        num_chunks=chunks,
        slots=manifest.slots,
        chunk_s=chunk_s,
        length_variation=variation,
        update_s=update_s,
        update_blocks=blocks,
        notes=(first, *told, note),
    )


def _chunk_and_update_seconds(
    rows: pl.DataFrame, iteration_s: float, cores: int, chunks: int, blocks: int
) -> tuple[float, float, tuple[str, ...]]:
    """Return seconds of a chunk on one core, seconds of an update in one process, and sentences about them."""
    workers = _mean(rows, "workers")
    if workers:
        alone = rows["workers"].null_count()
        cores_per_worker = max(1, cores // max(1, round(workers)))
        chunk_s = _mean(rows, "workers_busy_s") / chunks * cores_per_worker
        mixed = f"{alone:,} of {len(rows):,} iterations ran without the cluster; the measurements mix both."
        return chunk_s, _mean(rows, "workers_updating_s") / workers, (mixed,) if alone else ()
    update_s = _mean(rows, "update_s")
    told = [
        "A chunk takes its share of the time that the run held its cores, idle moments included: work that one thread "
        "did alone is projected as if many could share it."
    ]
    if not update_s:
        told.append(
            "The time of the update was not recorded and counts as time of the chunks: with many parameters, and many "
            "cores, the projection is too good."
        )
    # the run's threads shared the update, so one process alone would have taken as many times longer
    return max(iteration_s - update_s, 0.0) * cores / chunks, update_s * min(cores, blocks), tuple(told)


def _iteration_seconds(folder: RunFolder, rows: pl.DataFrame) -> list[float]:
    """Return the seconds of each iteration, from the clock in the metrics."""
    at = rows["wall_s"].to_list() if "wall_s" in rows.columns else []
    if len(at) < 2:
        raise UsageError(
            f"Expected at least 2 iterations in {folder.metrics} to project from, found {len(at)}: the first says "
            "nothing, because it compiles. Train for longer."
        )
    seconds = [after - before for before, after in zip([0.0, *at], at, strict=False)] if None not in at else [math.nan]
    if not all(second > 0 for second in seconds):
        raise UsageError(
            f"Expected a `wall_s` that grows from row to row in {folder.metrics}, got one that does not: the file is "
            "damaged. Restore it from a copy."
        )
    return seconds


def _mean(rows: pl.DataFrame, name: str) -> float:
    """Return the mean of a metric over all iterations but the first; 0 where it was not recorded."""
    values = rows[name][1:].drop_nulls().to_list() if name in rows.columns else []
    return sum(values) / len(values) if values else 0.0


def _length_variation(folder: RunFolder) -> tuple[float, str]:
    """Return the standard deviation of the evaluated episodes' lengths over their mean, and a sentence about it."""
    lengths = [length for file in list_folder(folder.evaluations, "*.json") for length in _lengths(file, folder)]
    mean = sum(lengths) / len(lengths) if lengths else 0.0
    if not mean:
        return 0.0, "All episodes are taken to be equally long, because no evaluation was recorded."
    deviation = math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths))
    return deviation / mean, (
        f"Lengths of episodes vary as in the run's {len(lengths):,} evaluated ones, by {100 * deviation / mean:.0f} % "
        "of their mean; those of training may vary more."
    )


def _lengths(file: Path, folder: RunFolder) -> list[float]:
    """Read the lengths of an evaluation's episodes."""
    remedy = "Move it away"
    record = read_record(
        file, folder.path, noun="an evaluation with its episodes' `lengths`", remedy=remedy, owner=owner_of(folder)
    )
    lengths = tuple[AtLeastZero, ...]
    return list(read_value(lengths, record.get("lengths"), "`lengths`", str(file), f"The file is damaged. {remedy}."))
