"""Planned episodes of trajectory optimisation: derivatives along the plan, then trials with feedback.

A trial with feedback cannot be sent to the simulator as a plan, because an action depends on the state it meets: so the
trials of all slots take one step together, H times.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.algorithms.planning.ilqr import ILQR, Feedback, OptimisedPlan
from workhorse.core.algorithm import Action, Actor, Carry, Key
from workhorse.core.types import Derivatives, Tried
from workhorse.environments.batch import as_batch, episode_keys
from workhorse.environments.protocol import JaxEnv, Simulator
from workhorse.networks.heads import task_action
from workhorse.training.planned_episodes import HostPlanning

__all__ = ["OptimisedEpisodes", "derivatives_along", "sized"]


class Trajectories(NamedTuple):
    """Trials of every slot, leading axes B, N, H.

    Attributes:
        rows: states before each step.
        plans: actions in the algorithm's own numbers, float32.
        sent: the same as the task was sent them.
        reward: float64.
        terminated: the step ended the task.
    """

    rows: np.ndarray
    plans: np.ndarray
    sent: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray

    def of(self, best: np.ndarray) -> Trajectories:
        """Return one trial of each slot, (B, 1, H, ...)."""
        return Trajectories(*(leaf[np.arange(len(best)), best][:, None] for leaf in self))


class OptimisedEpisodes(HostPlanning):
    """Episodes of `ILQR` in the slots of an environment that can be tried from any state."""

    _algorithm: ILQR

    @staticmethod
    def of(algorithm: ILQR, env: Simulator | JaxEnv, root: int) -> OptimisedEpisodes:
        """Return what plays the episodes; a pure environment is stepped in `num_envs` slots."""
        simulator = as_batch(env, algorithm.num_envs)
        assert isinstance(simulator, Simulator)
        return OptimisedEpisodes(algorithm, simulator, root)

    def act(
        self, actor: Actor, carry: Carry, obs: np.ndarray, living: np.ndarray, episodes: np.ndarray, key: Key, now: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Carry]:
        algorithm, factors = self._algorithm, self._algorithm.factors
        alive: OptimisedPlan = jax.tree.map(lambda leaf: np.asarray(leaf)[living], carry)
        start = self._env.states(living)
        best = self._rolled(start, alive, None, None, np.zeros(1))
        for number in range(algorithm.num_rounds):
            near = derivatives_along(self._env, algorithm, best.rows[:, 0], best.plans[:, 0])
            feedback = _feedback(algorithm, alive, near, best.terminated[:, 0])
            found = self._rolled(start, alive, best, jax.tree.map(np.asarray, feedback), factors)
            tried = Tried(found.reward, found.terminated, None)
            alive, chosen = _refined(algorithm, actor, alive, found.plans, tried, jnp.int32(number))
            best = found.of(np.asarray(chosen))
        promised = np.asarray(alive.reward)[:, 0]
        action, alive = _advanced(algorithm, alive, key)
        kept = (_put(living, np.asarray(new), np.array(old)) for new, old in zip(alive, carry, strict=True))
        whole = jax.tree.map(jnp.asarray, OptimisedPlan(*kept))  # type: ignore[arg-type]
        action, sent, promised = (
            _put(living, part, np.zeros((len(obs), *part.shape[1:]), part.dtype))
            for part in (np.asarray(action), best.sent[:, 0, 0], promised)
        )
        return action, sent, promised, whole

    def _rolled(
        self,
        start: np.ndarray,
        plan: OptimisedPlan,
        nominal: Trajectories | None,
        feedback: Feedback | None,
        factors: np.ndarray,
    ) -> Trajectories:
        """Try the plan changed by each of the factors, with feedback on how far a trial is from the nominal one."""
        slots, count, env = len(start), len(factors), self._env
        rows, steps = np.repeat(start, count, axis=0), list[tuple]()
        for time in range(self._algorithm.horizon):
            planned = np.repeat(np.asarray(plan.plan)[:, time], count, axis=0)
            if nominal is not None and feedback is not None:
                apart = env.physics(rows).reshape(slots, count, -1) - env.physics(nominal.rows[:, 0, time])[:, None]
                change = factors[:, None] * feedback.change[:, None, time] + np.einsum(
                    "bux,bnx->bnu", feedback.gain[:, time], apart
                )
                planned = planned + change.reshape(planned.shape)
            planned, sent = (np.asarray(part) for part in _within(self._algorithm, planned.astype(np.float32)))
            tried = env.rollout(rows, sent[:, None])
            steps.append((rows, planned, sent, tried.reward[:, 0], tried.terminated[:, 0]))
            rows = tried.states
        columns = (np.stack(column, axis=1) for column in zip(*steps, strict=True))
        return Trajectories(*(column.reshape(slots, count, *column.shape[1:]) for column in columns))


def sized(algorithm: ILQR, env: Simulator | JaxEnv) -> ILQR:
    """Return the algorithm that knows how many coordinates the task's motion has, which its price depends on."""
    simulator = as_batch(env, 1)
    assert isinstance(simulator, Simulator)
    simulator.reset(episode_keys(simulator, 0, "reset", 0, np.arange(simulator.num_slots)))
    size = simulator.physics(simulator.states()).shape[1]
    return replace(algorithm, spec=replace(algorithm.spec, physics_size=size))


