"""A workforce of workers in other processes: what is sent to which, which answers are believed, which is dismissed.

The coordinator holds the state of the algorithm, as the workers do, and alone writes it. A worker's answer is believed
only as far as it can be checked: it must answer what it was asked, in numbers of the right shape, from a state whose
digest is the coordinator's.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from workhorse.core.algorithm import State
from workhorse.core.errors import TaskError, UsageError
from workhorse.core.machine import describe_hardware, installed_versions
from workhorse.core.types import Returns
from workhorse.distributed.crew import Answer, Crew, Job, Order
from workhorse.distributed.exchange import Exchange, ExchangeCost, choose
from workhorse.distributed.messages import (
    Assignment,
    Malformed,
    Report,
    decode_control,
    decode_report,
    encode_control,
)
from workhorse.distributed.states import HeldState, StateLedger
from workhorse.distributed.traffic import TrafficCounter
from workhorse.distributed.transport import Arrived, Event, Gone, Received, Transport
from workhorse.training.episodes import Episodes, num_chunks
from workhorse.training.evolve import slots_of
from workhorse.training.loop import Message
from workhorse.training.plan import Plan
from workhorse.training.population import Blocks, BlockThreads, PopulationPrograms
from workhorse.training.workforce import NextIteration, Tally, Workforce

__all__ = ["Cluster"]

DISAGREEMENTS = 3
"""Times a worker may disagree about the state before it is dismissed for good."""

ATTEMPTS = 3
"""Workers on which a chunk may fail before the chunk is blamed instead of the workers."""

DEATHS = 5
"""Workers that may die of a chunk before the chunk is blamed: more than chance takes, fewer than a user waits for."""

REPLACEMENTS = 10
"""Workers dismissed on one host that are replaced; a host that fails more often gets no more."""

PATIENT_AT_START_S = 20.0
"""Seconds the first worker may take to appear before the user is told that there is none."""

WAIT_S = 1.0
"""Longest time that the coordinator sleeps at once."""


@dataclass
class _WorkerState:
    """Record of a worker; `turn` counts the orders it was sent."""

    where: str = ""
    ready: bool = False
    turn: int = 0
    disagreements: int = 0
    cores: int = 1
    processor: str = "unknown"
    charged_until: float = 0.0
    held: HeldState = field(default_factory=HeldState)


class Cluster(Workforce):
    """A `Workforce` of remote workers.

    Args:
        plan: what the workers build.
        programs: the coordinator's own copy.
        transport: how messages travel.
        exchange: "scalars", "parameters", or "auto" for the cheaper in bytes.
        note: is told what a user should know.
        threads: that the coordinator computes the blocks of its own update with.
        patience, patience_floor_s: when a late chunk is issued again; see `Crew`.
        clock: seconds, monotonic.
    """

    is_distributed = True

    def __init__(
        self,
        plan: Plan,
        programs: PopulationPrograms,
        transport: Transport,
        exchange: Exchange = "auto",
        note: Callable[[str], None] = lambda sentence: None,
        threads: int = 1,
        patience: float = 3.0,
        patience_floor_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        algorithm = programs.algorithm
        self.num_slots = slots_of(plan, algorithm)
        self.cost = ExchangeCost.of(algorithm)
        self.exchange = choose(exchange, self.cost)
        self._plan = plan
        self._programs = programs
        self._transport = transport
        self._note = note
        self._clock = clock
        self._size = algorithm.spec.observation.size
        self._num_episodes = algorithm.num_members * algorithm.episodes_per_member
        self._crew: Crew[Tally | Episodes] = Crew(patience, patience_floor_s, programs.lags)
        self._members: dict[str, _WorkerState] = {}
        self._failures: Counter[tuple[Job, int]] = Counter()
        self._deaths: Counter[tuple[Job, int]] = Counter()
        self._refused = False
        self._last_words = ""
        self._dismissals: dict[str, int] = {}
        self._ledger = StateLedger(programs, self.exchange)
        self._set_up = encode_control(
            {"plan": asdict(plan), "versions": installed_versions(), "exchange": self.exchange}
        )
        self._core_seconds: dict[str, float] = {}
        self._traffic = TrafficCounter()
        self._iteration = self._jobs_begun = 0
        self._ahead: Job | None = None
        self._blocks = BlockThreads(threads)
        self._stepping = ThreadPoolExecutor(1)
        self._sent = self._received = 0
        self._busy_s = self._updating_s = 0.0
        self._reissued = 0
        self._was_ready = self._said_alone = False
        self._alone_since: float | None = None
        self._hardware = describe_hardware()

    # --- the workforce ---

    @property
    def blocks(self) -> Blocks:
        return self._blocks

    def play(
        self, state: State, iteration: int, episodes: range, following: NextIteration | None = None
    ) -> list[Tally]:
        self._iteration = iteration
        self._ledger.know(iteration, state)
        job = self._job("reset", iteration, episodes)
        if following is not None:
            self._ledger.tell(iteration, following.due, self._states())
            self._ledger.expect(following.iteration, lambda: following.state)
            self._stepping.submit(lambda: following.state)  # meanwhile this thread gives out work
        return self._run(job, following)

    def forget(self) -> None:
        if self._ahead is not None:
            self._crew.drop(self._ahead)
            self._ahead = None

    def announce(self, iteration: int, returns: Returns, goes_on: bool) -> None:
        """Tell the workers the returns, with orders for the next iteration where one follows at once.

        They update their states while the coordinator updates its own, and begin: one message an iteration.
        """
        if self.exchange != "scalars":
            return
        self._ledger.tell(iteration, returns, self._states())
        present = [self._members[name].held for name in self._crew.workers]
        if goes_on and all(self._ledger.reaches(iteration + 1, held) for held in present):
            self._ahead = self._begin("reset", iteration + 1, range(self._num_episodes))
            self._hand_out()

    def evaluate(self, state: State, iteration: int, num_episodes: int) -> list[Episodes]:
        self._ledger.know(iteration, state)
        return self._run(self._begin("evaluate", iteration, range(num_episodes), ahead=True))

    def metrics(self) -> dict[str, float]:
        """Return workers, bytes and seconds, counted since the last call."""
        found = {
            "workers": self._crew.size,
            "bytes_sent": self._sent,
            "bytes_received": self._received,
            "chunks_reissued": self._crew.reissued + self._crew.returned - self._reissued,
            "workers_busy_s": self._busy_s,
            "workers_updating_s": self._updating_s,
        }
        self._sent = self._received = 0
        self._busy_s = self._updating_s = 0.0
        self._reissued = self._crew.reissued + self._crew.returned
        return found

    def messages(self) -> list[Message]:
        """Return bytes by worker, iteration and purpose, counted since the last call."""
        return self._traffic.rows()

    def core_seconds(self) -> Mapping[str, float]:
        for member in self._members.values():
            if member.ready:  # the others have not said yet how many cores they hold
                self._charge(member)
        held, self._core_seconds = self._core_seconds, {}
        return held

    def close(self) -> None:
        self._transport.close()
        self._stepping.shutdown()
        self._blocks.close()

    # --- a job ---

    def _states(self) -> list[HeldState]:
        return [member.held for member in self._members.values()]

    def _job(self, stream: str, iteration: int, episodes: range) -> Job:
        """Return the job that was begun ahead if it is this one, else a new one."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and (ahead.stream, ahead.iteration, ahead.episodes) == (stream, iteration, episodes):
            self._crew.hold(ahead, False)
            return ahead
        if ahead is not None:
            self._crew.drop(ahead)
        return self._begin(stream, iteration, episodes)

    def _begin(self, stream: str, iteration: int, episodes: range, ahead: bool = False) -> Job:
        job = Job(stream, iteration, len(episodes), self._jobs_begun, episodes.start)
        self._jobs_begun += 1
        self._crew.begin(job, num_chunks(len(episodes), self.num_slots), ahead)
        return job

    def _run(self, job: Job, following: NextIteration | None = None) -> list[Any]:
        while not self._crew.complete(job):
            self._hand_out()
            if following is not None:
                self._go_ahead(job, following)
            self._look_after()
            late_at = self._crew.late_at()
            wait = WAIT_S if late_at is None else min(max(late_at - self._clock(), 0.0), WAIT_S)
            for event in self._transport.poll(wait):
                self._react(event)
        for counted in (self._failures, self._deaths):
            for key in [key for key in counted if key[0] == job]:
                del counted[key]
        if following is not None and self._ahead is not None:
            self._crew.hold(self._ahead, not following.goes_on(self._steps(job)))
        return self._crew.results(job)

    def _steps(self, job: Job) -> int:
        return sum(found.steps for found in self._crew.found(job) if isinstance(found, Tally))

    def _go_ahead(self, job: Job, following: NextIteration) -> None:
        """Begin what follows once every chunk of the job is given out."""
        if self._ahead is None and self._crew.all_handed_out(job) and following.goes_on(self._steps(job)):
            self._ahead = self._begin("reset", following.iteration, following.episodes)
            self._hand_out()

    def _hand_out(self) -> None:
        for order in self._crew.orders(self._clock()):
            self._assign(order)

    def _assign(self, order: Order) -> None:
        """Send chunks, with whatever the worker lacks of the state that their iteration begins with."""
        name, job, at = order.worker, order.job, order.job.iteration
        member = self._members[name]
        attachment, state_at, updates = self._ledger.send(at, member.held)
        limit = self._ledger.limit(at) if job.stream == "reset" else None
        message = Assignment(job, order.chunks, member.turn, limit, at, state_at, updates).encode()
        member.turn += 1
        parts = {
            "parameters" if self.exchange == "parameters" else "state": len(attachment),
            "updates": sum(map(len, updates)),
            "evaluation" if job.stream == "evaluate" else "orders": len(message) - sum(map(len, updates)),
        }
        self._send(name, message, parts, attachment)

    def _send(self, name: str, message: bytes, parts: Mapping[str, int], attachment: bytes = b"") -> None:
        self._sent += len(message) + len(attachment)
        for purpose, size in parts.items():
            if size:
                self._traffic.sent(self._iteration, name, purpose, size)
        self._transport.send(name, message, attachment)

    # --- what happens ---

    def _react(self, event: Event) -> None:
        name = event.worker
        if isinstance(event, Arrived):
            self._members[name] = _WorkerState(charged_until=self._clock())
            self._send(name, self._set_up, {"set up": len(self._set_up)})
        elif name not in self._members:
            return  # it was dismissed; its late answers do no harm
        elif isinstance(event, Gone):
            self._mourn(name, event.reason)
        else:
            self._hear(name, event)

    def _hear(self, name: str, event: Received) -> None:
        try:
            control = decode_control(event.message)
            if control is None:
                self._weigh(
                    name,
                    decode_report(event.message, self._size, self._programs.algorithm.behaviour_size),
                    len(event.message),
                )
                return
        except Malformed as error:
            self._count(name, "reports", len(event.message) if isinstance(event.message, bytes) else 0)
            self._dismiss(name, f"answered {error}", replace=True)
            return
        self._count(name, "set up", len(event.message))
        answer, why = control.get("answer"), str(control.get("why", ""))
        if answer == "ready":
            self._welcome(name, control)
        elif answer == "refused":
            self._dismiss(name, f"cannot take part: {why}", replace=False)
            self._refused, self._last_words = True, why
        elif answer == "fault" and self._crew.leases(name):
            trace, program = (str(control.get(key, "")) for key in ("traceback", "program"))
            raise TaskError(f"{self._called(name)}: {why}", trace, program)
        else:
            self._blame(name, why)

    def _welcome(self, name: str, control: Mapping[str, Any]) -> None:
        member = self._members[name]
        member.where = f"{control.get('host', '?')}, process {control.get('process', '?')}"
        member.cores = int(control.get("cores", 1))
        member.processor = str(control.get("processor", "unknown"))
        member.ready = True
        if self.exchange == "scalars" and self._ledger.digests.keys() <= {0}:
            member.held.at = 0  # it makes the first state itself
        ours, theirs = set(self._hardware.instruction_sets), set(control.get("instruction_sets", ()))
        if ours != theirs:
            apart = ", ".join(sorted(ours ^ theirs))
            self._note(
                f"{self._called(name)} has another kind of processor ({apart} on one side only): its results may "
                "differ in the last bits from those of one machine."
            )
        self._crew.join(name, max(1, int(control.get("lanes", 1))))

    def _weigh(self, name: str, report: Report, size: int) -> None:
        """Accept a report, or dismiss its sender."""
        evaluating = report.job.stream == "evaluate"
        self._count(name, "evaluation" if evaluating else "reports", size)
        if not self._crew.asked(name, report.job, report.chunks):
            said = f"answered {_named(report.chunks)} of iteration {report.job.iteration}, which it was not asked for"
            self._dismiss(name, said, replace=True)
            return
        if self.exchange == "scalars" and report.digest != (self._ledger.proof(report.at) or report.digest):
            self._disagree(name, report)
            return
        # a stale report will not be used, whatever is in it
        fault = report.fault(self.num_slots) if self._crew.is_under_way(report.job) else None
        if fault:
            self._dismiss(name, f"answered {fault}", replace=True)
            return
        answer = self._crew.answer(name, report.job, report.chunks, report.results, self._clock())
        if answer is Answer.ACCEPTED:
            self._busy_s += report.episodes_s
            self._updating_s += report.updates_s

    def _disagree(self, name: str, report: Report) -> None:
        member = self._members[name]
        member.disagreements += 1
        self._crew.refuse(name, report.job, report.chunks, self._clock())
        if member.disagreements >= DISAGREEMENTS:
            why = f"disagreed {DISAGREEMENTS} times about the state; its processor or memory is not to be trusted"
            self._dismiss(name, why, replace=True)
            return
        member.held.at = None
        self._note(
            f"{self._called(name)} disagrees about the state after iteration {report.at}: digest {report.digest:016x}, "
            f"the coordinator's is {self._ledger.digests[report.at]:016x}. Its answer was dropped and it is sent the "
            "state anew."
        )

    def _blame(self, name: str, trace: str) -> None:
        """Dismiss a worker that failed, unless the same chunk fails on all of them."""
        for job, chunks in self._crew.leases(name)[:1]:
            if _counted(self._failures, job, chunks) >= ATTEMPTS:
                raise RuntimeError(
                    f"{_named(chunks)} of iteration {job.iteration} failed on {ATTEMPTS} workers; the last of them, "
                    f"{self._called(name)}, said:\n{trace}"
                )
        last = trace.strip().splitlines()[-1] if trace.strip() else "no reason given"
        self._dismiss(name, f"failed: {last}", replace=True)

    def _mourn(self, name: str, reason: str) -> None:
        """Have the work of a worker that died done again, unless it is the work that they die of."""
        sentence = f"{self._called(name)} is gone: {reason}"
        for job, chunks in self._crew.leases(name)[:1]:
            if _counted(self._deaths, job, chunks) >= DEATHS:
                raise UsageError(
                    f"{DEATHS} workers died of {_named(chunks)} of iteration {job.iteration}. The last of them: "
                    f"{sentence.rstrip('.')}. Either {self._plan.task} ends its process, which training without "
                    "--cluster would show, or there is too little memory for that many workers: lower --workers."
                )
        self._last_words = sentence
        self._lose(name)
        self._note(f"{sentence}. What it was doing is done again.")

    def _dismiss(self, name: str, why: str, replace: bool) -> None:
        again = "; what it was doing is done again" if self._crew.leases(name) else ""
        self._note(f"{self._called(name)} {why.rstrip('.')}. It was let go{again}.")
        host = self._members[name].where.partition(",")[0]
        self._dismissals[host] = self._dismissals.get(host, 0) + 1
        self._last_words = f"{self._called(name)} {why}"
        self._lose(name)
        self._transport.dismiss(name, replace and self._dismissals[host] <= REPLACEMENTS)

    def _lose(self, name: str) -> None:
        self._charge(self._members.pop(name))
        self._crew.leave(name)

    def _look_after(self) -> None:
        """Tell the user once that no worker is there, and once that one is back; raise where none can come."""
        if self._crew.size:
            if self._said_alone:
                self._note(f"Going on with {self._crew.size} worker(s).")
            self._alone_since, self._said_alone, self._was_ready = None, False, True
            return
        if self._members:
            return
        exhausted = self._transport.exhausted()
        if exhausted or (self._refused and not self._was_ready and not self._transport.arriving()):
            raise UsageError(f"No worker can take part. {self._last_words or exhausted}")
        now = self._clock()
        self._alone_since = now if self._alone_since is None else self._alone_since
        if not self._said_alone and now - self._alone_since >= (0.0 if self._was_ready else PATIENT_AT_START_S):
            self._said_alone = True
            self._note(
                "No worker is there: waiting for one. Start one with `workhorse worker --join ADDRESS`, or press "
                "Ctrl-C and go on later with `workhorse resume`."
            )

    def _charge(self, member: _WorkerState) -> None:
        now = self._clock()
        held = self._core_seconds.get(member.processor, 0.0)
        self._core_seconds[member.processor] = held + member.cores * (now - member.charged_until)
        member.charged_until = now

    def _count(self, name: str, purpose: str, size: int) -> None:
        self._received += size
        self._traffic.received(self._iteration, name, purpose, size)

    def _called(self, name: str) -> str:
        where = self._members[name].where if name in self._members else ""
        return f"Worker {name} ({where})" if where else f"Worker {name}"


def _counted(counter: Counter[tuple[Job, int]], job: Job, chunks: range) -> int:
    """Count once more for each of the chunks; return the most that any of them has."""
    counter.update((job, chunk) for chunk in chunks)
    return max(counter[job, chunk] for chunk in chunks)


def _named(chunks: range) -> str:
    """Return chunks as a sentence names them.

    Example:
        >>> _named(range(3, 4)), _named(range(3, 6))
        ('chunk 3', 'chunks 3 to 5')
    """
    return f"chunk {chunks.start}" if len(chunks) < 2 else f"chunks {chunks.start} to {chunks[-1]}"
