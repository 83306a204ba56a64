"""Choose which cell of a study gets the next seeds, and when there are enough.

A cell is an algorithm on a task. Seeds are spent where they narrow an interval most for their price, until every
interval is as narrow as was asked for or the budget is gone. Whether to go on is decided by the *width* of intervals
and never by their position, so that an estimate is not biased towards a hoped-for result.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from workhorse.statistics.intervals import LEAST_RUNS, Interval, mean_interval, proportion_interval, score_interval

__all__ = ["SeedBatch", "Cell", "interval_of", "next_batch", "predicted_width"]

Estimand = Literal["mean", "proportion"]


class Cell(NamedTuple):
    """Outcomes of an algorithm on a task.

    Attributes:
        outcomes: a number for every run: its score, or 1 and 0 for a proportion such as the failure rate.
        cost: of one run, in the budget's unit, above 0.
    """

    outcomes: ArrayLike
    cost: float


class SeedBatch(NamedTuple):
    """Next runs of a study.

    Attributes:
        cell: of these runs; None to stop.
        runs: number of runs.
        why: a sentence for the user.
    """

    cell: str | None
    runs: int
    why: str


def interval_of(outcomes: ArrayLike, estimand: Estimand, confidence: float = 0.95, first: int = 0) -> Interval:
    """Return the interval of a mean score, or Clopper and Pearson's of a proportion.

    Args:
        outcomes: one number a run, in the order in which they were made.
        estimand: of which.
        confidence: coverage aimed at.
        first: of a mean, the runs that were made whatever they returned; see `score_interval`.

    Raises:
        ValueError: outcomes of a proportion that are neither 0 nor 1, or of a mean that are NaN.

    Example:
        >>> found = interval_of([0, 0, 1, 0, 0, 1, 0, 1, 0, 0], "proportion")
        >>> round(found.high - found.low, 3)
        0.586
    """
    values = np.asarray(outcomes, np.float64).ravel()
    if estimand == "mean":
        return (
            score_interval(values, confidence, first)
            if values.size >= LEAST_RUNS
            else mean_interval(values, confidence)
        )
    if not np.isin(values, (0.0, 1.0)).all():
        raise ValueError("The outcomes of a proportion must be 0 or 1.")
    return proportion_interval(int(values.sum()), values.size, confidence)


def predicted_width(
    outcomes: ArrayLike, more: int, estimand: Estimand, confidence: float = 0.95, first: int = 0
) -> float:
    """Predict the width of a cell's interval after `more` runs like the present ones.

    For a mean, the present width times sqrt(n / (n + more)); for a proportion, the exact interval of the same share.

    Example:
        >>> round(predicted_width([0] * 10, 20, "proportion"), 3)
        0.116
    """
    values = np.asarray(outcomes, np.float64).ravel()
    count = values.size + more
    if estimand == "proportion":
        found = proportion_interval(round(float(values.mean()) * count), count, confidence)
        return found.high - found.low
    found = interval_of(values, estimand, confidence, first)
    return (found.high - found.low) * (values.size / count) ** 0.5


def next_batch(
    cells: Mapping[str, Cell],
    *,
    width: float,
    budget: float,
    estimand: Estimand = "mean",
    batch: int = 5,
    least: int = 5,
    confidence: float = 0.95,
) -> SeedBatch:
    """Choose the next seeds of a study.

    Cells with fewer than `least` runs come first, because a standard deviation of two or three runs may be small by
    chance, and its interval would end the study too early. After that comes the cell whose interval narrows most for
    the price of a batch, where narrowing beyond `width` counts nothing.

    Args:
        cells: the cells by name.
        width: how narrow every interval must be, above 0.
        budget: what may still be spent.
        estimand: kind of the intervals.
        batch: runs of a batch.
        least: runs that every cell gets.
        confidence: of the intervals.

    Returns:
        The next runs; with cell None when the study is over, and why.

    Raises:
        ValueError: no cells, or numbers out of range.

    Example:
        >>> cells = {"steady": Cell([1.0, 1.1, 0.9, 1.0, 1.0], 1.0), "shaky": Cell([0.0, 9.0, 1.0, 8.0, 2.0], 1.0)}
        >>> next_batch(cells, width=1.0, budget=100.0).cell
        'shaky'
    """
    _check(cells, width, batch, least)
    counts = {name: np.asarray(cell.outcomes).size for name, cell in cells.items()}
    if counts[few := min(cells, key=lambda name: counts[name])] < least:
        why = f"{few} has {counts[few]} of the {least} runs every cell needs"
        runs = min(least - counts[few], int(budget / cells[few].cost))
        return SeedBatch(few, runs, why) if runs > 0 else SeedBatch(None, 0, f"the budget is spent; {why}")
    intervals = {name: interval_of(cell.outcomes, estimand, confidence, least) for name, cell in cells.items()}
    widths = {name: found.high - found.low for name, found in intervals.items()}
    if not (wide := [name for name in cells if widths[name] > width]):
        return SeedBatch(None, 0, f"every interval is at most {width:g} wide")
    affordable = {name: runs for name in wide if (runs := min(batch, int(budget / cells[name].cost))) > 0}
    if not affordable:
        widest = max(wide, key=lambda name: widths[name])
        return SeedBatch(None, 0, f"the budget is spent; the interval of {widest} is still {widths[widest]:.3g} wide")

    def worth(name: str) -> float:
        after = predicted_width(cells[name].outcomes, affordable[name], estimand, confidence, least)
        return (widths[name] - max(after, width)) / (affordable[name] * cells[name].cost)

    chosen = max(affordable, key=worth)
    return SeedBatch(
        chosen, affordable[chosen], f"the interval of {chosen} is {widths[chosen]:.3g} wide, not {width:g}"
    )


def _check(cells: Mapping[str, Cell], width: float, batch: int, least: int) -> None:
    if not cells:
        raise ValueError("A study needs at least one cell, got none.")
    if width <= 0 or batch < 1 or least < 2:
        raise ValueError(
            f"Expected width > 0, batch >= 1 and least >= 2, got width {width}, batch {batch} and least {least}."
        )
    for name, cell in cells.items():
        if cell.cost <= 0:
            raise ValueError(f"A run must cost more than 0, but one of {name} costs {cell.cost}.")
