"""The study folder: the plan, the runs, and a small record of how each of them ended.

studies/<id>/ study.json runs/<run>/ tuning/<run>/ results.parquet report.html report-data/ logs/ lock
              records/{runs,tuning,floors,sweeps,searches,choices,batches,sittings}/<name>.json
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workhorse.core.errors import UsageError
from workhorse.core.files import UnreadableFile, is_there, list_folder, make_folder, writing
from workhorse.core.machine import describe_hardware, installed_versions
from workhorse.core.records import DAMAGED, build, shown
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import utc_now
from workhorse.runs.sealed import read_record, write_record
from workhorse.runs.trust import is_trusted, key_of, names_code, needing_trust, require_trust, trust, trust_run
from workhorse.studies.plan import StudyPlan, TrainingJob
from workhorse.studies.record_kinds import KINDS, Kind, check_record, describe_loss
from workhorse.studies.study_file import plan_of

__all__ = ["FORMAT", "StudyFolder", "is_study", "published_threshold"]

FORMAT = 1
"""Version of the study folder's layout."""

_PARTS = ("runs", "tuning", "logs", "records", *(f"records/{kind}" for kind in KINDS))


_ALWAYS = {"tasks", "algorithms", "seeds", "evaluations", "evaluation_episodes", "final_episodes"}
"""Entries that every plan in a study.json has."""


@dataclass(frozen=True)
class _About:
    """Fields of study.json beside the plan, which `plan_of` checks."""

    created: str
    published_thresholds: Mapping[str, float | None]
    command: tuple[str, ...]
    versions: Mapping[str, str]
    machine: str


def is_study(path: str | os.PathLike[str]) -> bool:
    """Tell whether a folder holds a study, be it a damaged one."""
    return is_there(Path(path) / "study.json")


