"""Planned episodes, on host environments and on pure ones.

Before an action come rounds: plans are proposed, tried from the slot's present state, and told about. On a pure
environment a whole episode is one compiled program. On a host environment each round is one call of the simulator for
the plans of all slots, and one compiled program that learns from a round and proposes the next.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from workhorse.core.algorithm import Action, Actor, Carry, Key, Planner
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Demonstrations, Tried
from workhorse.environments.batch import episode_keys, step_rows
from workhorse.environments.protocol import HostEnv, JaxEnv, Simulator, failure_reason
from workhorse.networks.heads import task_action
from workhorse.training.loop import Failures
from workhorse.training.rollouts import begun

__all__ = ["HostPlanning", "Planned", "PlanningPlayer", "planning_player"]


class Planned(NamedTuple):
    """Planned episodes, row by row as asked; an idle slot has length 0.

    Attributes:
        returns: undiscounted sum of raw rewards, float64 (B,).
        length: steps, int32 (B,).
        error: greatest distance of a step's reward from what the plan had promised, over all steps (B,).
        seconds: simulated seconds of all slots, and those that passed on the clock; 0 without the first.
        taken: observations and actions, (T * B, ...), the rows after an end not there.
        failures: a sentence for each slot whose simulation broke.
    """

    returns: np.ndarray
    length: np.ndarray
    error: np.ndarray
    seconds: tuple[float, float]
    taken: Demonstrations
    failures: Failures = ()


class PlanningPlayer(Protocol):
    """Plays planned episodes. Made by `planning_player`."""

    def play(self, actor: Actor, stream: str, iteration: int, episodes: np.ndarray) -> Planned:
        """Play an episode in each slot, from the addresses of `stream`; a negative number leaves its slot idle."""
        ...


def planning_player(algorithm: Planner, env: Simulator | JaxEnv, root: int) -> PlanningPlayer:
    """Return what plays a planner's episodes; a host environment has `num_envs` slots."""
    return HostPlanning(algorithm, env, root) if isinstance(env, HostEnv) else _JaxPlanning(algorithm, env, root)


