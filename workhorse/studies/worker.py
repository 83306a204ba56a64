"""A process of a study: takes one job after the other from standard input, tells how it goes on standard output.

    python -m workhorse.studies.worker

A job is a line of JSON, and so is every answer. It has a process of its own because a seed may crash in any way: what
is lost is that seed, which counts. The process ends, its run saved, when it is told to or when its parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workhorse.core.errors import UsageError

__all__ = ["Tell", "main"]

Tell = Callable[[Mapping[str, Any]], None]
"""Answers the parent with a JSON object."""


def main() -> int:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is for the log
    jobs: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the parent, which tells us
    signal.signal(signal.SIGTERM, _leave)
    lock = threading.Lock()

    def tell(answer: Mapping[str, Any]) -> None:
        with lock:
            answers.write(json.dumps(dict(answer), allow_nan=False) + "\n")

    with contextlib.suppress(KeyboardInterrupt):  # told to leave while there was nothing to do
        while (job := jobs.get()) is not None:
            if not _serve(job, tell):
                break
    return 0


def _serve(job: dict[str, Any], tell: Tell) -> bool:
    """Do a job and say how it ended; whether to go on."""
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
        answer = {"event": "crashed", "reason": "what it found holds a number that is not finite"}
    tell({"event": "done", **answer, "id": job["id"], "seconds": time.monotonic() - begun})
    return True


def _listen(jobs: queue.Queue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    jobs.put(None)
    os.kill(os.getpid(), signal.SIGTERM)  # the parent is gone, or has no more work


def _leave(*_: object) -> None:
    raise KeyboardInterrupt


def _work(job: dict[str, Any], tell: Tell) -> dict[str, Any]:
    match job["kind"]:
        case "run":
            from workhorse.studies.training_job import train

            return {"run": train(job, lambda progress: tell({"event": "progress", "run": job["id"], **progress}))}
        case "seeds":
            from workhorse.studies.training_job import train_together

            train_together(job, tell)
            return {}
        case "floor":
            from workhorse.robustness.floors import measure_floor

            floor = measure_floor(job["task"], job["task_options"], job["episodes"])
            return {"floor": {"random": floor.random, "nothing": floor.nothing}}
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
            raise ValueError(f"A study's worker knows no job {kind!r}.")


if __name__ == "__main__":
    sys.exit(main())
