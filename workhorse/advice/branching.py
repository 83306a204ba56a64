"""Probes that branch from snapshots: hidden randomness, the reach of an action, one step of look-ahead."""

from typing import NamedTuple

import numpy as np

from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.spec import ActionSpace, Discrete, MultiBinary, MultiDiscrete
from workhorse.environments.actions import random_actions
from workhorse.environments.batch import episode_keys
from workhorse.environments.protocol import Simulator

__all__ = ["Horizon", "LookAhead", "action_horizon", "greedy_on_random", "is_repeatable"]


def is_repeatable(env: Simulator, steps: int = 20, seed: int = 0) -> bool:
    """Tell whether two branches from the same states, with the same actions and keys, have the same bits."""
    plans = _plans(env.spec.action, env.num_slots, steps, seed)
    env.reset(episode_keys(env, seed, "reset", 2, np.arange(env.num_slots)))
    states = env.states()
    first, second = env.rollout(states, plans, observed=True), env.rollout(states, plans, observed=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True))


class Horizon(NamedTuple):
    """Delays after which a changed action changes the reward.

    Attributes:
        half: steps after which half of the whole difference has come.
        ninth: steps after which nine tenths have come.
        any: share of states in which the changed action changed any reward within the steps looked at.
        steps: of the simulator.
    """

    half: float
    ninth: float
    any: float
    steps: int


def action_horizon(env: Simulator, ahead: int, seed: int = 0) -> Horizon:
    """Branch every slot twice, one action apart, and follow both branches under the same random actions.

        D_k = mean over states of |r_{t+k} - r'_{t+k}|

    A branch that has ended earns nothing. Where nothing ever differs, both delays are `ahead`.

    Args:
        env: its slots are first moved by up to 50 random steps, so that the states differ in age.
        ahead: steps that are looked at.
        seed: root of all draws.
    """
    count, action = env.num_slots, env.spec.action
    env.reset(episode_keys(env, seed, "reset", 3, np.arange(count)))
    states = env.states()
    for age, plan in enumerate(np.moveaxis(_plans(action, count, 50, seed), 1, 0)):
        found = env.rollout(states, plan[:, None])
        moves = (np.arange(count) % 50 >= age) & ~found.terminated[:, 0]
        states = np.where(moves[:, None], found.states, states)
    plans = _plans(action, count, ahead, seed + 1)
    changed = plans.copy()
    changed[:, 0] = _other(action, plans[:, 0], host_generator(host_keys(seed, "act", 5)))
    tried = env.rollout(np.concatenate([states, states]), np.concatenate([plans, changed]))
    reward = np.where(_after_end(tried.terminated), 0.0, tried.reward)
    difference = np.abs(reward[:count] - reward[count:])
    total = difference.mean(0)
    any_difference = float((difference.sum(1) > 0).mean())
    steps = count * (2 * ahead + 50)
    if total.sum() == 0:
        return Horizon(float(ahead), float(ahead), 0.0, steps)
    come = np.cumsum(total) / total.sum()
    return Horizon(float((come < 0.5).sum()), float((come < 0.9).sum()), any_difference, steps)


class LookAhead(NamedTuple):
    """Episodes in which each action is the best of some after which random play follows.

    Attributes:
        returns: of the episodes, (B,).
        random: of random play from the same initial states, (B,).
        steps: of the simulator.
    """

    returns: np.ndarray
    random: np.ndarray
    steps: int


def greedy_on_random(
    env: Simulator, num_actions: int, num_draws: int, ahead: int, most_steps: int, seed: int = 0
) -> LookAhead:
    """Act greedily on the value of random play, estimated by branching: one step of value iteration.

    In each state every candidate action is followed by `num_draws` random plays of up to `ahead` steps, the same ones
    for every candidate. All choices of a `Discrete` are candidates, and `num_actions` drawn ones of any other space.

    Source: Laidlaw, Russell and Dragan 2023, "Bridging RL theory and practice with the effective horizon".
    """
    space, slots = env.spec.action, env.num_slots
    generator = host_generator(host_keys(seed, "act", 6))
    env.reset(episode_keys(env, seed, "reset", 4, np.arange(slots)))
    start = env.states()
    returns, living, total = np.zeros(slots), np.arange(slots), 0
    for _ in range(most_steps):
        candidates = _candidates(space, num_actions, generator)
        tails = random_actions(space, (num_draws, ahead), generator)
        block = np.repeat(tails[None], len(candidates), axis=0)
        block[:, :, 0] = candidates[:, None]
        plans = np.tile(block.reshape(-1, *block.shape[2:]), (len(living), *[1] * (block.ndim - 2)))
        states = np.repeat(env.states(living), len(candidates) * num_draws, axis=0)
        tried = env.rollout(states, plans)
        total += plans.shape[0] * plans.shape[1]
        earned = np.where(_after_end(tried.terminated), 0.0, tried.reward).sum(1)
        value = earned.reshape(len(living), len(candidates), num_draws).mean(2)
        step = env.step(candidates[value.argmax(1)], living)
        returns[living] += step.reward
        living = living[~(step.terminated | step.truncated)]
        if not len(living):
            break
    plain = env.rollout(start, random_actions(space, (slots, most_steps), generator))
    random = np.where(_after_end(plain.terminated), 0.0, plain.reward).sum(1)
    return LookAhead(returns, random, total + slots * most_steps)


def _after_end(terminated: np.ndarray) -> np.ndarray:
    """Tell which steps come after one that ended the task, (N, H)."""
    before = np.zeros_like(terminated)
    before[:, 1:] = np.logical_or.accumulate(terminated, axis=1)[:, :-1]
    return before


def _plans(space: ActionSpace, count: int, steps: int, seed: int) -> np.ndarray:
    return random_actions(space, (count, steps), host_generator(host_keys(seed, "act", 4)))


def _candidates(space: ActionSpace, count: int, generator: np.random.Generator) -> np.ndarray:
    return np.arange(space.count) if isinstance(space, Discrete) else random_actions(space, (count,), generator)


def _other(space: ActionSpace, actions: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return an action for each that differs from it."""
    match space:
        case Discrete(count):
            return (actions + 1 + generator.integers(max(count - 1, 1), size=len(actions))) % count
        case MultiDiscrete(counts):
            return (actions + 1) % np.asarray(counts)
        case MultiBinary():
            return 1 - actions
    return random_actions(space, (len(actions),), generator)
