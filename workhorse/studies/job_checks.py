"""Checks of what a worker on a cluster says of its job, before a study believes it."""

from collections.abc import Mapping
from typing import Any

from workhorse.core.errors import UsageError
from workhorse.runs.trust import needing_trust
from workhorse.studies.job_messages import BadMessage
from workhorse.studies.jobs import JobEvent
from workhorse.studies.record_kinds import Kind, check_record

__all__ = ["check_result", "names_of", "progress_of"]

_RESULTS: dict[str, Kind] = {"run": "runs", "floor": "floors", "sweep": "sweeps"}
"""Kind of job to the kind of record that is made of its result."""


def names_of(job: Mapping[str, Any]) -> set[str]:
    """Return what the names of a job, or of a run, would run; the user has vouched for those of the study's jobs."""
    return set(needing_trust(job["task"], job["task_options"], job["algorithm"]))


def progress_of(job: Mapping[str, Any], event: JobEvent) -> JobEvent:
    """Return what a worker says of its progress, checked."""
    told: JobEvent = {"event": "progress", "run": job["id"]}
    if "doing" in event:
        return told | {"doing": str(event["doing"])[:200]}
    return told | {"env_steps": int(event["env_steps"]), "return": None if (r := event["return"]) is None else float(r)}


def check_result(job: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Check the result of a job.

    Raises:
        BadMessage: it is none that a worker of ours gives.
    """
    about = {"core_hours": 0.0}
    if job["kind"] == "run":
        about = {name: job[name] for name in ("variant", "task", "algorithm", "seed", "setting")}
    try:
        check_record(_RESULTS[job["kind"]], {**result, **about}, "its answer")
    except UsageError as error:
        raise BadMessage(f"a result that is none ({error})") from error
