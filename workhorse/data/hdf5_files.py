"""HDF5 files that anybody may have sent: nothing outside of the file is opened, and no size in it is believed.

An HDF5 file can name others (external and soft links, virtual data sets, raw data kept elsewhere), hold Python objects,
and claim any number of rows. Only plain numbers that lie in the file itself are read, and claimed sizes are compared
with the bytes that are there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.files import open_to_read

__all__ = ["column_in", "group_in", "is_there_in", "opened_hdf5", "row_bytes", "text_attribute"]

MOST_COMPRESSED = 2000
"""Decoded bytes that one stored byte may stand for; deflate reaches 1,032."""

ALLOWANCE = 2**20
"""Decoded bytes of a column that need not be stored at all, as HDF5 leaves out what was never written."""

LARGEST_CHUNK = 2**28
"""Bytes of a chunk, which HDF5 decodes as one."""

_FILTERS = {"1", "2", "3", "4", "5", "6", "32000"}  # deflate, shuffle, checksum, szip, n-bit, scale-offset, lzf


@contextmanager
def opened_hdf5(path: Path, within: Path | None = None) -> Iterator[h5py.File]:
    """Context manager: an HDF5 file, to read.

    Raises:
        UsageError: it is none, is cut off or damaged, or is no plain file.
    """
    try:
        with os.fdopen(open_to_read(path, within), "rb") as content, h5py.File(content, "r") as file:
            yield file
    except UsageError:
        raise
    except (OSError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"Expected an HDF5 file in {path}, but it cannot be read ({reason:.120}): it is cut off, damaged, or of "
            "another format; copy it again."
        ) from error


def is_there_in(group: h5py.Group, name: str) -> bool:
    """Tell whether a group has something of this name, whatever it is; a link is not followed."""
    return group.get(name, getlink=True) is not None


def group_in(group: h5py.Group, name: str, path: Path) -> h5py.Group:
    """Return the group of this name in another.

    Raises:
        UsageError: it is missing, a link, or no group.
    """
    found = _inside(group, name, path)
    if not isinstance(found, h5py.Group):
        raise UsageError(f"Expected a group `{_name(group, name)}` in {path}, got a column: it is of another layout.")
    return found


def column_in(group: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    """Return the column of numbers of this name in a group.

    Raises:
        UsageError: it is missing, a link, holds something else than numbers, or claims more rows than it has.
    """
    found, full = _inside(group, name, path), _name(group, name)
    if not isinstance(found, h5py.Dataset):
        raise UsageError(f"Expected a column `{full}` in {path}, got a group: it is of another layout.")
    if found.is_virtual or found.external:
        raise UsageError(
            f"Expected the numbers of `{full}` in {path} itself, but they lie in other files, which are not opened: "
            "write them into one file (h5repack does)."
        )
    if found.dtype.kind not in "biuf" or not found.shape:
        got = "a single value" if not found.shape else "objects or text" if found.dtype.hasobject else found.dtype
        raise UsageError(
            f"Expected a column of numbers `{full}` in {path}, got {got}: write it as an array of numbers."
        )
    _check_claim(found, full, path)
    return found


def _inside(group: h5py.Group, name: str, path: Path) -> Any:
    link = group.get(name, getlink=True)
    if link is None:
        there = ", ".join(sorted(map(str, group))[:12]) or "nothing"
        raise UsageError(f"Expected `{_name(group, name)}` in {path}, got {there}: it is of another layout.")
    if not isinstance(link, h5py.HardLink):
        raise UsageError(
            f"Expected `{_name(group, name)}` in {path} itself, got a link, and links in HDF5 files are not followed: "
            "write the numbers in its place."
        )
    return group[name]


def _check_claim(column: h5py.Dataset, full: str, path: Path) -> None:
    """Raise a `UsageError` where a column claims more than its stored bytes can hold, or is compressed unusually."""
    filters: dict[str, object] = column._filters  # type: ignore[assignment]
    unknown = {str(name) for name in filters} - _FILTERS
    if unknown:
        raise UsageError(
            f"Expected `{full}` in {path} to be compressed by gzip, lzf or not at all, got HDF5 filter "
            f"{', '.join(sorted(unknown))}: write it anew with gzip (h5repack -f GZIP=4 does)."
        )
    chunk = np.prod([float(size) for size in column.chunks or (0,)]) * column.dtype.itemsize
    claimed = np.prod([float(size) for size in column.shape]) * column.dtype.itemsize
    stored = column.id.get_storage_size()
    if chunk > LARGEST_CHUNK or claimed > ALLOWANCE + MOST_COMPRESSED * stored:
        raise UsageError(
            f"Expected `{full}` in {path} to hold what it claims, got the shape {column.shape} (chunks "
            f"{column.chunks}) for {stored:,} stored bytes: the file is damaged; do not use it."
        )


def row_bytes(column: h5py.Dataset) -> int:
    """Return the bytes of a row in memory."""
    return int(np.prod(column.shape[1:], dtype=np.int64)) * column.dtype.itemsize


def text_attribute(owner: h5py.Group, name: str) -> str | None:
    """Return an attribute that is text; None where there is none."""
    if name not in owner.attrs:
        return None
    attribute = owner.attrs.get_id(name)
    if attribute.shape != () or h5py.check_string_dtype(attribute.dtype) is None:
        return None
    found = owner.attrs[name]
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)


def _name(group: h5py.Group, name: str) -> str:
    return f"{(group.name or '').strip('/')}/{name}".strip("/")
