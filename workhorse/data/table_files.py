"""Logs in Parquet and CSV: a table with one row a step, whose columns the user names.

Files that we write have the columns obs_0, obs_1, ..., action_0, ..., reward, terminated, truncated, next_obs_0, ...,
log_prob and episode, which are the names that are looked for where none are given. Parquet has the card as well.

Rows of one episode lie together, in the order of time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl

from workhorse.core.errors import UsageError
from workhorse.core.files import create_file, is_there, open_to_read, writing
from workhorse.core.spec import ActionSpace, Discrete
from workhorse.data.dataset import Card, Dataset, space_from_record, space_record
from workhorse.data.flat_rows import FlatRows, as_flags, pieces_of
from workhorse.data.log_pieces import (
    LogSource,
    card_from_text,
    card_text,
    rows_at_once,
    shape_of,
    slices,
    unread_card,
)  # fmt: skip
from workhorse.data.row_order import RowOrder
from workhorse.data.table_columns import Columns, found_columns, names_of

__all__ = ["table_source", "write_table"]

CARD_KEY = "workhorse_card"
MOST_COLUMNS = 4096
"""Components of an observation that a table may have as columns."""


def table_source(path: Path, columns: Columns, is_parquet: bool) -> LogSource:
    """Describe the log in a table.

    Raises:
        UsageError: a named column is missing or out of order, or the file is damaged.
    """
    with _scanned(path, is_parquet) as (table, about):
        schema = table.collect_schema()
        is_ours = CARD_KEY in about
        card = card_from_text(about[CARD_KEY], path) if is_ours else unread_card(path.stem)
        found = found_columns(columns, list(schema), path)
        space = columns.action_space(len(found.action))
        if space is None:
            space = space_from_record(card.action) if is_ours else _counted(table, found, schema)
        if space is not None:
            card = replace(card, action=space_record(space))
        card = replace(card, task=columns.task or card.task)
        rows = int(table.select(pl.len()).collect().item())
    width = len(names_of(found))
    source = LogSource(path, card, rows * width * 8)
    if not is_ours:
        source.made["columns"] = {"obs": list(found.obs), "action": list(found.action), "reward": found.reward}
    layout = _Layout(path, is_parquet, found, card, isinstance(space, Discrete))
    source.pieces = lambda: pieces_of(layout.chunks(source.made), source.notes)
    return source


@contextmanager
def _scanned(path: Path, is_parquet: bool) -> Iterator[tuple[pl.LazyFrame, Mapping[str, str]]]:
    """Context manager: a table to read from, and the texts in its head.

    Raises:
        UsageError: it cannot be read.
    """
    kind = "Parquet" if is_parquet else "CSV"
    try:
        with os.fdopen(open_to_read(path), "rb") as content:
            if is_parquet:
                about = _texts(content)
                yield pl.scan_parquet(content), about
            else:
                yield pl.scan_csv(content, infer_schema=False), {}
    except UsageError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"Expected a {kind} table in {path}, but it cannot be read ({reason:.120}): it is cut off, damaged, or of "
            "another format; write it again."
        ) from error


def _texts(content: BinaryIO) -> Mapping[str, str]:
    read: Callable[[Any], Mapping[str, str]] = pl.read_parquet_metadata
    found = read(content)
    content.seek(0)
    return found


def _counted(table: pl.LazyFrame, found: Columns, schema: Mapping[str, pl.DataType]) -> ActionSpace | None:
    """Return the choices of a single column of whole numbers from 0; None where actions are numbers."""
    if len(found.action) != 1:
        return None
    name, column = found.action[0], pl.col(found.action[0])
    if schema[name] == pl.String:
        whole = table.select((column.str.contains(r"^\s*\d{1,9}\s*$") | column.is_null()).all()).collect().item()
        column = column.str.strip_chars().cast(pl.Int64, strict=False)
    else:
        whole = schema[name].is_integer() and (table.select(column.min()).collect().item() or 0) >= 0
    most = table.select(column.max()).collect().item() if whole else None
    return None if most is None else Discrete(int(most) + 1)


@dataclass(frozen=True)
class _Layout:
    """How the rows of a table are read."""

    path: Path
    is_parquet: bool
    found: Columns
    card: Card
    is_choice: bool

    def chunks(self, made: dict[str, object]) -> Iterator[FlatRows]:
        """Yield the rows; `made` gets what the times show."""
        names, order = names_of(self.found), RowOrder(str(self.path), self.found.episode, self.found.time)
        with _scanned(self.path, self.is_parquet) as (table, _):
            chosen = table.select(*dict.fromkeys(names))
            if not self.is_parquet:
                chosen = chosen.filter(~pl.all_horizontal(pl.all().is_null()))  # empty lines at the end
            first = 0
            for part in chosen.collect_batches(chunk_size=rows_at_once(8 * len(names)), maintain_order=True):
                if part.height:
                    yield self._rows(part, first, order)
                first += part.height
        if self.found.time:
            made["time"] = order.summary()

    def _rows(self, part: pl.DataFrame, first: int, order: RowOrder) -> FlatRows:
        found = self.found
        flags = {
            name: self._flags(part, column, first) if column else np.zeros(part.height, bool)
            for name, column in (("terminated", found.terminated), ("truncated", found.truncated))
        }
        flagged = flags["terminated"] | flags["truncated"]
        episode = part[found.episode].cast(pl.String).to_list() if found.episode else None
        time = self._numbers(part, [found.time], first)[:, 0].astype(np.float64) if found.time else None
        return FlatRows(
            self._observations(part, found.obs, first),
            self._actions(part, first),
            self._numbers(part, [found.reward], first)[:, 0],
            flags["terminated"],
            flags["truncated"],
            self._observations(part, found.next_obs, first) if found.next_obs else None,
            self._numbers(part, [found.log_prob], first)[:, 0] if found.log_prob else None,
            order.starts(episode, time, flagged, first),
        )

    def _observations(self, part: pl.DataFrame, names: Sequence[str], first: int) -> np.ndarray:
        values = self._numbers(part, names, first)
        shape = shape_of(space_from_record(self.card.observation)) if self.card.observation else (len(names),)
        if int(np.prod(shape)) != len(names):
            raise UsageError(
                f"Expected {int(np.prod(shape))} columns of the observation in {self.path}, as its card says, got "
                f"{len(names)}: name all of them, or write the file again."
            )
        return values.reshape(-1, *shape)

    def _actions(self, part: pl.DataFrame, first: int) -> np.ndarray:
        values = self._numbers(part, self.found.action, first)
        if self.is_choice:
            self._check_choices(values[:, 0], first)
            return values[:, 0] if values.dtype.kind in "iu" else values[:, 0].astype(np.int64)
        if not self.card.action:
            return values if values.dtype.kind == "f" else values.astype(np.float64)
        return values.reshape(-1, *shape_of(space_from_record(self.card.action)))

    def _check_choices(self, values: np.ndarray, first: int) -> None:
        wrong = np.flatnonzero(values != np.rint(values))
        if len(wrong):
            raise UsageError(
                f"Expected whole numbers in the column `{self.found.action[0]}` of {self.path}, got "
                f"{values[wrong[0]]} in row {first + wrong[0]:,}: leave out --action-count if actions are no choices."
            )

    def _numbers(self, part: pl.DataFrame, names: Sequence[str], first: int) -> np.ndarray:
        """Return columns as one array (N, len(names)); reals become float64 where they were text.

        Raises:
            UsageError: a cell is empty or no number; it is named.
        """
        columns = []
        for name in names:
            column = part[name]
            if column.dtype == pl.String:
                column = column.str.strip_chars().cast(pl.Float64, strict=False)
            elif not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
                raise UsageError(
                    f"Expected numbers in the column `{name}` of {self.path}, got {column.dtype}: convert it."
                )
            if column.null_count():
                row = int(column.is_null().arg_max() or 0)
                given = part[name][row]
                got = "nothing" if given is None or given == "" else f"the text {given!r:.40}"
                raise UsageError(
                    f"Expected a number in the column `{name}` of {self.path}, got {got} in row {first + row:,} "
                    "(counted from 0, after the head): mend or leave out that episode."
                )
            columns.append(column.to_numpy())
        return np.stack(columns, 1)

    def _flags(self, part: pl.DataFrame, name: str, first: int) -> np.ndarray:
        column = part[name]
        if column.dtype == pl.String:
            words = column.str.strip_chars().str.to_lowercase()
            part = part.with_columns(words.replace({"true": "1", "false": "0"}).alias(name))
        elif column.dtype == pl.Boolean and not column.null_count():
            return column.to_numpy()
        return as_flags(self._numbers(part, [name], first)[:, 0], name, str(self.path), first)


# --- writing ---


def write_table(dataset: Dataset, path: Path, is_parquet: bool) -> Path:
    """Write a log as Parquet or CSV, a part at a time, and return the path.

    Raises:
        UsageError: an observation has too many components, something is there already, or the disk cannot be written.
    """
    size = int(np.prod(dataset.obs.shape[1:]))
    if size > MOST_COLUMNS:
        raise UsageError(
            f"Expected observations of at most {MOST_COLUMNS:,} components for a table, got {size:,} in "
            f"{dataset.card.name}: write --to minari or --to d4rl, which keep arrays."
        )
    if is_there(path):
        raise UsageError(f"{path} is there already: choose another name, or remove it.")
    parts = slices(dataset.num_steps, 2 * dataset.obs[:1].nbytes)
    with writing("the log", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with create_file(path) as content:
            if is_parquet:
                _sink(dataset, parts, content)
            else:
                for part in parts:
                    _frame(dataset, part).write_csv(content, include_header=part.start == 0)
    return path


def _sink(dataset: Dataset, parts: Iterator[slice], content: BinaryIO) -> None:
    from polars.io.plugins import register_io_source

    def frames(*wanted: object) -> Iterator[pl.DataFrame]:
        yield from (_frame(dataset, part) for part in parts)

    schema = _frame(dataset, slice(0, 1)).schema
    text = card_text(replace(dataset.card, digest=dataset.digest()))
    register_io_source(frames, schema=schema).sink_parquet(content, metadata={CARD_KEY: text})


def _frame(dataset: Dataset, part: slice) -> pl.DataFrame:
    """Return some steps as a table."""
    index = np.arange(part.start, part.stop)
    columns = _flat("obs", dataset.obs[part]) | _flat("action", dataset.action[part])
    columns |= {name: np.asarray(getattr(dataset, name)[part]) for name in ("reward", "terminated", "truncated")}
    columns |= _flat("next_obs", dataset.next_obs(index)) | {"episode": dataset.episode_of(index)}
    if dataset.log_prob is not None:
        columns["log_prob"] = np.asarray(dataset.log_prob[part])
    return pl.DataFrame(columns)


def _flat(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    values = np.asarray(values).reshape(len(values), -1)
    return {f"{name}_{number}": np.ascontiguousarray(values[:, number]) for number in range(values.shape[1])}
