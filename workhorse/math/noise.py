"""Gaussian perturbations regenerated from their address: never stored, never sent."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.core.algorithm import Key

__all__ = ["BLOCK_SIZE", "joined", "num_blocks", "perturbation", "weighted_block", "weighted_sums"]

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


def weighted_sums(key: Key, weights: Float[Array, "K P"], size: int) -> Float[Array, "K n"]:
    """Weighted sums over the perturbations eps_i of an iteration, in the order of i.

    Row 0 is the sum of weights[0, i] * eps_i, row 1, where there is one, that of weights[1, i] * (eps_i^2 - 1), from
    the same draws. Every evolution strategy's update is made of these two.

    Example:
        >>> key = jax.random.key(0)
        >>> weights = jnp.array([[2.0, -1.0], [0.0, 1.0]], jnp.float32)
        >>> first, second = weighted_sums(key, weights, 3)
        >>> eps = [perturbation(key, index, 3) for index in range(2)]
        >>> bool(jnp.allclose(first, 2 * eps[0] - eps[1])), bool(jnp.allclose(second, eps[1] ** 2 - 1))
        (True, True)
    """
    blocks = jax.lax.map(lambda block: weighted_block(key, weights, block, size), jnp.arange(num_blocks(size)))
    return joined(blocks, size)


def joined(blocks: Float[Array, "C K b"] | list[Array], size: int) -> Float[Array, "K n"]:
    """The sums that blocks are of, without the surplus components of the last block."""
    stacked = jnp.asarray(blocks)
    return jnp.moveaxis(stacked, 1, 0).reshape(stacked.shape[1], -1)[:, :size]


def weighted_block(
    key: Key, weights: Float[Array, "K P"], block: Int[Array, ""] | int, size: int
) -> Float[Array, "K b"]:
    """One block of `weighted_sums`: components from block * BLOCK_SIZE on; surplus ones of the last block mean nothing.

    The order of the sum is fixed and `HELD` perturbations are held at a time, so the block has the same bits in every
    process, and memory grows neither with P nor with n. It costs P * min(n, BLOCK_SIZE) normal draws.
    """
    sums, count = weights.shape
    rounds = -(-count // HELD)
    padded = jnp.zeros((sums, rounds * HELD), jnp.float32).at[:, :count].set(weights.astype(jnp.float32))

    def add_some(totals: tuple[Array, ...], turn: Array) -> tuple[tuple[Array, ...], None]:
        indices = turn * HELD + jnp.arange(HELD)
        rows = jax.vmap(lambda index: _block(key, index, block, size))(indices)
        first, *second = totals
        for row in range(HELD):
            first = first + padded[0, indices[row]] * rows[row]
            if second:
                second = [second[0] + padded[1, indices[row]] * (rows[row] * rows[row] - 1)]
        return (first, *second), None

    nothing = jnp.zeros(min(size, BLOCK_SIZE), jnp.float32)
    return jnp.stack(jax.lax.scan(add_some, (nothing,) * sums, jnp.arange(rounds))[0])


def _block(key: Key, index: Int[Array, ""] | int, block: Int[Array, ""] | int, size: int) -> Float[Array, "b"]:
    address = jax.random.fold_in(key, index * num_blocks(size) + block)
    return jax.random.normal(address, (min(size, BLOCK_SIZE),), jnp.float32)
