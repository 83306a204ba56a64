"""A workforce of workers in other processes: what is sent to which, which answers are believed, which is dismissed.

The coordinator holds the state of the algorithm, as the workers do, and alone writes it. A worker's answer is believed
only as far as it can be checked: it must answer what it was asked, in numbers of the right shape, from a state whose
digest is the coordinator's.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import PyTree

from workhorse.core.algorithm import State
from workhorse.core.digest import digest
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
    encode_state,
    encode_update,
)
from workhorse.distributed.traffic import TrafficCounter
from workhorse.distributed.transport import Arrived, Event, Gone, Received, Transport
from workhorse.distributed.updates import UpdateLog
from workhorse.training.episodes import Episodes, num_chunks
from workhorse.training.evolve import slots_of
from workhorse.training.loop import Message
from workhorse.training.plan import Plan
from workhorse.training.population import PopulationPrograms
from workhorse.training.workforce import Tally, Workforce

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
    """Record of a worker.

    `at` is the iteration its state will have reached once everything sent to it is done; None: it has no state.
    """

    where: str = ""
    ready: bool = False
    at: int | None = None
    disagreements: int = 0
    cores: int = 1
    processor: str = "unknown"
    charged_until: float = 0.0
    outstanding: int = 0


class Cluster(Workforce):
    """A `Workforce` of remote workers.

    Args:
        plan: what the workers build.
        programs: the coordinator's own copy.
        transport: how messages travel.
        exchange: "scalars", "parameters", or "auto" for the cheaper in bytes.
        note: is told what a user should know.
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
        self._crew: Crew[Tally | Episodes | None] = Crew(patience, patience_floor_s)
        self._members: dict[str, _WorkerState] = {}
        self._failures: dict[int, int] = {}
        self._deaths: dict[int, int] = {}
        self._refused = False
        self._last_words = ""
        self._dismissals: dict[str, int] = {}
        self._log = UpdateLog()
        self._state: tuple[int, bytes] = (-1, b"")
        self._token = uuid.uuid4().hex
        record = {"plan": asdict(plan), "versions": installed_versions(), "exchange": self.exchange}
        self._set_up = encode_control({**record, "token": self._token})
        self._core_seconds: dict[str, float] = {}
        self._traffic = TrafficCounter()
        self._iteration = self._jobs_begun = 0
        self._ahead: Job | None = None
        self._sent = self._received = 0
        self._busy_s = self._updating_s = 0.0
        self._reissued = 0
        self._was_ready = self._said_alone = False
        self._alone_since: float | None = None
        self._hardware = describe_hardware()

    # --- the workforce ---

    def play(self, state: State, iteration: int, episodes: range) -> list[Tally]:
        limit = self._programs.algorithm.episode_steps(state)
        return self._run("reset", iteration, episodes, limit, state)

    def announce(self, iteration: int, returns: Returns, goes_on: bool) -> None:
        """Tell the workers the returns, with orders for the next iteration where one follows at once.

        They update their states while the coordinator updates its own, and begin: one message an iteration.
        """
        if self.exchange != "scalars":
            return
        reached = [member.at for member in self._members.values() if member.at is not None]
        self._log.add(iteration, encode_update(iteration, returns), reached)
        present = [self._members[name] for name in self._crew.workers]
        if goes_on and all(self._log.reaches(iteration + 1, member.at) for member in present):
            self._ahead = self._begin("reset", iteration + 1, range(self._num_episodes))
            self._hand_out(None, None, iteration + 1)

    def evaluate(self, state: State, iteration: int, num_episodes: int) -> list[Episodes]:
        return self._run("evaluate", iteration, range(num_episodes), None, state)

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

    # --- a job ---

    def _run(self, stream: str, at: int, episodes: range, limit: int | None, state: State) -> list[Any]:
        if at not in self._log.digests and self.exchange == "scalars":
            self._log.digests[at] = digest(state)
        ahead, self._ahead = self._ahead, None
        if ahead is None or (ahead.stream, ahead.iteration, ahead.episodes) != (stream, at, episodes):
            self._begin(stream, at, episodes)
        while not self._crew.complete:
            self._hand_out(limit, state, at)
            self._look_after()
            late_at = self._crew.late_at()
            wait = WAIT_S if late_at is None else min(max(late_at - self._clock(), 0.0), WAIT_S)
            for event in self._transport.poll(wait):
                self._react(event)
        return self._crew.results()

    def _begin(self, stream: str, iteration: int, episodes: range) -> Job:
        self._failures.clear()
        self._deaths.clear()
        self._iteration = iteration
        job = Job(stream, iteration, len(episodes), self._jobs_begun, episodes.start)
        self._jobs_begun += 1
        self._crew.begin(job, num_chunks(len(episodes), self.num_slots))
        return job

    def _hand_out(self, limit: int | None, state: State, at: int) -> None:
        for order in self._crew.orders(self._clock()):
            self._assign(order, limit, state, at)

    def _assign(self, order: Order, limit: int | None, state: State, at: int) -> None:
        """Send a chunk, with whatever the worker lacks of the state at iteration `at`."""
        name, job = order.worker, order.job
        member = self._members[name]
        attachment, state_at, updates = b"", 0, ()
        if self.exchange == "parameters":
            if member.at != at:
                attachment, state_at = self._encoded(self._programs.actor(state), at), at
        elif member.at is not None and self._log.reaches(at, member.at):
            updates = self._log.between(member.at, at)
        else:
            attachment, state_at = self._encoded(state, at), at
        member.at = at
        message = Assignment(job, order.chunk, limit, at, state_at, updates).encode()
        parts = {
            "parameters" if self.exchange == "parameters" else "state": len(attachment),
            "updates": sum(map(len, updates)),
            "evaluation" if job.stream == "evaluate" else "orders": len(message) - sum(map(len, updates)),
        }
        self._send(name, message, parts, attachment)

    def _encoded(self, tree: PyTree, at: int) -> bytes:
        if self._state[0] != at:
            self._state = (at, encode_state(tree))
        return self._state[1]

    def _send(self, name: str, message: bytes, parts: Mapping[str, int], attachment: bytes = b"") -> None:
        self._sent += len(message) + len(attachment)
        for purpose, size in parts.items():
            if size:
                self._traffic.sent(self._iteration, name, purpose, size)
        self._members[name].outstanding += 1
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
        member = self._members[name]
        member.outstanding -= 1
        try:
            control = decode_control(event.message)
            if control is None:
                self._weigh(name, decode_report(event.message, self._size), len(event.message))
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
        elif answer == "fault" and self._crew.lease(name) is not None:
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
        if self.exchange == "scalars" and self._log.digests.keys() <= {0}:
            member.at = 0  # it makes the first state itself
        ours, theirs = set(self._hardware.instruction_sets), set(control.get("instruction_sets", ()))
        if ours != theirs:
            apart = ", ".join(sorted(ours ^ theirs))
            self._note(
                f"{self._called(name)} has another kind of processor ({apart} on one side only): its results may "
                "differ in the last bits from those of one machine."
            )
        self._crew.join(name)

    def _weigh(self, name: str, report: Report, size: int) -> None:
        """Accept a report, or dismiss its sender."""
        evaluating = report.job.stream == "evaluate"
        self._count(name, "evaluation" if evaluating else "reports", size)
        if not self._crew.asked(name, report.job, report.chunk):
            self._dismiss(
                name,
                f"answered chunk {report.chunk} of iteration {report.job.iteration}, which it was not asked for",
                replace=True,
            )
            return
        if self.exchange == "scalars" and report.digest != self._log.digests.get(report.at, report.digest):
            self._disagree(name, report)
            return
        expected = min(self.num_slots, report.job.num_episodes - report.chunk * self.num_slots)
        # a stale report will not be used, whatever is in it
        fault = report.fault(expected) if report.job == self._crew.job else None
        if fault:
            self._dismiss(name, f"answered {fault}", replace=True)
            return
        answer = self._crew.answer(name, report.job, report.chunk, report.result, self._clock())
        if answer is Answer.ACCEPTED:
            self._busy_s += report.episodes_s
            self._updating_s += report.updates_s

    def _disagree(self, name: str, report: Report) -> None:
        member = self._members[name]
        member.disagreements += 1
        self._crew.refuse(name)
        if member.disagreements >= DISAGREEMENTS:
            why = f"disagreed {DISAGREEMENTS} times about the state; its processor or memory is not to be trusted"
            self._dismiss(name, why, replace=True)
            return
        member.at = None
        self._note(
            f"{self._called(name)} disagrees about the state after iteration {report.at}: digest {report.digest:016x}, "
            f"the coordinator's is {self._log.digests[report.at]:016x}. Its answer was dropped and it is sent the "
            "state anew."
        )

    def _blame(self, name: str, trace: str) -> None:
        """Dismiss a worker that failed, unless the same chunk fails on all of them."""
        lease = self._crew.lease(name)
        if lease is not None:
            self._failures[lease] = self._failures.get(lease, 0) + 1
            if self._failures[lease] >= ATTEMPTS:
                raise RuntimeError(
                    f"chunk {lease} of iteration {self._iteration} failed on {ATTEMPTS} workers; the last of them, "
                    f"{self._called(name)}, said:\n{trace}"
                )
        last = trace.strip().splitlines()[-1] if trace.strip() else "no reason given"
        self._dismiss(name, f"failed: {last}", replace=True)

    def _mourn(self, name: str, reason: str) -> None:
        """Have the work of a worker that died done again, unless it is the work that they die of."""
        sentence, lease = f"{self._called(name)} is gone: {reason}", self._crew.lease(name)
        if lease is not None:
            self._deaths[lease] = self._deaths.get(lease, 0) + 1
            if self._deaths[lease] >= DEATHS:
                raise UsageError(
                    f"{DEATHS} workers died of chunk {lease} of iteration {self._iteration}. The last of them: "
                    f"{sentence.rstrip('.')}. Either {self._plan.task} ends its process, which training without "
                    "--cluster would show, or there is too little memory for that many workers: lower --workers."
                )
        self._last_words = sentence
        self._lose(name)
        self._note(f"{sentence}. What it was doing is done again.")

    def _dismiss(self, name: str, why: str, replace: bool) -> None:
        again = "; what it was doing is done again" if self._crew.lease(name) is not None else ""
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
