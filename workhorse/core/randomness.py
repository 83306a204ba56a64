"""Randomness is an address, for JAX: the same (root, stream, indices) always names the same key.

The NumPy half is `workhorse.core.addresses`; both fold the same stream numbers.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Integer

from workhorse.core import numerics  # noqa: F401
from workhorse.core.addresses import stream_number
from workhorse.core.algorithm import Key

__all__ = ["draw", "permutation", "root_key"]


def root_key(seed: int | Integer[Array, ""]) -> Key:
    """The run's root key. Seeds are non-negative integers below 2**32."""
    return jax.random.key(seed)


def draw(root: Key, stream: str, *indices: int | Integer[Array, ""]) -> Key:
    """The key at an address: the stream's number and every index are folded into the root, in order.

    Args:
        root: the run's root key.
        stream: one of `workhorse.core.addresses.STREAMS`.
        indices: iteration, time step, slot and so on; each below 2**32, traced or not.

    Returns:
        One key. Different addresses give independent keys; adding a stream or a consumer shifts no other.
    """
    key = jax.random.fold_in(root, stream_number(stream))
    for index in indices:
        key = jax.random.fold_in(key, index)
    return key


def permutation(key: Key, count: int) -> Int[Array, "count"]:
    """The numbers 0 to count - 1 in a random order, the one of `jax.random.permutation(key, count)`.

    They are sorted by random 32-bit keys, and again by fresh ones, until equal keys do not matter: three times log2 of
    `count` bits in all. *XLA sorts one array several times as fast as pairs* on a processor, and so a number's key and
    its place go into one 64-bit integer: for 2,048 numbers that took 0.23 ms instead of 0.61.

    Example:
        >>> sorted(permutation(root_key(0), 5).tolist())
        [0, 1, 2, 3, 4]
    """
    places = jnp.arange(count, dtype=jnp.uint64)
    found = jnp.arange(count)
    for _ in range(math.ceil(3 * math.log(max(1, count)) / math.log(2**32 - 1))):
        key, sort_key = jax.random.split(key)
        bits = jax.random.bits(sort_key, (count,), jnp.uint32).astype(jnp.uint64)
        found = found[(jnp.sort(bits << 32 | places) & 0xFFFFFFFF).astype(jnp.int32)]
    return found
