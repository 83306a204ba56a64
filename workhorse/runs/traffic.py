"""Bytes that a cluster run sent and received, by worker, iteration and purpose: Parquet files in its folder."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from workhorse.core.errors import UsageError
from workhorse.core.files import is_there, list_folder, make_folder, remove, write_file, writing
from workhorse.runs.sealed import parquet_bytes, read_parquet
from workhorse.training.loop import Message

__all__ = ["Traffic", "TrafficLog", "TrafficSums", "read_traffic"]

_SCHEMA = {
    "iteration": pl.Int64,
    "worker": pl.String,
    "purpose": pl.String,
    "sent": pl.Int64,
    "received": pl.Int64,
}


class TrafficLog:
    """Rows (iteration, worker, purpose, bytes sent to it, bytes received from it), a file every flush.

    Rows are kept in memory until `flush`. A file holds the iterations from the one in its name on; those that a resumed
    run will do again are dropped when it goes on.
    """

    def __init__(
        self, folder: str | os.PathLike[str], resume_from: int, noted: Callable[[str], None] = lambda sentence: None
    ) -> None:
        self._run = Path(folder)
        self._folder = self._run / "traffic"
        self._noted = noted
        self._rows: list[Message] = []
        for file in _files(self._run):
            if int(file.stem) >= resume_from:
                remove(file, self._run)
            else:
                kept = _read(file, self._run, noted)
                if kept is not None and (kept["iteration"] >= resume_from).any():
                    self._write(file, kept.filter(pl.col("iteration") < resume_from))

    def append(self, rows: Iterable[Message]) -> None:
        """Add rows; iterations never go back."""
        self._rows.extend(rows)

    def flush(self) -> None:
        """Write what was added since the last call."""
        if not self._rows:
            return
        frame = pl.DataFrame(self._rows, schema=_SCHEMA, orient="row")
        first = int(frame["iteration"].min())  # type: ignore[arg-type]
        file = self._folder / f"{first:09d}.parquet"
        earlier = _read(file, self._run, self._noted) if is_there(file) else None
        if earlier is not None:
            frame = pl.concat([earlier, frame])
        with writing("the traffic", self._folder):
            make_folder(self._folder)
        self._write(file, frame)
        self._rows.clear()

    def _write(self, file: Path, frame: pl.DataFrame) -> None:
        content = parquet_bytes(frame)
        with writing("the traffic", file):
            write_file(file, content, self._run)


def read_traffic(folder: str | os.PathLike[str], noted: Callable[[str], None] = lambda sentence: None) -> pl.DataFrame:
    """Read all rows of a run, oldest first; empty for a run that was on one machine.

    Args:
        folder: the run folder.
        noted: is told, in a sentence, of a file that is damaged. Its rows are missing.
    """
    found = [_read(file, Path(folder), noted) for file in _files(Path(folder))]
    return pl.concat([pl.DataFrame(schema=_SCHEMA), *(frame for frame in found if frame is not None)])


def _files(folder: Path) -> list[Path]:
    return [file for file in list_folder(folder / "traffic", "*.parquet") if file.stem.isdecimal()]


def _read(file: Path, folder: Path, noted: Callable[[str], None]) -> pl.DataFrame | None:
    """Return the rows of a file; None where it is damaged: they are accounting, and a run goes on without them."""
    remedy = "The run goes on without its bytes sent and received"
    try:
        frame, _ = read_parquet(file, folder, noun="bytes sent and received", remedy=remedy)
    except UsageError as error:
        noted(str(error))
        return None
    if dict(frame.schema) == _SCHEMA:
        return frame
    noted(f"Expected the columns {', '.join(_SCHEMA)} in {file}, got {', '.join(frame.columns)}. {remedy}.")
    return None


@dataclass(frozen=True)
class Traffic:
    """Mean bytes of a cluster run's messages, a worker and training iteration, in this sitting.

    Attributes:
        sent: bytes from the coordinator to a worker, after it was set up and had its state.
        received: bytes from a worker to the coordinator.
        workers: mean number of workers.
    """

    sent: float
    received: float
    workers: float


class TrafficSums:
    """Sums of the bytes that training iterations took."""

    def __init__(self) -> None:
        self._sent = self._received = 0
        self._pairs: set[tuple[int, str]] = set()

    def add(self, rows: Iterable[Message]) -> None:
        """Add the messages of training; set-up and evaluation are left out."""
        for iteration, worker, purpose, sent, received in rows:
            if purpose in ("updates", "orders", "parameters", "reports"):
                if purpose == "orders":
                    self._pairs.add((iteration, worker))
                self._sent += sent
                self._received += received

    def mean(self) -> Traffic | None:
        """Return the means over this sitting; None where no message was sent."""
        if not self._pairs:
            return None
        count = len(self._pairs)
        iterations = len({iteration for iteration, _ in self._pairs})
        return Traffic(self._sent / count, self._received / count, count / iterations)
