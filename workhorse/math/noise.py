"""Gaussian perturbations regenerated from their address: never stored, never sent."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.core.algorithm import Key

__all__ = ["BLOCK_SIZE", "num_blocks", "perturbation", "weighted_block", "weighted_sum"]

BLOCK_SIZE = 2_048
"""Components of a perturbation that share a key. A longer perturbation is a row of such blocks, each with an address of
its own, so that several processes can make one together; the size is part of the result's bits."""

HELD = 8
"""Perturbations held at once by `weighted_block`."""


def num_blocks(size: int) -> int:
    """Blocks of a perturbation of `size` components.

    Example:
        >>> num_blocks(102), num_blocks(2_048), num_blocks(1_000_000)
        (1, 1, 489)
    """
    return -(-size // BLOCK_SIZE)


def perturbation(key: Key, index: Int[Array, ""] | int, size: int) -> Float[Array, "n"]:
    """Perturbation number `index` of an iteration: a standard normal vector, float32, the same wherever it is drawn.

    Args:
        key: the iteration's noise key.
        index: which perturbation, non-negative.
        size: number of parameters n.
    """
    blocks = jax.vmap(lambda block: _block(key, index, block, size))(jnp.arange(num_blocks(size)))
    return blocks.reshape(-1)[:size]


def weighted_sum(key: Key, weights: Float[Array, "P"], size: int) -> Float[Array, "n"]:
    """Sum over i of weights_i * perturbation(key, i), in the order of i.

    Example:
        >>> key = jax.random.key(0)
        >>> total = weighted_sum(key, jnp.array([2.0, -1.0], jnp.float32), 3)
        >>> bool(jnp.allclose(total, 2 * perturbation(key, 0, 3) - perturbation(key, 1, 3)))
        True
    """
    blocks = jax.lax.map(lambda block: weighted_block(key, weights, block, size), jnp.arange(num_blocks(size)))
    return blocks.reshape(-1)[:size]


def weighted_block(key: Key, weights: Float[Array, "P"], block: Int[Array, ""] | int, size: int) -> Float[Array, "b"]:
    """One block of `weighted_sum`: components from block * BLOCK_SIZE on; surplus ones of the last block mean nothing.

    The order of the sum is fixed and `HELD` perturbations are held at a time, so the block has the same bits in every
    process, and memory grows neither with P nor with n. It costs P * min(n, BLOCK_SIZE) normal draws.
    """
    count = weights.shape[0]
    rounds = -(-count // HELD)
    padded = jnp.zeros(rounds * HELD, jnp.float32).at[:count].set(weights.astype(jnp.float32))

    def add_some(total: Array, turn: Array) -> tuple[Array, None]:
        indices = turn * HELD + jnp.arange(HELD)
        rows = jax.vmap(lambda index: _block(key, index, block, size))(indices)
        for row in range(HELD):
            total = total + padded[indices[row]] * rows[row]
        return total, None

    return jax.lax.scan(add_some, jnp.zeros(min(size, BLOCK_SIZE), jnp.float32), jnp.arange(rounds))[0]


def _block(key: Key, index: Int[Array, ""] | int, block: Int[Array, ""] | int, size: int) -> Float[Array, "b"]:
    address = jax.random.fold_in(key, index * num_blocks(size) + block)
    return jax.random.normal(address, (min(size, BLOCK_SIZE),), jnp.float32)