class HostPlanning:
    """Planned episodes in the slots of a host environment."""

    def __init__(self, algorithm: Planner, env: Simulator, root: int) -> None:
        self._algorithm, self._env, self._root = algorithm, env, root
        self._is_warm = False

    def play(self, actor: Actor, stream: str, iteration: int, episodes: np.ndarray) -> Planned:
        algorithm, env, spec = self._algorithm, self._env, self._algorithm.spec
        slots, clock = len(episodes), spec.max_episode_steps
        assert clock is not None, "a run needs a time limit, and start asks for it"
        returns, length, error = np.zeros(slots), np.zeros(slots, np.int32), np.zeros(slots)
        seen = np.zeros((clock, slots, *spec.observation.shape), np.float32)
        obs, taken, failures = np.zeros(seen.shape[1:]), None, list[str]()
        living = np.flatnonzero(episodes >= 0)
        obs[living] = env.reset(episode_keys(env, self._root, stream, iteration, episodes[living]), living)
        key = draw(root_key(self._root), "plan", iteration, int(stream == "evaluate"))
        carry, now, simulated, begin = begun(algorithm, actor, slots), 0, 0.0, time.perf_counter()
        while len(living):
            seen[now] = obs
            action, sent, promised, carry = self.act(actor, carry, obs, living, episodes, key, now)
            taken = np.zeros((clock, *action.shape), action.dtype) if taken is None else taken
            taken[now] = action
            step = env.step(sent[living], living)
            with np.errstate(invalid="ignore"):
                error[living] = np.fmax(error[living], np.abs(step.reward - promised[living]))
            returns[living] += step.reward
            obs[living] = step.next_obs
            now += 1
            length[living] = now
            failures += [
                f"episode {episodes[slot]} of iteration {iteration}, step {now}: {failure_reason(env, slot)}"
                for slot in living[step.measures["failed"]].tolist()
            ]
            if self._is_warm:
                simulated += len(living) * (spec.step_seconds or 0.0)
            else:  # the first action of all compiles its programs
                self._is_warm, begin = True, time.perf_counter()
            living = living[~(step.terminated | step.truncated)]
        passed = time.perf_counter() - begin
        there = np.arange(clock)[:, None] < length
        return Planned(
            returns, length, error, (simulated, passed), _demonstrations(seen, taken, there), tuple(failures)
        )

    def act(
        self, actor: Actor, carry: Carry, obs: np.ndarray, living: np.ndarray, episodes: np.ndarray, key: Key, now: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Carry]:
        """Return the slots' actions, in the algorithm's numbers and in the task's, and what they promise to earn."""
        algorithm, sizes = self._algorithm, self._algorithm.round_sizes
        where = key, episodes, np.int32(now)
        states = self._env.states(living)
        plans, sent = _propose(algorithm, sizes[0], actor, carry, *where)
        for number in range(len(sizes)):
            tried = self._try(states, np.asarray(sent), living)
            place = np.int32(number)
            if number + 1 < len(sizes):
                following = sizes[number + 1]
                carry, plans, sent = _refine_and_propose(
                    algorithm, following, actor, carry, plans, tried, place, *where
                )
            else:
                action, sent, promised, carry = _refine_and_act(
                    algorithm, actor, carry, plans, tried, place, obs, *where
                )
        return np.asarray(action), np.asarray(sent), np.asarray(promised), carry

    def _try(self, states: np.ndarray, sent: np.ndarray, living: np.ndarray) -> Tried:
        """Try the plans (B, N, H, ...) of the living slots; those of the others earn nothing."""
        slots, count, horizon = sent.shape[:3]
        rows = np.repeat(states, count, axis=0)
        plans = sent[living].reshape(-1, *sent.shape[2:])
        watches = self._algorithm.watches
        found = self._env.rollout(rows, plans, observed=watches)

        def spread(part: np.ndarray) -> np.ndarray:
            shaped = part.reshape(len(living), count, horizon, *part.shape[2:])
            if len(living) == slots:
                return shaped
            every = np.zeros((slots, *shaped.shape[1:]), part.dtype)
            every[living] = shaped
            return every

        obs = spread(found.next_obs) if watches else None
        return Tried(spread(found.reward), spread(found.terminated), None, obs)


class _JaxPlanning:
    """Planned episodes on a pure environment: one compiled program from reset to the last slot's end."""

    def __init__(self, algorithm: Planner, env: JaxEnv, root: int) -> None:
        self._algorithm, self._env, self._root = algorithm, env, root_key(root)
        self._is_warm = False

    def play(self, actor: Actor, stream: str, iteration: int, episodes: np.ndarray) -> Planned:
        reset = draw(self._root, stream, iteration)
        plan = draw(self._root, "plan", iteration, int(stream == "evaluate"))
        run = partial(_episodes, self._env, self._algorithm, actor)
        if not self._is_warm:  # to compile is no part of what an action takes
            run(np.full_like(episodes, -1), reset, plan)
            self._is_warm = True
        begin = time.perf_counter()
        found = jax.tree.map(np.asarray, run(episodes, reset, plan))
        passed = time.perf_counter() - begin
        returns, length, error, seen, taken = found
        there = np.arange(len(seen))[:, None] < length
        simulated = float(length.sum()) * (self._algorithm.spec.step_seconds or 0.0)
        failures = tuple(
            f"episode {episodes[slot]}: its return is {returns[slot]}" for slot in np.flatnonzero(~np.isfinite(returns))
        )
        return Planned(returns, length, error, (simulated, passed), _demonstrations(seen, taken, there), failures)


def _demonstrations(seen: np.ndarray, taken: np.ndarray | None, there: np.ndarray) -> Demonstrations:
    assert taken is not None
    flat = (part.reshape(-1, *part.shape[2:]) for part in (seen, taken, there))
    return Demonstrations(*flat)


