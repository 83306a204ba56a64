"""A worker: holds the state (or is sent an actor), runs chunks in its lanes, reports scalars.

Messages in, messages out: it knows nothing of how they travel. Whatever is sent to it, it answers; it never sends
anything unasked. Several threads may hand it messages: what the next one asks for begins as soon as a lane is free.
"""

import os
import platform
import threading
import time
import traceback
from typing import Any

import jax

from workhorse.core.algorithm import Actor, Population, State
from workhorse.core.digest import digest
from workhorse.core.errors import TaskError, UsageError
from workhorse.core.machine import describe_hardware, installed_versions
from workhorse.distributed.messages import (
    Assignment,
    Report,
    decode_assignment,
    decode_control,
    decode_state,
    decode_update,
    encode_control,
)
from workhorse.distributed.versions import mismatch
from workhorse.training.episodes import Work, evaluation_work
from workhorse.training.evolve import make_lanes
from workhorse.training.lanes import Lanes, LaneWork
from workhorse.training.plan import Plan
from workhorse.training.population import BlockThreads, PopulationPrograms
from workhorse.training.workforce import tally, training_work

__all__ = ["Worker"]


class _CannotTakePart(Exception):
    """This worker cannot take part; the message says why."""


class _TaskFault(Exception):
    """The task raised, returned nonsense or ended its process; `answer` is what the coordinator is told."""

    def __init__(self, error: UsageError) -> None:
        super().__init__(str(error))
        self.answer = {"answer": "fault", "why": str(error)}
        if isinstance(error, TaskError):
            self.answer |= {"why": error.message, "traceback": error.traceback, "program": error.program}


class Worker:
    """Answers a coordinator's messages.

    A control message "set up" builds the task and the algorithm; an assignment moves the state on and runs a chunk.
    What goes wrong is an answer too: "refused" where this worker cannot take part, "fault" where the task raised while
    it was played, as it would on one machine, and "failed" with a traceback for the rest.
    """

    def __init__(self, name: str, threads: int = 1) -> None:
        self.name = name
        self._threads = threads
        self._lanes: Lanes | None = None
        self._states: dict[int, State] = {}
        self._proofs: dict[int, int] = {}
        self._actor: Actor = None
        self._at = 0
        self._turn, self._turns = 0, threading.Condition()

    def handle(self, message: bytes, attachment: bytes = b"") -> bytes:
        """The answer to a message; the attachment is a state to start from."""
        try:
            control = decode_control(message)
            if control is not None:
                return self._set_up(control)
            return self._carry_out(decode_assignment(message), attachment).encode()
        except _CannotTakePart as error:
            return encode_control({"answer": "refused", "why": str(error)})
        except _TaskFault as error:
            return encode_control(error.answer)
        except Exception:
            return encode_control({"answer": "failed", "why": traceback.format_exc()})

    def close(self) -> None:
        """Let go of the environments and the threads."""
        if self._lanes is not None:
            self._lanes.close()
            self._blocks.close()

    # --- within ---

    def _set_up(self, control: dict[str, Any]) -> bytes:
        difference = mismatch(control["versions"], installed_versions())
        if difference:
            raise _CannotTakePart(difference)
        try:
            self._build(control)
        except (UsageError, ImportError) as error:
            raise _CannotTakePart(str(error)) from error
        hardware = describe_hardware()
        return encode_control(
            {
                "answer": "ready",
                "host": platform.node(),
                "process": os.getpid(),
                "cores": self._threads,
                "lanes": self._lanes.size if self._lanes else 1,
                "processor": hardware.cpu,
                "instruction_sets": list(hardware.instruction_sets),
            }
        )

    def _build(self, control: dict[str, Any]) -> None:
        """Make the task, the algorithm and the first state."""
        plan = Plan(**control["plan"])
        spec = plan.spec()
        algorithm = plan.make_algorithm(spec)
        assert isinstance(algorithm, Population)
        self._algorithm = algorithm
        self._programs = PopulationPrograms(algorithm, plan.seed)
        self._turn = 0
        self._size = spec.observation.size
        self._lanes = make_lanes(plan, algorithm, self._threads)
        self._blocks = BlockThreads(self._threads)
        self._scalars = control["exchange"] == "scalars"
        start = self._programs.acting(self._programs.init())
        self._template = start if self._scalars else jax.eval_shape(algorithm.actor, start)
        if self._scalars:
            self._states, self._at = {0: start}, 0

    def _carry_out(self, assignment: Assignment, attachment: bytes) -> Report:
        with self._turns:
            self._turns.wait_for(lambda: self._turn == assignment.turn)
            try:
                begun = time.perf_counter()
                batch = self._begin(assignment, attachment)
                updates_s = time.perf_counter() - begun
                at, proof = assignment.at if assignment.chunks else self._at, self._proof(assignment)
            finally:
                self._turn += 1
                self._turns.notify_all()
        results = ()
        if batch is not None:
            try:
                found = batch.results()
            except UsageError as error:
                raise _TaskFault(error) from error
            training = assignment.job.stream == "reset"
            results = tuple(tally(self._algorithm, one) for one in found) if training else tuple(found)
        episodes_s = sum(batch.seconds) / self._lanes.size if batch is not None and self._lanes else 0.0
        return Report(assignment.job, assignment.chunks, at, proof, episodes_s, updates_s, results)

    def _begin(self, assignment: Assignment, attachment: bytes) -> LaneWork | None:
        """Bring the state up to date and give the chunks to the lanes."""
        if self._scalars:
            self._move_on(assignment, attachment)
        elif attachment:
            self._actor, self._at = decode_state(attachment, self._template), assignment.state_at
        if not assignment.chunks:
            return None
        assert self._lanes is not None
        job, slots, limit = assignment.job, self._lanes.num_slots, assignment.limit
        if not self._scalars and self._at == assignment.at:
            actor = self._actor
        elif self._scalars and assignment.at in self._states:
            state = self._states[assignment.at]
            actor, limit = self._programs.actor(state), self._algorithm.episode_steps(state)
        else:
            raise RuntimeError(f"an assignment for iteration {assignment.at} met a state at {self._at}")

        def work(chunk: int) -> Work:
            if job.stream == "evaluate":
                return evaluation_work(job.iteration, job.num_episodes, slots, chunk)
            return training_work(self._algorithm, job.iteration, slots, chunk, limit, job.episodes)

        return self._lanes.give(LaneWork(actor, map(work, assignment.chunks)))

    def _move_on(self, assignment: Assignment, attachment: bytes) -> None:
        if attachment:
            self._at = assignment.state_at
            self._states, self._proofs = {self._at: decode_state(attachment, self._template)}, {}
        for update in assignment.updates:
            iteration, due = decode_update(update, self._size, self._algorithm.behaviour_size)
            if iteration != self._at:
                raise RuntimeError(f"an update of iteration {iteration} met a state at {self._at}")
            after, _ = self._programs.step(self._states[self._at], iteration, due, self._blocks)
            self._at += 1
            self._states[self._at] = after
            # with a lag, chunks of the population before may yet be asked for
            oldest = self._at - self._programs.lags
            self._states = {at: state for at, state in self._states.items() if at >= oldest}

    def _proof(self, assignment: Assignment) -> int:
        """Return the digest of the state that the chunks are played from."""
        if not self._scalars:
            return 0
        at = assignment.at if assignment.chunks else self._at
        if at not in self._proofs:
            self._proofs = {known: proof for known, proof in self._proofs.items() if known in self._states}
            self._proofs[at] = digest(self._states[at])
        return self._proofs[at]