def derivatives_along(env: Simulator, algorithm: ILQR, rows: np.ndarray, plans: np.ndarray) -> Derivatives:
    """Return the derivatives of every slot along its plan, by differences of one step, all in one call.

    Slopes and the diagonal of the curvature are central differences, other second derivatives one-sided.

    Args:
        env: the task.
        algorithm: says how far apart.
        rows: states before each step, (B, H, S).
        plans: actions in the algorithm's own numbers, (B, H, ...).
    """
    slots, horizon = rows.shape[:2]
    physics = env.physics(rows.reshape(slots * horizon, -1))
    z = np.concatenate([physics, plans.reshape(slots * horizon, -1).astype(np.float64)], axis=1)
    size, both, distance = physics.shape[1], z.shape[1], float(algorithm.difference)
    first, second = np.triu_indices(both, 1)
    unit = distance * np.eye(both)
    offsets = np.concatenate([np.zeros((1, both)), unit, -unit, unit[first] + unit[second]])
    at = (z[None] + offsets[:, None]).reshape(-1, both)
    places = np.tile(rows.reshape(slots * horizon, -1), (len(offsets), 1))
    actions = _unclipped(algorithm, at[:, size:]).reshape(-1, 1, *plans.shape[2:])
    tried = env.rollout(env.with_physics(places, at[:, :size]), actions)
    after = env.physics(tried.states).reshape(len(offsets), slots * horizon, size)
    reward = tried.reward[:, 0].reshape(len(offsets), slots * horizon)
    up, down = slice(1, 1 + both), slice(1 + both, 1 + 2 * both)
    slopes = np.moveaxis(after[up] - after[down], 0, 2) / (2 * distance)
    curvature = np.zeros((slots * horizon, both, both))
    curvature[:, first, second] = (reward[1 + 2 * both :] - reward[up][first] - reward[up][second] + reward[0]).T
    curvature += curvature.swapaxes(1, 2)
    curvature[:, np.arange(both), np.arange(both)] = (reward[up] - 2 * reward[0] + reward[down]).T
    reward_slope = (reward[up] - reward[down]).T / (2 * distance)
    parts = slopes[..., :size], slopes[..., size:], reward_slope, curvature / distance**2
    return Derivatives(*(np.nan_to_num(part).reshape(slots, horizon, *part.shape[1:]) for part in parts))


def _put(places: np.ndarray, new: np.ndarray, into: np.ndarray) -> np.ndarray:
    """Return `into` with its rows at `places` replaced."""
    into[places] = new
    return into


def _unclipped(algorithm: ILQR, actions: np.ndarray) -> np.ndarray:
    """Return actions (N, U) as the task's, in double precision: in single, differences of actions are noise."""
    unscaled = algorithm.spec.unscaled
    if unscaled is None:
        return actions
    middle, half = (np.ravel(part).astype(np.float64) for part in unscaled.middle_and_half())
    return middle + half * actions


@jax.jit
def _within(algorithm: ILQR, actions: Action) -> tuple[Action, Action]:
    """Return actions (N, ...) within their bounds, and as the task is sent them."""
    clipped = algorithm.clipped(actions)
    return clipped, jax.vmap(partial(task_action, algorithm.spec))(clipped)


@jax.jit
def _feedback(algorithm: ILQR, plan: OptimisedPlan, near: Derivatives, terminated: jax.Array) -> Feedback:
    over = jnp.cumsum(terminated, axis=1) - terminated > 0
    counts = ~over if algorithm.minds_ends else jnp.ones_like(over)
    return jax.vmap(algorithm.feedback)(plan, near, counts)


@jax.jit
def _refined(
    algorithm: ILQR, actor: Actor, carry: OptimisedPlan, plans: Action, tried: Tried, number: jax.Array
) -> tuple[OptimisedPlan, jax.Array]:
    refined = jax.vmap(lambda *slot: algorithm.refine(actor, *slot, round=number))(carry, plans, tried)
    return refined, jax.vmap(lambda one: jnp.argmax(algorithm.returns(one)[0]))(tried)


@jax.jit
def _advanced(algorithm: ILQR, carry: OptimisedPlan, key: Key) -> tuple[Action, OptimisedPlan]:
    return jax.vmap(lambda plan: algorithm.advance(plan, key))(carry)