class StudyFolder:
    """Folder of one study. Make one with `create` or `open`.

    Attributes:
        path: the folder.
        plan: of the study.
        about: when it was created, by which command, with which versions, on which machine.
        damage: a sentence for each record that was found damaged, by its path; filled as records are read.
    """

    def __init__(self, path: Path, plan: StudyPlan, about: Mapping[str, Any]) -> None:
        self.path = path
        self.plan = plan
        self.about = about
        self.damage: dict[Path, str] = {}

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
        with writing("a study folder", path):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                raise UsageError(
                    f"Expected a new study id, but {path} exists: continue it with `workhorse study {path}`, or choose "
                    "another --id."
                ) from None
            for part in _PARTS:
                make_folder(path / part, path)
            write_record(path / "study.json", {**about, "plan": plan.to_json()})
        folder = StudyFolder(path, plan, about)
        folder.trust()
        return folder

    @staticmethod
    def open(path: str | os.PathLike[str]) -> StudyFolder:
        """Open the folder of an existing study.

        Raises:
            UsageError: it is missing, not a study, damaged, of another format, or a part of it is a link.
        """
        place = Path(path)
        if not is_study(place):
            what = "which does not exist" if not place.exists() else "which has no study.json and so is not a study"
            raise UsageError(f"Expected a study in {place}, {what}.")
        file = place / "study.json"
        record = read_record(file, noun="a study", remedy="Restore it from a copy")
        version, words = record.pop("format", None), record.pop("plan", None)
        if type(version) is not int or version != FORMAT:
            raise UsageError(
                f"Expected study format {FORMAT} in {place}, got {shown(version)}: the file is damaged, or another "
                "version of Workhorse wrote it. Restore it from a copy, or use that version."
            )
        about = build(_About, record, os.fspath(file))
        if not isinstance(words, dict) or None in words.values() or _ALWAYS - words.keys():
            # a study file may leave these out or empty, but the plan made of it has them
            wanted = ", ".join(sorted(_ALWAYS))
            raise UsageError(f"Expected a field `plan` with {wanted} in {file}, got {shown(words)}. {DAMAGED}")
        folder = StudyFolder(place, plan_of(words, os.fspath(file)), asdict(about))
        folder._check_parts()
        return folder

    def _check_parts(self) -> None:
        """Check that the study's folders, and those of its runs, are folders and no links.

        Raises:
            UsageError: one is something else.
        """
        for part in _PARTS:
            place = self.path / part
            inside = list_folder(place, within=self.path)
            for run in inside if part in ("runs", "tuning") else ():
                if not stat.S_ISDIR(os.lstat(run).st_mode):
                    raise UnreadableFile(
                        f"Expected run folders in {place}, got {run.name}, a link or a file: remove it."
                    )

    def trust(self) -> None:
        """Remember that the user vouches for the study and its runs, where they name code; see `runs.trust`."""
        if any(names_code(*names) for names in self._named()):
            trust(self._key())
            for place in (*list_folder(self.path / "runs"), *list_folder(self.path / "tuning")):
                with contextlib.suppress(UsageError):
                    trust_run(RunFolder(place).manifest())

    def require_trust(self) -> None:
        """Refuse a study from elsewhere that would run code of its choice.

        Raises:
            UsageError: see `runs.trust.require_trust`.
        """
        if not is_trusted(self._key()):
            needing = [name for names in self._named() for name in needing_trust(*names)]
            require_trust(self._key(), list(dict.fromkeys(needing)), f"The study {self.path}")

    def _named(self) -> list[tuple[str, Mapping[str, Any], str]]:
        plan = self.plan
        return [(task, plan.task_options.get(task, {}), name) for task in plan.tasks for name in plan.algorithms]

    def _key(self) -> str:
        return key_of({"created": self.about["created"], "command": self.about["command"], "named": self._named()})

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
        """Return a record; None where it is missing or damaged, so that the work is done again.

        What is damaged is noted in `damage`.
        """
        place, label = self._place(kind, name), f"{kind}/{name}"
        try:
            found = read_record(place, self.path, noun="a record of the study", remedy=describe_loss(kind))
            if found.pop("record", label) != label:
                raise UsageError(f"Expected the record {label} in {place}, got another one's. {describe_loss(kind)}.")
            checked = check_record(kind, found, os.fspath(place))
        except FileNotFoundError:
            return None
        except UsageError as error:
            self.damage[place] = _once(f"{error}", describe_loss(kind))
            return None
        self.damage.pop(place, None)
        return checked

    def ended(self, kind: Kind, job: TrainingJob) -> dict[str, Any] | None:
        """Return how a run ended; None where it has not, or where its record is damaged or another run's."""
        found = self.record(kind, job.id)
        if found is None:
            return None
        given, wanted = (found["task"], found["variant"], found["seed"]), (job.task, job.variant, job.seed)
        if given != wanted:
            place = self._place(kind, job.id)
            self.damage[place] = (
                f"Expected the record of {job.id} in {place}, got that of {' '.join(map(str, given))}. "
                f"{describe_loss(kind)}."
            )
            return None
        return found

    def write_record(self, kind: Kind, name: str, record: Mapping[str, Any]) -> None:
        """Write a record with its checksum, completely or not at all."""
        place = self._place(kind, name)
        with writing("a record of the study", place):
            place.parent.mkdir(exist_ok=True)  # a study of an earlier version has fewer kinds
            write_record(place, {"record": f"{kind}/{name}", **record}, self.path, indent=None)

    def records(self, kind: Kind) -> dict[str, dict[str, Any]]:
        """Return all records of a kind, by name."""
        names = self._names(kind)
        found = {name: self.record(kind, name) for name in names}
        return {name: record for name, record in found.items() if record is not None}

    def core_hours(self) -> float:
        """Return the core-hours of the study's runs so far, including floors and sweeps: what a budget limits."""
        found = [record.get("core_hours", 0.0) for kind in KINDS for record in self.records(kind).values()]
        return float(sum(found))

    def batches(self) -> list[dict[str, Any]]:
        """Return the batches of seeds that `until` added, in order."""
        names = self._names("batches")
        found = [self.record("batches", name) for name in names]
        for name, batch in zip(names, found, strict=True):
            if batch is None:
                raise UsageError(self.damage[self._place("batches", name)])
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
        return [place.stem for place in list_folder(self.path / "records" / kind, "*.json", self.path)]

    def _place(self, kind: Kind, name: str) -> Path:
        return self.path / "records" / kind / f"{name}.json"


def _once(sentence: str, loss: str) -> str:
    """Return a message that says what becomes of the study, which that of a field does not."""
    return sentence if loss in sentence else f"{sentence} {loss}."


def published_threshold(task: str) -> float | None:
    """Return the reward threshold that Gymnasium publishes for a task, if any; its module must have been imported."""
    import gymnasium

    value = getattr(gymnasium.registry.get(task.split(":")[-1]), "reward_threshold", None)
    return float(value) if value is not None and math.isfinite(value) else None


def _free_name(root: Path) -> str:
    stem = f"study-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    return next(name for name in names if not (root / name).exists())
