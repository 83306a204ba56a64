"""Jobs of a study, the events they cause, and the pool that has them done: processes here, or workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

__all__ = ["GOES_ON", "JobEvent", "JobPool", "JobRequest", "Tell"]

JobRequest = dict[str, Any]
"""Task for a worker, as JSON; its `kind` is "run", "seeds", "floor" or "sweep"."""

JobEvent = dict[str, Any]
"""Report of a worker about its task, as JSON; see `JobPool`."""

Tell = Callable[[Mapping[str, Any]], None]
"""Function by which a worker reports to the study, in JSON."""

GOES_ON = ("progress", "ended", "saved")
"""Events after which the job goes on; any other ends it."""


class JobPool(Protocol):
    """Workers, each with one job at a time.

    Each event has a name, `event`: "progress" and "ended" (of one of a job's runs) come during a job; "done",
    "crashed", "fatal" and "stopped" end it. On a node of a cluster "saved" comes too, for files to carry home.
    """

    @property
    def size(self) -> int:
        """Number of workers there are, or may be."""
        ...

    @property
    def idle(self) -> int:
        """Number of jobs that can be given now."""
        ...

    def give(self, job: Mapping[str, Any]) -> None:
        """Give a job to an idle worker, which is started if needed."""
        ...

    def answer(self, timeout_s: float = 0.5) -> tuple[JobRequest, JobEvent] | None:
        """Return the next event and the job that it is about; None if none comes within `timeout_s`."""
        ...

    def close(self) -> None:
        """Tell every worker to save and exit, and end those that do not."""
        ...
