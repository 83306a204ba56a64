"""Processes that play an iteration's episodes: this one's lanes, or anything else that gives the same answers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from workhorse.core.algorithm import Population, State
from workhorse.core.types import Moments, Returns
from workhorse.training.episodes import Episodes, Lanes, Work, num_chunks, numbered
from workhorse.training.loop import Message
from workhorse.training.population import Blocks, PopulationPrograms, one_after_the_other

__all__ = ["Local", "Tally", "Workforce", "tally", "training_work"]


class Tally(NamedTuple):
    """A training chunk in few numbers: all that leaves the process that played it.

    Attributes:
        fitness: what the search climbs, an episode, in the chunk's order, idle slots left out; float32.
        steps: environment steps.
        returns: mean, sum of squared deviations, least and greatest of the raw returns.
        observations: moments of the observations acted on, float64.
        failures: one sentence for each episode whose simulation broke.
        at_one_bound: share of actions at one bound, see `action_bounds`.
    """

    fitness: np.ndarray
    steps: int
    returns: tuple[float, float, float, float]
    observations: Moments
    failures: tuple[str, ...]
    at_one_bound: float = math.nan


class Workforce(ABC):
    """Plays all chunks of an iteration. Which of them ran where changes no bit of the result."""

    num_slots: int
    is_distributed: bool = False

    @abstractmethod
    def play(self, state: State, iteration: int, episodes: range) -> list[Tally]:
        """Return every training chunk of these episodes of an iteration, in order."""

    @abstractmethod
    def evaluate(self, state: State, iteration: int, num_episodes: int) -> list[Episodes]:
        """Return noiseless episodes of the unperturbed policy, by chunks, in order."""

    def announce(self, iteration: int, returns: Returns, goes_on: bool) -> None:  # noqa: B027  most have nobody to tell
        """Take note that the iteration's episodes are complete and the state is about to move by `returns`.

        `goes_on` says that the next iteration follows at once. It is a forecast: nothing goes wrong if it does not.
        """

    def blocks(self) -> Blocks:
        """Return the function that computes the blocks of the update's sum."""
        return one_after_the_other

    def metrics(self) -> dict[str, float]:
        """Return numbers of this iteration that say what the work cost: no part of the result."""
        return {}

    def messages(self) -> Sequence[Message]:
        """Return the messages since the last call."""
        return ()

    def core_seconds(self) -> Mapping[str, float] | None:
        """Return the seconds that cores of each kind were held since the last call; None for the run's own threads."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Let the workers go."""


class Local(Workforce):
    """The lanes of this process, and its threads for the blocks of an update."""

    def __init__(self, programs: PopulationPrograms, lanes: Lanes, threads: int = 1) -> None:
        self.num_slots = lanes.num_slots
        self._programs = programs
        self._lanes = lanes
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def play(self, state: State, iteration: int, episodes: range) -> list[Tally]:
        algorithm = self._programs.algorithm
        chunks = range(num_chunks(len(episodes), self.num_slots))
        limit = algorithm.episode_steps(state)
        works = (training_work(algorithm, iteration, self.num_slots, chunk, limit, episodes) for chunk in chunks)
        return [tally(algorithm, episodes) for episodes in self._lanes.run(self._programs.actor(state), works)]

    def evaluate(self, state: State, iteration: int, num_episodes: int) -> list[Episodes]:
        return self._lanes.evaluate(self._programs.actor(state), iteration, num_episodes)

    def blocks(self) -> Blocks:
        pool = self._pool
        if pool is None:
            return one_after_the_other
        return lambda iteration, count, compute: [compute(0)] if count == 1 else list(pool.map(compute, range(count)))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._lanes.close()


def training_work(
    algorithm: Population, iteration: int, num_slots: int, chunk: int, limit: int | None, episodes: range
) -> Work:
    """Return one chunk of these episodes of an iteration; `limit` is the algorithm's `episode_steps`."""
    chosen = numbered(chunk, len(episodes), num_slots)
    numbers = np.where(chosen < 0, -1, chosen + episodes.start).astype(np.int32)
    members = np.where(chosen < 0, -1, numbers // algorithm.episodes_per_member).astype(np.int32)
    return Work("reset", iteration, members, numbers, limit, True)


def tally(algorithm: Population, episodes: Episodes) -> Tally:
    """Return the few numbers that a chunk's episodes come to."""
    ran = episodes.length > 0
    returns, length = episodes.returns[ran], episodes.length[ran]
    mean = math.fsum(returns) / len(returns)
    deviation = math.fsum((value - mean) ** 2 for value in returns)
    return Tally(
        np.asarray(algorithm.fitness(returns, length), np.float32),
        int(length.sum()),
        (mean, deviation, float(returns.min()), float(returns.max())),
        episodes.observations,
        episodes.failures,
        episodes.at_one_bound,
    )
