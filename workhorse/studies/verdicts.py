"""Decide which of two variants is better. Only this module may use that word."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from workhorse.statistics.comparison import Comparison
from workhorse.statistics.intervals import Interval, cut
from workhorse.statistics.permutation import (
    LEAST_COMPARED,
    monitored_test,
    permutation_test,
    runs_for_level,
    smallest_p,
)
from workhorse.statistics.power import more_runs_needed
from workhorse.studies.cells import CellSummary
from workhorse.studies.results import StudyResults
from workhorse.studies.rules import SEEDS_ADDED

__all__ = ["Verdict", "compare_cells", "unequal_steps", "verdicts"]


class Verdict(NamedTuple):
    """Comparison of two cells.

    Attributes:
        task: where.
        ours, theirs: the two variants; where one is shown to be better, it is `ours`.
        comparison: the difference ours - theirs, with its interval, and the test; None where a side has too few runs.
            So the difference is above 0 wherever one variant is shown to be better.
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


class _Pair(NamedTuple):
    """Two cells, and the sizes of the samples at which they are looked at; no sizes: once, at all runs."""

    ours: CellSummary
    theirs: CellSummary
    looks: tuple[int, ...]

    @property
    def few(self) -> int:
        """Number of runs of the side that has fewer."""
        return min(len(self.ours.scores), len(self.theirs.scores))

    def test(self, confidence: float = 0.95) -> tuple[Comparison, int]:
        """Return the comparison, and the number of runs a side at which it was made."""
        sides = self.ours.scores, self.theirs.scores
        if self.looks:
            return monitored_test(*sides, self.looks, confidence)
        return permutation_test(*sides, confidence), self.few


def verdicts(results: StudyResults, cells: Sequence[CellSummary], significance: float = 0.05) -> tuple[Verdict, ...]:
    """Compare every pair of variants on every task, with Holm's correction over all pairs."""
    pairs = [
        (ours, theirs)
        for task in results.tasks
        for ours, theirs in itertools.combinations([cell for cell in cells if cell.task == task], 2)
    ]
    return compare_cells(pairs, significance)


def compare_cells(pairs: Sequence[tuple[CellSummary, CellSummary]], significance: float = 0.05) -> tuple[Verdict, ...]:
    """Test each pair by permutation, with Holm's correction over all pairs.

    Equal variants are called different, in any pair, with a chance of at most `significance`, whatever the scores'
    distribution. Where `until` added seeds, the significance is shared over looks at growing samples, so that the rule
    that ended the study does not matter. Fewer than 5 seeds of a variant are not compared.

    The interval of a difference has the confidence of the level at which its pair was tested, so that it excludes 0
    exactly where the pair is shown to differ.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    all_pairs = [_Pair(ours, theirs, _looks(ours, theirs)) for ours, theirs in pairs]
    tested = [pair for pair in all_pairs if pair.few >= LEAST_COMPARED]
    adjusted, levels = _holm(np.array([pair.test()[0].p_value for pair in tested]), significance)
    found = {
        id(pair): _verdict(pair, float(p), float(level), significance)
        for pair, p, level in zip(tested, adjusted, levels, strict=True)
    }
    return tuple(found[id(pair)] if id(pair) in found else _too_few(pair) for pair in all_pairs)


def unequal_steps(cells: Sequence[CellSummary]) -> tuple[str, ...]:
    """Return a sentence for each task whose variants were trained for different numbers of steps, with the numbers."""
    found = []
    for task in dict.fromkeys(cell.task for cell in cells):
        steps = {cell.variant: taken for cell in cells if cell.task == task and (taken := _steps(cell)) is not None}
        if len(set(steps.values())) < 2:
            continue
        least, most = min(steps.values()), max(steps.values())
        each = ", ".join(f"{variant} {taken:,.0f}" for variant, taken in steps.items())
        found.append(
            f"The variants on {task} are compared after unequal training steps ({each}; up to {most / least - 1:.1%} "
            "more), because an iteration is always a whole one."
        )
    return tuple(found)


def _steps(cell: CellSummary) -> float | None:
    """Return the mean of the steps that a cell's runs took, those that crashed left out; None where all did."""
    taken = [run.env_steps for run in cell.runs if run.outcome != "crashed"]
    return float(np.mean(taken)) if taken else None


