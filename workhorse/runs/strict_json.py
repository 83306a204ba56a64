"""JSON that others may have written: read by the letter of its standard, and never deep enough to exhaust a stack."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

__all__ = ["parse_json", "plain_json"]

MOST_NESTED = 64
"""Deepest nesting accepted. Python's own limit depends on who calls, and dumping has another one than parsing."""


def parse_json(content: bytes) -> Any:
    """Parse UTF-8 JSON without duplicate keys, NaN, infinities or integers beyond 64 bits.

    Raises:
        ValueError: it is no such JSON; the text says why.

    Example:
        >>> parse_json(b'{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ValueError: the key 'a' is there twice
    """
    try:
        value = json.loads(
            content.decode(), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_float, parse_int=_integer
        )
    except RecursionError:
        raise ValueError(f"it is nested more than {MOST_NESTED} deep") from None
    for text in _strings(value):
        text.encode()  # a lone surrogate could be held, but neither printed nor written
    return value


def plain_json(value: object) -> Any:
    """Return a copy of a value as it will be read back from JSON.

    Raises:
        ValueError: it cannot be written as strict JSON.
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except RecursionError:
        raise ValueError(f"it is nested more than {MOST_NESTED} deep") from None
    except TypeError as error:
        raise ValueError(str(error)) from None
    return parse_json(text.encode())


def _strings(value: object) -> Iterator[str]:
    """Yield all keys and texts, level by level: a loop, because recursion is what a hostile file aims at."""
    level, depth = [value], 0
    while level:
        below: list[object] = []
        for item in level:
            if isinstance(item, str):
                yield item
            elif isinstance(item, dict | list):
                if depth == MOST_NESTED:
                    raise ValueError(f"it is nested more than {MOST_NESTED} deep")
                below += item if isinstance(item, list) else [*item, *item.values()]
        level, depth = below, depth + 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} is there twice")
    return record


def _refuse(literal: str) -> float:
    raise ValueError(f"{literal} is no JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"the number {text[:20]} is too large")
    return int(text)
