"""Worker process of a study: takes jobs from standard input and reports on standard output.

    python -m workhorse.studies.worker

A job is a line of JSON, and so is every report. Seeds run in processes of their own because one may crash in any way,
and then only that seed is lost. The process saves its run and ends when it is told to, or when its parent is gone.
"""

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workhorse.core.errors import UsageError
from workhorse.core.files import remove_folder
from workhorse.studies.jobs import Tell

__all__ = ["OWNER", "main"]

OWNER = "WORKHORSE_STUDY_WORKER"
"""Environment variable of a process on a node of a cluster: the process id of its worker, and their folder."""

_orphaned = threading.Event()
"""Set once standard input has ended: the parent is gone, or closes it."""


def main() -> int:
    """Do jobs until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the log
    jobs: queue.Queue[dict[str, Any] | None] = queue.Queue()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the parent, which tells us
    signal.signal(signal.SIGTERM, _leave)
    lock = threading.Lock()

    def tell(answer: Mapping[str, Any]) -> None:
        with lock:
            answers.write(json.dumps(dict(answer), allow_nan=False) + "\n")

    try:
        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):  # told to exit while idle, or nobody hears us
            threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
            while (job := jobs.get()) is not None:
                if not _serve(job, tell):
                    break
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if _orphaned.is_set() and OWNER in os.environ:
            _clean_up(*os.environ[OWNER].split(" ", 1))
    return 0


def _clean_up(worker: str, folder: str) -> None:
    """Remove the temporary folder on a node of a cluster where its worker has died; nobody else would."""
    deadline = time.monotonic() + 1.0  # a process that dies closes its pipes a moment before that shows
    while os.getppid() == int(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    if os.getppid() != int(worker):
        remove_folder(Path(folder))


def _serve(job: dict[str, Any], tell: Tell) -> bool:
    """Do a job and report how it ended; return whether to continue."""
    begun = time.monotonic()
    try:
        answer = _work(job, tell)
    except KeyboardInterrupt:
        tell({"event": "stopped", "id": job["id"]})
        return False
    except Exception as error:
        from workhorse.studies.training_job import crash, is_fatal

        if not isinstance(error, UsageError):
            traceback.print_exc()
        answer = {"event": "fatal" if is_fatal(error) else "crashed", "reason": crash(error)}
    try:
        json.dumps(answer, allow_nan=False)
    except ValueError:
        answer = {"event": "crashed", "reason": "its result contains a number that is not finite"}
    tell({"event": "done", **answer, "id": job["id"], "seconds": time.monotonic() - begun})
    return True


def _listen(jobs: queue.Queue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    jobs.put(None)
    _orphaned.set()
    os.kill(os.getpid(), signal.SIGTERM)  # the parent is gone, or has no more work


def _leave(*_: object) -> None:
    raise KeyboardInterrupt


def _work(job: dict[str, Any], tell: Tell) -> dict[str, Any]:
    match job["kind"]:
        case "run":
            from workhorse.studies.training_job import train, train_away

            if "parcels" in job:
                return {"run": train_away(job, tell)}
            return {"run": train(job, lambda progress: tell({"event": "progress", "run": job["id"], **progress}))}
        case "seeds":
            from workhorse.studies.training_job import train_together

            train_together(job, tell)
            return {}
        case "floor":
            from workhorse.robustness.floors import measure_floor

            floor = measure_floor(job["task"], job["task_options"], job["episodes"])
            return {"floor": asdict(floor)}
        case "sweep":
            from workhorse.robustness.results import to_record
            from workhorse.robustness.sweeps import sweep
            from workhorse.runs.policy import Policy

            policy = Policy.load(Path(job["folder"]) / "policy")
            chosen = job["artefacts"] or None
            found = sweep(
                policy, job["task"], job["task_options"], artefacts=chosen, episodes=job["episodes"], threads=1
            )
            return {"sweep": to_record(found)}
        case kind:
            raise ValueError(f"A worker cannot do the job {kind!r}.")


if __name__ == "__main__":
    sys.exit(main())
