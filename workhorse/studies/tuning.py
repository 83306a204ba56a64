"""Measure the effect of settings: the swing of each option, the sensitivity, and the overestimate of a search."""

from typing import NamedTuple

import numpy as np

from workhorse.statistics import sensitivity
from workhorse.statistics.comparison import welch_test
from workhorse.statistics.intervals import Interval
from workhorse.studies.cells import cell_scores
from workhorse.studies.results import SearchResult, StudyResults

__all__ = ["Effect", "SearchGap", "search_gap", "searched", "tornado", "tuning_value"]


class SearchGap(NamedTuple):
    """Overestimate of a search (the winner's curse): its best score on tuning seeds less the score on fresh seeds.

    Attributes:
        promised: the winner's mean over the tuning seeds.
        delivered: its mean over the reporting seeds.
        gap: promised - delivered with Welch's interval; None where a side has fewer than 2 runs.
    """

    promised: float
    delivered: float
    gap: Interval | None


class Effect(NamedTuple):
    """Effect of one option on the mean score, the others as in the best setting: a bar of a tornado plot.

    Attributes:
        option: its name.
        values: tried, ascending where they can be ordered.
        means: mean score at each.
        swing: greatest less least mean.
    """

    option: str
    values: tuple[object, ...]
    means: np.ndarray
    swing: float


def search_gap(results: StudyResults, search_number: int) -> SearchGap | None:
    """Compare the winner of a search on tuning and on fresh seeds; None until its runs have ended."""
    search = results.searches[search_number]
    fresh = results.cell(search.task, search.variant)
    if search.winner is None or not fresh:
        return None
    promised = np.array(search.trials[search.winner].scores)
    delivered = cell_scores(results, fresh)
    gap = None
    if min(promised.size, delivered.size) >= 2:
        gap = welch_test(promised, delivered).difference
    return SearchGap(float(promised.mean()), float(delivered.mean()), gap)


def searched(results: StudyResults) -> list[tuple[SearchResult, SearchGap]]:
    """Return the searches whose winners have run on fresh seeds, each with its gap."""
    found = [(search, search_gap(results, number)) for number, search in enumerate(results.searches)]
    return [(search, gap) for search, gap in found if gap is not None]


def tornado(results: StudyResults, task: str) -> tuple[Effect, ...]:
    """Return the effect of each option of the grid, the others as in the best setting, largest first."""
    means = _grid_means(results, task)
    if means is None or np.isnan(means).all():
        return ()
    best = np.unravel_index(np.nanargmax(means), means.shape)
    effects = []
    for axis, (option, values) in enumerate(results.grid.items()):
        line = means[tuple(slice(None) if other == axis else place for other, place in enumerate(best))]
        if np.isfinite(line).any():
            effects.append(Effect(option, values, line, float(np.nanmax(line) - np.nanmin(line))))
    return tuple(sorted(effects, key=lambda effect: -effect.swing))


def tuning_value(results: StudyResults) -> sensitivity.Sensitivity | str:
    """Return Adkins et al.'s sensitivity and effective dimension of the grid, or why there is none."""
    if not results.grid:
        return "the study has no grid of settings"
    tables = [_grid_means(results, task) for task in results.tasks]
    if any(table is None for table in tables):
        return "the grid is of several algorithms: sensitivity is of one"
    try:
        return sensitivity.sensitivity(
            sensitivity.normalise(np.stack([table for table in tables if table is not None]))
        )
    except ValueError as error:
        return str(error)


def _grid_means(results: StudyResults, task: str) -> np.ndarray | None:
    """Return the mean score at every grid point, NaN where a run diverged or none ended; None if algorithms differ."""
    if not results.grid or len({run.algorithm for run in results.runs}) > 1:
        return None
    table = np.full([len(values) for values in results.grid.values()], np.nan)
    for place in np.ndindex(*table.shape):
        setting = {name: values[at] for (name, values), at in zip(results.grid.items(), place, strict=True)}
        runs = [run for run in results.runs if run.task == task and run.ended and dict(run.settings) == setting]
        if runs and not any(run.outcome == "diverged" for run in runs):
            table[place] = cell_scores(results, runs).mean()
    return table
