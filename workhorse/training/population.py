"""The compiled programs of a population algorithm: where a run's bits are made, in a run as in every worker."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core.algorithm import Population, Rebuildable, State
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Moments, Returns
from workhorse.math import moments
from workhorse.training.step_length import TOLD, with_step_norm

__all__ = ["BlockThreads", "Blocks", "PopulationPrograms", "one_after_the_other"]

Blocks = Callable[[int, int, Callable[[int], np.ndarray]], list[np.ndarray]]
"""Function that computes the blocks of an update's sum, here or in other processes.

It takes the iteration, the number of blocks, and a function that computes one of them.
"""

NOTHING: Any = ()
"""In place of returns that are not there yet."""


class BlockThreads:
    """Threads that compute the blocks of an update's sum side by side; with one thread, one after the other."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __call__(self, iteration: int, count: int, compute: Callable[[int], np.ndarray]) -> list[np.ndarray]:
        if self._pool is None or count == 1:
            return one_after_the_other(iteration, count, compute)
        return list(self._pool.map(compute, range(count)))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def one_after_the_other(iteration: int, count: int, compute: Callable[[int], np.ndarray]) -> list[np.ndarray]:
    """Compute every block in this thread."""
    return [compute(block) for block in range(count)]


class PopulationPrograms:
    """An algorithm's `init`, `actor` and `update`, each compiled once.

    A `Rebuildable` update runs as the same small programs everywhere (weights, each block of the sum, the step), never
    as one: a compiler may round a fused program differently, and the blocks may come from another process. So one
    process and many agree to the last bit.
    """

    def __init__(self, algorithm: Population, root: int) -> None:
        self.algorithm = algorithm
        self.root = root
        programs = _compiled(repr(algorithm), algorithm)
        self.actor, self._merge, self._update, self._with_step_norm = programs[:4]
        if isinstance(algorithm, Rebuildable):
            self._noise_key, self._weights, self._block, self._step = programs[4:]

    def init(self) -> State:
        """Return the state before the first iteration."""
        return self.algorithm.init(draw(root_key(self.root), "init"))

    def merge(self, observations: list[Moments]) -> Moments:
        """Merge the moments of an iteration's chunks in their order, float64."""
        stacked = Moments(*(np.stack(leaves) for leaves in zip(*observations, strict=True)))
        return Moments(*(np.asarray(leaf) for leaf in self._merge(stacked)))

    @property
    def lags(self) -> bool:
        """Tell whether the population after this one is known before this one's returns are."""
        return bool(getattr(self.algorithm, "lag", 0))

    def acting(self, state: State) -> State:
        """Return the state without the returns that only the step after the next one needs: nothing acts on them."""
        return self.algorithm.kept(state, NOTHING) if isinstance(self.algorithm, Rebuildable) and self.lags else state

    def due(self, state: State, returns: Returns | None) -> Returns:
        """Return what this iteration learns from; with a lag it is known without the iteration's own returns."""
        if isinstance(self.algorithm, Rebuildable) and self.lags:
            return self.algorithm.learnt(state, NOTHING)
        assert returns is not None
        return returns

    def kept(self, after: State, returns: Returns) -> State:
        """Return the state after an iteration: after its step, with what a lag keeps of its returns."""
        return self.algorithm.kept(after, returns) if isinstance(self.algorithm, Rebuildable) else after

    def step(
        self, state: State, iteration: int, due: Returns, blocks: Blocks = one_after_the_other
    ) -> tuple[State, dict[str, float]]:
        """Return the state after a step that learns from `due`, and the step's metrics.

        `state` may be that of `acting`, and what comes out of it is.
        """
        algorithm, state = self.algorithm, self.acting(state)
        if isinstance(algorithm, Rebuildable):
            noise_key, weights = self._noise_key(state), self._weights(state, due)
            sums = blocks(
                iteration, algorithm.num_blocks, lambda block: np.asarray(self._block(noise_key, weights, block))
            )
            after, metrics = self._step(state, due, sums)
        else:
            after, metrics = self._update(state, due, draw(root_key(self.root), "update", iteration))
        if TOLD.isdisjoint(metrics):
            metrics = self._with_step_norm(state, after, metrics)
        return after, {name: value.item() for name, value in jax.device_get(metrics).items()}

    def update(
        self, state: State, iteration: int, returns: Returns, blocks: Blocks = one_after_the_other
    ) -> tuple[State, dict[str, float]]:
        """Return the state after an iteration, and the update's metrics."""
        after, metrics = self.step(state, iteration, self.due(state, returns), blocks)
        return self.kept(after, returns), metrics


@functools.lru_cache(maxsize=16)
def _compiled(exactly: str, algorithm: Population) -> tuple[Any, ...]:
    """One set of programs for all runs of equal algorithms; `exactly` tells 1 from 1.0, which may make others."""
    given = [algorithm.actor, _merge_all, algorithm.update, partial(with_step_norm, algorithm)]
    if isinstance(algorithm, Rebuildable):
        given += [algorithm.noise_key, algorithm.weights, algorithm.block, algorithm.step]
    return tuple(jax.jit(program) for program in given)


def _merge_all(observations: Moments) -> Moments:
    return moments.merge_all(observations, moments.empty(observations.mean.shape[-1], jnp.float64))
