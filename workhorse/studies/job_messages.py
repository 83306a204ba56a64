"""Messages between a study and its workers on a cluster: a record in JSON, and parcels of files behind it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["BadMessage", "decode", "encode"]

_HEAD = struct.Struct("<4sI")
_MAGIC = b"WHJ1"


class BadMessage(ValueError):
    """Bytes that are no message of ours."""


def encode(record: Mapping[str, Any], parcels: Sequence[bytes] = ()) -> bytes:
    """Return a message as bytes.

    Example:
        >>> record, parcels = decode(encode({"do": "begin"}, [b"ab", b""]))
        >>> record, [bytes(parcel) for parcel in parcels]
        ({'do': 'begin'}, [b'ab', b''])
    """
    text = json.dumps({"record": dict(record), "sizes": [len(parcel) for parcel in parcels]}, allow_nan=False).encode()
    return b"".join([_HEAD.pack(_MAGIC, len(text)), text, *parcels])


def decode(message: bytes) -> tuple[dict[str, Any], list[memoryview]]:
    """Return the record and the parcels of a message.

    Raises:
        BadMessage: it is none of ours.
    """
    if not isinstance(message, bytes) or len(message) < _HEAD.size or message[:4] != _MAGIC:
        raise BadMessage("bytes that do not begin as a message does")
    at = _HEAD.size + _HEAD.unpack_from(message)[1]
    try:
        found = json.loads(message[_HEAD.size : at], parse_constant=_refuse)
        record, sizes = found["record"], found["sizes"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadMessage("a message whose head is not what we write") from error
    if not isinstance(record, dict) or not isinstance(sizes, list):
        raise BadMessage("a message whose head is not what we write")
    if any(type(size) is not int or size < 0 for size in sizes) or at + sum(sizes) != len(message):
        raise BadMessage("a message that is shorter or longer than its parcels")
    parcels, view = [], memoryview(message)
    for size in sizes:
        parcels.append(view[at : at + size])
        at += size
    return record, parcels


def _refuse(constant: str) -> None:
    """Refuse NaN and infinities, which are no JSON."""
    raise ValueError(constant)
