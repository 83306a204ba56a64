"""Bookkeeping of chunks: which worker has which, what has come back, what is issued again. No process, no clock.

A job is all chunks of one request for episodes. Work is keyed by (job, chunk), and a chunk's result is the same whoever
computes it, so it does no harm to issue a chunk twice, to be answered twice, late, or by a worker believed dead: the
first answer counts. A long episode is therefore never dropped for being late; its chunk is issued again or waited for.

A worker is given a run of chunks at a time: half of its fair share of what is left, so that runs are long at first and
short at the end, but a chunk for each of its lanes at least. It has two runs at a time where there is plenty, so that
its lanes never wait for a message.

Time is an argument, in seconds of any monotonic clock. Every call costs amortised constant time for a chunk, so that
ten thousand workers can be driven from one thread.
"""

import statistics
from collections import OrderedDict, deque
from collections.abc import Sequence
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
    """Chunks for a worker to do now, or after those that it has."""

    worker: str
    job: Job
    chunks: range


class Answer(Enum):
    """Fate of an answer."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    """Other workers' results of all its chunks came first."""
    STALE = "stale"
    """The job it belongs to is over."""


class _Lease:
    """Chunks that a worker has.

    Attributes:
        since: when it began with them; None while they wait behind others of that worker.
        is_relied_on: nobody else has been given them.
    """

    def __init__(self, worker: str, job: Job, chunks: range) -> None:
        self.worker, self.job, self.chunks = worker, job, chunks
        self.since: float | None = None
        self.is_relied_on = True


class _Hand:
    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.leases: list[_Lease] = []


class _OpenJob(Generic[Result]):
    """A job that is not over: chunks to hand out, how many workers are relied on for each, results."""

    def __init__(self, job: Job, num_chunks: int) -> None:
        self.job, self.num_chunks = job, num_chunks
        self.pending = deque(range(num_chunks))
        self.holders = [0] * num_chunks
        self.results: dict[int, Result] = {}
        self.rounds: list[float] = []
        self.is_held = False
        self.judged_from = 0
        self.judged_s: float | None = None

    def drop_known(self) -> None:
        """Take chunks that are in off the front of those to hand out."""
        while self.pending and self.pending[0] in self.results:
            self.pending.popleft()

    def take(self, most: int) -> range:
        """Return the next chunks to hand out, so many at most, with consecutive numbers."""
        first = end = self.pending.popleft()
        end += 1
        while self.pending and end - first < most and self.pending[0] == end and end not in self.results:
            self.pending.popleft()
            end += 1
        for chunk in range(first, end):
            self.holders[chunk] += 1
        return range(first, end)


NOTABLE = 5
"""Rounds of a job that must be in before its own times say what is late, while more are still to be handed out."""

UNKNOWN_S = 60.0
"""Seconds that a chunk may take while nothing is known of any other: the first one compiles."""


