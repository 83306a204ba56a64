"""Metrics of a run sent to Weights & Biases, where a user asks for it.

Only metrics and settings are sent: no code, no console output, nothing about the machine. Whatever goes wrong there is
said once, and training goes on without it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from workhorse.core.errors import UsageError
from workhorse.core.files import make_folder, read_file, write_file
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.runs.metric_words import tagged
from workhorse.runs.metrics import read_metrics
from workhorse.runs.run import Observer, StopTraining

__all__ = ["WandbObserver", "sent_to_wandb", "wandb_project"]

T = TypeVar("T")

RECORD = "wandb.json"
"""File in the run folder that says which run of Weights & Biases it is, so that a resume goes on with the same."""

_LONGEST_NAME = 128
_ROWS_A_RECORD = 20
_NOTHING_ELSE = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "save_code": False,
    "silent": True,
    "symlink": False,
    "finish_timeout": 60.0,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""Settings of wandb that keep it from uploading what nobody asked for, printing, making links, and waiting for ever."""


def sent_to_wandb(project: str | None, observer: Observer) -> contextlib.AbstractContextManager[Observer]:
    """Return a context in which what an observer is told is sent to a project as well; None for no project.

    Raises:
        UsageError: the project's name cannot be one, or the package is not installed.
    """
    return contextlib.nullcontext(observer) if project is None else WandbObserver(project, observer)


def wandb_project(folder: RunFolder) -> str | None:
    """Return the project that a run was sent to; None where it was not."""
    found = _record(folder)
    return None if found is None else found["project"]


