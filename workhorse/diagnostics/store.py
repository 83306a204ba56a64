"""What was diagnosed, in the run folder: diagnostics/gradients-<iteration>.json, read as data and never executed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from workhorse.runs.files import write_file, writing
from workhorse.runs.folder import RunFolder

__all__ = ["read_gradients", "write_gradients"]


def write_gradients(folder: RunFolder, record: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what was found at an iteration, with what was asked for.

    Raises:
        UsageError: the disk is full, read-only, or not there.
    """
    place = folder.path / "diagnostics"
    whole = {**record, "asked": dict(asked)}
    with writing("the diagnosis", place):
        place.mkdir(exist_ok=True)
        write_file(
            place / f"gradients-{record['iteration']}.json", json.dumps(whole, indent=1, allow_nan=False).encode()
        )
    return whole


def read_gradients(folder: RunFolder, iteration: int, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was found at an iteration when the same was asked for; None where it was not, or cannot be read."""
    try:
        record = json.loads((folder.path / "diagnostics" / f"gradients-{iteration}.json").read_bytes())
        return record if record["asked"] == dict(asked) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
