"""Who runs an iteration's episodes: this process's lanes, or anything else that gives the same answers."""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np

from workhorse.core.types import Moments, Returns
from workhorse.training.gather import Episodes, Lanes, Work
from workhorse.training.learning import Blocks, Learning, one_after_the_other

__all__ = ["Local", "Tally", "Workforce", "evaluation_work", "num_chunks", "tally", "training_work"]


class Tally(NamedTuple):
    """What a training chunk's episodes come to: all that leaves the process that ran them.

    Attributes:
        fitness: what the search climbs, an episode, in the chunk's order, idle slots left out; float32.
        steps: environment steps.
        returns: mean, sum of squared deviations, least and greatest of the raw returns.
        observations: moments of the observations acted on, float64.
        failures: one sentence for each episode whose simulation broke.
    """

    fitness: np.ndarray
    steps: int
    returns: tuple[float, float, float, float]
    observations: Moments
    failures: tuple[str, ...]


class Workforce(Protocol):
    """Runs all chunks of an iteration. Which of them ran where changes no bit of what comes back."""

    num_slots: int

    def gather(self, learner: Any, iteration: int) -> list[Tally]:
        """Every training chunk of an iteration, in order."""
        ...

    def learnt(self, iteration: int, returns: Returns, goes_on: bool) -> None:
        """The iteration's episodes are complete and the learner is about to move by `returns`.

        `goes_on` says that the next iteration follows at once. It is a forecast: nothing goes wrong if it does not.
        """
        ...

    def blocks(self) -> Blocks:
        """How this process comes by the blocks of the update's sum."""
        ...

    def evaluate(self, learner: Any, iteration: int, num_episodes: int) -> list[Episodes]:
        """Noiseless episodes of the unperturbed policy, by chunks, in order."""
        ...

    def metrics(self) -> dict[str, float]:
        """Numbers of this iteration that say what the work cost: not part of the result."""
        ...

    def traffic(self) -> list[tuple[int, str, str, int, int]]:
        """(iteration, worker, purpose, bytes sent to it, bytes received from it), of everything since the last call."""
        ...

    def core_seconds(self) -> Mapping[str, float] | None:
        """Seconds that cores of each kind were held since the last call; None where the run's own threads are all."""
        ...

    def close(self) -> None: ...


class Local:
    """The lanes of this process."""

    def __init__(self, learning: Learning, lanes: Lanes, threads: int = 1) -> None:
        self.num_slots = lanes.num_slots
        self._learning = learning
        self._lanes = lanes
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def gather(self, learner: Any, iteration: int) -> list[Tally]:
        algorithm = self._learning.algorithm
        chunks = range(num_chunks(algorithm.num_members * algorithm.episodes_per_member, self.num_slots))
        limit = algorithm.episode_steps(learner)
        works = (training_work(algorithm, iteration, self.num_slots, chunk, limit) for chunk in chunks)
        return [tally(algorithm, found) for found in self._lanes.run(self._learning.actor(learner), works)]

    def learnt(self, iteration: int, returns: Returns, goes_on: bool) -> None:
        pass

    def blocks(self) -> Blocks:
        pool = self._pool
        if pool is None:
            return one_after_the_other
        return lambda iteration, count, compute: [compute(0)] if count == 1 else list(pool.map(compute, range(count)))

    def evaluate(self, learner: Any, iteration: int, num_episodes: int) -> list[Episodes]:
        chunks = range(num_chunks(num_episodes, self.num_slots))
        works = (evaluation_work(iteration, num_episodes, self.num_slots, chunk) for chunk in chunks)
        return self._lanes.run(self._learning.actor(learner), works)

    def metrics(self) -> dict[str, float]:
        return {}

    def traffic(self) -> list[tuple[int, str, str, int, int]]:
        return []

    def core_seconds(self) -> Mapping[str, float] | None:
        return None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._lanes.close()


def num_chunks(num_episodes: int, num_slots: int) -> int:
    """Chunks that hold so many episodes.

    Example:
        >>> num_chunks(16, 8), num_chunks(17, 8)
        (2, 3)
    """
    return -(-num_episodes // num_slots)


def training_work(algorithm: Any, iteration: int, num_slots: int, chunk: int, limit: int | None) -> Work:
    """One chunk of a training iteration, by address; `limit` is the algorithm's `episode_steps`."""
    per_member = algorithm.episodes_per_member
    episodes = _episodes(chunk, algorithm.num_members * per_member, num_slots)
    members = np.where(episodes < 0, -1, episodes // per_member).astype(np.int32)
    return Work("reset", iteration, members, episodes, limit, True)


def evaluation_work(iteration: int, num_episodes: int, num_slots: int, chunk: int) -> Work:
    """One chunk of an evaluation, by address: the unperturbed policy to the task's own clock.

    Initial states come from the address (root, "evaluate", iteration, episode), so an evaluation neither depends on
    the training before it nor changes the training after it.
    """
    members = np.full(num_slots, -1, np.int32)
    return Work("evaluate", iteration, members, _episodes(chunk, num_episodes, num_slots), None, False)


def tally(algorithm: Any, episodes: Episodes) -> Tally:
    """What a chunk's episodes come to."""
    ran = episodes.length > 0
    returns, length = episodes.fitness[ran], episodes.length[ran]
    mean = math.fsum(returns) / len(returns)
    deviation = math.fsum((value - mean) ** 2 for value in returns)
    return Tally(
        np.asarray(algorithm.fitness(returns, length), np.float32),
        int(length.sum()),
        (mean, deviation, float(returns.min()), float(returns.max())),
        episodes.observations,
        episodes.failures,
    )


def _episodes(chunk: int, total: int, num_slots: int) -> np.ndarray:
    episodes = chunk * num_slots + np.arange(num_slots, dtype=np.int32)
    return np.where(episodes < total, episodes, -1).astype(np.int32)
