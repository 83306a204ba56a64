"""The metrics of a run: one row of scalars an iteration, in Parquet, with TensorBoard events beside it."""

import importlib.util
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from workhorse.core.errors import UsageError
from workhorse.core.files import is_there, write_file, writing
from workhorse.core.records import OWNER, check_owner
from workhorse.runs.events import EventLog
from workhorse.runs.manifest import owner_of
from workhorse.runs.metric_words import tagged
from workhorse.runs.sealed import parquet_bytes, read_parquet

__all__ = ["MetricsLog", "read_metrics"]

OLD_PREFIX = ("population_return", "training_return")
"""Prefix of columns in runs whose manifest has format 1, and its replacement."""

Scalar = int | float | str | None

_REMEDY = "Restore it from a copy, or move it away to go on without the earlier rows"


class MetricsLog:
    """Rows of scalars, one an iteration, in metrics.parquet and as TensorBoard events.

    Rows are kept in memory until `flush`, which rewrites the file at once: a crash leaves the rows of the last flush.
    *Flush before saving a checkpoint*, so that no iteration a resume builds on is missing.

    A column may appear late (earlier rows have nulls) or be left out (null). Integers stay integers, unless a column
    also gets reals. The column `digest` is a 64-bit integer stored as 16 hexadecimal digits, because Parquet readers
    turn large unsigned integers into floats.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        resume_from: int | None = None,
        settings: Mapping[str, Any] | None = None,
        tensorboard: bool = True,
    ) -> None:
        """Open the log of a run.

        Args:
            folder: the run folder.
            resume_from: the iteration the run goes on from: later rows are dropped, for they will come again. None
                for a new run.
            settings: of the algorithm, which some TensorBoard tags need.
            tensorboard: whether to write events too.

        Raises:
            UsageError: a new run finds rows; the file is damaged; tensorboardX is missing.
        """
        self._folder = Path(folder)
        self._file = self._folder / "metrics.parquet"
        self._rows = pl.DataFrame(schema={"iteration": pl.Int64})
        self._pending: list[tuple[float, dict[str, Scalar]]] = []
        self._settings = settings or {}
        self._events: EventLog | None = None
        if tensorboard and importlib.util.find_spec("tensorboardX") is None:
            raise UsageError(
                "Expected tensorboardX for TensorBoard events, but it is not installed: `pip install tensorboardX`, or "
                "turn TensorBoard off."
            )
        if is_there(self._file):
            if resume_from is None:
                raise UsageError(
                    f"Expected no metrics in {self._file} for a new run, found some: resume that run, or start in a "
                    "new folder."
                )
            self._rows = read_metrics(self._file).filter(pl.col("iteration") <= resume_from)
        if tensorboard:
            last = self._rows.row(-1, named=True) if len(self._rows) else {"iteration": resume_from}
            self._events = EventLog(self._folder / "tensorboard", None if resume_from is None else _step(last))

    @property
    def last_iteration(self) -> int | None:
        """Return the newest row's iteration; None where there is no row."""
        if self._pending:
            iteration = self._pending[-1][1]["iteration"]
            assert isinstance(iteration, int)
            return iteration
        return self._rows["iteration"][-1] if len(self._rows) else None

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows that a resumed run has behind it, oldest first."""
        return self._rows.to_dicts()

    def append(self, iteration: int, row: Mapping[str, Any]) -> None:
        """Add an iteration's scalars.

        Args:
            iteration: more than the last row's.
            row: numbers, NumPy or JAX scalars, strings or None by name; NaN and infinities are kept.

        Raises:
            ValueError: the iteration does not come after the last, or the row names one.
            TypeError: a value is no scalar.
        """
        last = self.last_iteration
        if last is not None and iteration <= last:
            raise ValueError(f"Metrics need increasing iterations, got {iteration} after {last} in {self._file}.")
        if "iteration" in row:
            raise ValueError(f"A row of metrics must not name `iteration`, the column of append({iteration}, ...).")
        scalars = {name: _scalar(name, value) for name, value in row.items()}
        self._pending.append((time.time(), {"iteration": int(iteration), **scalars}))

    def flush(self) -> None:
        """Put every row on disk, durably, and send the new ones to TensorBoard.

        Raises:
            UsageError: the disk is full, read-only or not there; the rows stay in memory, the old file as it was.
            TypeError: a column has strings in some rows and numbers in others.
        """
        rows = self._with_pending()
        content = parquet_bytes(rows, {OWNER: owner_of(self._folder)})
        with writing("the metrics", self._folder):
            write_file(self._file, content)
        self._rows, pending, self._pending = rows, self._pending, []
        if self._events is not None and pending:
            self._events.send([(at, _step(row), tagged(row, self._settings)) for at, row in pending])

    def close(self) -> None:
        """Flush, and close the TensorBoard file."""
        self.flush()
        if self._events is not None:
            self._events.close()

    def _with_pending(self) -> pl.DataFrame:
        if not self._pending:
            return self._rows
        new = [row for _, row in self._pending]
        names = list(dict.fromkeys(name for row in new for name in row))
        columns = pl.DataFrame([_column(name, [row.get(name) for row in new]) for name in names])
        for name, kind in self._rows.schema.items():
            later = columns.schema.get(name, pl.Null())
            if pl.Null() not in (kind, later) and (kind == pl.String()) != (later == pl.String()):
                raise TypeError(f"The metric {name!r} must be all numbers or all strings, as in {self._file}.")
        return pl.concat([self._rows, columns], how="diagonal_relaxed")


def read_metrics(path: str | os.PathLike[str]) -> pl.DataFrame:
    """Read the metrics of a run, one row an iteration, oldest first.

    Args:
        path: metrics.parquet, or the run folder it is in.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    file = Path(path)
    file = file / "metrics.parquet" if file.is_dir() else file
    try:
        rows, about = read_parquet(file, noun="a run's metrics", remedy=_REMEDY)
        check_owner(about.get(OWNER) or None, owner_of(file.parent), file, _REMEDY)
    except FileNotFoundError as error:
        raise UsageError(
            f"Expected metrics in {file}, found none: the run ended before its first were written, or it is no run. "
            "`workhorse runs` lists the runs there are."
        ) from error
    if rows.schema.get("iteration") != pl.Int64:
        raise UsageError(
            f"Expected a run's metrics in {file}, but the file is damaged or another program's. {_REMEDY}."
        )
    return rows.rename({name: name.replace(*OLD_PREFIX) for name in rows.columns if name.startswith(OLD_PREFIX[0])})


