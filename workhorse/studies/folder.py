"""The study folder: the plan, the runs, and a small record of how each of them ended.

studies/<id>/ study.json runs/<run>/ tuning/<run>/ results.parquet report.html report-data/ logs/ lock
              records/{runs,tuning,floors,sweeps,searches,choices,batches,sittings}/<name>.json
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from workhorse.core.errors import UsageError
from workhorse.core.machine import describe_hardware, installed_versions
from workhorse.runs.files import write_file, writing
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import utc_now
from workhorse.studies.plan import StudyPlan, TrainingJob
from workhorse.studies.study_file import plan_of

__all__ = ["FORMAT", "Kind", "StudyFolder", "is_study", "published_threshold"]

FORMAT = 1
"""Version of the study folder's layout."""

Kind = Literal["runs", "tuning", "floors", "sweeps", "searches", "choices", "batches", "sittings"]
_KINDS: tuple[Kind, ...] = ("runs", "tuning", "floors", "sweeps", "searches", "choices", "batches", "sittings")


def is_study(path: str | os.PathLike[str]) -> bool:
    """Tell whether a folder holds a study."""
    return (Path(path) / "study.json").is_file()


class StudyFolder:
    """Folder of one study. Make one with `create` or `open`.

    Attributes:
        path: the folder.
        plan: of the study.
        about: when it was created, by which command, with which versions, on which machine.
    """

    def __init__(self, path: Path, plan: StudyPlan, about: Mapping[str, Any]) -> None:
        self.path = path
        self.plan = plan
        self.about = about

    @staticmethod
    def create(root: str | os.PathLike[str], id: str | None, plan: StudyPlan, command: tuple[str, ...]) -> StudyFolder:
        """Make the folder of a new study.

        Raises:
            UsageError: the id is taken or is no folder name, or the disk cannot be written.
        """
        if id is not None and (not re.fullmatch(r"[\w.+=@-]+", id) or id.startswith(".")):
            raise UsageError(f"Expected a study id of letters, digits and -_.+=@, got {id!r}: choose another --id.")
        path = Path(root) / (id or _free_name(Path(root)))
        hardware = describe_hardware()
        about = {
            "format": FORMAT,
            "created": utc_now(),
            "published_thresholds": {task: published_threshold(task) for task in plan.tasks},
            "command": list(command),
            "versions": installed_versions(),
            "machine": f"{hardware.cores} cores of {hardware.cpu or 'an unnamed processor'}",
        }
        text = json.dumps({**about, "plan": plan.to_json()}, indent=1, allow_nan=False)
        with writing("a study folder", path):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                raise UsageError(
                    f"Expected a new study id, but {path} exists: continue it with `workhorse study {path}`, or choose "
                    "another --id."
                ) from None
            for part in ("runs", "tuning", "logs", *(f"records/{kind}" for kind in _KINDS)):
                (path / part).mkdir(parents=True, exist_ok=True)
            write_file(path / "study.json", text.encode())
        return StudyFolder(path, plan, about)

    @staticmethod
    def open(path: str | os.PathLike[str]) -> StudyFolder:
        """Open the folder of an existing study.

        Raises:
            UsageError: it is missing, not a study, damaged or of another format.
        """
        place = Path(path)
        if not is_study(place):
            what = "which does not exist" if not place.exists() else "which has no study.json and so is not a study"
            raise UsageError(f"Expected a study in {place}, {what}.")
        try:
            record = json.loads((place / "study.json").read_bytes())
            version, words = record["format"], record.pop("plan")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"Expected a study in {place}, but its study.json is damaged ({error!r}): restore it from a copy."
            ) from error
        if version != FORMAT:
            raise UsageError(
                f"Expected study format {FORMAT} in {place}, got {version!r}: another version of Workhorse wrote it. "
                "Use that version."
            )
        return StudyFolder(place, plan_of(words, os.fspath(place / "study.json")), record)

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    def lock(self) -> AbstractContextManager[None]:
        """Lock the study for this process.

        Raises:
            UsageError: another process holds it.
        """
        return RunFolder(self.path).lock()

    def record(self, kind: Kind, name: str) -> dict[str, Any] | None:
        """Return a record; None where it is missing or damaged, so that the work is done again."""
        try:
            found = json.loads(self._place(kind, name).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write_record(self, kind: Kind, name: str, record: Mapping[str, Any]) -> None:
        """Write a record, completely or not at all."""
        place = self._place(kind, name)
        with writing("a record of the study", place):
            place.parent.mkdir(exist_ok=True)  # a study of an earlier version has fewer kinds
            write_file(place, json.dumps(dict(record), allow_nan=False).encode())

    def records(self, kind: Kind) -> dict[str, dict[str, Any]]:
        """Return all records of a kind, by name."""
        names = self._names(kind)
        found = {name: self.record(kind, name) for name in names}
        return {name: record for name, record in found.items() if record is not None}

    def core_hours(self) -> float:
        """Return the core-hours of the study's runs so far, including floors and sweeps: what a budget limits."""
        found = [record.get("core_hours", 0.0) for kind in _KINDS for record in self.records(kind).values()]
        return float(sum(found))

    def batches(self) -> list[dict[str, Any]]:
        """Return the batches of seeds that `until` added, in order."""
        names = self._names("batches")
        found = [self.record("batches", name) for name in names]
        for name, batch in zip(names, found, strict=True):
            if batch is None:
                raise UsageError(f"The record {self._place('batches', name)} is damaged: restore it from a copy.")
        return [batch for batch in found if batch is not None]

    def add_batch(self, batch: Mapping[str, Any]) -> None:
        """Write down a batch before it starts, so that a stopped study finds all its runs."""
        self.write_record("batches", f"{len(self.batches()):05}", batch)

    def batch_jobs(self, batch: Mapping[str, Any]) -> list[TrainingJob]:
        """Return the runs of a batch."""
        task, algorithm, variant = batch["task"], batch["algorithm"], batch["variant"]
        return [self.plan.job(task, algorithm, batch["setting"], seed, variant) for seed in batch["seeds"]]

    def _names(self, kind: Kind) -> list[str]:
        """Return the names of the complete records; a file with a leading dot was left behind by a kill."""
        places = (self.path / "records" / kind).glob("*.json")
        return sorted(place.stem for place in places if not place.name.startswith("."))

    def _place(self, kind: Kind, name: str) -> Path:
        return self.path / "records" / kind / f"{name}.json"


def published_threshold(task: str) -> float | None:
    """Return the reward threshold that Gymnasium publishes for a task, if any; its module must have been imported."""
    import gymnasium

    value = getattr(gymnasium.registry.get(task.split(":")[-1]), "reward_threshold", None)
    return float(value) if value is not None and math.isfinite(value) else None


def _free_name(root: Path) -> str:
    stem = f"study-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    return next(name for name in names if not (root / name).exists())
