"""The loop of evolution strategies: a population's episodes in chunks, then one update."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Moments, Returns
from workhorse.math import moments
from workhorse.training.gather import Episodes, Lanes, Work

__all__ = ["Evaluation", "Evolve", "Progress", "chunk_size", "evaluate"]


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
    kept is a return and a length an episode.
    """

    def __init__(self, algorithm: Any, lanes: Lanes, root: int) -> None:
        self.algorithm = algorithm
        self._lanes = lanes
        self._root = root
        self._actor: Callable[[Any], Any] = jax.jit(algorithm.actor)
        self._update = jax.jit(self._fold)

    def start(self) -> Progress:
        """The state before the first iteration."""
        learner = self.algorithm.init(draw(root_key(self._root), "init"))
        return Progress(learner, np.zeros((), np.int64), np.zeros((), np.int64))

    def actor(self, progress: Progress) -> Any:
        """What acting needs of the learner."""
        return self._actor(progress.learner)

    def work(self, progress: Progress) -> Iterator[Work]:
        """The chunks of the next iteration, in order."""
        episodes_per_member = self.algorithm.episodes_per_member
        total = self.algorithm.num_members * episodes_per_member
        limit = self.algorithm.episode_steps(progress.learner)
        for first in range(0, total, self._lanes.num_slots):
            episodes = _padded(first, total, self._lanes.num_slots)
            members = np.where(episodes < 0, -1, episodes // episodes_per_member).astype(np.int32)
            yield Work("reset", int(progress.iteration), members, episodes, limit, True)

    def iterate(self, progress: Progress) -> tuple[Progress, dict[str, Any], tuple[str, ...]]:
        """One iteration: (state after it, metrics, a sentence for each simulation that failed)."""
        return self.finish(progress, self._lanes.run(self.actor(progress), self.work(progress)))

    def finish(self, progress: Progress, chunks: list[Episodes]) -> tuple[Progress, dict[str, Any], tuple[str, ...]]:
        """The update from all chunks of an iteration, in their order."""
        total = self.algorithm.num_members * self.algorithm.episodes_per_member
        fitness = np.concatenate([chunk.fitness for chunk in chunks])[:total]
        length = np.concatenate([chunk.length for chunk in chunks])[:total]
        observations = Moments(*(np.stack(leaves) for leaves in zip(*(c.observations for c in chunks), strict=True)))
        key = draw(root_key(self._root), "update", int(progress.iteration))
        learner, metrics = self._update(progress.learner, fitness, length, observations, key)
        failures = tuple(failure for chunk in chunks for failure in chunk.failures)
        steps = int(length.sum())
        after = Progress(learner, progress.iteration + 1, progress.env_steps + steps)
        scalars = {name: value.item() for name, value in jax.device_get(metrics).items()}
        return after, {"steps": steps, "failed_episodes": len(failures), **scalars}, failures

    def _fold(
        self, learner: Any, fitness: jax.Array, length: jax.Array, chunks: Moments, key: Any
    ) -> tuple[Any, dict[str, jax.Array]]:
        shape = (self.algorithm.num_members, self.algorithm.episodes_per_member)
        unseen = moments.empty(chunks.mean.shape[-1], jnp.float64)
        returns = Returns(
            fitness.reshape(shape).mean(axis=1),
            length.reshape(shape).sum(axis=1) / shape[1],
            moments.merge_all(chunks, unseen),
        )
        return self.algorithm.update(learner, returns, key)


def evaluate(lanes: Lanes, actor: Any, iteration: int, num_episodes: int) -> Evaluation:
    """Noiseless episodes of the unperturbed policy, on the raw reward, to the task's own clock.

    Initial states come from the address (root, "evaluate", iteration, episode), so an evaluation neither depends on
    the training before it nor changes the training after it.
    """
    members = np.full(lanes.num_slots, -1, np.int32)
    works = (
        Work("evaluate", iteration, members, _padded(first, num_episodes, lanes.num_slots), None, False)
        for first in range(0, num_episodes, lanes.num_slots)
    )
    found = lanes.run(actor, works)
    return Evaluation(
        np.concatenate([chunk.fitness for chunk in found])[:num_episodes],
        np.concatenate([chunk.length for chunk in found])[:num_episodes],
        tuple(failure for chunk in found for failure in chunk.failures),
    )


def _padded(first: int, total: int, num_slots: int) -> np.ndarray:
    episodes = first + np.arange(num_slots, dtype=np.int32)
    return np.where(episodes < total, episodes, -1).astype(np.int32)
