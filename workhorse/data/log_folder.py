"""Workhorse's own form of a log: a folder of one NumPy file a column, which is mapped and not read, and a card.

    card.json                     what the log is, with its checksum
    obs.npy, action.npy, ...      the columns of `Dataset`

Nothing in it is executed: NumPy files with objects in them are refused.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.files import (
    create_file,
    is_there,
    make_folder,
    open_to_read,
    read_file,
    remove_folder,
    replace_folder,
    temporary_name,
    write_file,
    writing,
)
from workhorse.core.records import from_json, seal
from workhorse.data.dataset import Card, Dataset

__all__ = ["is_log_folder", "read_log_folder", "write_log_folder"]

CARD = "card.json"
FORMAT = 1
COLUMNS = ("obs", "action", "reward", "terminated", "truncated", "final_obs", "begins", "log_prob")


def is_log_folder(path: str | os.PathLike[str]) -> bool:
    """Tell whether a folder is a log of ours."""
    return is_there(Path(path) / CARD)


def write_log_folder(dataset: Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a log into a folder, which must not be there yet, and return it; it appears whole or not at all.

    Raises:
        UsageError: something is there already, or the disk cannot be written.
    """
    folder = Path(path)
    if is_there(folder):
        raise UsageError(f"{folder} is there already: choose another name, or remove it.")
    with writing("the log", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(folder)
        remove_folder(temporary)  # a killed process may have had this one's id
        make_folder(temporary)
        try:
            _write_columns(dataset, temporary)
            replace_folder(temporary, folder)
        except BaseException:
            remove_folder(temporary)
            raise
    return folder


def _write_columns(dataset: Dataset, folder: Path) -> None:
    for name in COLUMNS:
        column = getattr(dataset, name)
        if column is not None:
            with create_file(folder / f"{name}.npy", folder) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(column), allow_pickle=False)
    card = replace(dataset.card, digest=dataset.digest())
    record = seal({**asdict(card), "format": FORMAT})
    write_file(folder / CARD, json.dumps(record, indent=2, allow_nan=False).encode(), folder)


def read_log_folder(path: str | os.PathLike[str]) -> Dataset:
    """Return the log in a folder, its columns mapped from disk.

    Raises:
        UsageError: a file is missing, damaged, or of another length than the card says.
    """
    folder = Path(path)
    card = _read_card(folder)
    columns = {
        name: _mapped(folder, name) for name in COLUMNS if name != "log_prob" or is_there(folder / f"{name}.npy")
    }
    for name, column in columns.items():
        wanted = card.num_episodes if name in ("final_obs", "begins") else card.num_steps
        if len(column) != wanted:
            raise UsageError(
                f"Expected {wanted:,} rows in {folder / name}.npy, as its card says, got {len(column):,}: restore the "
                "folder from a copy."
            )
    return Dataset(card, **columns)


def _read_card(folder: Path) -> Card:
    try:
        text = read_file(folder / CARD, folder)
    except FileNotFoundError as error:
        raise UsageError(f"Expected a log in {folder}, but there is no {CARD}: is it another folder?") from error
    return from_json(Card, text, folder / CARD, "card of a log", FORMAT, lambda record: record)


def _mapped(folder: Path, name: str) -> np.ndarray:
    """Return a column, mapped read-only from its file."""
    place = folder / f"{name}.npy"
    try:
        with os.fdopen(open_to_read(place, folder), "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_column, dtype = read(file)
            if dtype.hasobject or by_column:
                raise ValueError("it holds objects" if dtype.hasobject else "its rows do not lie one after the other")
            if 0 in shape:
                return np.zeros(shape, dtype)
            return np.memmap(file, dtype, "r", file.tell(), shape)
    except FileNotFoundError as error:
        raise UsageError(f"The log in {folder} lacks {name}.npy: restore the folder from a copy.") from error
    except ValueError as error:
        raise UsageError(
            f"Expected a column of numbers in {place}, but it cannot be read ({error}): restore it from a copy."
        ) from error
