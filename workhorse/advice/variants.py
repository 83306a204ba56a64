"""The variants of shipped tasks that the adviser's forecasts are fitted and scored on."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["TaskVariant", "task_variants"]


class TaskVariant(NamedTuple):
    """A task with options.

    Attributes:
        family: variants of one family are held out together.
        name: family/what differs.
        task, options: as for `environments.registry.make`.
    """

    family: str
    name: str
    task: str
    options: Mapping[str, Any]


def task_variants() -> tuple[TaskVariant, ...]:
    """Return every variant of the label set.

    Example:
        >>> found = task_variants()
        >>> len(found) >= 60, len({one.family for one in found}) >= 8
        (True, True)
    """
    rows = tomllib.loads((Path(__file__).parent / "variants.toml").read_text())["variant"]
    return tuple(TaskVariant(row["family"], row["name"], row["task"], row["options"]) for row in rows)
