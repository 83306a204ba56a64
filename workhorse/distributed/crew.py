"""Bookkeeping of chunks: which worker has which, what has come back, what is issued again. No process, no clock.

A job is all chunks of one iteration. Work is keyed by (job, chunk), and a chunk's result is the same whoever computes
it, so it does no harm to issue a chunk twice, to be answered twice, late, or by a worker believed dead: the first
answer counts. A long episode is therefore never dropped for being late; its chunk is issued again or waited for.

Time is an argument, in seconds of any monotonic clock. Every call costs amortised constant time, so that ten thousand
workers can be driven from one thread.
"""

import statistics
from collections import OrderedDict, deque
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Answer", "Crew", "Job", "Order"]

Result = TypeVar("Result")


class Job(NamedTuple):
    """All chunks of one request for episodes: an iteration's training, or an evaluation.

    Two requests are two jobs, however alike they are: answers to one never count for the other. An iteration may be
    evaluated twice, with different numbers of episodes.

    Attributes:
        stream: "reset" in training, "evaluate" in evaluation.
        iteration: the iteration that the episodes belong to.
        num_episodes: episodes of all chunks together.
        number: jobs that the coordinator began before this one.
        first: number of the first of them within the iteration.
    """

    stream: str
    iteration: int
    num_episodes: int
    number: int
    first: int = 0

    @property
    def episodes(self) -> range:
        """Numbers of the job's episodes."""
        return range(self.first, self.first + self.num_episodes)


class Order(NamedTuple):
    """A chunk for a worker to do now."""

    worker: str
    job: Job
    chunk: int


class Answer(Enum):
    """Fate of an answer."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    """Another worker's result of the same chunk came first."""
    STALE = "stale"
    """The job it belongs to is over."""


class _Lease(NamedTuple):
    job: Job
    chunk: int
    since: float


NOTABLE = 5
"""Chunks of a job that must be in before its own times say what is late, while more are still to be handed out."""

UNKNOWN_S = 60.0
"""Seconds that a chunk may take while nothing is known of any other: the first one compiles."""


