"""Bytes that a cluster run sent and received, by worker, iteration and purpose: Parquet files in its folder."""

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from workhorse.runs.files import write_file, writing
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

    def __init__(self, folder: str | os.PathLike[str], resume_from: int) -> None:
        self._folder = Path(folder) / "traffic"
        self._rows: list[Message] = []
        for file in sorted(self._folder.glob("*.parquet")):
            if int(file.stem) >= resume_from:
                file.unlink()
            else:
                kept = pl.read_parquet(file)
                if (kept["iteration"] >= resume_from).any():
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
        if file.exists():
            frame = pl.concat([pl.read_parquet(file), frame])
        with writing("the traffic", self._folder):
            self._folder.mkdir(exist_ok=True)
        self._write(file, frame)
        self._rows.clear()

    @staticmethod
    def _write(file: Path, frame: pl.DataFrame) -> None:
        content = io.BytesIO()
        frame.write_parquet(content)
        with writing("the traffic", file):
            write_file(file, content.getvalue())


def read_traffic(folder: str | os.PathLike[str]) -> pl.DataFrame:
    """Read all rows of a run, oldest first; empty for a run that was on one machine."""
    files = sorted((Path(folder) / "traffic").glob("*.parquet"))
    return pl.concat([pl.read_parquet(file) for file in files]) if files else pl.DataFrame(schema=_SCHEMA)


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
