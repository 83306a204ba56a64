"""Train the seeds of a study, each in an ordinary run folder; a run that exists there is continued."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from workhorse.algorithms.recipes import recipe
from workhorse.core.errors import UsageError
from workhorse.core.files import is_there, remove_folder, write_file
from workhorse.runs import train as runs
from workhorse.runs.checkpoint import saved_iterations
from workhorse.runs.cost import Ledger
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.runs.policy import Policy
from workhorse.runs.trust import trust_run
from workhorse.studies.jobs import JobRequest, Tell
from workhorse.studies.parcels import Packer
from workhorse.studies.plan import StudyPlan, TrainingJob
from workhorse.training.groups import RunGroup, together
from workhorse.training.loop import MakeLoop
from workhorse.training.plan import Plan

__all__ = [
    "can_go_on",
    "crash",
    "ended_as",
    "is_fatal",
    "ledger_of",
    "request",
    "train",
    "train_away",
    "train_together",
    "wait_until_free",
]

PROGRESS_EVERY_S = 0.5
LEAVING_S = 120.0
"""Time for the worker of a killed study to save and exit."""


def request(plan: StudyPlan, job: TrainingJob, root: Path, command: tuple[str, ...]) -> JobRequest:
    """Return what a worker is told of a job."""
    schedule = {
        "evaluate_every": max(job.env_steps // plan.evaluations, 1),
        "evaluation_episodes": plan.evaluation_episodes,
        "final_episodes": plan.final_episodes,
    }
    where = {"root": str(root), "command": list(command)}
    return {"kind": "run", "id": job.id, **asdict(job), "schedule": schedule, **where}


def train(
    job: Mapping[str, Any],
    progress: Tell,
    *,
    threads: int = 1,
    make: MakeLoop | None = None,
) -> dict[str, Any]:
    """Train a seed to its end, from the beginning or from its last checkpoint, and return its record.

    Raises:
        Exception: the seed has crashed.
        KeyboardInterrupt: it was stopped, with its state saved.
    """
    observer = _Reporter(progress)
    path = Path(job["root"]) / job["id"]
    wait_until_free(path)
    if can_go_on(path):
        folder, summary = runs.resume(path, threads=threads, observer=observer, make=make)
    else:
        remove_folder(path)
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in job["settings"].items()}
        folder, summary = runs.start(
            task=job["task"],
            algorithm=job["algorithm"],
            settings=settings,
            env_steps=job["env_steps"],
            seed=job["seed"],
            task_options=job["task_options"],
            threads=threads,
            schedule=runs.Schedule(**job["schedule"]),
            root=job["root"],
            id=job["id"],
            recipe=recipe(job["task"], job["algorithm"]),
            command=tuple(job["command"]),
            observer=observer,
            make=make,
        )
    return ended_as(folder, summary)


def train_away(job: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Train a seed as `train` does, on a node of a cluster: tell of each checkpoint, with the files to carry home.

    The files are a parcel in `job["parcels"]`, written between two iterations: a state that a run can go on from.
    """
    path, id = Path(job["root"]) / job["id"], job["id"]
    packer, known, sent = Packer(path), saved_iterations(path), 0
    packer.skip_present()
    if can_go_on(path):
        trust_run(RunFolder(path).manifest())  # the study, which sent it, has looked at what it names

    def send() -> None:
        nonlocal sent
        sent += 1
        write_file(Path(job["parcels"]) / f"{sent}", packer.pack(), durable=False)
        tell({"event": "saved", "run": id, "parcel": f"{sent}"})

    def progress(what: Mapping[str, Any]) -> None:
        nonlocal known
        tell({"event": "progress", "run": id, **what})
        if (found := saved_iterations(path)) != known:
            known = found
            send()

    try:
        return train(job, progress)
    finally:
        if is_there(path):
            send()


