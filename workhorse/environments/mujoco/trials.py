"""Trials in copies of a MuJoCo task: plans from any state, which leave the task's own slots alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from mujoco.batch import Batch, SimulationError

from workhorse.core.types import Tried
from workhorse.environments.mujoco.model import SIDE_BY_SIDE, Flags, Floats, Frame

if TYPE_CHECKING:
    from workhorse.environments.mujoco.batch_task import BatchTask

__all__ = ["Trials"]

MOST_NUMBERS = 2**24
"""Recorded numbers of a call, 128 MiB: more plans are tried in several calls."""


class Trials:
    """Copies of a task, as many as were ever needed at once; a state row is the integration state, then `position`.

    All plans are one call of the simulator, which records what the equations read after each of its steps; the task's
    equations then see all plans and times as one long frame. Plans in which something breaks, and those of tasks that
    read contact forces, which the simulator does not record, are stepped one step at a time instead.
    """

    def __init__(self, task: BatchTask, num_threads: int) -> None:
        self._make = lambda count: type(task)(count, num_threads, **task.given_options)
        self._copies: BatchTask | None = None
        self._records: dict[str, np.ndarray] = {}

    def run(self, states: Floats, plans: Floats, observed: bool) -> Tried:
        """Try plan i from row i; see `workhorse.environments.protocol.Simulator`."""
        horizon = plans.shape[1]
        copies = self._of(len(plans))
        simulations = copies._simulations
        if not isinstance(simulations, Batch) or horizon == 0:
            return self._one_by_one(states, plans, observed)
        numbers = copies.model.nq + copies.model.nv + sum(simulations.bind(name)[0].size for name in copies.fields)
        most = max(1, MOST_NUMBERS // (numbers * horizon * copies.options.frame_skip))
        found = [
            self._at_once(states[first : first + most], plans[first : first + most], observed)
            for first in range(0, len(plans), most)
        ]
        if len(found) == 1:
            return found[0]
        return Tried(*(None if part[0] is None else np.concatenate(part) for part in zip(*found, strict=True)))

    def _at_once(self, states: Floats, plans: Floats, observed: bool) -> Tried:
        """Try the plans in one call of the simulator; those in which something broke again, step by step."""
        (count, horizon), copies = plans.shape[:2], self._of(len(plans))
        copies.put_states(states, np.arange(count))
        frame, is_broken = self._recorded(copies, plans)
        size = copies._simulations.state.shape[1]
        with np.errstate(invalid="ignore", over="ignore"):
            after = copies.position(frame)
            start = states[:, size:].reshape(count, 1, *after.shape[1:])
            through = np.concatenate([start, after.reshape(count, horizon, *after.shape[1:])], axis=1)
            before = through[:, :-1].reshape(after.shape)
            reward, terminated = copies.judge(frame, plans.reshape(len(after), -1), before, after, None)
            obs = copies.observe(frame).reshape(count, horizon, -1) if observed else None
        reward, terminated = reward.reshape(count, horizon), terminated.reshape(count, horizon)
        is_broken |= ~np.isfinite(reward).all(axis=1)
        if obs is not None:
            is_broken |= ~np.isfinite(obs).all(axis=(1, 2))
        last = np.hstack([copies._simulations.state[:count], through[:, -1].reshape(count, -1)])
        again = np.flatnonzero(is_broken)
        if len(again):
            told = self._one_by_one(states[again], plans[again], observed)
            reward[again], terminated[again], last[again] = told.reward, told.terminated, told.states
            if obs is not None:
                obs[again] = told.next_obs
        return Tried(reward, terminated, last, obs)

    def _recorded(self, copies: BatchTask, plans: Floats) -> tuple[Frame, Flags]:
        """Return what the equations read after each step, (N * H, ...), and the plans in which something broke."""
        (count, horizon), skip = plans.shape[:2], copies.options.frame_skip
        simulations, names = copies._simulations, ("qpos", "qvel", *copies.fields)
        if not self._records or self._records["qpos"].shape[:2] != (count, horizon * skip):
            self._records = {
                name: np.empty((count, horizon * skip, *simulations.bind(name).shape[1:])) for name in names
            }
        is_broken: Flags = np.logical_not(np.isfinite(plans).all(axis=(1, 2)))
        try:
            control = np.repeat(plans, skip, axis=1)
            simulations.rollout(horizon * skip, control, record=names, ids=np.arange(count), out=self._records)
        except SimulationError as raised:
            is_broken[raised.ids] = True
        is_broken |= (simulations.warning[:count, :, 1] > 0).any(axis=1)  # where one rises, a rollout stops
        kept = {name: self._records[name][:, skip - 1 :: skip] for name in names}
        phase = np.concatenate([kept.pop("qpos"), kept.pop("qvel")], axis=2)
        arrays = {"phase": phase.reshape(count * horizon, -1)}
        for name, part in kept.items():
            flat = (-1,) if name in SIDE_BY_SIDE else part.shape[2:]
            arrays[name] = part.reshape(count * horizon, *flat)
        return Frame(arrays), is_broken

    def _one_by_one(self, states: Floats, plans: Floats, observed: bool) -> Tried:
        """Step copy i from row i through plan i."""
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
