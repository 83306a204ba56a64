"""What was diagnosed, in the run folder: diagnostics/<part>-<iteration>.json, read as data and never executed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from workhorse.runs.files import write_file, writing
from workhorse.runs.folder import RunFolder

__all__ = ["Part", "Unfinished", "read", "write"]

Part = Literal["gradients", "values", "baselines", "landscape"]

KEEP_EVERY_S = 10.0
"""Seconds of a long diagnosis that may be lost."""


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


class Unfinished:
    """What was found of a long diagnosis so far, in the run folder, so that one that was stopped can be gone on with.

    Attributes:
        found: plain JSON by name; numbers come back to the bit.
    """

    def __init__(self, folder: RunFolder, part: Part, iteration: int, asked: Mapping[str, Any]) -> None:
        self._place = folder.path / "diagnostics" / f"unfinished-{part}-{iteration}.json"
        self._asked = dict(asked)
        self.found: dict[str, Any] = self._read()
        self._kept = time.monotonic()

    def add(self, name: str, record: Any) -> None:
        """Add what was found, and keep it now and then."""
        self.found[name] = record
        if time.monotonic() - self._kept >= KEEP_EVERY_S:
            self.keep()

    def keep(self) -> None:
        """Write all of it.

        Raises:
            UsageError: the disk is full, read-only, or not there.
        """
        with writing("the diagnosis", self._place):
            self._place.parent.mkdir(exist_ok=True)
            write_file(self._place, json.dumps({"asked": self._asked, "found": self.found}).encode())
        self._kept = time.monotonic()

    def forget(self) -> None:
        """Remove the file: the diagnosis is whole."""
        self._place.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            record = json.loads(self._place.read_bytes())
            return dict(record["found"]) if record["asked"] == self._asked else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