def _step(row: Mapping[str, Any]) -> int:
    """Return where a row stands on TensorBoard's axis: training steps, and iterations where nobody counted these."""
    return int(row.get("env_steps") or row["iteration"])


def _column(name: str, values: list[Scalar]) -> pl.Series:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {int, float}:
        kinds = {float}
    types: dict[type, Any] = {int: pl.Int64, float: pl.Float64, str: pl.String}
    try:
        if len(kinds) > 1:
            raise TypeError("strings and numbers")
        return pl.Series(name, values, dtype=types[kinds.pop()] if kinds else pl.Null, strict=float not in kinds)
    except (TypeError, OverflowError) as error:
        raise TypeError(f"The metric {name!r} must be all numbers (integers below 2**63) or all strings.") from error


def _scalar(name: str, value: object) -> Scalar:
    if getattr(value, "shape", None) == () and (item := getattr(value, "item", None)):
        value = item()
    if name == "digest" and isinstance(value, int):
        return f"{value:016x}"
    if isinstance(value, bool):
        return int(value)
    if value is None or isinstance(value, (int, float, str)):
        return value
    raise TypeError(f"A metric must be a scalar, got {type(value).__name__} of shape {_shape(value)} for {name!r}.")


def _shape(value: object) -> object:
    return getattr(value, "shape", "unknown")