class Crew(Generic[Result]):
    """Workers present, the chunk that each has, and the results of the job so far.

    Args:
        patience: a chunk is issued again to an idle worker once it has taken this many times the median of the last
            job's chunks.
        patience_floor_s: ... and at least this long, so that a scheduling hiccup costs nothing.
    """

    def __init__(self, patience: float = 3.0, patience_floor_s: float = 1.0) -> None:
        self._patience = patience
        self._patience_floor_s = patience_floor_s
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._leases: dict[str, _Lease | None] = {}
        self._durations: list[float] = []
        self._allowances: dict[str, float] = {}
        self._judged_from = 0
        self._judged_s: float | None = None
        self._job: Job | None = None
        self._pending: deque[int] = deque()
        self._issued: deque[tuple[float, int, str]] = deque()
        self._holders: dict[int, list[str]] = {}
        self._results: dict[int, Result] = {}
        self._num_chunks = 0
        self.reissued = 0
        """Chunks issued a second time because they were late, since the crew was made."""
        self.returned = 0
        """Chunks issued again because their worker left, since the crew was made."""

    # --- who is there ---

    @property
    def workers(self) -> tuple[str, ...]:
        """Workers present, in the order of arrival."""
        return tuple(self._leases)

    @property
    def idle(self) -> tuple[str, ...]:
        """Workers without a chunk."""
        return tuple(self._idle)

    @property
    def size(self) -> int:
        """Number of workers present."""
        return len(self._leases)

    def join(self, worker: str) -> None:
        """Add a worker that is ready for work. Joining twice is harmless."""
        if worker not in self._leases:
            self._leases[worker] = None
            self._idle[worker] = None

    def leave(self, worker: str) -> None:
        """Remove a worker; its chunk is issued again, first of all. Leaving twice is harmless."""
        lease = self._leases.pop(worker, None)
        self._idle.pop(worker, None)
        if lease is not None:
            self._let_go(worker, lease)

    # --- the job ---

    def begin(self, job: Job, num_chunks: int) -> None:
        """Start a job; results of an earlier one count no longer."""
        if num_chunks < 1:
            raise ValueError(f"A job needs at least 1 chunk: got {num_chunks}.")
        self._learn_allowance()
        self._job, self._num_chunks = job, num_chunks
        self._durations, self._judged_from, self._judged_s = [], 0, None
        self._pending = deque(range(num_chunks))
        self._issued.clear()
        self._holders.clear()
        self._results.clear()

    @property
    def complete(self) -> bool:
        """True once every chunk of the job has a result."""
        return self._job is not None and len(self._results) == self._num_chunks

    def results(self) -> list[Result]:
        """Return the results in the order of the chunks."""
        if not self.complete:
            raise ValueError(f"{self._job} is not complete: {len(self._results)} of {self._num_chunks} chunks are in.")
        return [self._results[chunk] for chunk in range(self._num_chunks)]

    def orders(self, now: float) -> list[Order]:
        """Return what to send out now: waiting chunks first, then late ones a second time."""
        orders = []
        while self._idle and (chunk := self._next(now)) is not None:
            worker, _ = self._idle.popitem()  # the worker that was busy last has the newest state
            assert self._job is not None
            self._leases[worker] = _Lease(self._job, chunk, now)
            self._holders.setdefault(chunk, []).append(worker)
            self._issued.append((now, chunk, worker))
            orders.append(Order(worker, self._job, chunk))
        return orders

    def late_at(self) -> float | None:
        """Return when the oldest chunk that is out becomes late; None while no worker is idle or nothing is out."""
        if not self._idle or not self._issued:
            return None
        self._forget_finished()
        if not self._issued:
            return None
        return self._issued[0][0] + self._allowance()

    @property
    def job(self) -> Job | None:
        """Job under way, or the last one."""
        return self._job

    def lease(self, worker: str) -> int | None:
        """Return the chunk of the present job that a worker has, if any."""
        lease = self._leases.get(worker)
        return lease.chunk if lease is not None and lease.job == self._job else None

    def asked(self, worker: str, job: Job, chunk: int) -> bool:
        """Tell whether this is what the worker was last asked for."""
        lease = self._leases.get(worker)
        return lease is not None and lease.chunk == chunk and lease.job == job

    def answer(self, worker: str, job: Job, chunk: int, result: Result, now: float) -> Answer:
        """Take a worker's result of a chunk that it was asked for."""
        lease = self._leases.get(worker)
        if lease is not None and lease.chunk == chunk and lease.job == job:
            self._leases[worker] = None
            self._idle[worker] = None
            if job == self._job:
                self._holders[chunk].remove(worker)
                self._durations.append(now - lease.since)
        if job != self._job or not 0 <= chunk < self._num_chunks:
            return Answer.STALE
        if chunk in self._results:
            return Answer.REPEATED
        self._results[chunk] = result
        return Answer.ACCEPTED

    def refuse(self, worker: str) -> None:
        """Drop a worker's answer: its chunk is issued again, and it is free."""
        lease = self._leases.get(worker)
        if lease is not None:
            self._leases[worker] = None
            self._idle[worker] = None
            self._let_go(worker, lease)

    # --- within ---

    def _next(self, now: float) -> int | None:
        while self._pending:
            chunk = self._pending.popleft()
            if chunk not in self._results:
                return chunk
        self._forget_finished()
        if not self._issued:
            return None
        since, chunk, _ = self._issued[0]
        if now < since + self._allowance():
            return None
        self._issued.popleft()  # its new copy goes to the end of the queue
        self.reissued += 1
        return chunk

    def _let_go(self, worker: str, lease: _Lease) -> None:
        if lease.job != self._job:
            return
        holders = self._holders[lease.chunk]
        newest = holders[-1] == worker
        holders.remove(worker)
        if newest and lease.chunk not in self._results:  # any other worker that has it was late already
            self._pending.appendleft(lease.chunk)
            self.returned += 1

    def _forget_finished(self) -> None:
        """Drop chunks from the queue of those that are out if they are in, or wait to be issued again anyway."""
        while self._issued:
            _, chunk, worker = self._issued[0]
            if chunk not in self._results and worker in self._holders[chunk]:
                return
            self._issued.popleft()

    def _allowance(self) -> float:
        """Return the seconds a chunk may take, by the last job of the same stream; the first goes by its own chunks."""
        assert self._job is not None
        known = self._allowances.get(self._job.stream)
        if known is not None:
            return known
        enough = NOTABLE if self._pending else 1  # once all are handed out, no more times may ever come
        if len(self._durations) >= max(2 * self._judged_from, enough):
            self._judged_from, self._judged_s = len(self._durations), self._allowed_by(self._durations)
        return UNKNOWN_S if self._judged_s is None else self._judged_s

    def _learn_allowance(self) -> None:
        if self._job is not None and self._durations:
            self._allowances[self._job.stream] = self._allowed_by(self._durations)

    def _allowed_by(self, durations: list[float]) -> float:
        return max(self._patience * statistics.median(durations), self._patience_floor_s)
