"""A log in another format: described before it is read, then read a piece at a time, into memory or our own folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.files import (
    create_file,
    is_there,
    make_folder,
    remove_folder,
    replace_folder,
    temporary_name,
    write_file,
    writing,
)
from workhorse.core.machine import describe_hardware
from workhorse.core.records import build, parse, parse_json, seal
from workhorse.core.spec import ActionSpace, Box, Discrete, MultiBinary, MultiDiscrete
from workhorse.data.dataset import CHUNK, Card, Dataset, space_from_record, space_record
from workhorse.data.log_folder import CARD, FORMAT, read_log_folder

__all__ = [
    "LogPiece",
    "LogSource",
    "card_from_text",
    "card_text",
    "check_size",
    "rows_at_once",
    "shape_of",
    "slices",
    "unread_card",
    "write_pieces",
]

MEMORY_SHARE = 0.25
"""Share of the machine's memory up to which a log is read into it; joining the pieces takes up to as much again."""

PIECE_BYTES = 2**26
"""Most bytes of observations read at a time: 65,536 rows of images would be 2 GB."""


class LogPiece(NamedTuple):
    """Some steps of a log, N, one after the other; columns as in `Dataset`.

    Attributes:
        begins: True for the first step of an episode, (N,).
        final_obs: the observation after each episode that ends in this piece, (K, ...).
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    log_prob: np.ndarray | None
    begins: np.ndarray
    final_obs: np.ndarray


@dataclass
class LogSource:
    """A log that has been described, but not read.

    Attributes:
        path: where it lies.
        card: what is known of it; spaces without a "kind" are found while it is read.
        num_bytes: of its columns in memory.
        pieces: reads it, in order; may be called once.
        action_size: components of an action.
        notes: sentences about what was changed in reading, whole after the last piece.
        made: entries for `Card.made`, whole after the last piece.
    """

    path: Path
    card: Card
    num_bytes: int
    pieces: Callable[[], Iterator[LogPiece]] = lambda: iter(())
    action_size: int = 1
    notes: list[str] = field(default_factory=list)
    made: dict[str, object] = field(default_factory=dict)

    def read(self) -> Dataset:
        """Return the log, in memory.

        Raises:
            UsageError: it is too large for that, holds no whole step, or is damaged.
        """
        check_size(self.path, self.num_bytes)
        seen, parts = _Seen(self), []
        for piece in self.pieces():
            seen.add(piece)
            parts.append(piece)
        card = seen.card()
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _JOINED}
        columns["begins"] = np.flatnonzero(columns["begins"])
        if parts[0].log_prob is not None:
            columns["log_prob"] = np.concatenate([part.log_prob for part in parts])
        return _described(Dataset(card, **columns))


_JOINED = ("obs", "action", "reward", "terminated", "truncated", "final_obs", "begins")


def check_size(path: Path, num_bytes: int) -> None:
    """Raise a `UsageError` where a log is too large to be read into memory."""
    there = describe_hardware().memory_bytes
    if there and num_bytes > MEMORY_SHARE * there:
        raise UsageError(
            f"Expected a log of at most {MEMORY_SHARE * there / 1e9:,.1f} GB in {path} ({MEMORY_SHARE:.0%} of this "
            f"machine's memory), because its format cannot be mapped from disk, got {num_bytes / 1e9:,.1f} GB: "
            f"`workhorse dataset convert {path} FOLDER --to workhorse` writes one that can."
        )


def rows_at_once(row_bytes: int) -> int:
    """Return how many rows are read or written at a time.

    Example:
        >>> rows_at_once(100), rows_at_once(28_224)
        (65536, 2377)
    """
    return max(1, min(CHUNK, PIECE_BYTES // max(row_bytes, 1)))


def slices(count: int, bytes_each: int) -> Iterator[slice]:
    """Yield the rows of a log in parts that fit into memory."""
    step = rows_at_once(bytes_each)
    for begin in range(0, count, step):
        yield slice(begin, min(begin + step, count))


def write_pieces(source: LogSource, folder: Path) -> Dataset:
    """Write a log into a folder of our own form a piece at a time, so that it may be larger than memory.

    Returns:
        The log in the folder, mapped.

    Raises:
        UsageError: as `LogSource.read`, but for its size; or something is there already, or the disk is full.
    """
    if is_there(folder):
        raise UsageError(f"{folder} is there already: choose another name, or remove it.")
    temporary = temporary_name(folder)
    with writing("the log", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_folder(temporary)  # a killed process may have had this one's id
        make_folder(temporary)
        try:
            _write_card(_write_columns(source, temporary), temporary)
            _write_card(_described(read_log_folder(temporary)).card, temporary)
            replace_folder(temporary, folder)
        except BaseException:
            remove_folder(temporary)
            raise
    return read_log_folder(folder)


def _write_card(card: Card, folder: Path) -> None:
    record = seal({**asdict(card), "format": FORMAT})
    write_file(folder / CARD, json.dumps(record, indent=2, allow_nan=False).encode(), folder)


def _write_columns(source: LogSource, folder: Path) -> Card:
    seen, columns, step = _Seen(source), dict[str, _GrowingColumn](), 0
    with ExitStack() as files:
        for piece in source.pieces():
            seen.add(piece)
            begins = step + np.flatnonzero(piece.begins)
            step += len(piece.reward)
            for name, values in {**piece._asdict(), "begins": begins}.items():
                if values is None:
                    continue
                if name not in columns:
                    columns[name] = _GrowingColumn(files.enter_context(create_file(folder / f"{name}.npy", folder)))
                columns[name].append(values)
        card = seen.card()
        for column in columns.values():
            column.finish()
    return card


class _GrowingColumn:
    """A NumPy file whose rows are written before their number is known.

    NumPy leaves room in the header for a first axis of any length, so that it can be written anew at the end.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._rows = file, 0
        self._dtype: np.dtype | None = None
        self._shape: tuple[int, ...] = ()

    def append(self, values: np.ndarray) -> None:
        if self._dtype is None:
            self._dtype, self._shape = values.dtype, values.shape[1:]
            self._write_header()
        assert (values.dtype, values.shape[1:]) == (self._dtype, self._shape), "pieces differ"
        self._file.write(np.ascontiguousarray(values).tobytes())
        self._rows += len(values)

    def finish(self) -> None:
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        assert self._dtype is not None
        described = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(self._file, {**described, "shape": (self._rows, *self._shape)})


