"""What was diagnosed, in the run folder: diagnostics/<part>-<iteration>.json, read as data and never executed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from workhorse.runs.files import write_file, writing
from workhorse.runs.folder import RunFolder

__all__ = ["Part", "read", "write"]

Part = Literal["gradients", "values", "baselines"]


def write(folder: RunFolder, part: Part, record: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what was found at an iteration, with what was asked for.

    Raises:
        UsageError: the disk is full, read-only, or not there.
    """
    place = folder.path / "diagnostics"
    whole = {**record, "asked": dict(asked)}
    text = json.dumps(whole, indent=1, allow_nan=False)
    with writing("the diagnosis", place):
        place.mkdir(exist_ok=True)
        write_file(place / f"{part}-{record['iteration']}.json", text.encode())
    return whole


def read(folder: RunFolder, part: Part, iteration: int, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was found at an iteration when the same was asked for; None where it was not, or cannot be read."""
    try:
        record = json.loads((folder.path / "diagnostics" / f"{part}-{iteration}.json").read_bytes())
        return record if record["asked"] == dict(asked) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
