"""Randomness is an address, for NumPy: the same (root, stream, indices) always names the same numbers.

The JAX half is `workhorse.core.randomness`; it folds the same stream numbers.
"""

import zlib

import numpy as np

__all__ = ["STREAMS", "host_generator", "host_keys", "stream_number"]

STREAMS = (
    "init",  # learner state at the start
    "noise",  # parameter perturbations of a population
    "act",  # action noise, action sampling
    "update",  # anything an update draws
    "replay",  # which transitions an update is given
    "reset",  # initial states of training episodes
    "evaluate",  # initial states of evaluation episodes
    "sample",  # actions drawn in an evaluation of a stochastic policy
    "plan",  # plans that are tried before an action
    "held-out",  # which episodes of a log are only measured on, and which of their steps
    "intervene",  # masks that are tried on a policy, and which states an expert is asked about
    "perturb",  # noise on what a policy observes while its robustness is measured
)
"""Every stream the project draws from. A test asserts that no two share a number."""


def stream_number(stream: str) -> int:
    """The 32-bit CRC of a stream's name: adding a stream moves no other.

    Example:
        >>> stream_number("reset")
        1352515405
    """
    return zlib.crc32(stream.encode())


def host_keys(root: int, stream: str, *indices: int | np.ndarray) -> np.ndarray:
    """Philox keys for an address whose indices may be arrays; they broadcast.

    Args:
        root: the run's seed, a non-negative integer.
        stream: one of `STREAMS`.
        indices: iteration, slot and so on, each a non-negative integer or an integer array.

    Returns:
        uint64 array of shape (*broadcast, 2), one key of 128 bits each.
    """
    shape = np.broadcast_shapes(*(np.shape(index) for index in indices))
    columns = [np.broadcast_to(index, shape).ravel() for index in indices]
    keys = np.empty((int(np.prod(shape)), 2), np.uint64)
    number = stream_number(stream)
    for row in range(len(keys)):
        entropy = [root, number, *(int(column[row]) for column in columns)]
        keys[row] = np.random.SeedSequence(entropy).generate_state(2, np.uint64)
    return keys.reshape(*shape, 2)


def host_generator(key: np.ndarray) -> np.random.Generator:
    """The NumPy generator a key of `host_keys` names: Philox, so equal keys give equal draws on every machine."""
    return np.random.Generator(np.random.Philox(key=np.asarray(key, np.uint64)))