# The compiled programs, of which the algorithm is an argument: see `workhorse.training.rollouts`.


def _keys(key: Key, episodes: jax.Array, now: jax.Array) -> Key:
    """Return the key of each slot's action."""
    return jax.vmap(lambda episode: jax.random.fold_in(jax.random.fold_in(key, episode), now))(episodes)


def _proposed(
    algorithm: Planner, count: int, actor: Actor, carry: Carry, keys: Key, number: Any
) -> tuple[Action, Action]:
    """Return every slot's plans of a round, in the algorithm's numbers and in the task's."""

    def one(carry: Carry, key: Key) -> tuple[Action, Action]:
        plans = algorithm.propose(actor, carry, jax.random.fold_in(key, number), round=number, count=count)
        return plans, jax.vmap(jax.vmap(partial(task_action, algorithm.spec)))(plans)

    return jax.vmap(one)(carry, keys)


def _refined(algorithm: Planner, actor: Actor, carry: Carry, plans: Action, tried: Tried, number: Any) -> Carry:
    return jax.vmap(lambda *slot: algorithm.refine(actor, *slot, round=number))(carry, plans, tried)


def _acted(
    algorithm: Planner, actor: Actor, carry: Carry, obs: jax.Array, keys: Key
) -> tuple[Action, Action, jax.Array, Carry]:
    """Return every slot's action, as one of the task, what it promises to earn, and what is remembered."""

    def one(carry: Carry, obs: jax.Array, key: Key) -> tuple[Action, Action, jax.Array, Carry]:
        promised = algorithm.plan(carry)[1][0]
        # beside the rounds, whose numbers are below
        key = jax.random.fold_in(key, len(algorithm.round_sizes))
        action, carry, _ = algorithm.act(actor, carry, obs.astype(jnp.float32), key, explore=True)
        return action, task_action(algorithm.spec, action), promised, carry

    return jax.vmap(one)(carry, obs, keys)


@partial(jax.jit, static_argnums=1)
def _propose(
    algorithm: Planner, count: int, actor: Actor, carry: Carry, key: Key, episodes: Any, now: Any
) -> tuple[Action, Action]:
    return _proposed(algorithm, count, actor, carry, _keys(key, episodes, now), jnp.int32(0))


@partial(jax.jit, static_argnums=1)
def _refine_and_propose(
    algorithm: Planner, count: int, actor: Actor, carry: Carry, plans: Action, tried: Tried, number: Any,
    key: Key, episodes: Any, now: Any,
) -> tuple[Carry, Action, Action]:  # fmt: skip
    carry = _refined(algorithm, actor, carry, plans, tried, number)
    return carry, *_proposed(algorithm, count, actor, carry, _keys(key, episodes, now), number + 1)


@jax.jit
def _refine_and_act(
    algorithm: Planner, actor: Actor, carry: Carry, plans: Action, tried: Tried, number: Any, obs: Any,
    key: Key, episodes: Any, now: Any,
) -> tuple[Action, Action, jax.Array, Carry]:  # fmt: skip
    carry = _refined(algorithm, actor, carry, plans, tried, number)
    return _acted(algorithm, actor, carry, obs, _keys(key, episodes, now))


