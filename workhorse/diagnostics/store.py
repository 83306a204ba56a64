"""Measurements in the run folder: diagnostics/<part>-<iteration>.json, read as data and never executed."""

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any, Literal

from workhorse.core.errors import UsageError
from workhorse.core.files import make_folder, remove, writing
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import owner_of
from workhorse.runs.sealed import read_record, write_record

__all__ = ["Part", "Results", "Unfinished", "plain_json", "read", "write"]

Part = Literal["gradients", "values", "baselines", "landscape", "log"]

KEEP_EVERY_S = 10.0
"""Seconds of a long diagnosis that may be lost."""


def plain_json(value: object) -> Any:
    """Return dataclasses, named tuples and numbers as plain JSON; a number that is not finite is null.

    The fields of a named tuple in a record become fields of that record.
    """
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        record: dict[str, Any] = {}
        for name, one in value.items():
            record |= plain_json(one._asdict()) if hasattr(one, "_asdict") else {name: plain_json(one)}
        return record
    if isinstance(value, list | tuple):
        return [plain_json(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(folder: RunFolder, part: Part, record: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Write the record of a part at an iteration, with the options it was measured by, and return both.

    Raises:
        UsageError: the disk is full, read-only, or not there.
    """
    place = folder.path / "diagnostics"
    whole = {**record, "asked": dict(asked)}
    with writing("the diagnosis", place):
        make_folder(place)
        write_record(place / f"{part}-{record['iteration']}.json", whole, folder.path, owner=owner_of(folder))
    return whole


def read(folder: RunFolder, part: Part, iteration: int, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of a part that was measured by these options; None where there is none that can be read."""
    try:
        record = read_record(
            folder.path / "diagnostics" / f"{part}-{iteration}.json", folder.path, owner=owner_of(folder)
        )
    except (FileNotFoundError, UsageError):
        return None
    return record if record.get("asked") == dict(asked) and record.get("iteration") == iteration else None


class Results:
    """Results of a diagnosis by name, in memory.

    Attributes:
        found: plain JSON.
    """

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def add(self, name: str, record: object) -> None:
        """Add a result."""
        self.found[name] = record


class Unfinished(Results):
    """Results of a long diagnosis so far, in the run folder, so that one that was stopped can be continued.

    Numbers come back to the bit.
    """

    def __init__(self, folder: RunFolder, part: Part, iteration: int, asked: Mapping[str, Any]) -> None:
        self._folder = folder.path
        self._place = folder.path / "diagnostics" / f"unfinished-{part}-{iteration}.json"
        self._asked = dict(asked)
        self.found: dict[str, Any] = self._read()
        self._kept = time.monotonic()

    def add(self, name: str, record: object) -> None:
        """Add a result, and write the file now and then."""
        self.found[name] = record
        if time.monotonic() - self._kept >= KEEP_EVERY_S:
            self.keep()

    def keep(self) -> None:
        """Write the file.

        Raises:
            UsageError: the disk is full, read-only, or not there.
        """
        with writing("the diagnosis", self._place):
            make_folder(self._place.parent)
            write_record(self._place, {"asked": self._asked, "found": self.found}, self._folder, indent=None)
        self._kept = time.monotonic()

    def forget(self) -> None:
        """Remove the file: the diagnosis is whole."""
        remove(self._place, self._folder)

    def _read(self) -> dict[str, Any]:
        try:
            record = read_record(self._place, self._folder)
        except (FileNotFoundError, UsageError):
            return {}
        found = record.get("found")
        return found if isinstance(found, dict) and record.get("asked") == self._asked else {}
