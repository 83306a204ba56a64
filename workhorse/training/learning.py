"""A learner's steps, compiled: where a run's bits are made, in a run as in every worker of a cluster."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.algorithms.evolution.mirrored_search import MirroredSearch
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Moments, Returns
from workhorse.math import moments, noise

__all__ = ["Blocks", "Learning", "actor_of", "one_after_the_other"]

Blocks = Callable[[int, int, Callable[[int], np.ndarray]], list[np.ndarray]]
"""How the blocks of an update's sum are come by: (iteration, number of blocks, what computes one) -> all of them."""


def one_after_the_other(iteration: int, count: int, compute: Callable[[int], np.ndarray]) -> list[np.ndarray]:
    """Every block in this thread."""
    return [compute(block) for block in range(count)]


@jax.jit
def actor_of(algorithm: Any, learner: Any) -> Any:
    """What acting needs of a learner, compiled once for all algorithms of the same sizes and switches."""
    return algorithm.actor(learner)


class Learning:
    """An algorithm's `init`, `actor` and `update`, each compiled once.

    An update along mirrored perturbations runs as the same small programs everywhere (weights, each block of the sum,
    the step), never as one: a compiler may round a fused program differently, and the blocks may be come by in
    another process. So one process and many agree to the last bit.
    """

    def __init__(self, algorithm: Any, root: int) -> None:
        self.algorithm = algorithm
        self.root = root
        self._actor = jax.jit(algorithm.actor)
        self._merge = jax.jit(_merge_all)
        if isinstance(algorithm, MirroredSearch):
            self._weights = jax.jit(algorithm.weights)
            self._block = jax.jit(noise.weighted_block, static_argnums=3)
            self._step = jax.jit(algorithm.step)
        else:
            self._update = jax.jit(algorithm.update)

    def init(self) -> Any:
        """The learner before the first iteration."""
        return self.algorithm.init(draw(root_key(self.root), "init"))

    def actor(self, learner: Any) -> Any:
        """What acting needs of the learner."""
        return self._actor(learner)

    def merge(self, observations: list[Moments]) -> Moments:
        """Moments of an iteration from those of its chunks, in their order, float64."""
        stacked = Moments(*(np.stack(leaves) for leaves in zip(*observations, strict=True)))
        return Moments(*(np.asarray(leaf) for leaf in self._merge(stacked)))

    def update(
        self, learner: Any, iteration: int, returns: Returns, blocks: Blocks = one_after_the_other
    ) -> tuple[Any, dict[str, float]]:
        """The learner after an iteration, and the update's metrics."""
        if isinstance(self.algorithm, MirroredSearch):
            size = learner.params.shape[0]
            noise_key, weights = self._actor(learner).noise_key, self._weights(returns)
            sums = blocks(
                iteration,
                noise.num_blocks(size),
                lambda block: np.asarray(self._block(noise_key, weights, block, size)),
            )
            learner, metrics = self._step(learner, returns, np.concatenate(sums)[:size])
        else:
            learner, metrics = self._update(learner, returns, draw(root_key(self.root), "update", iteration))
        return learner, {name: value.item() for name, value in jax.device_get(metrics).items()}


def _merge_all(observations: Moments) -> Moments:
    return moments.merge_all(observations, moments.empty(observations.mean.shape[-1], jnp.float64))
