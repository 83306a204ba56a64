"""Random play and guessed policies: what can be known of a task without learning anything on it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.environments.actions import random_actions
from workhorse.environments.batch import episode_keys
from workhorse.environments.protocol import HostEnv

__all__ = ["Guesses", "Played", "guess", "play_randomly", "play_with"]


class Played(NamedTuple):
    """Episodes, one a slot; rows are steps (T), columns slots (B). What comes after an episode's end is NaN or False.

    Attributes:
        obs: acted on, (T, B, D).
        action: (T, B, ...).
        reward: (T, B).
        next_obs: (T, B, D).
        alive: the step was taken, (T, B).
        terminated: the task ended with the step, (T, B).
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_obs: np.ndarray
    alive: np.ndarray
    terminated: np.ndarray

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted returns, (B,)."""
        return np.where(self.alive, self.reward, 0.0).sum(0)

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each episode, (B,)."""
        return self.alive.sum(0)


def play_with(
    env: HostEnv,
    choose: Callable[[np.ndarray, int], np.ndarray],
    most_steps: int,
    *address: int | np.ndarray,
    seed: int,
) -> Played:
    """Play an episode in every slot, cut after `most_steps`.

    Args:
        env: of B slots.
        choose: from observations (B, ...) and time to actions (B, ...).
        most_steps: of an episode.
        address: of the initial states in the stream "reset", integers or arrays (B,).
        seed: root of the address.
    """
    count = env.num_slots
    obs = np.array(env.reset(episode_keys(env, seed, "reset", *address)))
    kept: list[list[np.ndarray]] = [[] for _ in range(6)]
    living = np.arange(count)
    for time in range(most_steps):
        action = choose(obs, time)
        step = env.step(action[living], living)
        alive, reward = np.zeros(count, bool), np.full(count, np.nan)
        terminated, following = np.zeros(count, bool), obs.copy()
        alive[living], reward[living], terminated[living] = True, step.reward, step.terminated
        following[living] = step.next_obs
        for part, array in zip(kept, (obs, action, reward, following, alive, terminated), strict=True):
            part.append(array)
        obs = following
        living = living[~(step.terminated | step.truncated)]
        if not len(living):
            break
    return Played(*(np.stack(part) for part in kept))


def play_randomly(env: HostEnv, most_steps: int, seed: int = 0) -> Played:
    """Play uniformly random actions, each slot from a stream of its own."""
    slots = np.arange(env.num_slots)
    generators = [host_generator(key) for key in host_keys(seed, "act", 0, slots)]

    def choose(_: np.ndarray, time: int) -> np.ndarray:
        return np.stack([random_actions(env.spec.action, (), generator) for generator in generators])

    return play_with(env, choose, most_steps, 0, slots, seed=seed)


class Guesses(NamedTuple):
    """Returns of linear policies whose weights were drawn, (P, E): policies, episodes each."""

    returns: np.ndarray
    steps: int

    @property
    def means(self) -> np.ndarray:
        """Mean return of each policy, (P,)."""
        return self.returns.mean(1)

    @property
    def share_of_variance(self) -> float:
        """Share of the returns' variance that lies between policies, in [0, 1]; 0 where nothing varies.

        The estimate subtracts what luck alone puts between the means of so many episodes.
        """
        count = self.returns.shape[1]
        if count < 2 or self.returns.var() == 0:
            return 0.0
        within = self.returns.var(axis=1, ddof=1).mean()
        between = max(float(self.means.var(ddof=1)) - within / count, 0.0)
        return float(between / (between + within)) if between + within > 0 else 0.0


def guess(env: HostEnv, episodes: int, most_steps: int, seed: int = 0) -> Guesses:
    """Draw weights from N(0, 1) for a linear policy in each group of `episodes` slots, and play it.

    A `Box` component is middle + half * w . x, clipped; a choice is the highest of its scores; observations are taken
    as they are, and every second policy has a constant among them. Kinds of actions other than `Box` and `Discrete`
    are refused by the caller. The environment has a multiple of `episodes` slots.

    Source: Oller, Glasmachers and Cuccu 2020, "Analyzing reinforcement learning benchmarks with random weight
    guessing".
    """
    spec, policies = env.spec, env.num_slots // episodes
    size = spec.observation.size
    generator = host_generator(host_keys(seed, "noise", 0))
    outputs = spec.action.count if isinstance(spec.action, Discrete) else spec.action.size
    drawn = generator.standard_normal((policies, outputs, size + 1))
    drawn[::2, :, -1] = 0.0
    weights = np.repeat(drawn, episodes, axis=0)
    slots = np.arange(env.num_slots)

    def choose(obs: np.ndarray, time: int) -> np.ndarray:
        rows = np.asarray(obs, np.float64).reshape(len(obs), -1)
        told = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
        return act_by(spec, np.einsum("boi,bi->bo", weights, told))

    found = play_with(env, choose, most_steps, 1, slots % episodes, seed=seed)
    return Guesses(found.returns.reshape(policies, episodes), int(found.lengths.sum()))


def act_by(spec: EnvSpec, outputs: np.ndarray) -> np.ndarray:
    """Return the actions that outputs (B, O) of a policy stand for."""
    if isinstance(spec.action, Discrete):
        return outputs.argmax(1)
    assert isinstance(spec.action, Box)
    middle, half = spec.action.middle_and_half()
    action = middle.ravel() + half.ravel() * outputs
    return np.clip(action, spec.action.low, spec.action.high).reshape(len(outputs), *spec.action.shape)
