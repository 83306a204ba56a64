"""Episodes in which an expert is asked in every state, whoever acts there: on any kind of environment."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.spec import Box, Discrete, EnvSpec, MultiDiscrete
from workhorse.data.dataset import Dataset
from workhorse.environments.batch import episode_keys
from workhorse.environments.protocol import HostEnv, failure_reason
from workhorse.training.episodes import num_chunks, numbered
from workhorse.training.experts import Expert
from workhorse.training.loop import Failures

__all__ = ["Answered", "Choose", "ExpertEpisodes", "Noisy", "dataset_of", "demonstrated"]


class Answered(NamedTuple):
    """Episodes, one a slot, axes T and B; rows from `length` on hold nothing. An idle slot has length 0.

    Attributes:
        obs: what was acted on, float32.
        answer: what the expert would have done there, in the task's own numbers.
        action: what was done, likewise.
        by_expert: whether it was the expert who acted, bool.
        reward: raw, float64.
        terminated, truncated: bool.
        final_obs: the observation after the last step, (B, ...).
        length: steps, int32 (B,).
        failures: a sentence for each slot whose simulation broke.
    """

    obs: np.ndarray
    answer: np.ndarray
    action: np.ndarray
    by_expert: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_obs: np.ndarray
    length: np.ndarray
    failures: Failures

    @property
    def is_there(self) -> np.ndarray:
        """True in rows that hold a step, (T, B)."""
        return np.arange(len(self.obs))[:, None] < self.length

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted returns, float64 (B,)."""
        return self.reward.sum(0)


