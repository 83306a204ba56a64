"""Pool of worker processes, each with one job at a time."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from workhorse.core.compilation import CACHE_VARIABLE, compiled_folder
from workhorse.core.files import remove
from workhorse.studies.jobs import GOES_ON, JobEvent, JobRequest

__all__ = ["Pool"]

STOP_PATIENCE_S = 60.0

KILLED = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of a process that another one ended, or the kernel for want of memory."""


class _Process:
    """One worker process and its job."""

    def __init__(
        self, number: int, logs: Path, surroundings: Mapping[str, str], answers: queue.Queue[tuple[_Process, JobEvent]]
    ) -> None:
        self.job: JobRequest | None = None
        self.log = logs / f"worker-{number}.log"
        if self.log.is_symlink():  # nothing is followed out of the folder
            remove(self.log)
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workhorse.studies.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **surroundings},
                start_new_session=True,
                text=True,
            )
        self._answers = answers
        threading.Thread(target=self._listen, daemon=True).start()

    def give(self, job: Mapping[str, object]) -> None:
        self.job = dict(job)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it died in the meantime, which `_listen` reports
            self._process.stdin.write(json.dumps(dict(job), allow_nan=False) + "\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):  # a line cut off when it died
                self._answers.put((self, json.loads(line)))
        code = self._process.wait()
        self._answers.put((self, {"event": "gone", "reason": _death(code), "killed": code in KILLED}))

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> None:
        try:
            self._process.wait(max(timeout_s, 0.0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Pool:
    """`JobPool` of `size` worker processes; one that dies is replaced, and its job has crashed.

    Args:
        size: how many.
        logs: folder for what they print.
        surroundings: environment variables that they have beside those of this process.
    """

    def __init__(self, size: int, logs: Path, surroundings: Mapping[str, str] | None = None) -> None:
        self.size = size
        self._logs = logs
        self._compiled = tempfile.TemporaryDirectory(prefix="workhorse-compiled-", ignore_cleanup_errors=True)
        # All seeds of a cell run the same programs. Where none are kept for the user they are kept for the study,
        # outside its folder, from which nothing is ever executed.
        kept = compiled_folder() is not None or "JAX_COMPILATION_CACHE_DIR" in os.environ
        self._surroundings = ({} if kept else {CACHE_VARIABLE: self._compiled.name}) | dict(surroundings or {})
        self._answers: queue.Queue[tuple[_Process, JobEvent]] = queue.Queue()
        self._processes: list[_Process] = []
        self._begun = 0

    @property
    def idle(self) -> int:
        return self.size - sum(process.job is not None for process in self._processes)

    def give(self, job: Mapping[str, object]) -> None:
        # a worker that died while idle must not be given a job
        self._processes = [process for process in self._processes if process.job is not None or process.is_alive()]
        free = [process for process in self._processes if process.job is None]
        if not free:
            self._begun += 1
            free = [_Process(self._begun, self._logs, self._surroundings, self._answers)]
            self._processes += free
        free[0].give(job)

    def answer(self, timeout_s: float = 0.5) -> tuple[JobRequest, JobEvent] | None:
        try:
            process, answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            return None
        job = process.job
        if answer["event"] == "gone":
            if process in self._processes:
                self._processes.remove(process)
            if job is None:
                return None
            reason, killed = f"{answer['reason']} (see {process.log})", answer["killed"]
            answer = {"event": "crashed", "reason": reason, "seconds": 0.0, "killed": killed}
        if answer["event"] not in GOES_ON:
            process.job = None
        assert job is not None
        return job, answer

    def stop(self) -> None:
        """Tell every worker to save and exit; what they still say comes by `answer`."""
        for process in self._processes:
            process.stop()

    def close(self) -> None:
        self.stop()
        deadline = time.monotonic() + STOP_PATIENCE_S
        for process in self._processes:
            process.wait(deadline - time.monotonic())
        self._processes = []
        self._compiled.cleanup()


def _death(code: int) -> str:
    if code >= 0:
        return f"the process ended with exit code {code}"
    try:
        return f"the process died of {signal.Signals(-code).name}"
    except ValueError:
        return f"the process died of signal {-code}"
