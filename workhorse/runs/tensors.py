"""Named arrays in a safetensors file: written in one pass without a copy, read with the safetensors library.

Format: 8 bytes of header length, little-endian; a JSON header {name: {dtype, shape, data_offsets}} padded with spaces
to a multiple of 8; then the arrays' bytes. Source: https://github.com/huggingface/safetensors, "Format".
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from workhorse.core.files import ForbiddenFile, UnreadableFile, create_file, read_file

__all__ = ["DamagedFile", "read_part", "read_tensors", "write_tensors"]

_CODES = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
}


class DamagedFile(Exception):
    """A file is missing, cut short, or not what was written; the text says which."""


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray], within: Path | None = None) -> str:
    """Write arrays and make them durable.

    Args:
        path: the file.
        arrays: by name.
        within: as in `core.files.read_file`.

    Returns:
        The SHA-256 of the file in hexadecimal.

    Raises:
        TypeError: a dtype that safetensors has no code for; the message names the array.
    """
    header: dict[str, object] = {}
    offset = 0
    for name, array in arrays.items():
        if array.dtype.name not in _CODES:
            raise TypeError(f"Cannot store {name!r}: its dtype {array.dtype.name} is none of {', '.join(_CODES)}.")
        header[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    hasher = hashlib.sha256()
    with create_file(path, within) as file:
        for part in (len(text).to_bytes(8, "little"), text, *map(_raw, arrays.values())):
            hasher.update(part)
            file.write(part)
    return hasher.hexdigest()


def read_tensors(path: Path, sha256: str, within: Path | None = None) -> dict[str, np.ndarray]:
    """Read arrays back, writable, after verifying the whole file.

    Raises:
        DamagedFile: the file is missing, a link or no plain file, its SHA-256 is another, or it is no safetensors file.
    """
    content = read_part(path, within)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedFile(f"{path.name} does not have the SHA-256 it was written with")
    try:
        return {name: np.array(array) for name, array in safetensors.numpy.load(content).items()}
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise DamagedFile(f"{path.name} is not a safetensors file ({error})") from error


def read_part(path: Path, within: Path | None = None) -> bytes:
    """Return the content of a file that belongs to others, as `core.files.read_file`.

    Raises:
        DamagedFile: it is missing, or no plain file.
        ForbiddenFile: it may not be read.
    """
    try:
        return read_file(path, within)
    except ForbiddenFile:
        raise
    except FileNotFoundError as error:
        raise DamagedFile(f"{path.name} is missing") from error
    except UnreadableFile as error:
        raise DamagedFile(str(error).rstrip(".")) from error


def _raw(array: np.ndarray) -> memoryview:
    """Return the array's bytes, little-endian and row-major; a view wherever the array already is."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
