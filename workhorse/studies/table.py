"""Write and read a study's results as one small Parquet file: a row for each run, and the rest as metadata."""

import json
import math
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from workhorse.core.errors import UsageError
from workhorse.robustness.results import from_record, to_record
from workhorse.runs.files import writing
from workhorse.runs.records import from_json
from workhorse.studies.results import RunResult, StudyResults

__all__ = ["FORMAT", "read_table", "write_table"]

FORMAT = 1
"""Version of the table's layout."""

_KEY = "workhorse"
_SCHEMA: dict[str, Any] = {
    "task": pl.String,
    "variant": pl.String,
    "algorithm": pl.String,
    "settings": pl.String,
    "seed": pl.Int64,
    "outcome": pl.String,
    "reason": pl.String,
    "score": pl.Float64,
    "episode_returns": pl.List(pl.Float64),
    "curve_steps": pl.List(pl.Float64),
    "curve_returns": pl.List(pl.Float64),
    "env_steps": pl.Int64,
    "budget": pl.Int64,
    "wall_s": pl.Float64,
    "core_hours": pl.Float64,
    "failed_episodes": pl.Int64,
    "sweep": pl.String,
}


def write_table(results: StudyResults, path: str | os.PathLike[str]) -> Path:
    """Write the results, without the paths of the run folders."""
    rows = [_row(run) for run in results.runs]
    about = {"format": FORMAT, **asdict(replace(results, runs=()))}
    del about["runs"]
    place = Path(path)
    temporary = place.with_name(f".tmp-{os.getpid()}-{place.name}")
    with writing("the table of results", place):
        frame = pl.DataFrame(rows, schema=_SCHEMA)
        frame.write_parquet(temporary, compression="zstd", metadata={_KEY: json.dumps(about, allow_nan=False)})
        os.replace(temporary, place)
    return place


def read_table(path: str | os.PathLike[str]) -> StudyResults:
    """Read the results that `write_table` wrote; nothing in the file is executed.

    Raises:
        UsageError: the file is missing, damaged, not a study's table, or of another format.
    """
    place = Path(path)
    try:
        about = pl.read_parquet_metadata(place)[_KEY]
        frame = pl.read_parquet(place)
    except FileNotFoundError as error:
        raise UsageError(f"Expected a study's table in {place}, which does not exist.") from error
    except (KeyError, ValueError, OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(
            f"Expected a study's table in {place}, but the file is damaged or another program's ({error!r})."
        ) from error
    found = from_json(StudyResults, about, place, "study's table", FORMAT, lambda record: {**record, "runs": ()})
    if dict(frame.schema) != _SCHEMA:
        raise UsageError(f"Expected the columns {', '.join(_SCHEMA)} in {place}, got {', '.join(frame.columns)}.")
    return replace(found, runs=tuple(_run(row, place) for row in frame.iter_rows(named=True)))


def _row(run: RunResult) -> dict[str, object]:
    lists = {
        name: np.asarray(getattr(run, name)).tolist() for name in ("episode_returns", "curve_steps", "curve_returns")
    }
    sweep = None if run.sweep is None else json.dumps(to_record(run.sweep), allow_nan=False)
    plain = {name: getattr(run, name) for name in _SCHEMA}
    return {**plain, **lists, "settings": json.dumps(dict(run.settings)), "sweep": sweep}


def _run(row: dict[str, Any], place: Path) -> RunResult:
    sweep = row.pop("sweep")
    settings, score = json.loads(row.pop("settings")), row["score"]
    row |= {name: np.array(row[name], np.float64) for name in ("curve_steps", "curve_returns")}
    row["episode_returns"] = tuple(row["episode_returns"])
    row["score"] = None if score is None or math.isnan(score) else score
    found = None if sweep is None else from_record(json.loads(sweep), str(place))
    return RunResult(**row, settings=settings, sweep=found)
