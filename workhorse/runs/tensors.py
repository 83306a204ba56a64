"""Named arrays in a safetensors file: written in one pass without a copy, read with the safetensors library.

Format: 8 bytes of header length, little-endian; a JSON header {name: {dtype, shape, data_offsets}} padded with spaces
to a multiple of 8; then the arrays' bytes. Source: https://github.com/huggingface/safetensors, "Format".
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

__all__ = ["DamagedFile", "read_tensors", "write_tensors"]

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


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Write arrays and make them durable.

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
    with open(path, "wb") as file:
        for part in (len(text).to_bytes(8, "little"), text, *map(_raw, arrays.values())):
            hasher.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return hasher.hexdigest()


def read_tensors(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Read arrays back, writable, after verifying the whole file.

    Raises:
        DamagedFile: the file is missing, its SHA-256 is another, or it is no safetensors file.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DamagedFile(f"{path.name} is missing") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedFile(f"{path.name} does not have the SHA-256 it was written with")
    try:
        return {name: np.array(array) for name, array in safetensors.numpy.load(content).items()}
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise DamagedFile(f"{path.name} is not a safetensors file ({error})") from error


def _raw(array: np.ndarray) -> memoryview:
    """Return the array's bytes, little-endian and row-major; a view wherever the array already is."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
