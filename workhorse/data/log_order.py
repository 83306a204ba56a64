"""Find columns of a log that are shifted against each other, and rows that do not follow each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from workhorse.data.dataset import Dataset
from workhorse.data.log_findings import Said, rows_named, stop
from workhorse.data.log_fits import SHIFTS, LogFits, surprises, unexplained

__all__ = ["alignment", "contiguity"]

BETTER, BETTER_REWARD = 0.85, 0.35
"""Ratio of unexplained shares below which another alignment is the true one; neighbouring states earn nearly alike."""
UNRELATED = 0.98
"""Unexplained share of every component above which neighbouring rows are strangers."""
JUMP = 80.0
"""Error of a step, in units of the error that one in twenty exceeds, from which on rows are missing after it."""
LEAST_EXPLAINED = 0.6
"""Unexplained share of the reward above which nothing is said of its alignment."""


def alignment(fits: LogFits) -> Iterator[Said]:
    """Yield a fault where the actions, or the rewards, of neighbouring rows explain more than a row's own.

    Of actions: what the next observation is can be told from the observation and the action *of that step*. A policy
    without any noise hides it, for there the observation tells the action: then the log is judged by which observation
    tells it best.
    """
    acted = acted_shift(fits)
    if acted:
        where = "before" if acted < 0 else "after"
        yield stop(
            f"Actions are shifted by one row: what comes next is told by the action of the row {where} each, "
            f"{_factor(_left(fits, 0), _left(fits, acted))} times as well as by its own. Move the column of the "
            f"actions {'down' if acted < 0 else 'up'} by a row, within each episode."
        )
        return
    found = fits.reward_by_shift
    best = min(SHIFTS, key=found.__getitem__)
    if best and found[best] < BETTER_REWARD * found[0] and found[best] < LEAST_EXPLAINED and found[0] > 1e-3:
        yield stop(
            f"Rewards are shifted by one row: they are told by the observation and the action of the row "
            f"{'before' if best > 0 else 'after'} each, {_factor(found[0], found[best])} times as well as by those of "
            "their own. Move the column of the rewards by a row, within each episode."
        )


def acted_shift(fits: LogFits) -> int:
    """Return where the action that each step took is recorded: 0 in its own row, -1 in the one before, 1 after."""
    left = {shift: _left(fits, shift) for shift in SHIFTS}
    best = min(SHIFTS, key=left.__getitem__)
    if not best or left[best] >= BETTER * left[0]:
        return 0
    if best < 0:
        return best  # an action that is over tells nothing that the observation does not
    # the next action answers the next observation, and so it may tell much where nothing is shifted
    nothing = float(np.exp(np.log(np.maximum(fits.next_without_action, 1e-9)).mean()))
    return best if left[0] > 0.9 * nothing else 0


def _left(fits: LogFits, shift: int) -> float:
    """Return the geometric mean over components of the unexplained shares."""
    return float(np.exp(np.log(np.maximum(fits.next_by_shift[shift], 1e-9)).mean()))


def _factor(one: float, other: float) -> str:
    return f"{min(one / max(other, 1e-9), 999):.1f}"


def contiguity(fits: LogFits) -> Iterator[Said]:
    """Yield faults of the order of rows: shuffled ones, resets that are not marked, gaps."""
    told = unexplained([fits.obs()], fits.obs(1))
    varies = fits.obs().std(0) > 0
    if varies.any() and (told[varies] > UNRELATED).all():
        yield stop(
            "Observations of neighbouring rows have nothing to do with each other: the rows are not in the order of "
            "time. Sort them by episode and time."
        )
        return
    index, unlike = surprises(fits)
    dataset, rows = fits.dataset, index[unlike > JUMP]
    in_a_row = np.isin(rows - 1, rows) | np.isin(rows + 1, rows)  # of states that the regression does not know
    rows = rows[~in_a_row]
    rows = rows[~_at_an_end(dataset, rows + 1)]
    if not len(rows):
        return
    first = np.asarray(dataset.obs[dataset.begins], np.float64).reshape(dataset.num_episodes, -1)
    after = np.asarray(dataset.obs[rows + 1], np.float64).reshape(len(rows), -1)
    margin = 0.2 * np.ptp(first, axis=0) + 1e-6
    initial = ((after >= first.min(0) - margin) & (after <= first.max(0) + margin)).all(1)
    where = rows_named(rows)
    if initial.mean() > 0.5:
        yield stop(
            f"After {where} the observation jumps to what begins episodes: ends are missing there, and resets were "
            "taken for steps. Mark those rows as ends."
        )
    else:
        yield stop(
            f"After {where} the observation jumps as it does nowhere else: rows are missing there, or episodes were "
            "joined. Begin an episode after each gap."
        )


def _at_an_end(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """Return True for rows with a component that is the least or the most of the log: a stop was hit, as a wall."""
    least, most = np.inf, -np.inf
    for some in dataset.chunks():
        part = np.asarray(dataset.obs[some])
        least, most = np.minimum(least, part.min(0)), np.maximum(most, part.max(0))
    found = np.asarray(dataset.obs[rows])
    return ((found == least) | (found == most)).reshape(len(rows), dataset.observation.size).any(1)
