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
from workhorse.core.files import write_file, writing
from workhorse.core.records import DAMAGED, AtLeastZero, CountFromZero, Text, from_json, parse, parse_json, read_value
from workhorse.environments.bounds import return_bounds
from workhorse.robustness.results import from_record, to_record
from workhorse.runs.sealed import parquet_bytes, read_parquet
from workhorse.studies.results import Outcome, RunResult, StudyResults

__all__ = ["FORMAT", "read_table", "write_table"]

FORMAT = 2
"""Version of the table's layout. 1 has no outcomes of trials, no bounds of returns and no first seeds."""

_REMEDY = (
    "In a study's folder the table is made of the records: `workhorse study FOLDER` makes it again, and `workhorse "
    "report FOLDER` does without it. Elsewhere, restore it from a copy"
)

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
    frame = pl.DataFrame(rows, schema=_SCHEMA)
    with writing("the table of results", place):
        write_file(place, parquet_bytes(frame, {_KEY: json.dumps(about, allow_nan=False)}))
    return place


def read_table(path: str | os.PathLike[str]) -> StudyResults:
    """Read the results that `write_table` wrote; nothing in the file is executed.

    Raises:
        UsageError: the file is missing, damaged, not a study's table, or of another format.
    """
    place = Path(path)
    try:
        frame, metadata = read_parquet(place, noun="a study's table", remedy=_REMEDY)
    except FileNotFoundError as error:
        raise UsageError(f"Expected a study's table in {place}, which does not exist.") from error
    if _KEY not in metadata:
        raise UsageError(f"Expected a study's table in {place}, but the table is another program's: name another file.")
    found = from_json(StudyResults, metadata[_KEY], place, "study's table", FORMAT, _renewed)
    if dict(frame.schema) != _SCHEMA:
        raise UsageError(f"Expected the columns {', '.join(_SCHEMA)} in {place}, got {', '.join(frame.columns)}.")
    found = replace(found, runs=tuple(_run(row, place) for row in frame.iter_rows(named=True)))
    bounds = {task: return_bounds(task, found.task_options.get(task)) for task in found.tasks}
    return replace(found, return_bounds={**bounds, **found.return_bounds})


def _renewed(record: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a table of any version as those of this one."""
    record = {**record, "runs": ()}
    if record["format"] != 1:
        return record
    searches = record.get("searches")
    for search in searches if isinstance(searches, list) else ():
        if isinstance(search, dict):
            search["complete"] = search.get("winner") is not None
            for trial in search.get("trials") or ():
                trial["outcomes"] = []
    return {**record, "format": FORMAT, "return_bounds": {}, "first_seeds": 0}


def _row(run: RunResult) -> dict[str, object]:
    lists = {
        name: np.asarray(getattr(run, name)).tolist() for name in ("episode_returns", "curve_steps", "curve_returns")
    }
    sweep = None if run.sweep is None else json.dumps(to_record(run.sweep), allow_nan=False)
    plain = {name: getattr(run, name) for name in _SCHEMA}
    return {**plain, **lists, "settings": json.dumps(dict(run.settings)), "sweep": sweep}


def _run(row: dict[str, Any], place: Path) -> RunResult:
    """Return a row as a result.

    Raises:
        UsageError: a field is missing or of another type.
    """
    where = f"{place}, run {row['task']} {row['variant']} seed {row['seed']}"
    for name, hint in _TYPES.items():
        row[name] = read_value(hint, row[name], f"`{name}`", where)
    lists = {name: row[name] for name in ("episode_returns", "curve_steps", "curve_returns")}
    if any(values is None or None in values for values in lists.values()):
        raise UsageError(f"Expected lists of numbers in {where}, got one with a gap. {DAMAGED}")
    if len(row["curve_steps"]) != len(row["curve_returns"]):
        raise UsageError(f"Expected as many curve_steps as curve_returns in {where}. {DAMAGED}")
    score = row["score"] if row["score"] is None or math.isfinite(row["score"]) else None
    if (row["outcome"] == "finished") != (score is not None):
        raise UsageError(f"Expected a score of a run that finished, and of no other, in {where}. {DAMAGED}")
    row |= {name: np.array(row[name], np.float64) for name in ("curve_steps", "curve_returns")}
    row |= {"score": score, "episode_returns": tuple(row["episode_returns"])}
    row["settings"] = parse(parse_json, row["settings"], where, "settings in JSON")
    if row["sweep"] is not None:
        row["sweep"] = from_record(parse(parse_json, row["sweep"], where, "a sweep in JSON"), where)
    return RunResult(**row)


_TYPES: dict[str, Any] = {
    "task": Text,
    "variant": Text,
    "algorithm": Text,
    "settings": str,
    "seed": CountFromZero,
    "outcome": Outcome,
    "reason": str,
    "env_steps": CountFromZero,
    "budget": CountFromZero,
    "wall_s": AtLeastZero,
    "core_hours": AtLeastZero,
    "failed_episodes": CountFromZero,
    "sweep": str | None,
}
"""Types of the columns that are no numbers with gaps."""
