"""Bytes that a cluster run sent and received, by worker, iteration and purpose: Parquet files in its folder."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from workhorse.runs.files import write_file, writing

__all__ = ["TrafficLog", "read_traffic"]

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
        self._rows: list[tuple[int, str, str, int, int]] = []
        for file in sorted(self._folder.glob("*.parquet")):
            if int(file.stem) >= resume_from:
                file.unlink()
            else:
                kept = pl.read_parquet(file)
                if (kept["iteration"] >= resume_from).any():
                    self._write(file, kept.filter(pl.col("iteration") < resume_from))

    def append(self, rows: Iterable[tuple[int, str, str, int, int]]) -> None:
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