class _Seen:
    """What the pieces of a log have shown so far: counts, shapes, and the range of the actions."""

    def __init__(self, source: LogSource) -> None:
        self._source, self._steps, self._episodes = source, 0, 0
        self._first: LogPiece | None = None
        self._low = self._high = np.zeros(0)

    def add(self, piece: LogPiece) -> None:
        """Take the next piece in.

        Raises:
            UsageError: its observations or actions are not those of the card.
        """
        if not len(piece.action):
            return
        low, high = np.asarray(piece.action.min(0), np.float64), np.asarray(piece.action.max(0), np.float64)
        if self._first is None:
            self._first, self._low, self._high = piece, low, high
            self._check_shapes(piece)
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        self._steps, self._episodes = self._steps + len(piece.reward), self._episodes + int(piece.begins.sum())

    def _check_shapes(self, piece: LogPiece) -> None:
        card = self._source.card
        for name, record, column in (
            ("observation", card.observation, piece.obs),
            ("action", card.action, piece.action),
        ):
            if record and (wanted := shape_of(space_from_record(record))) != column.shape[1:]:
                raise UsageError(
                    f"Expected {name}s of shape {wanted} in {self._source.path}, as its description says, got "
                    f"{column.shape[1:]}: restore the file from a copy, or name its columns."
                )

    def card(self) -> Card:
        """Return the card, after the last piece."""
        source, first = self._source, self._first
        if first is None:
            raise UsageError(
                f"Expected a log in {source.path}, but it has no step whose successor is known: record more than one "
                "step an episode, or give the observations that came next."
            )
        notes, card = list(source.notes), source.card
        if not card.action:
            space, note = inferred_actions(first.action, self._low, self._high, source.path)
            card = replace(card, action=space_record(space))
            notes.append(note)
        if not card.observation:
            unbounded = Box.of(np.full(first.obs.shape[1:], -np.inf), np.full(first.obs.shape[1:], np.inf))
            card = replace(card, observation=space_record(unbounded))
        return replace(
            card, num_steps=self._steps, num_episodes=self._episodes, notes=tuple(dict.fromkeys((*card.notes, *notes))),
            made={**card.made, **source.made},
        )  # fmt: skip


def shape_of(space: ActionSpace) -> tuple[int, ...]:
    """Return the shape of one action or observation."""
    match space:
        case Discrete():
            return ()
        case MultiDiscrete() | MultiBinary():
            return (space.size,)
    return space.shape


def inferred_actions(action: np.ndarray, low: np.ndarray, high: np.ndarray, path: Path) -> tuple[ActionSpace, str]:
    """Return the space of the actions of a log that does not tell it, and the note about that.

    Whole numbers, one a step, are choices counted from 0. Others get the range that the log shows.
    """
    if action.dtype.kind in "iu" and action.ndim == 1:
        if low < 0:
            raise UsageError(
                f"Expected choices counted from 0 in {path}, got the action {int(low)}: count them from 0, or give "
                "--action-low and --action-high if they are numbers."
            )
        count = int(high) + 1
        return Discrete(
            count
        ), f"The number of choices, {count}, is that of the log: it does not tell its action space."
    if not (np.isfinite(low).all() and np.isfinite(high).all()):  # `check_learnable` names the row
        low, high = np.full_like(low, -np.inf), np.full_like(high, np.inf)
    return Box.of(low, high), "The bounds of the actions are those of the log: it does not tell its action space."


def _described(dataset: Dataset) -> Dataset:
    """Return a log whose card has its digest and its returns."""
    returns = dataset.described_returns() if np.isfinite(dataset.returns()).all() else {}
    return replace(dataset, card=replace(dataset.card, digest=dataset.digest(), returns=returns))


# --- cards in files of other formats ---


def unread_card(name: str, task: str = "", notes: tuple[str, ...] = ()) -> Card:
    """Return the card of a log of which nothing is known yet."""
    return Card(name, task, {}, {}, {}, 0, 0, None, "", notes=notes)


def card_text(card: Card) -> str:
    """Return a card as JSON, for a place in a file of another format."""
    return json.dumps(asdict(card), allow_nan=False)


def card_from_text(text: str | bytes, path: Path) -> Card:
    """Return the card that `card_text` wrote into a file.

    Raises:
        UsageError: it is no card.
    """
    where = f"{path}, in its card"
    card = build(Card, parse(parse_json, text, where, "the card of a log in JSON"), where)
    try:
        for record in (card.observation, card.action):
            space_from_record(record)
    except ValueError as error:
        raise UsageError(f"Expected spaces in the card of {path}, but {error}: restore it from a copy.") from error
    return card
