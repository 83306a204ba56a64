"""Rows of a flat log, one a step, as episodes: where each ends, and what came after its last step.

A flat log holds observations, actions, rewards and flags in columns of one length. Some hold the observation after each
step as well. Where they do not, the successor of a step is the observation of the next row, *which belongs to another
episode where this one ended*.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.data.log_pieces import LogPiece

__all__ = ["FlatRows", "as_flags", "check_lengths", "pieces_of"]


class FlatRows(NamedTuple):
    """Columns of N rows; see `Dataset`.

    Attributes:
        next_obs: the observation after each step, (N, ...); None where the log does not hold it.
        starts: True for a row that begins an episode whatever the flags before it say, (N,).
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    next_obs: np.ndarray | None
    log_prob: np.ndarray | None
    starts: np.ndarray


class _Tally:
    """Counts for the notes of a card."""

    after_clock = at_cut = stood_in = unmarked = 0

    def sentences(self) -> list[str]:
        counted = (
            (
                self.after_clock,
                "The last step of {} truncated episodes is left out: the log does not hold the observation after it.",
            ),
            (
                self.at_cut,
                "The last step of {} episodes that break off is left out: the log does not hold the observation "
                "after it.",
            ),
            (
                self.stood_in,
                "The observation after {} terminations is not in the log: the one before stands in for it, and no "
                "value is taken of it.",
            ),
            (
                self.unmarked,
                "{} episodes break off without a mark: the observation after a step is not the next row's.",
            ),
        )
        return [sentence.format(f"{count:,}") for count, sentence in counted if count]


def pieces_of(chunks: Iterable[FlatRows], notes: list[str]) -> Iterator[LogPiece]:
    """Split the rows of a flat log, which come in chunks of any size, into the steps of episodes.

    An episode ends where a row is terminated or truncated, where the next one starts an episode, where `next_obs` is
    not the next row's observation, and at the end of the file. Without `next_obs`, *the last step of an episode that
    was not terminated has no successor, and is left out*: the step before it becomes the last, and is truncated if that
    one was. A terminated step stays, and its own observation stands in for the one after it.

    Args:
        chunks: of the rows.
        notes: gets sentences about what was left out, after the last piece.
    """
    tally, held, begins_first = _Tally(), None, True
    for chunk in chunks:
        rows = chunk if held is None else _joined(held, chunk)
        settled = len(rows.reward) - 2  # the last row needs the next one, and the one before may become the last
        if settled <= 0:
            held = rows
            continue
        piece, begins_first = _settled(rows, begins_first, settled, False, tally)
        held = _part(rows, settled)
        yield piece
    if held is not None and len(held.reward):
        yield _settled(held, begins_first, len(held.reward), True, tally)[0]
    notes.extend(tally.sentences())


def _settled(rows: FlatRows, begins_first: bool, count: int, is_end: bool, tally: _Tally) -> tuple[LogPiece, bool]:
    """Return the first rows as a piece, and whether the row after them begins an episode.

    Args:
        rows: at least two more than `count`, unless `is_end`.
        begins_first: whether the first of them begins an episode.
        count: of the rows whose fate is settled.
        is_end: whether the last row is that of the file.
        tally: counts what is done.
    """
    flagged = rows.terminated | rows.truncated
    cut = np.append(rows.starts[1:], is_end)
    if rows.next_obs is not None:
        broken = np.append(_differs(rows.next_obs[:-1], rows.obs[1:]), False)
        tally.unmarked += int((broken & ~flagged & ~cut)[:count].sum())
        cut |= broken
    ends = flagged | cut
    begins = np.append(begins_first, ends[:-1])
    truncated, kept, last, final = rows.truncated, np.ones(len(ends), bool), ends, rows.next_obs
    if final is None:
        kept = ~ends | rows.terminated
        becomes_last = np.append(~kept[1:], False) & ~ends
        truncated = truncated | (becomes_last & np.append(truncated[1:], False))
        last = (ends & kept) | becomes_last
        after = np.append(np.arange(1, len(ends)), 0)
        final = rows.obs[np.where(becomes_last, after, np.arange(len(ends)))]
        tally.after_clock += int((~kept & rows.truncated)[:count].sum())
        tally.at_cut += int((~kept & ~rows.truncated)[:count].sum())
        tally.stood_in += int((ends & kept)[:count].sum())
    chosen = np.flatnonzero(kept[:count])
    log_prob = None if rows.log_prob is None else rows.log_prob[chosen]
    piece = LogPiece(
        rows.obs[chosen], rows.action[chosen], rows.reward[chosen], rows.terminated[chosen], truncated[chosen],
        log_prob, begins[chosen], final[:count][(last & kept)[:count]],
    )  # fmt: skip
    return piece, bool(ends[count - 1])


def _differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return True for rows that differ in any component; a NaN equals a NaN."""
    same = (one == other) | ((one != one) & (other != other))
    return ~same.all(axis=tuple(range(1, same.ndim)))


def _joined(first: FlatRows, second: FlatRows) -> FlatRows:
    columns = zip(first, second, strict=True)
    return FlatRows(*(None if one is None else np.concatenate([one, other]) for one, other in columns))  # type: ignore[arg-type, list-item]


def _part(rows: FlatRows, begin: int) -> FlatRows:
    return FlatRows(*(None if column is None else column[begin:] for column in rows))  # type: ignore[arg-type]


def as_flags(values: np.ndarray, name: str, where: str, first: int = 0) -> np.ndarray:
    """Return a column of flags as bool.

    Args:
        values: booleans, or numbers that are 0 or 1, (N,).
        name: of the column, for the message.
        where: the file.
        first: number of the first row.

    Raises:
        UsageError: one is neither.
    """
    if values.dtype.kind == "b":
        return values
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if len(wrong):
        raise UsageError(
            f"Expected 0 or 1 in the column `{name}` of {where}, got {values[wrong[0]]} in row {first + wrong[0]:,}: "
            "write flags as 0 and 1."
        )
    return values != 0


def check_lengths(lengths: dict[str, int], where: str) -> None:
    """Raise a `UsageError` where columns of one log differ in length."""
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {count:,}" for name, count in lengths.items())
        raise UsageError(
            f"Expected columns of one length in {where}, got {listed}: the file was cut off or its columns were "
            "written by different programs; write it again."
        )
