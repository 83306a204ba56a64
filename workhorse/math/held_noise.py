"""Exploration noise that a slot keeps for several steps, so that it moves the task and does not average out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.core.algorithm import Key

__all__ = ["HeldNoise", "held_steps"]


class HeldNoise(NamedTuple):
    """Noise of a slot, and for how many more steps it is held.

    Attributes:
        value: standard normal, one number a component of the action.
        left: steps for which it is still held; at 0 it is drawn anew.
    """

    value: Float[Array, "A"]
    left: Int[Array, ""]

    @staticmethod
    def start(size: int) -> "HeldNoise":
        """Return no noise, which is held no longer: the next step draws it."""
        return HeldNoise(jnp.zeros(size, jnp.float32), jnp.int32(0))

    def next(self, key: Key, longest: int) -> "HeldNoise":
        """Return the noise of the next step: the same as before, or fresh where it was held for long enough."""
        value_key, steps_key = jax.random.split(key)
        fresh = jax.random.normal(value_key, self.value.shape, jnp.float32)
        is_over = self.left == 0
        left = jnp.where(is_over, held_steps(steps_key, longest), self.left)
        return HeldNoise(jnp.where(is_over, fresh, self.value), left - 1)


def held_steps(key: Key, longest: int) -> Int[Array, ""]:
    """Draw for how many steps noise is held: n with probability proportional to 1 / n^2, n = 1 to `longest`.

    Source: Dabney, Ostrovski and Barreto 2021, "Temporally-extended epsilon-greedy exploration" (arXiv 2006.01782),
    where actions are repeated for numbers of steps that are so distributed.
    """
    logits = -2.0 * jnp.log(jnp.arange(1, longest + 1, dtype=jnp.float32))
    return 1 + jax.random.categorical(key, logits).astype(jnp.int32)
