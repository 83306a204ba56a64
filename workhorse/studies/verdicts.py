"""Decide which of two variants is better. Only this module may use that word."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from workhorse.statistics.comparison import Comparison, welch_test
from workhorse.statistics.intervals import LEAST_RUNS
from workhorse.statistics.power import more_runs_needed
from workhorse.studies.cells import CellSummary
from workhorse.studies.results import StudyResults

__all__ = ["Verdict", "compare_cells", "verdicts"]


class Verdict(NamedTuple):
    """Comparison of two cells.

    Attributes:
        task, ours, theirs: the task, and the two variants.
        comparison: Welch's test; None where a side has too few runs.
        p_adjusted: the p value after Holm's correction over all comparisons made together; NaN without a test.
        better: the better variant; None where the test shows no difference.
        more_runs: further seeds of each variant that would show a difference of this size; None where it is unknown.
        sentence: for the user.
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
    """Compare every pair of variants on every task, with Holm's correction over all pairs."""
    pairs = [
        (ours, theirs)
        for task in results.tasks
        for ours, theirs in itertools.combinations([cell for cell in cells if cell.task == task], 2)
    ]
    return compare_cells(pairs, significance)


def compare_cells(pairs: Sequence[tuple[CellSummary, CellSummary]], significance: float = 0.05) -> tuple[Verdict, ...]:
    """Test the mean scores of each pair by Welch's t, with Holm's correction over all pairs.

    The interval of a difference has the confidence of the level at which its pair was tested, so that it excludes 0
    exactly where the pair is shown to differ.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    raw = [
        welch_test(ours.scores, theirs.scores).p_value
        if min(len(ours.scores), len(theirs.scores)) >= LEAST_RUNS
        else math.nan
        for ours, theirs in pairs
    ]
    adjusted, levels = _holm(np.array(raw), significance)
    return tuple(
        _verdict(ours, theirs, float(p), float(level), significance)
        for (ours, theirs), p, level in zip(pairs, adjusted, levels, strict=True)
    )


def _verdict(ours: CellSummary, theirs: CellSummary, p: float, level: float, significance: float) -> Verdict:
    names = f"{ours.variant} and {theirs.variant} on {ours.task}"
    if math.isnan(p):
        few = min(len(ours.scores), len(theirs.scores))
        sentence = f"{names}: too few runs to compare ({few}); each needs at least {LEAST_RUNS} seeds."
        return Verdict(ours.task, ours.variant, theirs.variant, None, math.nan, None, None, sentence)
    test = welch_test(ours.scores, theirs.scores, 1 - level)
    difference = test.difference
    apart = f"{difference.value:+.4g} [{difference.low:.4g}, {difference.high:.4g}], p {_p_text(p)}"
    if p < significance:
        better, worse = (ours.variant, theirs.variant) if difference.value > 0 else (theirs.variant, ours.variant)
        sentence = f"{better} is better than {worse} on {ours.task}: {apart} (Welch, Holm over all pairs)."
        return Verdict(ours.task, ours.variant, theirs.variant, test, p, better, 0, sentence)
    more = more_runs_needed(ours.scores, theirs.scores, significance=level) if difference.value else None
    needs = (
        "no feasible number of seeds would show a difference this small"
        if more is None
        else f"showing a difference of this size needs about {max(more, 1)} more seeds of each"
    )
    sentence = f"{names} are not shown to differ: {apart}; {needs}."
    return Verdict(ours.task, ours.variant, theirs.variant, test, p, None, more, sentence)


def _holm(p_values: np.ndarray, significance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return Holm's adjusted p values, and the level of each; NaN stays NaN and is not counted.

    The smallest of m p values is compared with significance / m, the next with significance / (m - 1), and so on up to
    the first that is not below its level; that level then holds for all the rest.
    """
    adjusted, levels = np.full((2, len(p_values)), np.nan)
    order = [place for place in np.argsort(p_values, kind="stable") if not math.isnan(p_values[place])]
    highest, passed = 0.0, 0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * float(p_values[place])))
        adjusted[place], levels[place] = highest, significance / (len(order) - passed)
        passed += highest < significance
    return adjusted, levels


def _p_text(p: float) -> str:
    if p < 0.001:
        return "< .001"
    digits = 3 if abs(p - 0.05) > 0.002 else 5  # so that .0501 is not read as .05
    return f"= {p:.{digits}f}".replace("= 0.", "= .")
