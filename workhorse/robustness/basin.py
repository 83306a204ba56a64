"""Share of initial states, and of wider ones, from which a policy holds: how local a local controller is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workhorse.core.errors import UsageError
from workhorse.environments.batch import JaxBatch, episode_keys
from workhorse.environments.protocol import Simulator
from workhorse.runs.policy import Policy
from workhorse.statistics.intervals import Interval, proportion_interval

__all__ = ["Basin", "measure_basin"]

FACTORS = (1.0, 2.0, 5.0, 10.0)
"""How many times wider than the task's own the initial states are."""


@dataclass(frozen=True)
class Basin:
    """From how many of the states of each width a policy holds.

    Attributes:
        factors: widths, in units of the task's own initial states, (factors,).
        held: states from which it holds, (factors,).
        states: states tried at each width.
        limit: steps that it had to hold for.
        env_steps: steps of the simulator that all of it took.
    """

    factors: tuple[float, ...]
    held: tuple[int, ...]
    states: int
    limit: int
    env_steps: int

    def shares(self) -> tuple[Interval, ...]:
        """Return the share at each width, with its exact 95 % interval."""
        return tuple(proportion_interval(count, self.states) for count in self.held)


def measure_basin(
    env: Simulator,
    policy: Policy,
    root: int,
    *,
    states: int = 1000,
    factors: Sequence[float] = FACTORS,
    target: Sequence[float] | None = None,
    tolerance: float | None = None,
    limit: int | None = None,
) -> Basin:
    """Return from how many initial states, as the task draws them and made wider, a policy holds.

    A wider state is centre + factor * (initial state - centre), in positions and velocities; the centre is the target,
    or the mean of the initial states. A policy holds where the clock is reached, no step terminates, and the last
    state is near the target where one is given. *The first action is the one for the initial state itself*, because
    a state is observed only after a step.

    Args:
        env: of the task; its slots are reset, and stand at initial states afterwards.
        policy: the artefact of a run.
        root: seed of the initial states, those of the evaluation of a run at no iteration.
        states: initial states, each of which is tried at every width.
        factors: the widths, each above 0.
        target: physics that the policy is to hold, positions and then velocities.
        tolerance: the most that a coordinate may be away from the target after the last step; it goes with one.
            *Angles are not wrapped.*
        limit: steps to hold; by default the task's clock.

    Raises:
        UsageError: a number is out of range, or the task has no clock and `limit` is not given.
    """
    steps = env.spec.max_episode_steps if limit is None else limit
    _check(env, states, factors, target, tolerance, steps)
    assert steps is not None
    rows, obs = _initial(env, root, states)
    physics = env.physics(rows)
    if target is not None and len(target) != physics.shape[1]:
        raise UsageError(
            f"A basin's target must have the {physics.shape[1]} coordinates of {env.spec.task}: got {len(target)}."
        )
    centre = physics.mean(axis=0) if target is None else np.asarray(target, np.float64)
    wider = np.concatenate([centre + factor * (physics - centre) for factor in factors])
    rows = env.with_physics(np.tile(rows, (len(factors), 1)), wider)
    ends, taken = _played(env, policy, rows, np.tile(obs, (len(factors), *[1] * (obs.ndim - 1))), root, steps)
    holds: NDArray[np.bool_] = np.asarray(np.isfinite(ends).all(axis=1))
    if target is not None and tolerance is not None:
        holds[holds] = np.abs(ends[holds] - centre).max(axis=1) <= tolerance
    held = holds.reshape(len(factors), states).sum(axis=1)
    return Basin(tuple(map(float, factors)), tuple(map(int, held)), states, steps, taken)


def _initial(env: Simulator, root: int, count: int) -> tuple[NDArray[np.float64], np.ndarray]:
    """Return rows and observations of initial states, as many slots at a time as there are."""
    parts = []
    for begin in range(0, count, env.num_slots):
        numbers = np.arange(begin, begin + env.num_slots)
        obs = env.reset(episode_keys(env, root, "evaluate", 0, numbers))
        parts.append((env.states(), np.array(obs)))
    rows, obs = (np.concatenate(column)[:count] for column in zip(*parts, strict=True))
    return rows, obs


def _played(
    env: Simulator, policy: Policy, rows: NDArray[np.float64], obs: np.ndarray, root: int, steps: int
) -> tuple[NDArray[np.float64], int]:
    """Return the physics of each row after the last step, NaN where an episode ended before, and the steps taken."""
    ends = np.full(env.physics(rows).shape, np.nan)
    places, memory, taken = np.arange(len(rows)), None, 0
    is_alive: NDArray[np.bool_] = np.ones(len(rows), bool)
    for time in range(steps):
        actions, memory = policy.choose(obs, memory)
        keys = episode_keys(env, root, "perturb", time, places) if isinstance(env, JaxBatch) else None  # else no noise
        tried = env.rollout(rows, actions[:, None], keys, observed=True)
        assert tried.next_obs is not None
        taken += len(rows)
        is_alive = is_alive & ~tried.terminated[:, 0]
        # an ended copy stands still, so that it reaches no numbers that a policy cannot read
        rows = np.where(is_alive[:, None], tried.states, rows)
        obs = np.where(is_alive.reshape(-1, *[1] * (obs.ndim - 1)), tried.next_obs[:, 0], obs)
        if not is_alive.any():
            return ends, taken
        # a pure task's program is compiled for a number of rows, so its rows are left out by halves
        if 2 * is_alive.sum() <= len(rows) or not isinstance(env, JaxBatch):
            places, rows, obs = places[is_alive], rows[is_alive], obs[is_alive]
            memory = None if memory is None else tuple(part[is_alive] for part in memory)
            is_alive = np.ones(len(rows), bool)
    ends[places[is_alive]] = env.physics(rows)[is_alive]
    return ends, taken


def _check(
    env: Simulator,
    states: int,
    factors: Sequence[float],
    target: Sequence[float] | None,
    tolerance: float | None,
    steps: int | None,
) -> None:
    """Raise a `UsageError` for what cannot be measured."""
    if states < 1 or not factors or not min(factors) > 0:
        raise UsageError(f"A basin needs states and factors above 0: got states={states}, factors={tuple(factors)}.")
    if steps is None or steps < 1:
        raise UsageError(
            f"A basin needs a time to hold for, but {env.spec.task} has no clock and limit={steps}: give a limit of at "
            "least 1 step."
        )
    if (tolerance is None) != (target is None) or (tolerance is not None and not tolerance > 0):
        raise UsageError(
            f"A basin's target and tolerance go together, the latter above 0: got {target} and {tolerance}."
        )
