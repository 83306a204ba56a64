"""How values are read from the command line: step counts like 7e6, task options like name=value."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from workhorse.core.errors import UsageError

__all__ = ["Count", "parse", "parse_task_options"]


def _count(words: list[str]) -> int:
    try:
        value = float(words[0].replace("_", ""))
    except ValueError:
        raise ValueError(f"expected a whole number such as 7e6, got {words[0]!r}") from None
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"expected a whole number such as 7e6, got {words[0]!r}")
    return int(value)


Count = Annotated[
    int,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=_count,
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [f"{value:_}" if value >= 10_000 else str(value)],
    ),
]
"""A whole number that may be written 7e6 or 7_000_000."""


def parse(kind: Any, command: str, arguments: Sequence[str], description: str) -> Any:
    """The command's options as an instance of a dataclass. `--help` exits with 0, bad options with 2."""
    return tyro.cli(kind, args=list(arguments), prog=f"workhorse {command}", description=description)


def parse_task_options(words: Sequence[str]) -> dict[str, Any]:
    """Options of a task, written name=value with a Python literal or a bare word as the value.

    Example:
        >>> parse_task_options(["healthy_z_range=(0.5,2)", "xml_file=ant.xml"])
        {'healthy_z_range': (0.5, 2), 'xml_file': 'ant.xml'}

    Raises:
        UsageError: a word has no name or no `=`.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"A task option must be written name=value, as in frame_skip=5: got {word!r}.")
        try:
            options[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[name] = text
    return options