def _looks(ours: CellSummary, theirs: CellSummary) -> tuple[int, ...]:
    """Return the numbers of runs at which two cells are looked at; none where all seeds were fixed beforehand."""
    first = max(ours.first_seeds, theirs.first_seeds)
    few = min(len(ours.scores), len(theirs.scores))
    if not first or few < first:  # `until` adds seeds only once every cell has its first ones
        return ()
    return tuple(size for size in range(first, few + 1, SEEDS_ADDED) if size >= LEAST_COMPARED)


def _too_few(pair: _Pair) -> Verdict:
    ours, theirs = pair.ours, pair.theirs
    sentence = (
        f"{ours.variant} and {theirs.variant} on {ours.task}: too few runs to compare ({pair.few}); each needs at "
        f"least {LEAST_COMPARED} seeds."
    )
    return Verdict(ours.task, ours.variant, theirs.variant, None, math.nan, None, None, sentence)


def _verdict(pair: _Pair, p: float, level: float, significance: float) -> Verdict:
    test, runs = pair.test(1 - level)
    if p < significance and test.difference.value < 0:
        pair = pair._replace(ours=pair.theirs, theirs=pair.ours)
        test = test._replace(difference=_negated(test.difference))
    ours, theirs = pair.ours, pair.theirs
    low, high = ours.bounds
    test = test._replace(difference=cut(test.difference, (low - high, high - low)))
    difference, task, longer = test.difference, ours.task, _longer(ours, theirs)
    ends = f"[{difference.low:.4g}, {difference.high:.4g}]"
    apart = f"{difference.value:+.4g} {ends if math.isfinite(difference.high - difference.low) else ''}".rstrip()
    apart = f"{apart}, p {_p_text(p)}"
    looked = f"; {len(pair.looks)} looks, this one at {runs} seeds of each" if len(pair.looks) > 1 else ""
    if p < significance:
        sentence = (
            f"{ours.variant} is better than {theirs.variant} on {task}{longer}: {apart} (permutation test, Holm over "
            f"all pairs{looked})."
        )
        return Verdict(task, ours.variant, theirs.variant, test, p, ours.variant, 0, sentence)
    more, needs = _needs(pair, level, difference)
    sentence = (
        f"{ours.variant} and {theirs.variant} on {task} are not shown to differ{longer}: {apart}{looked}; {needs}."
    )
    return Verdict(task, ours.variant, theirs.variant, test, p, None, more, sentence)


def _needs(pair: _Pair, level: float, difference: Interval) -> tuple[int | None, str]:
    """Return how many more seeds would show the difference, and the words for it."""
    least = runs_for_level(level) - pair.few
    if smallest_p(len(pair.ours.scores), len(pair.theirs.scores)) >= level and least > 0:
        return least, (
            f"so many pairs share one error that {pair.few} seeds of each can show no difference, however large: at "
            f"least {least} more of each are needed"
        )
    more = more_runs_needed(pair.ours.scores, pair.theirs.scores, significance=level) if difference.value else None
    if more is None:
        return None, "no feasible number of seeds would show a difference this small"
    return more, f"showing a difference of this size needs about {max(more, 1)} more seeds of each"


def _longer(ours: CellSummary, theirs: CellSummary) -> str:
    """Return, in words, that one of two variants was trained for longer, where it is by more than one in a hundred."""
    own, others = _steps(ours), _steps(theirs)
    if own is None or others is None or max(own, others) <= 1.01 * min(own, others):
        return ""
    return f" after {own:,.0f} and {others:,.0f} training steps"


def _negated(interval: Interval) -> Interval:
    return interval._replace(value=-interval.value, low=-interval.high, high=-interval.low)


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
