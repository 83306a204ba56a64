"""Files that carry the checksum of their own content: JSON records and Parquet tables.

The checksum lies inside the file and is written with it, at once, so that no crash can leave a file with another's.
`docs/decisions/0016-checksums.md` says why.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workhorse.core.errors import UsageError
from workhorse.core.files import read_file, write_file
from workhorse.core.records import OWNER, parse, parse_json, seal, unseal

if TYPE_CHECKING:
    import polars as pl

__all__ = ["is_whole_table", "parquet_bytes", "read_parquet", "read_record", "sealed_bytes", "write_record"]

_KEY = b"workhorse-sha256"
_EMPTY = b"0" * 64
_BETWEEN = 2  # bytes from the key to its value in the metadata: a field's header and a length


def sealed_bytes(record: Mapping[str, object], indent: int | None = 1) -> bytes:
    """Return a record as JSON text with its checksum in it."""
    return json.dumps(seal(record), indent=indent, allow_nan=False).encode()  # NaN is no JSON: others would refuse it


def write_record(
    path: str | os.PathLike[str],
    record: Mapping[str, object],
    within: str | os.PathLike[str] | None = None,
    *,
    indent: int | None = 1,
    owner: str = "",
) -> None:
    """Write a record as a JSON file that carries its checksum, whole or not at all.

    Args:
        path: the file.
        record: plain JSON without a field `checksum`.
        within: as in `read_file`.
        indent: as in `json.dumps`.
        owner: the run that the record belongs to, see `runs.manifest.owner_of`; empty for none.

    Raises:
        OSError: the disk cannot be written, see `writing`.
        TypeError, ValueError: the record holds what JSON cannot.
    """
    write_file(path, sealed_bytes({**record, OWNER: owner} if owner else record, indent), within)


def read_record(
    path: str | os.PathLike[str],
    within: str | os.PathLike[str] | None = None,
    *,
    noun: str = "a record",
    remedy: str = "Restore it from a copy",
    owner: str = "",
) -> dict[str, Any]:
    """Read a record that `write_record` wrote, or one from before checksums were kept.

    Args:
        path: the file.
        within: as in `read_file`.
        noun: what the file should hold, as in "a ledger".
        remedy: what the user can do without the file, or how the work goes on, as the beginning of a sentence.
        owner: the run in whose folder it lies; empty where that does not matter.

    Raises:
        FileNotFoundError: there is no file.
        UsageError: it is no plain file, no table in JSON, another run's, or does not have its checksum; the message
            names the file.
    """
    found = parse(parse_json, read_file(path, within), path, f"{noun} in JSON", f"The file is damaged. {remedy}.")
    return unseal(found, path, remedy, owner)


def parquet_bytes(frame: pl.DataFrame, about: Mapping[str, str] | None = None) -> bytes:
    """Return a table as a Parquet file whose metadata hold the SHA-256 of the whole file.

    The digest is of the file with zeros in the place of the digest itself.

    Args:
        frame: the table.
        about: further metadata.
    """
    content = io.BytesIO()
    frame.write_parquet(content, metadata={**(about or {}), _KEY.decode(): _EMPTY.decode()})
    text = content.getvalue()
    at = text.rindex(_KEY) + len(_KEY) + _BETWEEN
    assert text[at : at + 64] == _EMPTY
    return text[:at] + hashlib.sha256(text).hexdigest().encode() + text[at + 64 :]


def read_parquet(
    path: str | os.PathLike[str],
    within: str | os.PathLike[str] | None = None,
    *,
    noun: str = "a table",
    remedy: str = "Restore it from a copy",
    verify: bool = True,
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Read a table that `parquet_bytes` made, or one from before checksums were kept, and its metadata.

    The arguments and errors are those of `read_record`; `verify` is false where the checksum is to be renewed.
    """
    content = read_file(path, within)
    if verify and is_whole_table(content) is False:
        place = os.fspath(path)
        raise UsageError(
            f"Expected {place} as it was written, but its content does not have its checksum: it is damaged, or was "
            f"edited. {remedy}; if you edited it on purpose, `workhorse seal` renews the checksums of its folder."
        )
    import polars as pl  # takes long to import

    try:
        frame, about = pl.read_parquet(io.BytesIO(content)), pl.read_parquet_metadata(io.BytesIO(content))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise UsageError(
            f"Expected {noun} in {os.fspath(path)}, but the file is damaged or another program's. {remedy}."
        ) from error
    return frame, {name: text for name, text in about.items() if name != _KEY.decode()}


def is_whole_table(content: bytes) -> bool | None:
    """Tell whether a Parquet file has the checksum of its content; None where it has none."""
    at = content.rfind(_KEY)
    if at < 0:
        return None
    at += len(_KEY) + _BETWEEN
    found = content[at : at + 64]
    return hashlib.sha256(content[:at] + _EMPTY + content[at + 64 :]).hexdigest().encode() == found