class Crew(Generic[Result]):
    """Workers present, the chunks that each has, and the results of the jobs under way.

    A round of a worker is the time of a chunk in each of its lanes.

    Args:
        patience: chunks are issued again to an idle worker once a round has taken this many times the median of the
            last job's rounds.
        patience_floor_s: ... and at least this long, so that a scheduling hiccup costs nothing.
        never_waits: jobs follow each other without a pause, so that it does no harm if a chunk waits behind others.
    """

    def __init__(self, patience: float = 3.0, patience_floor_s: float = 1.0, never_waits: bool = False) -> None:
        self._patience = patience
        self._patience_floor_s = patience_floor_s
        self._never_waits = never_waits
        self._members: dict[str, _Hand] = {}
        self._lanes = 0
        self._with: tuple[OrderedDict[str, None], OrderedDict[str, None]] = (OrderedDict(), OrderedDict())
        self._jobs: list[_OpenJob[Result]] = []
        self._issued: deque[_Lease] = deque()
        self._allowances: dict[str, float] = {}
        self.reissued = 0
        """Chunks issued a second time because they were late, since the crew was made."""
        self.returned = 0
        """Chunks issued again because their worker left, since the crew was made."""

    # --- who is there ---

    @property
    def workers(self) -> tuple[str, ...]:
        """Workers present, in the order of arrival."""
        return tuple(self._members)

    @property
    def idle(self) -> tuple[str, ...]:
        """Workers without a chunk."""
        return tuple(self._with[0])

    @property
    def size(self) -> int:
        """Number of workers present."""
        return len(self._members)

    def join(self, worker: str, lanes: int = 1) -> None:
        """Add a worker that plays so many chunks at a time. Joining twice is harmless."""
        if worker not in self._members:
            self._members[worker] = _Hand(lanes)
            self._lanes += lanes
            self._with[0][worker] = None

    def leave(self, worker: str) -> None:
        """Remove a worker; its chunks are issued again, first of all. Leaving twice is harmless."""
        member = self._members.pop(worker, None)
        if member is None:
            return
        self._lanes -= member.lanes
        for few in self._with:
            few.pop(worker, None)
        for lease in reversed(member.leases):
            self._put_back(lease)

    # --- the jobs ---

    def begin(self, job: Job, num_chunks: int, ahead: bool = False) -> None:
        """Start a job behind those under way, or before them with `ahead`."""
        if num_chunks < 1:
            raise ValueError(f"A job needs at least 1 chunk: got {num_chunks}.")
        self._jobs.insert(0 if ahead else len(self._jobs), _OpenJob(job, num_chunks))

    def drop(self, job: Job) -> None:
        """End a job, complete or not: answers to it count no longer."""
        for work in [work for work in self._jobs if work.job == job]:
            self._jobs.remove(work)
            if work.rounds:
                self._allowances[job.stream] = self._allowed_by(work.rounds)
            self._issued = deque(lease for lease in self._issued if lease.job != job)
            for name, member in self._members.items():
                if member.leases and member.leases[0].job == job:  # it is not known when it will answer
                    self._with[1].pop(name, None)
                    if len(member.leases) > 1 and member.leases[1].since is None:
                        self._begin_now(member.leases[1], member.leases[0].since or 0.0)

    def hold(self, job: Job, held: bool) -> None:
        """Give out no more of a job's chunks, or go on with it."""
        self._work(job).is_held = held

    def is_under_way(self, job: Job) -> bool:
        """Tell whether a job has begun and is not over."""
        return any(work.job == job for work in self._jobs)

    def all_handed_out(self, job: Job) -> bool:
        """Tell whether every chunk of a job is out or in."""
        work = self._work(job)
        work.drop_known()
        return not work.pending

    def complete(self, job: Job) -> bool:
        """Tell whether every chunk of a job has a result."""
        work = self._work(job)
        return len(work.results) == work.num_chunks

    def found(self, job: Job) -> list[Result]:
        """Return the results that are in, in the order of the chunks."""
        results = self._work(job).results
        return [results[chunk] for chunk in sorted(results)]

    def results(self, job: Job) -> list[Result]:
        """Return the results in the order of the chunks, and end the job."""
        if not self.complete(job):
            work = self._work(job)
            raise ValueError(f"{job} is not complete: {len(work.results)} of {work.num_chunks} chunks are in.")
        found = self.found(job)
        self.drop(job)
        return found

    def orders(self, now: float) -> list[Order]:
        """Return what to send out now: waiting chunks first, then late ones a second time."""
        orders = []
        while (order := self._next(now)) is not None:
            orders.append(order)
        return orders

    def late_at(self) -> float | None:
        """Return when the oldest chunks that are out become late; None while no worker is idle or nothing is out."""
        if not self._with[0]:
            return None
        self._forget_finished()
        return self._late_at(self._issued[0]) if self._issued else None

    def leases(self, worker: str) -> list[tuple[Job, range]]:
        """Return what a worker has of the jobs under way."""
        member = self._members.get(worker)
        held = [] if member is None else member.leases
        return [(lease.job, lease.chunks) for lease in held if self.is_under_way(lease.job)]

    def asked(self, worker: str, job: Job, chunks: range) -> bool:
        """Tell whether the worker was asked for this, and has not answered."""
        return self._lease(worker, job, chunks) is not None

    def answer(self, worker: str, job: Job, chunks: range, results: Sequence[Result], now: float) -> Answer:
        """Take a worker's results of chunks that it was asked for, one for each of them."""
        lease = self._lease(worker, job, chunks)
        if lease is not None:
            rounds = -(-len(chunks) // self._members[worker].lanes)
            self._release(lease, now)
            for work in [work for work in self._jobs if work.job == job and lease.since is not None]:
                assert lease.since is not None
                work.rounds.append((now - lease.since) / rounds)
        if not self.is_under_way(job):
            return Answer.STALE
        known, accepted = self._work(job), Answer.REPEATED
        for chunk, result in zip(chunks, results, strict=True):
            if chunk not in known.results:
                known.results[chunk] = result
                accepted = Answer.ACCEPTED
        return accepted

    def refuse(self, worker: str, job: Job, chunks: range, now: float) -> None:
        """Drop a worker's answer: its chunks are issued again, and it is free."""
        lease = self._lease(worker, job, chunks)
        if lease is not None:
            self._put_back(lease)
            self._release(lease, now)

    # --- within ---

    def _work(self, job: Job) -> _OpenJob[Result]:
        return next(work for work in self._jobs if work.job == job)

    def _lease(self, worker: str, job: Job, chunks: range) -> _Lease | None:
        member = self._members.get(worker)
        held = [] if member is None else member.leases
        return next((lease for lease in held if lease.job == job and lease.chunks == chunks), None)

    def _next(self, now: float) -> Order | None:
        for position, work in enumerate(self._jobs):
            work.drop_known()
            if work.is_held or not work.pending:
                continue
            plenty = self._never_waits or position > 0 or len(work.pending) > self._lanes
            worker = self._free(2 if plenty else 1)
            if worker is None:
                return None
            return self._give(worker, work, now)
        if not self._with[0]:
            return None
        self._forget_finished()
        if not self._issued or now < self._late_at(self._issued[0]):
            return None
        self._issue_again(self._issued.popleft())
        return self._next(now)

    def _free(self, most: int) -> str | None:
        """Return a worker with fewer runs of chunks than that: the one that was busy last has the newest state."""
        return next((next(reversed(few)) for few in self._with[:most] if few), None)

    def _give(self, worker: str, work: _OpenJob[Result], now: float) -> Order:
        member = self._members[worker]
        fair = -(-len(work.pending) * member.lanes // self._lanes)
        lease = _Lease(worker, work.job, work.take(max(fair // 2, min(member.lanes, fair))))
        member.leases.append(lease)
        held = len(member.leases)
        for few in self._with:
            few.pop(worker, None)
        if held < 2:
            self._with[held][worker] = None
        if held == 1:
            self._begin_now(lease, now)
        return Order(worker, work.job, lease.chunks)

    def _begin_now(self, lease: _Lease, now: float) -> None:
        lease.since = now
        if self.is_under_way(lease.job):
            self._issued.append(lease)

    def _release(self, lease: _Lease, now: float) -> None:
        """Take a lease off its worker, which goes on with its next one."""
        member = self._members[lease.worker]
        self._rely_no_more(lease)
        member.leases.remove(lease)
        for few in self._with:
            few.pop(lease.worker, None)
        if not member.leases or (member.leases[0].is_relied_on and self.is_under_way(member.leases[0].job)):
            self._with[len(member.leases)][lease.worker] = None
        if member.leases and member.leases[0].since is None:
            self._begin_now(member.leases[0], now)

    def _rely_no_more(self, lease: _Lease) -> None:
        if lease.is_relied_on:
            lease.is_relied_on = False
            for work in [work for work in self._jobs if work.job == lease.job]:
                for chunk in lease.chunks:
                    work.holders[chunk] -= 1

    def _put_back(self, lease: _Lease) -> None:
        """Put chunks that no other worker is relied on for to the front of those to hand out."""
        if not lease.is_relied_on:
            return
        self._rely_no_more(lease)
        for work in [work for work in self._jobs if work.job == lease.job]:
            missing = [chunk for chunk in lease.chunks if not work.holders[chunk] and chunk not in work.results]
            work.pending.extendleft(reversed(missing))
            self.returned += len(missing)

    def _issue_again(self, lease: _Lease) -> None:
        """Have what a late worker has, and what waits behind it, done by others too."""
        self._with[1].pop(lease.worker, None)
        for late in [late for late in self._members[lease.worker].leases if late.is_relied_on]:
            self._rely_no_more(late)
            for work in [work for work in self._jobs if work.job == late.job]:
                missing = [chunk for chunk in late.chunks if not work.holders[chunk] and chunk not in work.results]
                work.pending.extend(missing)
                self.reissued += len(missing)

    def _forget_finished(self) -> None:
        """Drop from the front of what is out what is in, given up, or issued again anyway."""
        while self._issued:
            lease = self._issued[0]
            known = self._work(lease.job).results
            if lease.is_relied_on and any(chunk not in known for chunk in lease.chunks):
                return
            self._issued.popleft()

    def _late_at(self, lease: _Lease) -> float:
        assert lease.since is not None
        rounds = -(-len(lease.chunks) // self._members[lease.worker].lanes)
        allowed = max(self._allowance(self._work(lease.job)) * rounds, self._patience_floor_s)
        return lease.since + allowed

    def _allowance(self, work: _OpenJob[Result]) -> float:
        """Return the seconds of a round, by the last job of the same stream; the first goes by its own rounds."""
        known = self._allowances.get(work.job.stream)
        if known is not None:
            return known
        enough = NOTABLE if work.pending else 1  # once all are handed out, no more times may ever come
        if len(work.rounds) >= max(2 * work.judged_from, enough):
            work.judged_from, work.judged_s = len(work.rounds), self._allowed_by(work.rounds)
        return UNKNOWN_S if work.judged_s is None else work.judged_s

    def _allowed_by(self, rounds: list[float]) -> float:
        return max(self._patience * statistics.median(rounds), self._patience_floor_s)
