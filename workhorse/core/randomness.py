"""Randomness is an address, for JAX: the same (root, stream, indices) always names the same key.

The NumPy half is `workhorse.core.addresses`; both fold the same stream numbers.
"""

import jax
from jaxtyping import Array, Integer

from workhorse.core import numerics  # noqa: F401
from workhorse.core.addresses import stream_number
from workhorse.core.algorithm import Key

__all__ = ["draw", "root_key"]


def root_key(seed: int) -> Key:
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