def _tried(env: JaxEnv, horizon: int, watches: bool, states: PyTree, sent: Action, key: Key) -> Tried:
    """Try plans (B, N, H, ...) from the slots' states; all plans meet the same noise, where a task has some."""
    slots, count = sent.shape[:2]
    start = jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), states)
    plans = jnp.moveaxis(sent.reshape(slots * count, *sent.shape[2:]), 1, 0)

    def advance(carried: PyTree, timed: PyTree) -> tuple[PyTree, PyTree]:
        states, is_broken = carried
        actions, place = timed
        keys = jnp.repeat(jax.random.fold_in(key, place)[None], slots * count)
        states, step = step_rows(env, states, actions, keys)
        is_broken = is_broken | ~jnp.isfinite(step.reward)
        reward = jnp.where(is_broken, 0.0, step.reward).astype(jnp.float64)
        return (states, is_broken), (reward, step.terminated | is_broken, step.next_obs if watches else None)

    nothing = jnp.zeros(slots * count, bool)
    _, (reward, terminated, obs) = jax.lax.scan(advance, (start, nothing), (plans, jnp.arange(1, horizon + 1)))

    def turned(part: jax.Array) -> jax.Array:
        return jnp.moveaxis(part, 0, 1).reshape(slots, count, horizon, *part.shape[2:])

    return Tried(turned(reward), turned(terminated), None, turned(obs) if watches else None)


def _planned(
    env: JaxEnv, algorithm: Planner, actor: Actor, carry: Carry, states: PyTree, keys: Key, noise: Key
) -> Carry:
    """Go through the rounds of an action of every slot; equal rounds share a program."""

    def one(number: Any, carry: Carry, count: int) -> Carry:
        plans, sent = _proposed(algorithm, count, actor, carry, keys, number)
        tried = _tried(env, algorithm.horizon, algorithm.watches, states, sent, noise)
        return _refined(algorithm, actor, carry, plans, tried, number)

    first = 0
    for count, rounds in groupby(algorithm.round_sizes):
        last = first + len(list(rounds))
        carry = jax.lax.fori_loop(first, last, lambda number, carry, count=count: one(number, carry, count), carry)
        first = last
    return carry


@partial(jax.jit, static_argnums=0)
def _episodes(
    env: JaxEnv, algorithm: Planner, actor: Actor, episodes: jax.Array, reset_key: Key, plan_key: Key
) -> tuple[jax.Array, ...]:
    """Return returns, lengths, errors (B,), observations and actions (T, B, ...) of a planned episode in each slot."""
    clock, slots = env.spec.max_episode_steps, episodes.shape[0]
    assert clock is not None, "a run needs a time limit, and start asks for it"
    step_keys = jax.vmap(lambda episode: jax.random.fold_in(reset_key, episode))(episodes)
    states, obs = jax.vmap(env.reset)(step_keys)
    carry = jax.vmap(lambda slot: algorithm.begin(actor, slot))(jnp.arange(slots))
    shape = jax.eval_shape(partial(_acted, algorithm, actor), carry, obs, step_keys)[0]
    kept = jnp.zeros((clock, *obs.shape), jnp.float32), jnp.zeros((clock, *shape.shape), shape.dtype)
    nothing = jnp.zeros(slots, jnp.float64)

    def advance(loop: PyTree) -> PyTree:
        now, states, obs, carry, active, (returns, length, error), (seen, taken) = loop
        keys = _keys(plan_key, episodes, now)
        noise = jax.random.fold_in(jax.random.fold_in(plan_key, jnp.uint32(2**32 - 1)), now)
        carry = _planned(env, algorithm, actor, carry, states, keys, noise)
        action, sent, promised, carry = _acted(algorithm, actor, carry, obs, keys)
        now_keys = jax.vmap(lambda key: jax.random.fold_in(key, now + 1))(step_keys)
        states, step = step_rows(env, states, sent, now_keys)
        apart = jnp.abs(step.reward - promised)
        told = (
            returns + jnp.where(active, step.reward, 0.0),
            length + active,
            jnp.where(active & (apart > error), apart, error),
        )
        seen, taken = seen.at[now].set(obs.astype(jnp.float32)), taken.at[now].set(action)
        active = active & ~(step.terminated | step.truncated)
        return now + 1, states, step.next_obs, carry, active, told, (seen, taken)

    start = jnp.int32(0), states, obs, carry, episodes >= 0, (nothing, jnp.zeros(slots, jnp.int32), nothing), kept
    *_, told, kept = jax.lax.while_loop(lambda loop: loop[4].any() & (loop[0] < clock), advance, start)
    return *told, *kept