def train_together(job: Mapping[str, Any], tell: Tell) -> None:
    """Train the seeds of a cell in one process, on shared programs, and tell of each as it ends.

    Raises:
        UsageError: something that affects every seed, such as a full disk.
        KeyboardInterrupt: all were stopped, with their states saved.
    """
    requests = {request["seed"]: request for request in job["runs"]}
    first = job["runs"][0]
    plan = _plan_of(first).with_budget(first["env_steps"])
    group = RunGroup({seed: replace(plan, seed=seed) for seed in requests}, threads=job["cores"])

    def one(seed: int, make: MakeLoop) -> None:
        request = requests[seed]
        id = request["id"]
        try:
            record = train(request, lambda progress: tell({"event": "progress", "run": id, **progress}), make=make)
        except Exception as error:
            if is_fatal(error):
                raise
            tell({"event": "ended", "run": id, "reason": crash(error)})
        else:
            tell({"event": "ended", "run": id, "record": record})

    for outcome in together(group, one).values():
        if isinstance(outcome, BaseException):
            raise outcome


def is_fatal(error: BaseException) -> bool:
    """Tell whether an error is one of the disk, which affects every seed."""
    return isinstance(error, UsageError) and isinstance(error.__cause__, OSError)


def crash(error: BaseException) -> str:
    """Return why a seed crashed, in a sentence."""
    return str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"


def _plan_of(job: Mapping[str, Any]) -> Plan:
    return Plan(job["task"], job["task_options"], job["algorithm"], job["settings"], job.get("seed", 0))


def ended_as(folder: RunFolder, summary: runs.Summary) -> dict[str, Any]:
    """Return the record of a completed run: `finished` or `diverged`, and its numbers."""
    assert summary.episode_return is not None  # a study's runs have a task to be played in
    score = summary.episode_return.value
    reason = ""
    if not math.isfinite(score):
        reason = f"the mean return of the last evaluation is {score}"
    elif not _newest_policy_is_saved(folder):
        reason = "the parameters are no longer finite"
    return {
        "outcome": "diverged" if reason else "finished",
        "reason": reason,
        "score": None if reason else score,
        "episode_returns": [value for value in summary.episode_returns if math.isfinite(value)],
        "env_steps": summary.env_steps,
        "wall_s": summary.wall_s,
        "core_hours": summary.core_hours,
        "failed_episodes": summary.failed_episodes,
    }


def ledger_of(path: Path) -> Ledger:
    """Return the ledger of a run as of its last checkpoint; an empty one where there is none or it is damaged."""
    try:
        return Ledger.of(RunFolder(path))
    except (OSError, UsageError):
        return Ledger()


def can_go_on(path: Path) -> bool:
    """Tell whether a folder holds a run with a checkpoint; a run killed before its first one is started again."""
    return is_there(path / "manifest.json") and bool(saved_iterations(path))


def wait_until_free(path: Path) -> None:
    """Wait until the worker of a killed study has saved and exited.

    Raises:
        UsageError: it does not exit, which is not the seed's fault.
    """
    deadline = time.monotonic() + LEAVING_S
    while RunFolder(path).is_locked():
        if time.monotonic() > deadline:
            raise UsageError(f"Another process trains in {path} and does not end: stop it first.") from OSError()
        time.sleep(0.2)


def _newest_policy_is_saved(folder: RunFolder) -> bool:
    """Tell whether the policy is that of the last iteration; a run saves it only while its parameters are finite."""
    status = folder.status()
    try:
        policy = Policy.load(folder.policy)
    except UsageError:
        return False
    return status is None or policy.metadata.get("iteration") == status.iteration


class _Reporter(runs.Observer):
    """Observer that tells the study of a run's progress, at most twice a second, and of what takes a while."""

    def __init__(self, progress: Tell) -> None:
        self._progress = progress
        self._told = 0.0

    def started(self, folder: RunFolder, manifest: Manifest, row: Mapping[str, Any]) -> None:
        self._progress({"doing": "compiling"})

    def evaluating(self, episodes: int, last: bool) -> None:
        if last:
            self._progress({"doing": f"evaluating {episodes:,} episodes"})

    def iterated(self, row: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if now - self._told >= PROGRESS_EVERY_S:
            self._told = now
            value = float(row.get("evaluation_return", row.get("training_return", math.nan)))
            self._progress({"env_steps": int(row["env_steps"]), "return": value if math.isfinite(value) else None})
