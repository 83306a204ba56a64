"""Sums of the scores of steps, grad log pi, from which the policy's gradient is made for any number of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from workhorse.algorithms.policy_gradient.policy_gradient import Batch, PolicyGradient
from workhorse.networks.actor_critic import ActorCritic, StochasticPolicy

__all__ = ["ScoreSums", "SumsBySize", "score_sums", "sizes_up_to"]

Numbers = np.ndarray | Array


class ScoreSums(NamedTuple):
    """Sums over steps, of which the gradient with normalised advantages is made for any number of them.

    Attributes:
        weighed: of A grad log pi, (d,).
        plain: of grad log pi, (d,).
        advantage, square: of A and A^2.
        count: of steps.
    """

    weighed: Numbers
    plain: Numbers
    advantage: Numbers
    square: Numbers
    count: Numbers

    def plus(self, other: ScoreSums) -> ScoreSums:
        """Return the sums over the steps of both."""
        # float64: a million float32 terms of either sign would lose the signal that estimates share
        pairs = zip(self, other, strict=True)
        return ScoreSums(*(np.asarray(one, np.float64) + np.asarray(more, np.float64) for one, more in pairs))

    def raw(self) -> np.ndarray:
        """Return E[A g], with g = grad log pi."""
        return np.asarray(self.weighed / self._steps)

    def centred(self) -> np.ndarray:
        """Return E[A g] - E[A] E[g]: advantages less their mean, in their own units."""
        return np.asarray((self.weighed - self.advantage / self._steps * self.plain) / self._steps)

    def gradient(self) -> np.ndarray:
        """Return (E[A g] - E[A] E[g]) / sd(A): advantages normalised."""
        mean = self.advantage / self._steps
        # E[A^2] - E[A]^2 may round below zero; 1e-8 is added where the algorithms normalise, too
        deviation = np.sqrt(np.maximum(self.square / self._steps - mean**2, 0.0)) + 1e-8
        return self.centred() / deviation

    @property
    def _steps(self) -> np.ndarray:
        return np.maximum(self.count, 1.0)


class SumsBySize:
    """Sums of one estimate as it grows: over whole slots of its first rollout, then over whole rollouts.

    Args:
        sizes: of the estimates, in steps.
        own: steps of a rollout.
        length: steps of each slot of it.

    Attributes:
        found: the sums of each size that was reached.
    """

    def __init__(self, sizes: Sequence[int], own: int, length: int) -> None:
        self.found: dict[int, ScoreSums] = {}
        self._sizes, self._own, self._length = sizes, own, length
        self._total: ScoreSums | None = None
        self._rollouts = 0

    def add(self, by_slot: ScoreSums) -> None:
        """Add a rollout's sums of each slot, (B, ...)."""
        by_slot = ScoreSums(*map(np.asarray, by_slot))
        if self._total is None:
            running = jax.tree.map(lambda leaf: np.cumsum(leaf, 0, dtype=np.float64), by_slot)
            for size in self._sizes:
                if size < self._own:  # whole slots: the steps of one slot depend on each other
                    self.found[size] = ScoreSums(*(leaf[size // self._length - 1] for leaf in running))
        whole = ScoreSums(*(leaf.sum(0, dtype=np.float64) for leaf in by_slot))
        self._total = whole if self._total is None else self._total.plus(whole)
        self._rollouts += 1
        if self._rollouts * self._own in self._sizes:
            self.found[self._rollouts * self._own] = self._total


def sizes_up_to(own: int, slots: int, most: int) -> list[int]:
    """Return sizes of estimates: whole slots of one rollout from 100 steps on, then whole rollouts, three a decade.

    Example:
        >>> sizes_up_to(2048, 64, 100_000)
        [96, 224, 480, 992, 2048, 4096, 10240, 22528, 47104]
    """
    length = own // slots
    wanted = np.geomspace(100, most, max(int(np.ceil(3 * np.log10(most / 100))), 1) + 1)
    # The run's own size is always among them, so that none is wanted that nearly equals it.
    found = {max(round(size / length), 1) * length for size in wanted if size < 0.75 * own}
    found |= {max(round(size / own), 1) * own for size in wanted if size >= own} | {own}
    return sorted(size for size in found if size <= max(most, own))


@jax.jit
def score_sums(algorithm: PolicyGradient, params: ActorCritic, batch: Batch) -> ScoreSums:
    """Return the sums of each slot, (B, ...)."""

    def of_slot(part: Batch) -> ScoreSums:
        def scores(policy: StochasticPolicy) -> Float[Array, "T"]:
            distribution = jax.vmap(policy)(part.obs)
            return jax.vmap(lambda one, drawn: one.log_prob(drawn))(distribution, part.drawn)

        _, pull = jax.vjp(scores, params.policy)

        def flat(weights: Float[Array, "T"]) -> Float[Array, "d"]:
            return ravel_pytree(pull(weights)[0])[0]

        weight = part.weight
        advantage = part.advantage * weight
        square = (advantage * part.advantage).sum()
        return ScoreSums(flat(advantage), flat(weight), advantage.sum(), square, weight.sum())

    return jax.vmap(of_slot, in_axes=1)(batch)