class WandbObserver(Observer):
    """Sends each iteration's metrics to Weights & Biases, by their TensorBoard tags, and tells another observer all."""

    def __init__(self, project: str, observer: Observer) -> None:
        """Check the project's name, written PROJECT or ENTITY/PROJECT, and that the package is there."""
        self._entity, self._project = _named(project)
        _require_package()
        self._observer = observer
        self._run: Any = None
        self._folder: RunFolder | None = None
        self._settings: Mapping[str, Any] = {}
        self._id = ""
        self._sent = 0  # the last iteration that was sent, in this sitting or an earlier one
        self._has_begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is None or self._folder is None:
            return
        status = self._folder.status()
        if error is None and status is not None and status.last_return is not None:
            self._try(lambda: self._run.summary.update({"final/mean_reward": status.last_return}))
        failed = error is not None and not isinstance(error, KeyboardInterrupt | StopTraining)
        self._try(lambda: self._run.finish(exit_code=int(failed)))
        self._write_record()

    def started(self, folder: RunFolder, manifest: Manifest, row: Mapping[str, Any]) -> None:
        """Begin a run there, or go on with the one of an earlier sitting."""
        self._folder, self._settings = folder, manifest.settings
        record = _record(folder)
        same = record is not None and record["project"] == self._name
        self._id = record["id"] if record is not None and same else uuid.uuid4().hex[:12]
        self._sent = record["iteration"] if record is not None and same else 0
        self._run = self._try(lambda: self._begin(folder, manifest))
        if self._run is not None:
            self._has_begun = True
            self._write_record()
            self._observer.noted(
                f"Weights & Biases is offline: `wandb sync {folder.path / 'wandb'}/offline-run-*` uploads the run."
                if self._run.offline
                else f"Weights & Biases: {self._run.url}"
            )
            if row["iteration"] > self._sent:
                self._try(lambda: self._catch_up(folder, row["iteration"]))
        self._observer.started(folder, manifest, row)

    def iterated(self, row: Mapping[str, Any]) -> None:
        """Send a row, unless an earlier sitting has sent it."""
        if self._run is not None and row["iteration"] > self._sent:
            self._try(lambda: self._send(row))
            if self._sent % _ROWS_A_RECORD == 0:
                self._write_record()
        self._observer.iterated(row)

    def noted(self, sentence: str) -> None:
        """Pass a sentence on."""
        self._observer.noted(sentence)

    @property
    def _name(self) -> str:
        return f"{self._entity}/{self._project}" if self._entity else self._project

    def _begin(self, folder: RunFolder, manifest: Manifest) -> Any:
        import wandb  # type: ignore[import-not-found]  # an extra

        make_folder(folder.path / "wandb", within=folder.path)  # else wandb would follow a link that lies there
        known = getattr(wandb.Settings, "model_fields", _NOTHING_ELSE)
        about = {"task": manifest.task, "algorithm": manifest.algorithm, "seed": manifest.seed}
        about |= {"env_steps": manifest.env_steps, "task_options": dict(manifest.task_options)}
        run = wandb.init(
            project=self._project,
            entity=self._entity,
            id=self._id,
            name=folder.id,
            dir=str(folder.path),
            config={**manifest.settings, **about, "versions": dict(manifest.versions)},
            resume="allow",
            settings=wandb.Settings(**{name: value for name, value in _NOTHING_ELSE.items() if name in known}),
        )
        run.define_metric("*", step_metric="global_step")
        self._sent = max(self._sent, int(getattr(run, "step", 0) or 0) - 1)
        return run

    def _catch_up(self, folder: RunFolder, iteration: int) -> None:
        """Send the rows up to an iteration that sittings without Weights & Biases have left."""
        for row in read_metrics(folder).to_dicts():
            if self._sent < row["iteration"] <= iteration:
                self._send({name: value for name, value in row.items() if value is not None})

    def _send(self, row: Mapping[str, Any]) -> None:
        self._run.log({"global_step": row["env_steps"], **tagged(row, self._settings)}, step=row["iteration"])
        self._sent = row["iteration"]

    def _try(self, call: Callable[[], T]) -> T | None:
        """Return what a call returns; where it raises, say so once and send nothing more."""
        try:
            return call()
        except Exception as error:  # of any kind: a training must not end for it
            self._run = None
            reason = " ".join(str(error).split()) or type(error).__name__
            self._observer.noted(f"Weights & Biases failed ({reason[:300]}): training goes on without it.")
            return None

    def _write_record(self) -> None:
        if self._folder is None or not self._has_begun:
            return
        content = json.dumps({"project": self._name, "id": self._id, "iteration": self._sent}, indent=1)
        with contextlib.suppress(UsageError, OSError):  # what it costs is a point sent twice
            write_file(self._folder.path / RECORD, content.encode())


def _named(project: str) -> tuple[str | None, str]:
    """Return entity and project of PROJECT or ENTITY/PROJECT."""
    *entity, name = project.split("/")
    if not name or len(entity) > 1 or not all(entity) or len(name) > _LONGEST_NAME or re.search(r"[\\#?%:\s]", project):
        raise UsageError(
            "--wandb must be the name of a project of Weights & Biases, or ENTITY/PROJECT, of at most "
            f"{_LONGEST_NAME} characters and none of \\ # ? % : or spaces: got {project!r}."
        )
    return (entity[0] if entity else None), name


def _require_package() -> None:
    """Raise a `UsageError` where wandb is not installed."""
    spec = sys.modules["wandb"].__spec__ if "wandb" in sys.modules else importlib.util.find_spec("wandb")
    if spec is None or spec.origin is None:  # a folder that wandb has left here looks like a package without a file
        raise UsageError(
            "--wandb needs the package wandb, which is not installed: `pip install 'workhorse[wandb]'`, or leave "
            "--wandb out; the same metrics are in the run's tensorboard folder."
        )


def _record(folder: RunFolder) -> dict[str, Any] | None:
    """Return what the run folder remembers; None where it has nothing that can be used."""
    try:
        found = json.loads(read_file(Path(folder.path) / RECORD))
        if not re.fullmatch(r"[0-9a-f]{1,64}", found["id"]) or not isinstance(found["project"], str):
            return None
        return {"project": found["project"], "id": found["id"], "iteration": int(found["iteration"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UsageError):
        return None
