"""Pool of a study's workers on a cluster: every job is a task of one core, and is given again if its worker dies."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from workhorse.core.errors import UsageError
from workhorse.core.files import make_folder, write_file, writing
from workhorse.core.machine import describe_hardware, installed_versions
from workhorse.distributed.transport import Arrived, Event, Gone, Received, Transport
from workhorse.runs.folder import RunFolder
from workhorse.runs.trust import require_trusted_run, trust_run
from workhorse.studies.folder import StudyFolder
from workhorse.studies.job_checks import check_result, names_of, progress_of
from workhorse.studies.job_messages import BadMessage, decode, encode
from workhorse.studies.job_worker import LOG_BYTES
from workhorse.studies.jobs import JobEvent, JobRequest
from workhorse.studies.parcels import BadParcel, Packer, unpack
from workhorse.studies.pool import STOP_PATIENCE_S
from workhorse.studies.training_job import can_go_on, wait_until_free

__all__ = ["ATTEMPTS", "ClusterPool", "JobTransport"]

ATTEMPTS = 5
"""Workers in a row that a job may lose without a checkpoint in between, until the job is blamed."""

PATIENT_S = 20.0
"""Seconds without any worker after which the user is told: the first one, or another one, takes a while to come."""

LISTEN_S = 2.0
"""Seconds after which a worker answers even if nothing has happened."""

ANSWERS_PER_S = 300.0
"""Answers that all workers together send in a second: more workers gather longer."""

IDLE_S = 10.0
"""Seconds after which a worker without a job gives its core back."""


class JobTransport(Transport, Protocol):
    """`Transport` that holds no more of a cluster than is needed."""

    def room(self) -> int:
        """Return the number of workers that the cluster can have now."""
        ...

    def want(self, workers: int) -> None:
        """Start no workers beyond this number."""
        ...


@dataclass
class _Given:
    """A job, the workers that it has lost since its last checkpoint, and what is held for it."""

    job: JobRequest
    losses: int = 0
    held: ExitStack = field(default_factory=ExitStack)

    @property
    def folder(self) -> Path:
        """The folder of its run."""
        return Path(self.job["root"]) / self.job["id"]


@dataclass
class _Seat:
    """A worker. `free_since` counts while it has no job; `unanswered` messages are on their way."""

    since: float
    free_since: float
    where: str = ""
    processor: str = "unknown"
    ready: bool = False
    given: _Given | None = None
    unanswered: int = 0


class ClusterPool:
    """`JobPool` of workers on a cluster, which are `JobWorker`s.

    A run's files come home with each of its checkpoints, into the study's folder. If its worker dies, the run goes on
    elsewhere from there, and so it does in a later sitting, on this cluster or on another one.

    Args:
        transport: how messages travel.
        folder: of the study.
        note: is told what a user should know.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        transport: JobTransport,
        folder: StudyFolder,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport, self._folder, self._note, self._clock = transport, folder, note, clock
        self._seats: dict[str, _Seat] = {}
        self._given: list[_Given] = []
        self._waiting: deque[_Given] = deque()
        self._events: deque[tuple[JobRequest, JobEvent]] = deque()
        self._charged: dict[str, float] = {}
        self._hardware, self._versions = describe_hardware(), installed_versions()
        self._alone_since: float | None = None
        self._said_alone = self._was_ready = self._refused = self._closing = False
        self._last_words = ""

    @property
    def size(self) -> int:
        return max(self._transport.room(), 1)

    @property
    def idle(self) -> int:
        return max(self.size - len(self._given), 0)

    def give(self, job: Mapping[str, Any]) -> None:
        given = _Given(dict(job))
        if job["kind"] == "run":
            self._take(given)
        self._given.append(given)
        self._waiting.append(given)
        self._transport.want(len(self._given))

    def answer(self, timeout_s: float = 0.5) -> tuple[JobRequest, JobEvent] | None:
        if not self._events:
            self._hand_out()
            self._look_after()
            for event in self._transport.poll(timeout_s):
                self._react(event)
            self._hand_out()
        return self._events.popleft() if self._events else None

    def close(self) -> None:
        self._closing = True
        self._waiting.clear()
        deadline = self._clock() + STOP_PATIENCE_S
        try:
            for name, seat in self._seats.items():
                if seat.given is not None:
                    self._send(name, {"do": "stop"})
            while any(seat.given for seat in self._seats.values()) and self._clock() < deadline:
                for event in self._transport.poll(0.2):
                    self._react(event)
        finally:
            self._transport.close()
            for given in self._given:
                given.held.close()
            for name in list(self._seats):
                self._leave(name)

    def core_seconds(self) -> dict[str, float]:
        """Return the core-seconds that workers were held so far, by kind of core."""
        now, found = self._clock(), dict(self._charged)
        for seat in self._seats.values():
            found[seat.processor] = found.get(seat.processor, 0.0) + now - seat.since
        return found

    # --- jobs ---

    def _take(self, given: _Given) -> None:
        """Hold a run's folder while it is trained elsewhere.

        Raises:
            UsageError: another process trains in it, or the disk cannot be written.
        """
        path = given.folder
        wait_until_free(path)
        with writing("a run folder", path):
            make_folder(path, path.parent)
        given.held.enter_context(RunFolder(path).lock())

    def _hand_out(self) -> None:
        free = [name for name, seat in self._seats.items() if seat.ready and seat.given is None]
        for name in free:
            seat = self._seats[name]
            if self._waiting:
                files = self._files(self._waiting[0])
                seat.given = self._waiting.popleft()
                self._send(name, {"do": "begin", "job": seat.given.job}, files)
            elif not self._closing and self._clock() - seat.free_since > IDLE_S:
                self._leave(name)
                self._transport.dismiss(name, True)

    def _files(self, given: _Given) -> bytes:
        """Return the files that a job needs: those of a run that goes on, or a trained policy.

        Raises:
            UsageError: the run would make the node run code that the study does not name.
        """
        job = given.job
        if job["kind"] == "sweep":
            return Packer(Path(job["folder"]), ("policy",)).pack()
        if job["kind"] != "run" or not can_go_on(given.folder):
            return b""
        manifest = RunFolder(given.folder).manifest()
        if not names_of(asdict(manifest)) <= names_of(job):
            require_trusted_run(manifest)
        return Packer(given.folder).pack()

    def _ended(self, seat: _Seat, given: _Given, event: JobEvent) -> None:
        seat.given, seat.free_since = None, self._clock()
        self._forget(given, event)

    def _forget(self, given: _Given, event: JobEvent) -> None:
        given.held.close()
        self._given.remove(given)
        self._transport.want(len(self._given))
        self._events.append((given.job, event))

    def _again(self, seat: _Seat, why: str) -> None:
        """Put the job of a worker that is lost back to the front, unless it is the job that they die of."""
        given, seat.given = seat.given, None
        seat.free_since = self._clock()
        if given is None or self._closing:
            return
        given.losses += 1
        if given.losses >= ATTEMPTS:
            reason = f"{ATTEMPTS} workers in a row were lost with it. The last: {why}"
            self._forget(given, {"event": "crashed", "reason": reason, "seconds": 0.0})
            return
        goes_on = given.job["kind"] == "run" and can_go_on(given.folder)
        how = "goes on from its last checkpoint" if goes_on else "begins again"
        self._note(f"{why.rstrip('.')}. {given.job['id']} {how} on another worker.")
        self._waiting.appendleft(given)

    # --- workers ---

    def _send(self, name: str, record: Mapping[str, Any], attachment: bytes = b"") -> None:
        self._seats[name].unanswered += 1
        self._transport.send(name, encode(record), attachment)

    def _react(self, event: Event) -> None:
        name = event.worker
        if isinstance(event, Arrived):
            self._seats[name] = _Seat(self._clock(), self._clock())
            self._send(name, {"do": "set up", "versions": self._versions})
        elif name in self._seats and isinstance(event, Gone):
            self._lose(name, f"{self._called(name)} is gone: {event.reason}")
        elif name in self._seats and isinstance(event, Received):
            self._hear(name, event.message)

    def _hear(self, name: str, message: bytes) -> None:
        seat = self._seats[name]
        seat.unanswered -= 1
        try:
            record, parcels = decode(message)
            match record.get("answer"):
                case "ready":
                    self._welcome(name, record)
                case "refused":
                    self._refused = True
                    self._dismiss(name, f"cannot take part: {record.get('why')}", replace=False)
                case "heard":
                    self._note_events(name, record["events"], parcels)
                case _:
                    self._dismiss(name, f"failed: {record.get('why')}", replace=True)
        except UsageError:  # the study's own disk
            raise
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self._dismiss(name, f"answered {error}", replace=True)
        if name in self._seats and seat.given is not None and not seat.unanswered:
            gather_s = 0.0 if self._closing else len(self._seats) / ANSWERS_PER_S
            self._send(name, {"do": "listen", "patience_s": LISTEN_S, "gather_s": gather_s})

    def _note_events(self, name: str, events: list[JobEvent], parcels: list[memoryview]) -> None:
        """Take what a worker says of its job; files go into the study's folder before anything is told of them."""
        waiting = deque(parcels)
        for event in events:
            seat = self._seats[name]
            given = seat.given
            if given is None:
                return
            match event["event"]:
                case "saved":
                    self._bring_home(given, waiting.popleft())
                case "progress":
                    self._events.append((given.job, progress_of(given.job, event)))
                case "fatal":  # of the node, as a full disk is; the study's own is noticed here
                    self._dismiss(name, f"cannot go on: {event['reason']}", replace=False)
                    return
                case "stopped":
                    self._again(seat, f"{self._called(name)} was told to stop")
                case "crashed" if event.get("killed"):
                    self._again(seat, f"{self._called(name)}: {str(event['reason']).partition(' (see ')[0]}")
                case "crashed":
                    self._ended(seat, given, self._with_log(given, event))
                case "done":
                    check_result(given.job, event[given.job["kind"]])
                    self._ended(seat, given, {**event, "seconds": float(event["seconds"])})
                case what:
                    raise BadMessage(f"the event {what!r}")

    def _bring_home(self, given: _Given, parcel: memoryview) -> None:
        if given.job["kind"] != "run":
            raise BadParcel(f"files for a job of the kind {given.job['kind']}")
        written = unpack(parcel, given.folder)
        if any(name.startswith("checkpoints/") for name in written):
            given.losses = 0
        if "manifest.json" in written:
            try:
                manifest = RunFolder(given.folder).manifest()
            except UsageError as error:
                raise BadParcel(f"files that are no run's ({error})") from error
            if names_of(asdict(manifest)) <= names_of(given.job):
                trust_run(manifest)  # begun there for this study, which the user vouches for

    def _with_log(self, given: _Given, event: JobEvent) -> JobEvent:
        """Return how a job crashed; what its process printed goes into the study's logs."""
        reason, log = str(event["reason"]), event.get("log")
        sentence, died, _ = reason.partition(" (see ")
        if log:
            place = self._folder.path / "logs" / f"{given.job['id']}.log"
            with writing("the log of a run", place):
                write_file(place, str(log)[-LOG_BYTES:].encode(), self._folder.path)
            reason = f"{sentence} (see {place})" if died else reason
        return {"event": "crashed", "reason": reason, "seconds": float(event.get("seconds", 0.0))}

    def _welcome(self, name: str, record: Mapping[str, Any]) -> None:
        seat = self._seats[name]
        seat.where = f"{record['host']}, process {record['process']}"
        seat.processor = str(record["processor"])
        seat.ready, seat.free_since = True, self._clock()
        apart = sorted(set(self._hardware.instruction_sets) ^ set(record["instruction_sets"]))
        if apart:
            self._note(
                f"{self._called(name)} has another kind of processor ({', '.join(apart)} on one side only): its runs "
                "may differ in the last bits from those of this machine."
            )

    def _dismiss(self, name: str, why: str, replace: bool) -> None:
        self._lose(name, f"{self._called(name)} {why}")
        self._transport.dismiss(name, replace)

    def _lose(self, name: str, why: str) -> None:
        self._last_words = why
        seat = self._seats[name]
        if seat.given is None and not self._closing:
            self._note(f"{why.rstrip('.')}.")
        self._leave(name)
        self._again(seat, why)

    def _leave(self, name: str) -> None:
        seat = self._seats.pop(name)
        self._charged[seat.processor] = self._charged.get(seat.processor, 0.0) + self._clock() - seat.since

    def _look_after(self) -> None:
        """Tell the user once that no worker is there, and once that one is back; raise where none can come."""
        if any(seat.ready for seat in self._seats.values()):
            if self._said_alone:
                self._note(f"Going on with {len(self._seats)} worker(s).")
            self._alone_since, self._said_alone, self._was_ready = None, False, True
            return
        if self._seats or not self._given:
            return
        exhausted = self._transport.exhausted()
        refused = self._refused and not self._transport.room() and not self._transport.arriving()
        if exhausted or (refused and not self._was_ready):
            raise UsageError(f"No worker can take part. {self._last_words or exhausted}")
        now = self._clock()
        self._alone_since = now if self._alone_since is None else self._alone_since
        if not self._said_alone and now - self._alone_since >= PATIENT_S:
            self._said_alone = True
            self._note(
                "No worker is there: waiting for one. Every core may be taken: start another node with `workhorse "
                f"worker --join ADDRESS`, or press Ctrl-C and go on later with `workhorse study {self._folder.path}`."
            )

    def _called(self, name: str) -> str:
        where = self._seats[name].where
        return f"Worker {name} ({where})" if where else f"Worker {name}"
