"""Open a log by its path, whatever its format, and check it against a task."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.files import UnreadableFile, is_there, open_to_read
from workhorse.core.spec import Box, EnvSpec
from workhorse.data.dataset import CHUNK, Dataset, space_record
from workhorse.data.log_folder import is_log_folder, read_log_folder
from workhorse.data.log_pieces import LogSource, shape_of, write_pieces
from workhorse.data.table_columns import Columns

__all__ = ["FORMATS", "check_fits", "check_learnable", "convert_dataset", "open_dataset"]

FORMATS = ("workhorse", "minari", "d4rl", "parquet", "csv")
"""Formats that are written, by name."""

READ = (
    "a folder that `workhorse dataset` wrote, a Minari data set, an HDF5 file in D4RL's layout, Parquet, or CSV with "
    "the ending .csv"
)

_MAGIC = {
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"PAR1": "parquet",
    b"PK\x03\x04": "a ZIP file, as .npz is",
    b"\x93NUMPY": "a single NumPy array",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\x1f\x8b": "a gzip file",
}


def open_dataset(path: str | os.PathLike[str], columns: Columns | None = None) -> Dataset:
    """Return the log at a path.

    Our own folder is mapped from disk; other formats are read into memory.

    Args:
        path: of the log, in any format.
        columns: names of the columns of a table, and bounds of the actions; see `Columns`.

    Raises:
        UsageError: nothing is there, it is of no format that is read, it is damaged, or larger than memory allows.
    """
    place = Path(path)
    if is_log_folder(place):
        _check_not_named(place, columns)
        return read_log_folder(place)
    return _source(place, columns or Columns()).read()


def convert_dataset(
    path: str | os.PathLike[str], out: str | os.PathLike[str], to: str, columns: Columns | None = None
) -> Dataset:
    """Write a log in another format, and return it as it was written from.

    To our own form it is written a piece at a time, so that it may be larger than memory.

    Args:
        path, columns: as in `open_dataset`.
        out: the new file or folder.
        to: one of `FORMATS`.

    Raises:
        UsageError: as `open_dataset`; or something is there already, or the disk cannot be written.
    """
    place, target = Path(path), Path(out)
    if is_there(target):
        raise UsageError(f"{target} is there already: choose another name, or remove it.")
    if to == "workhorse" and not is_log_folder(place):
        return write_pieces(_source(place, columns or Columns()), target)
    dataset = open_dataset(place, columns)
    if to == "workhorse":
        from workhorse.data.log_folder import write_log_folder

        write_log_folder(dataset, target)
    elif to == "minari":
        from workhorse.data.minari_files import write_minari

        write_minari(dataset, target)
    elif to == "d4rl":
        from workhorse.data.d4rl_files import write_d4rl

        write_d4rl(dataset, target)
    else:
        from workhorse.data.table_files import write_table

        write_table(dataset, target, is_parquet=to == "parquet")
    return dataset


def _source(place: Path, columns: Columns) -> LogSource:
    """Describe a log in a format that is not mapped."""
    if not is_there(place):
        raise UsageError(f"Expected a log in {place}, but nothing is there: `workhorse dataset make` makes one.")
    if place.is_dir():
        from workhorse.data.minari_files import minari_folder, minari_source

        folder = minari_folder(place)
        if folder is None:
            raise UsageError(f"Expected a log in {place}, got a folder of something else: what is read is {READ}.")
        _check_not_named(place, columns)
        return minari_source(folder)
    kind = _kind(place)
    if kind == "hdf5":
        from workhorse.data.d4rl_files import d4rl_source

        _check_not_named(place, columns)
        return _with_options(d4rl_source(place), columns)
    from workhorse.data.table_files import table_source

    return table_source(place, columns, is_parquet=kind == "parquet")


def _kind(place: Path) -> str:
    """Return "hdf5", "parquet" or "csv".

    Raises:
        UsageError: it is no plain file, is empty, or is of a format that is not read.
    """
    with os.fdopen(open_to_read(place), "rb") as file:
        begin = file.read(8)
    if not begin:
        raise UsageError(f"Expected a log in {place}, got an empty file: write it again. What is read is {READ}.")
    found = next((kind for magic, kind in _MAGIC.items() if begin.startswith(magic)), "")
    suffix = place.suffix.lower()
    if found in ("hdf5", "parquet"):
        return found
    if suffix in (".hdf5", ".h5", ".parquet"):
        raise UnreadableFile(
            f"Expected {'a Parquet table' if suffix == '.parquet' else 'an HDF5 file'} in {place}, as its name says, "
            f"got {found or 'something else'}: it is cut off, damaged, or of another format; copy it again."
        )
    if suffix == ".csv" and not found:
        return "csv"
    why = " Pickles can run code when they are read, and are never opened." if "pickle" in found else ""
    raise UsageError(
        f"Expected a log in {place}, got {found or 'a file of an unknown format'}: what is read is {READ}.{why}"
    )


def _check_not_named(place: Path, columns: Columns | None) -> None:
    if columns is not None and columns.names_columns:
        raise UsageError(
            f"Names of columns have an effect on Parquet and CSV alone, and the columns of {place} are known: leave "
            "them out."
        )


def _with_options(source: LogSource, columns: Columns) -> LogSource:
    """Return a source whose card has the actions and the task that the user gave."""
    given = columns.action_space(source.action_size)
    if given is not None:
        source.card = replace(source.card, action=space_record(given))
    source.card = replace(source.card, task=columns.task or source.card.task)
    return source


def check_fits(dataset: Dataset, spec: EnvSpec) -> None:
    """Raise a `UsageError` where a log was not recorded on a task with these observations and actions."""
    seen, acted = dataset.observation, dataset.action_space
    if seen.shape != spec.observation.shape:
        raise UsageError(
            f"The log {dataset.card.name} has observations of shape {seen.shape}, but those of {spec.task} have "
            f"{spec.observation.shape}: evaluate on the task that it was recorded on."
        )
    wanted = spec.task_action
    same = acted == wanted
    if isinstance(acted, Box) and isinstance(wanted, Box):
        same = acted.shape == wanted.shape and bool(
            np.allclose(acted.low, wanted.low, rtol=1e-5) and np.allclose(acted.high, wanted.high, rtol=1e-5)
        )
    if not same:
        alike = type(acted) is type(wanted) and shape_of(acted) == shape_of(wanted)
        way = (
            " If only the bounds were guessed from the log, give them to `workhorse dataset convert` by --action-low "
            "and --action-high, or --action-count."
            if alike and any("does not tell its action space" in note for note in dataset.card.notes)
            else ""
        )
        raise UsageError(
            f"The log {dataset.card.name} has the actions {acted}, but {spec.task} takes {wanted}: evaluate on the "
            f"task that it was recorded on.{way}"
        )


def check_learnable(dataset: Dataset, least_episodes: int = 2) -> None:
    """Raise a `UsageError` where nothing can be learnt from a log: numbers that are none, no ends, one episode."""
    name = dataset.card.name
    if dataset.num_episodes < least_episodes:
        raise UsageError(
            f"The log {name} has {dataset.num_episodes} episode, and at least 2 are needed, one of which is only "
            "measured on: record more, or mark where episodes end."
        )
    if not (np.any(dataset.terminated) or np.any(dataset.truncated)):
        raise UsageError(
            f"The log {name} marks no step as terminated or truncated, so that values cannot be told from those of a "
            "task that goes on for ever: give the columns that say so."
        )
    for column in ("obs", "action", "reward", "final_obs"):
        values = getattr(dataset, column)
        for begin in range(0, len(values), CHUNK):
            part = np.asarray(values[begin : begin + CHUNK])
            if part.dtype.kind == "f" and not np.isfinite(part).all():
                row, component = (int(number) for number in np.argwhere(~np.isfinite(part.reshape(len(part), -1)))[0])
                unit = "episode" if column == "final_obs" else "row"
                raise UsageError(
                    f"The log {name} has a number that is not finite in {_column_name(dataset, column, component)}, "
                    f"{unit} {begin + row}: `workhorse dataset check` lists all of them. Mend or leave out that "
                    "episode."
                )


def _column_name(dataset: Dataset, column: str, component: int) -> str:
    """Return the name of a component of a column, in the file that the log was read from, where it has one."""
    named = dataset.card.made.get("columns", {}).get("obs" if column == "final_obs" else column)
    own = f"`{column}`" if column == "reward" else f"`{column}` [{component}]"
    if isinstance(named, list | tuple) and component < len(named):
        return f"{own}, the column `{named[component]}`"
    return f"{own}, the column `{named}`" if isinstance(named, str) and named != column else own
