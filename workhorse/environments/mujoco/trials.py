"""Trials in copies of a MuJoCo task: plans from any state, which leave the task's own slots alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workhorse.core.types import Tried
from workhorse.environments.mujoco.model import Floats

if TYPE_CHECKING:
    from workhorse.environments.mujoco.batch_task import BatchTask

__all__ = ["Trials"]


class Trials:
    """Copies of a task, as many as were ever needed at once; a state row is the integration state, then `position`."""

    def __init__(self, task: BatchTask, num_threads: int) -> None:
        self._make = lambda count: type(task)(count, num_threads, **task.given_options)
        self._copies: BatchTask | None = None

    def run(self, states: Floats, plans: Floats, observed: bool) -> Tried:
        """Step copy i from row i through plan i; see `workhorse.environments.protocol.Simulator`."""
        count, horizon = plans.shape[:2]
        copies = self._of(count)
        chosen = np.arange(count)
        copies.put_states(states, chosen)
        reward, terminated = np.empty((count, horizon)), np.empty((count, horizon), bool)
        obs = np.empty((count, horizon, *copies.spec.observation.shape)) if observed else None
        is_broken = np.zeros(count, bool)
        for time in range(horizon):
            step = copies.step(plans[:, time], chosen)
            is_broken |= step.measures["failed"]
            reward[:, time] = np.where(is_broken, 0.0, step.reward)
            terminated[:, time] = step.terminated | is_broken
            if obs is not None:
                obs[:, time] = step.next_obs
        return Tried(reward, terminated, copies.states(chosen), obs)

    def positions(self, states: Floats) -> Floats:
        """Return the position that progress is measured by at the start of an episode in each row's state."""
        copies, chosen = self._of(len(states)), np.arange(len(states))
        copies.put_states(states, chosen)
        return copies.positions_at(chosen)

    def close(self) -> None:
        """Free the copies."""
        if self._copies is not None:
            self._copies.close()
            self._copies = None

    def _of(self, count: int) -> BatchTask:
        if self._copies is None or self._copies.num_slots < count:
            self.close()
            self._copies = self._make(count)
        return self._copies
