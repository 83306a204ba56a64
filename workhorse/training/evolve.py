"""The loop of evolution strategies: a population's episodes in chunks, then one update."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from workhorse.core.types import Returns
from workhorse.training.learning import Learning
from workhorse.training.workforce import Tally, Workforce

__all__ = ["Evaluation", "Evolve", "Progress", "chunk_size"]


class Progress(NamedTuple):
    """Where a run stands: the learner and the counters that go on from it."""

    learner: Any
    iteration: np.ndarray
    env_steps: np.ndarray


class Evaluation(NamedTuple):
    """Noiseless episodes of the unperturbed policy on the raw reward."""

    returns: np.ndarray
    lengths: np.ndarray
    failures: tuple[str, ...]


def chunk_size(num_episodes: int, at_most: int = 64) -> int:
    """Slots of a chunk: an even number of chunks of equal size, as few as `at_most` slots allow.

    It depends on the population alone, never on the machine: a chunk's size is part of the result's bits.

    Example:
        >>> chunk_size(1), chunk_size(16), chunk_size(64), chunk_size(80), chunk_size(460)
        (1, 8, 32, 40, 58)
    """
    pairs_of_chunks = -(-num_episodes // (2 * at_most))
    return -(-num_episodes // (2 * pairs_of_chunks))


class Evolve:
    """Iterations of a population-based algorithm: evaluate every member, then update once.

    The population is never held: each chunk's members are made from their addresses, judged and forgotten; what is
    kept is four bytes an episode.
    """

    def __init__(self, learning: Learning, workforce: Workforce) -> None:
        self.algorithm = learning.algorithm
        self._learning = learning
        self._workforce = workforce

    def start(self) -> Progress:
        """The state before the first iteration."""
        return Progress(self._learning.init(), np.zeros((), np.int64), np.zeros((), np.int64))

    def iterate(
        self, progress: Progress, goes_on: Callable[[int], bool] = lambda env_steps: False
    ) -> tuple[Progress, dict[str, Any], tuple[str, ...]]:
        """One iteration: (state after it, metrics, a sentence for each simulation that failed).

        Args:
            progress: where the run stands.
            goes_on: whether, at so many environment steps, another iteration will follow at once; a workforce may
                begin it early.
        """
        iteration = int(progress.iteration)
        tallies = self._workforce.gather(progress.learner, iteration)
        returns = self.total(tallies)
        steps = sum(chunk.steps for chunk in tallies)
        self._workforce.learnt(iteration, returns, goes_on(int(progress.env_steps) + steps))
        begun = time.perf_counter()
        learner, update = self._learning.update(progress.learner, iteration, returns, self._workforce.blocks())
        update["update_s"] = time.perf_counter() - begun
        failures = tuple(failure for chunk in tallies for failure in chunk.failures)
        after = Progress(learner, progress.iteration + 1, progress.env_steps + steps)
        return after, {"steps": steps, "failed_episodes": len(failures), **_population(tallies), **update}, failures

    def total(self, tallies: list[Tally]) -> Returns:
        """What the learner reads, from all chunks of an iteration in their order."""
        shape = (self.algorithm.num_members, self.algorithm.episodes_per_member)
        fitness = np.concatenate([chunk.fitness for chunk in tallies]).reshape(shape)
        return Returns(
            fitness.astype(np.float64).mean(axis=1).astype(np.float32),
            np.float64(sum(chunk.steps for chunk in tallies) / fitness.size),
            self._learning.merge([chunk.observations for chunk in tallies]),
        )

    def evaluate(self, progress: Progress, num_episodes: int) -> Evaluation:
        """Noiseless episodes of the unperturbed policy, on the raw reward, to the task's own clock."""
        found = self._workforce.evaluate(progress.learner, int(progress.iteration), num_episodes)
        return Evaluation(
            np.concatenate([chunk.fitness for chunk in found])[:num_episodes],
            np.concatenate([chunk.length for chunk in found])[:num_episodes],
            tuple(failure for chunk in found for failure in chunk.failures),
        )


def _population(tallies: list[Tally]) -> dict[str, float]:
    """Mean, spread, best and worst raw return of the population's episodes, and their mean length."""
    count, mean, deviation = 0, 0.0, 0.0
    for chunk in tallies:
        size = len(chunk.fitness)
        apart, count = chunk.returns[0] - mean, count + size
        mean += apart * size / count
        deviation += chunk.returns[1] + apart * apart * (count - size) * size / count
    return {
        "training_return": mean,
        "training_return_std": math.sqrt(deviation / count),
        "training_return_max": max(chunk.returns[3] for chunk in tallies),
        "training_return_min": min(chunk.returns[2] for chunk in tallies),
        "episode_length": sum(chunk.steps for chunk in tallies) / count,
    }
