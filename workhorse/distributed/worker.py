"""A worker: holds a learner (or is sent an actor), runs chunks, reports scalars. Messages in, messages out.

It knows nothing of how messages travel. Whatever is sent to it, it answers; it never sends anything unasked.
"""

from __future__ import annotations

import os
import platform
import time
import traceback
from typing import Any

import jax
import numpy as np

from workhorse.core.digest import digest
from workhorse.core.errors import UsageError
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
from workhorse.training.plan import Plan
from workhorse.training.workforce import evaluation_work, tally, training_work

__all__ = ["Worker"]


class Worker:
    """Answers a coordinator's messages.

    A control message "set up" builds the task and the algorithm; an assignment moves the learner on and runs a chunk.
    What goes wrong is an answer too: "refused" for input that cannot be used, "failed" with a traceback for the rest.
    """

    def __init__(self, name: str, threads: int = 1, node: str = "") -> None:
        self.name = name
        self._node = node
        self._threads = threads
        self._gather: Any = None
        self._learner: Any = None
        self._actor: Any = None
        self._at = 0
        self._digest, self._proven_at = 0, -1

    def handle(self, message: bytes, attachment: bytes = b"") -> bytes:
        """The answer to a message; the attachment is a state to start from."""
        try:
            control = decode_control(message)
            if control is not None:
                return self._set_up(control)
            return self._carry_out(decode_assignment(message), attachment).encode()
        except (UsageError, ImportError) as error:
            return encode_control({"answer": "refused", "why": str(error)})
        except Exception:
            return encode_control({"answer": "failed", "why": traceback.format_exc()})

    def close(self) -> None:
        """Let go of the environment and the shared memory."""
        if self._gather is not None:
            self._gather.close()
            self._blocks.close()

    # --- within ---

    def _set_up(self, control: dict[str, Any]) -> bytes:
        difference = mismatch(control["versions"], installed_versions())
        if difference:
            raise UsageError(difference)
        plan = Plan(**control["plan"])
        spec = plan.spec()
        self._learning = plan.learning(spec)
        self._algorithm = self._learning.algorithm
        self._size = spec.observation.size
        self._gather = plan.gather(self._learning, self._threads)
        self._scalars = control["exchange"] == "scalars"
        self._blocks = SharedBlocks(control["token"], self.name, self._node)
        start = self._learning.init()
        self._actor_template = jax.eval_shape(self._algorithm.actor, start)
        if self._scalars:
            self._learner, self._at = start, 0
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

    def _carry_out(self, assignment: Assignment, state: bytes) -> Report:
        begun = time.perf_counter()
        if self._scalars:
            self._move_on(assignment, state)
            actor = self._learning.actor(self._learner)
        else:
            if state:
                self._actor, self._at = decode_state(state, self._actor_template), assignment.state_at
            actor = self._actor
        updated = time.perf_counter()
        result = None
        if assignment.chunk != NOTHING:
            if self._at != assignment.at:
                raise RuntimeError(f"an assignment for iteration {assignment.at} met a learner at {self._at}")
            result = self._run(assignment, actor)
        done = time.perf_counter()
        return Report(
            assignment.job, assignment.chunk, self._at, self._proof(), done - updated, updated - begun, result
        )

    def _proof(self) -> int:
        if not self._scalars:
            return 0
        if self._proven_at != self._at:
            self._digest, self._proven_at = digest(self._learner), self._at
        return self._digest

    def _move_on(self, assignment: Assignment, state: bytes) -> None:
        if state:
            self._learner, self._at = decode_state(state, self._learner), assignment.state_at
            self._proven_at = -1
        for update in assignment.updates:
            iteration, returns = decode_update(update, self._size)
            if iteration != self._at:
                raise RuntimeError(f"an update of iteration {iteration} met a learner at {self._at}")
            self._learner, _ = self._learning.update(self._learner, iteration, returns, self._blocks)
            self._at += 1

    def _run(self, assignment: Assignment, actor: Any) -> Any:
        job, chunk, slots = assignment.job, assignment.chunk, self._gather.num_slots
        if job.stream == "evaluate":
            found = self._gather(actor, evaluation_work(job.iteration, assignment.num_episodes, slots, chunk))
            return found._replace(fitness=np.asarray(found.fitness), length=np.asarray(found.length))
        limit = self._algorithm.episode_steps(self._learner) if self._scalars else assignment.limit
        work = training_work(self._algorithm, job.iteration, slots, chunk, limit)
        return tally(self._algorithm, self._gather(actor, work))
