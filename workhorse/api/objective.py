"""Checks of what ask and tell is given: sizes, seeds, bounds, and what a function returned."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError

__all__ = ["Bounds", "bounds_of", "key_of", "middle", "numbers", "require_fitness", "whole_number"]

Bounds = tuple[np.ndarray, np.ndarray]


def whole_number(value: Any, what: str) -> int:
    """Return a whole number of at least 1.

    Raises:
        UsageError: it is none.
    """
    try:
        found = operator.index(value)
    except TypeError:
        raise UsageError(f"{what} must be a whole number of at least 1: got {value!r}.") from None
    if found < 1:
        raise UsageError(f"{what} must be a whole number of at least 1: got {found}.")
    return found


def key_of(seed: Any) -> Key:
    """Return the JAX key of a seed, which may be traced, or the key itself.

    Example:
        >>> keys = jax.vmap(key_of)(jnp.arange(3))
        >>> bool((jax.random.key_data(keys[2]) == jax.random.key_data(key_of(2))).all())
        True
    """
    kind = getattr(seed, "dtype", None)
    if kind is not None and jnp.issubdtype(kind, jax.dtypes.prng_key):
        return seed
    if isinstance(seed, Tracer) and jnp.issubdtype(seed.dtype, jnp.integer) and seed.ndim == 0:
        return jax.random.key(seed)
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 2**32:
        raise UsageError(f"seed must be a whole number from 0 to 2^32 - 1, or a key of jax.random.key: got {seed!r}.")
    return jax.random.key(number)


def numbers(given: Any, what: str) -> np.ndarray:
    """Return real numbers as float64.

    Raises:
        UsageError: they are none, or no array.
    """
    try:
        return np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"{what} must be real numbers: got {given!r}.") from None


def bounds_of(bounds: Any, size: int) -> Bounds:
    """Return the lower and the upper bound of each parameter, float32, rounded to the inside.

    Args:
        bounds: (low, high), each a number or (n,). *Not a pair for each parameter, as SciPy has them.*
        size: number of parameters n.

    Raises:
        UsageError: they are something else, or no number lies between them.

    Example:
        >>> low, high = bounds_of((0, 0.1), 2)
        >>> low.tolist(), bool(high[0] <= 0.1)
        ([0.0, 0.0], True)
    """
    wanted = f"bounds must be a lower and an upper one, each a number or {size} of them"
    if not isinstance(bounds, tuple | list | np.ndarray | jax.Array) or len(bounds) != 2:
        raise UsageError(f"{wanted}: got {bounds!r}.")
    low, high = (numbers(side, "bounds") for side in bounds)
    if low.shape not in ((), (size,)) or high.shape not in ((), (size,)):
        raise UsageError(f"{wanted}: got shapes {low.shape} and {high.shape}.")
    low, high = np.broadcast_to(low, size), np.broadcast_to(high, size)
    if not (low < high).all():
        where = int(np.flatnonzero(~(low < high))[0])
        raise UsageError(
            f"bounds must have the lower one first, below the upper one: parameter {where} has {low[where]} and "
            f"{high[where]}."
        )
    return _rounded(low, np.inf), _rounded(high, -np.inf)


def middle(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the middle of bounded components, and of others what lies nearest to 0."""
    bounded = np.isfinite(low) & np.isfinite(high)
    with np.errstate(invalid="ignore"):
        return np.where(bounded, low / 2 + high / 2, np.clip(0.0, low, high))


def require_fitness(fitness: Any, count: int) -> None:
    """Raise a `UsageError` unless a function returned `count` real numbers, one for each candidate."""
    kind, shape = getattr(fitness, "dtype", None), getattr(fitness, "shape", None)
    if shape is None or kind is None:
        raise UsageError(
            f"The function must return one number for each of {count} candidates as an array: got "
            f"{type(fitness).__name__}."
        )
    if shape != (count,):
        raise UsageError(
            f"The function must return one number for each of {count} candidates: they have shape {shape}. With "
            "batched=True it takes and returns all of them at once."
        )
    if np.dtype(kind).kind not in "biuf":
        raise UsageError(f"The function must return real numbers: got {kind}. Mend it.")


def _rounded(bound: np.ndarray, towards: float) -> np.ndarray:
    """Return float32 numbers that are none further out."""
    with np.errstate(over="ignore"):
        near = bound.astype(np.float32)
    is_outside = near < bound if towards > 0 else near > bound
    return np.where(is_outside, np.nextafter(near, np.float32(towards)), near)
