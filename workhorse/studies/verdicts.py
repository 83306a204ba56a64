"""Who is better: the one place where that word may come from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from workhorse.statistics.comparison import Comparison, welch_test
from workhorse.statistics.power import more_runs_needed
from workhorse.studies.cells import CellSummary
from workhorse.studies.results import LEAST_RUNS, StudyResults

__all__ = ["Verdict", "compare_cells", "verdicts"]


class Verdict(NamedTuple):
    """The comparison of two cells, and the only place where the word "better" may come from.

    Attributes:
        task, ours, theirs: which.
        comparison: Welch's test; None where a side has too few runs.
        p_adjusted: the p value after Holm's correction over all comparisons made together; NaN without a test.
        better: the name of the better one, None where the test does not say so.
        more_runs: how many more seeds a side a difference of this size would need; None where it cannot be said.
        sentence: what may be printed.
    """

    task: str
    ours: str
    theirs: str
    comparison: Comparison | None
    p_adjusted: float
    better: str | None
    more_runs: int | None
    sentence: str


def verdicts(results: StudyResults, cells: Sequence[CellSummary], significance: float = 0.05) -> tuple[Verdict, ...]:
    """Every pair of variants on every task, p values corrected by Holm's rule over all of them."""
    pairs = [
        (ours, theirs)
        for task in results.tasks
        for ours, theirs in itertools.combinations([cell for cell in cells if cell.task == task], 2)
    ]
    return compare_cells(pairs, significance)


def compare_cells(pairs: Sequence[tuple[CellSummary, CellSummary]], significance: float = 0.05) -> tuple[Verdict, ...]:
    """Welch's test of the mean scores of each pair, corrected by Holm's rule over all the pairs given together.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    tests = [
        welch_test(ours.scores, theirs.scores) if min(len(ours.scores), len(theirs.scores)) >= LEAST_RUNS else None
        for ours, theirs in pairs
    ]
    raw = [math.nan if test is None else test.p_value for test in tests]
    adjusted = _holm(np.array(raw))
    return tuple(
        _verdict(ours, theirs, test, float(p), significance)
        for (ours, theirs), test, p in zip(pairs, tests, adjusted, strict=True)
    )


def _verdict(ours: CellSummary, theirs: CellSummary, test: Comparison | None, p: float, significance: float) -> Verdict:
    names = f"{ours.variant} and {theirs.variant} on {ours.task}"
    if test is None:
        few = min(len(ours.scores), len(theirs.scores))
        sentence = f"{names}: too few runs to compare ({few}); at least {LEAST_RUNS} seeds a side are needed."
        return Verdict(ours.task, ours.variant, theirs.variant, None, math.nan, None, None, sentence)
    difference = test.difference
    apart = f"{difference.value:+.4g} [{difference.low:.4g}, {difference.high:.4g}], p = {_p_text(p)}"
    if p < significance:
        better, worse = (ours.variant, theirs.variant) if difference.value > 0 else (theirs.variant, ours.variant)
        sentence = f"{better} is better than {worse} on {ours.task}: {apart} (Welch, Holm over all pairs)."
        return Verdict(ours.task, ours.variant, theirs.variant, test, p, better, 0, sentence)
    more = more_runs_needed(ours.scores, theirs.scores) if difference.value else None
    needs = (
        "no number of seeds within reach would show a difference this small"
        if more is None
        else f"a difference of this size would need about {max(more, 1)} more seeds a side"
    )
    sentence = f"{names} are not shown to differ: {apart}; {needs}."
    return Verdict(ours.task, ours.variant, theirs.variant, test, p, None, more, sentence)


def _holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment; NaN stays NaN and is not counted."""
    adjusted = np.full(len(p_values), np.nan)
    order = [place for place in np.argsort(p_values, kind="stable") if not math.isnan(p_values[place])]
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * float(p_values[place])))
        adjusted[place] = highest
    return adjusted


def _p_text(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0")
