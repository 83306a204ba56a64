"""Returns of policies that learn nothing: uniformly random actions, and the action zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import ActionSpace, idle_actions, random_actions
from workhorse.environments import registry
from workhorse.environments.protocol import HostEnv, JaxEnv
from workhorse.studies.results import Floor

__all__ = ["measure_floor"]

Act = Callable[[int], np.ndarray]
"""Function from a time step to the actions of every slot."""


def measure_floor(
    task: str, options: Mapping[str, Any], episodes: int = 100, seed: int = 0, longest: int = 10_000
) -> Floor:
    """Measure the returns of the random and of the do-nothing policy, from the same initial states.

    `random_actions` and `idle_actions` say what the two do on each kind of action.

    Args:
        task, options: the task.
        episodes: number of episodes of each policy.
        seed: root of initial states and actions.
        longest: steps after which an episode is cut on a task without a clock.
    """
    env = registry.make(task, episodes, 0, **options)
    try:
        random = _returns(env, episodes, seed, longest, _random_actions(env.spec.action, episodes, seed))
        nothing = _returns(env, episodes, seed, longest, lambda _: idle_actions(env.spec.action, episodes))
    finally:
        if isinstance(env, HostEnv):
            env.close()
    return Floor(tuple(map(float, random)), tuple(map(float, nothing)))


def _random_actions(space: ActionSpace, slots: int, seed: int) -> Act:
    generators = [host_generator(key) for key in host_keys(seed, "act", 0, np.arange(slots))]
    return lambda _: np.stack([random_actions(space, (), generator) for generator in generators])


def _returns(env: HostEnv | JaxEnv, episodes: int, seed: int, longest: int, act: Act) -> np.ndarray:
    if isinstance(env, HostEnv):
        return _host_returns(env, episodes, seed, longest, act)
    return _jax_returns(env, episodes, seed, longest, act)


def _host_returns(env: HostEnv, episodes: int, seed: int, longest: int, act: Act) -> np.ndarray:
    env.reset(host_keys(seed, "evaluate", 0, np.arange(episodes)))
    total, living = np.zeros(episodes), np.arange(episodes)
    for time in range(longest):
        step = env.step(act(time)[living], living)
        total[living] += step.reward
        living = living[~(step.terminated | step.truncated)]
        if not len(living):
            break
    return total


def _jax_returns(env: JaxEnv, episodes: int, seed: int, longest: int, act: Act) -> np.ndarray:
    key = draw(root_key(seed), "evaluate", 0)
    keys = jax.vmap(lambda episode: jax.random.fold_in(key, episode))(np.arange(episodes))
    states, _ = jax.vmap(env.reset)(keys)
    advance = jax.jit(
        jax.vmap(
            lambda state, action, key, time: env.step(state, action, jax.random.fold_in(key, time)), (0, 0, 0, None)
        )
    )
    total, living = np.zeros(episodes), np.ones(episodes, bool)
    for time in range(longest):
        states, step = advance(states, act(time), keys, np.uint32(time + 1))
        total += np.where(living, np.asarray(step.reward), 0.0)
        living &= ~np.asarray(step.terminated | step.truncated)
        if not living.any():
            break
    return total
