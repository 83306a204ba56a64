"""Gaussian perturbations regenerated from their address: never stored, never sent."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.core.algorithm import Key

__all__ = ["perturbation", "weighted_sum"]

BLOCK = 8
"""Perturbations held at once by `weighted_sum`."""


def perturbation(key: Key, index: Int[Array, ""] | int, size: int) -> Float[Array, "n"]:
    """Perturbation number `index` of an iteration: a standard normal vector, float32, the same wherever it is drawn.

    Args:
        key: the iteration's noise key.
        index: which perturbation, non-negative.
        size: number of parameters n.
    """
    return jax.random.normal(jax.random.fold_in(key, index), (size,), jnp.float32)


def weighted_sum(key: Key, weights: Float[Array, "P"], size: int) -> Float[Array, "n"]:
    """Sum over i of weights_i * perturbation(key, i), in the order of i, holding `BLOCK` perturbations at a time.

    The order of the sum is fixed, so the result has the same bits in every process, and memory does not grow with P.

    Example:
        >>> key = jax.random.key(0)
        >>> total = weighted_sum(key, jnp.array([2.0, -1.0], jnp.float32), 3)
        >>> bool(jnp.allclose(total, 2 * perturbation(key, 0, 3) - perturbation(key, 1, 3)))
        True
    """
    count = weights.shape[0]
    blocks = -(-count // BLOCK)
    padded = jnp.zeros(blocks * BLOCK, jnp.float32).at[:count].set(weights.astype(jnp.float32))

    def add_block(total: Array, block: Array) -> tuple[Array, None]:
        indices = block * BLOCK + jnp.arange(BLOCK)
        rows = jax.vmap(lambda index: perturbation(key, index, size))(indices)
        for row in range(BLOCK):
            total = total + padded[indices[row]] * rows[row]
        return total, None

    return jax.lax.scan(add_block, jnp.zeros(size, jnp.float32), jnp.arange(blocks))[0]
