"""Measure the effect of settings: the swing of each option, the sensitivity, and the overestimate of a search."""

import math
from typing import NamedTuple

import numpy as np

from workhorse.statistics import sensitivity
from workhorse.statistics.comparison import welch_test
from workhorse.statistics.intervals import Interval, cut
from workhorse.studies.cells import cell_scores
from workhorse.studies.results import SearchResult, StudyResults

__all__ = ["Effect", "SearchGap", "search_gap", "search_sentences", "tornado", "tuning_value"]


class SearchGap(NamedTuple):
    """Overestimate of a search (the winner's curse): its best score on tuning seeds less the score on fresh seeds.

    Attributes:
        promised: the winner's mean over the tuning seeds.
        delivered: its mean over the reporting seeds that finished; NaN where none did.
        gap: promised - delivered with Welch's interval; None where a side has fewer than 2 runs, or a run failed.
        failed: reporting seeds that crashed or diverged.
        fresh: reporting seeds that have ended.
    """

    promised: float
    delivered: float
    gap: Interval | None
    failed: int
    fresh: int


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
    promised = np.array([score for score in search.trials[search.winner].scores if score is not None])
    delivered = np.array([run.score for run in fresh if run.score is not None])
    failed, gap = len(fresh) - delivered.size, None
    if min(promised.size, delivered.size) >= 2 and not failed:
        low, high = results.bounds(search.task)
        gap = cut(welch_test(promised, delivered).difference, (low - high, high - low))
    value = float(delivered.mean()) if delivered.size else math.nan
    return SearchGap(float(promised.mean()), value, gap, failed, len(fresh))


def search_sentences(results: StudyResults) -> tuple[str, ...]:
    """Return how each search ended: without a winner, with one that failed on fresh seeds, or with a score to check."""
    found = []
    for number, search in enumerate(results.searches):
        gap, head = search_gap(results, number), f"Search of {search.algorithm} on {search.task}: "
        if search.is_lost:
            count = len(search.trials)
            found.append(
                f"{head}no setting survived: each of the {count} tried crashed or diverged on a tuning seed. There is "
                "no winner."
            )
        elif gap is not None:
            found.append(head + _gap_words(search, gap))
    return tuple(found)


def _gap_words(search: SearchResult, gap: SearchGap) -> str:
    assert search.winner is not None
    tuned = f"{gap.promised:.4g} on the tuning seeds"
    if not search.trials[search.winner].survived:  # chosen by a version that counted a crash as a score
        tuned = f"{gap.promised:.4g} on the tuning seeds, of which some crashed or diverged"
    if gap.failed:
        rest = "" if gap.failed == gap.fresh else f"; the others returned {gap.delivered:.4g} on average"
        return (
            f"the winner, trial {search.winner}, failed: {gap.failed} of {gap.fresh} fresh seeds crashed or diverged"
            f"{rest} ({tuned})."
        )
    over = gap.promised - gap.delivered
    apart = f" [{gap.gap.low:.4g}, {gap.gap.high:.4g}]" if gap.gap else ""
    how = f"overstates it by {over:.4g}{apart}" if over > 0 else f"did not overstate it (by {over:.4g}{apart})"
    return f"{tuned}, {gap.delivered:.4g} on fresh seeds: the choice of the best {how}."


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
