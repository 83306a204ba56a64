"""Give work to the pool of workers, follow its events, and write down what was measured."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from workhorse.core.errors import UsageError
from workhorse.studies.folder import StudyFolder
from workhorse.studies.jobs import JobEvent, JobPool, JobRequest
from workhorse.studies.record_kinds import Kind

__all__ = ["Dispatcher", "StudyObserver"]


class StudyObserver:
    """Listener to the events of a study; this one does nothing."""

    def began(self, folder: StudyFolder, jobs: int, done: int) -> None:
        """The study begins or continues with `jobs` runs, of which `done` have ended."""

    def added(self, jobs: int, why: str) -> None:
        """More runs are needed."""

    def doing(self, id: str, what: str) -> None:
        """A run, or a measurement, is at something that takes a while: starting, compiling, evaluating."""

    def progressed(self, id: str, env_steps: int, of: int, value: float | None) -> None:
        """A run has taken `env_steps` of its steps."""

    def waited(self) -> None:
        """Nothing has happened for a moment."""

    def ended(self, id: str, variant: str, task: str, record: Mapping[str, object]) -> None:
        """A run has finished, diverged or crashed."""

    def noted(self, sentence: str) -> None:
        """There is something that a user should know, once."""


_RECORDS: dict[str, tuple[Kind, str, str]] = {
    "floor": ("floors", "floor", "The floors"),
    "sweep": ("sweeps", "sweep", "The robustness of the policy"),
}
"""Kind of work to its kind of record, the name of the record in a worker's event, and words for the user."""


def _called(work: JobRequest) -> str:
    """Return the name of a piece of work for the user."""
    return work["id"] if work["kind"] == "run" else f"{work['kind']} of {work['id']}"


class Dispatcher:
    """Link between a study and its workers."""

    def __init__(self, folder: StudyFolder, pool: JobPool, observer: StudyObserver) -> None:
        self._folder, self._pool, self._observer = folder, pool, observer

    def do(
        self,
        works: Iterable[JobRequest],
        more: Callable[[], JobRequest | None] = lambda: None,
        ended: Callable[[str, JobEvent], list[JobRequest]] = lambda id, event: [],
        again: Callable[[JobRequest], None] = lambda work: None,
    ) -> None:
        """Have all work done.

        Args:
            works: to begin with.
            more: returns further work when a process is idle; None when there is no more.
            ended: is told of each run that has ended, and returns the work that follows from it.
            again: is told of a shared process that has ended, whose runs may not all have ended.

        Raises:
            UsageError: something that affects every run, such as a full disk.
            KeyboardInterrupt: a process was stopped.
        """
        waiting, running = deque(works), 0
        while True:
            while self._pool.idle:
                work = waiting.popleft() if waiting else more()
                if work is None:
                    break
                self._pool.give(work)
                for id in [one["id"] for one in work["runs"]] if work["kind"] == "seeds" else [_called(work)]:
                    self._observer.doing(id, "starting")
                running += 1
            if not running:
                return
            found = self._pool.answer()
            if found is None:
                self._observer.waited()
                continue
            work, event = found
            match event["event"]:
                case "progress":
                    if "doing" in event:
                        self._observer.doing(event["run"], event["doing"])
                    else:
                        self._observer.progressed(event["run"], event["env_steps"], work["env_steps"], event["return"])
                    continue
                case "ended":
                    waiting.extend(ended(event["run"], {**event, "run": event.get("record")}))
                    continue
                case "fatal":
                    raise UsageError(event["reason"])
                case "stopped":
                    raise KeyboardInterrupt
            running -= 1
            match work["kind"]:
                case "run":
                    waiting.extend(ended(work["id"], event))
                case "seeds":
                    again(work)
                case _:
                    self._write(work, event)
                    self._observer.doing(_called(work), "")

    def _write(self, work: JobRequest, event: JobEvent) -> None:
        """Write down a measurement; also one that failed, so that it is not repeated for ever."""
        kind, name, words = _RECORDS[work["kind"]]
        if event["event"] == "crashed":
            self._observer.noted(f"{words} of {work['id']} could not be measured: {event['reason']}")
        record = event.get(name, {"failed": event.get("reason", "")})
        self._folder.write_record(kind, work["id"], {**record, "core_hours": event.get("seconds", 0.0) / 3600})