class Choose(Protocol):
    """Decides what is done where the expert has answered."""

    def __call__(
        self, obs: np.ndarray, answer: np.ndarray, episodes: np.ndarray, now: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the slots' actions, in the task's own numbers, and whether each is the expert's."""
        ...


class ExpertEpisodes:
    """Plays episodes in the slots of an environment and asks an expert in each of their states."""

    def __init__(self, env: HostEnv, expert: Expert, root: int) -> None:
        self._env, self._expert, self._root = env, expert, root

    def play(self, stream: str, iteration: int, episodes: np.ndarray, choose: Choose | None = None) -> Answered:
        """Play an episode in each slot.

        Args:
            stream: that initial states are drawn from.
            iteration: part of their address.
            episodes: number of the episode in each slot, int32 (B,); a negative one leaves its slot idle.
            choose: what is done; by default what the expert answers.
        """
        env, spec, slots = self._env, self._env.spec, len(episodes)
        clock = spec.max_episode_steps
        assert clock is not None, "a run needs a time limit, and start asks for it"
        kept = _empty(spec, clock, slots)
        obs, failures = np.zeros((slots, *spec.observation.shape)), list[str]()
        living, now = np.flatnonzero(episodes >= 0), 0
        obs[living] = env.reset(episode_keys(env, self._root, stream, iteration, episodes[living]), living)
        self._expert.begin(slots, iteration)
        while len(living):
            answer = self._expert.answer(obs, living, episodes, now)
            action, by_expert = (answer, np.ones(slots, bool))
            if choose is not None:
                action, by_expert = choose(obs, answer, episodes, now)
            for column, part in zip(kept[:4], (obs, answer, action, by_expert), strict=True):
                column[now, living] = np.asarray(part)[living]
            step = env.step(np.asarray(action)[living].astype(kept.action.dtype), living)
            for column, part in zip(kept[4:7], (step.reward, step.terminated, step.truncated), strict=True):
                column[now, living] = part
            obs[living], now = step.next_obs, now + 1
            kept.length[living] = now
            failures += [
                f"episode {episodes[slot]} of iteration {iteration}, step {now}: {failure_reason(env, slot)}"
                for slot in living[step.measures["failed"]].tolist()
            ]
            ended = step.terminated | step.truncated
            kept.final_obs[living[ended]] = step.next_obs[ended]
            living = living[~ended]
        return kept._replace(failures=tuple(failures))


class Noisy:
    """Choice of the expert's answer with noise on it, drawn from the address of the episode.

    On a `Box` it is normal, with `noise` times half the range as its standard deviation (`noise` itself where there is
    no range), clipped to the bounds; of choices a random one is taken instead with probability `noise`.
    """

    def __init__(self, spec: EnvSpec, root: int, noise: float) -> None:
        self._spec, self._root, self._noise = spec, root, noise
        self._draws: dict[int, np.random.Generator] = {}

    def __call__(
        self, obs: np.ndarray, answer: np.ndarray, episodes: np.ndarray, now: int
    ) -> tuple[np.ndarray, np.ndarray]:
        action = np.array(answer)
        for slot in np.flatnonzero(episodes >= 0):
            episode = int(episodes[slot])
            if now == 0:
                self._draws[episode] = host_generator(host_keys(self._root, "act", 0, episode))
            action[slot] = self._noised(answer[slot], self._draws[episode])
        return action, np.ones(len(episodes), bool)

    def _noised(self, answer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        space = self._spec.task_action
        if isinstance(space, Box):
            low, high = (np.reshape(bound, space.shape) for bound in (space.low, space.high))
            half = space.middle_and_half()[1]
            return np.clip(answer + self._noise * half * rng.standard_normal(space.shape), low, high)
        counts = {Discrete: lambda: space.count, MultiDiscrete: lambda: np.array(space.counts)}  # type: ignore[union-attr]
        drawn = rng.integers(0, counts.get(type(space), lambda: 2)(), np.shape(answer))
        return np.where(rng.random(np.shape(answer)) < self._noise, drawn, answer)


def demonstrated(
    name: str, env: HostEnv, expert: Expert, root: int, num_episodes: int, options: dict[str, Any], noise: float = 0.0
) -> Dataset:
    """Return episodes that an expert plays, as a log.

    Args:
        name: of the log.
        env: the task; its slots play side by side.
        expert: in the slots of `env`.
        root: seed of initial states, and of the noise.
        num_episodes: how many.
        options: of the task, for the card.
        noise: see `Noisy`; 0 for none.
    """
    player, played = ExpertEpisodes(env, expert, root), list[Answered]()
    choose = Noisy(env.spec, root, noise) if noise else None
    for chunk in range(num_chunks(num_episodes, env.num_slots)):
        episodes = numbered(chunk, num_episodes, env.num_slots)
        played.append(player.play("reset", 0, episodes, choose))
    return dataset_of(name, env.spec, played, options)


def _empty(spec: EnvSpec, clock: int, slots: int) -> Answered:
    """Return episodes of no steps with room for `clock`."""
    seen, (shape, dtype) = spec.observation.shape, _action_layout(spec)
    obs = np.zeros((clock, slots, *seen), np.float32)
    answer, action = np.zeros((2, clock, slots, *shape), dtype)
    flags = np.zeros((3, clock, slots), bool)
    final, length = np.zeros((slots, *seen), np.float32), np.zeros(slots, np.int32)
    return Answered(obs, answer, action, flags[0], np.zeros((clock, slots)), flags[1], flags[2], final, length, ())


def _action_layout(spec: EnvSpec) -> tuple[tuple[int, ...], Any]:
    """Return the shape and the type of a task's action."""
    space = spec.task_action
    if isinstance(space, Box):
        return space.shape, np.float32
    return () if isinstance(space, Discrete) else (space.size,), np.int64


def dataset_of(name: str, spec: EnvSpec, played: list[Answered], options: dict[str, Any]) -> Dataset:
    """Return the steps that were played as a log: *the action is what was done*, with its noise, if there was any.

    Args:
        name: of the log.
        spec: of the task.
        played: episodes, in this order; those of a slot one after the other.
        options: of the task.
    """
    slots = [(part, slot) for part in played for slot in range(len(part.length)) if part.length[slot]]

    def column(field: str) -> np.ndarray:
        return np.concatenate([getattr(part, field)[: part.length[slot], slot] for part, slot in slots])

    lengths = np.array([part.length[slot] for part, slot in slots])
    return Dataset.of(
        name, spec.observation, spec.task_action, task=spec.task, max_episode_steps=spec.max_episode_steps,
        task_options=options, obs=column("obs"), action=column("action"), reward=column("reward"),
        terminated=column("terminated"), truncated=column("truncated"),
        final_obs=np.stack([part.final_obs[slot] for part, slot in slots]),
        begins=np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64),
    )  # fmt: skip
