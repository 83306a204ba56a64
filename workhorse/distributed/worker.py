"""A worker: holds the state (or is sent an actor), runs chunks, reports scalars. Messages in, messages out.

It knows nothing of how messages travel. Whatever is sent to it, it answers; it never sends anything unasked.
"""

import os
import platform
import time
import traceback
from typing import Any

import jax

from workhorse.core.algorithm import Actor, Population, State
from workhorse.core.digest import digest
from workhorse.core.errors import TaskError, UsageError
from workhorse.core.machine import describe_hardware, installed_versions
from workhorse.distributed.messages import (
    NOTHING,
    Assignment,
    Report,
    decode_assignment,
    decode_control,
    decode_state,
    decode_update,
    encode_control,
)
from workhorse.distributed.shared_blocks import SharedBlocks
from workhorse.distributed.versions import mismatch
from workhorse.training.episodes import EpisodePlayer, Episodes, evaluation_work
from workhorse.training.evolve import chunk_player
from workhorse.training.plan import Plan
from workhorse.training.population import PopulationPrograms
from workhorse.training.workforce import Tally, tally, training_work

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

    def __init__(self, name: str, threads: int = 1, node: str = "") -> None:
        self.name = name
        self._node = node
        self._threads = threads
        self._player: EpisodePlayer | None = None
        self._state: State = None
        self._actor: Actor = None
        self._at = 0
        self._digest, self._proven_at = 0, -1

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
        """Let go of the environment and the shared memory."""
        if self._player is not None:
            self._player.close()
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
        self._size = spec.observation.size
        self._player = chunk_player(plan, algorithm, self._threads)
        self._scalars = control["exchange"] == "scalars"
        self._blocks = SharedBlocks(control["token"], self.name, self._node)
        start = self._programs.init()
        self._actor_template = jax.eval_shape(self._algorithm.actor, start)
        if self._scalars:
            self._state, self._at = start, 0

    def _carry_out(self, assignment: Assignment, state: bytes) -> Report:
        begun = time.perf_counter()
        if self._scalars:
            self._move_on(assignment, state)
            actor = self._programs.actor(self._state)
        else:
            if state:
                self._actor, self._at = decode_state(state, self._actor_template), assignment.state_at
            actor = self._actor
        updated = time.perf_counter()
        result = None
        if assignment.chunk != NOTHING:
            if self._at != assignment.at:
                raise RuntimeError(f"an assignment for iteration {assignment.at} met a state at {self._at}")
            result = self._run(assignment, actor)
        done = time.perf_counter()
        return Report(
            assignment.job, assignment.chunk, self._at, self._proof(), done - updated, updated - begun, result
        )

    def _proof(self) -> int:
        if not self._scalars:
            return 0
        if self._proven_at != self._at:
            self._digest, self._proven_at = digest(self._state), self._at
        return self._digest

    def _move_on(self, assignment: Assignment, state: bytes) -> None:
        if state:
            self._state, self._at = decode_state(state, self._state), assignment.state_at
            self._proven_at = -1
        for update in assignment.updates:
            iteration, returns = decode_update(update, self._size)
            if iteration != self._at:
                raise RuntimeError(f"an update of iteration {iteration} met a state at {self._at}")
            self._state, _ = self._programs.update(self._state, iteration, returns, self._blocks)
            self._at += 1

    def _run(self, assignment: Assignment, actor: Actor) -> Tally | Episodes:
        assert self._player is not None
        job, chunk, slots = assignment.job, assignment.chunk, self._player.num_slots
        if job.stream == "evaluate":
            work = evaluation_work(job.iteration, job.num_episodes, slots, chunk)
        else:
            limit = self._algorithm.episode_steps(self._state) if self._scalars else assignment.limit
            work = training_work(self._algorithm, job.iteration, slots, chunk, limit, job.episodes)
        try:
            ((_, found),) = self._player.play(actor, [(chunk, work)])
        except UsageError as error:
            raise _TaskFault(error) from error
        return found if job.stream == "evaluate" else tally(self._algorithm, found)
