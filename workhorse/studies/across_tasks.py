"""Aggregate a variant's scores over all tasks of a study, where the tasks have a common scale."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from workhorse.statistics import aggregates
from workhorse.statistics.intervals import LEAST_RUNS, Interval
from workhorse.studies.cells import cell_scores, floor_return
from workhorse.studies.results import RunResult, StudyResults

__all__ = ["Aggregate", "aggregate_scores"]


class Aggregate(NamedTuple):
    """Aggregates of a variant's normalised scores over all tasks, (score - floor) / (threshold - floor).

    Attributes:
        variant: which.
        scores: (runs, tasks).
        iqm, median, mean, optimality_gap: with stratified bootstrap intervals.
    """

    variant: str
    scores: np.ndarray
    iqm: Interval
    median: Interval
    mean: Interval
    optimality_gap: Interval


def aggregate_scores(results: StudyResults, seed: int = 0, resamples: int = 10_000) -> tuple[Aggregate, ...] | str:
    """Every variant over all tasks, or the reason why the study has no such number."""
    if len(results.tasks) < 2:
        return "one task: its own scores say it all"
    missing = [task for task in results.tasks if results.thresholds.get(task) is None or task not in results.floors]
    if missing:
        return f"scores of different tasks cannot be put on one scale: {', '.join(missing)} has no success threshold"
    for task in results.tasks:
        threshold, floor = results.thresholds[task], floor_return(results, task)
        if threshold is not None and threshold <= floor:
            return f"the success threshold of {task}, {threshold:g}, is not above the floor, {floor:g}"
    found = []
    for variant in results.variants:
        cells = [results.cell(task, variant) for task in results.tasks]
        counts = sorted({len(cell) for cell in cells})
        if len(counts) > 1 or counts[0] < LEAST_RUNS:
            return f"{variant} has {' to '.join(map(str, counts))} runs a task: the same number, at least 3, is needed"
        columns = [_normalised(results, task, cell) for task, cell in zip(results.tasks, cells, strict=True)]
        found.append(_aggregate(variant, np.stack(columns, axis=1), seed, resamples))
    return tuple(found)


def _aggregate(variant: str, scores: np.ndarray, seed: int, resamples: int) -> Aggregate:
    def interval(statistic: aggregates.Statistic) -> Interval:
        return aggregates.aggregate_interval(scores, statistic, np.random.default_rng(seed), resamples=resamples)

    return Aggregate(
        variant,
        scores,
        interval(aggregates.iqm),
        interval(aggregates.median),
        interval(aggregates.mean),
        interval(aggregates.optimality_gap),
    )


def _normalised(results: StudyResults, task: str, cell: Sequence[RunResult]) -> np.ndarray:
    floor, threshold = floor_return(results, task), results.thresholds[task]
    assert threshold is not None
    return (cell_scores(results, cell) - floor) / (threshold - floor)
