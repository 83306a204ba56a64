"""A state as named arrays, back again, and its 64-bit digest."""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core import numerics  # noqa: F401
from workhorse.core.errors import UsageError

__all__ = ["digest", "flatten_arrays", "restore_arrays"]


def digest(tree: Any) -> int:
    """The 64-bit BLAKE2b digest of a pytree: equal exactly when names, dtypes, shapes and every bit are equal.

    Each leaf adds a line with its path, dtype and shape, then its bytes in row-major, little-endian order, in the order
    of the tree. Bits count, values do not: 0.0 and -0.0 differ, and so do two NaNs with different payloads. A Python
    number counts as the NumPy scalar it converts to, and an array on a device as the same array on the host.

    Returns:
        An unsigned integer below 2**64, the same in every process and on every machine.

    Raises:
        TypeError: a leaf is not an array or a number.

    Example:
        >>> f"{digest({'mean': np.arange(3.0)}):016x}"
        'aeb244b2494e925d'
        >>> digest(np.float32(0.0)) == digest(np.float32(-0.0))
        False
    """
    hasher = hashlib.blake2b(digest_size=8)
    for path, leaf in _named_leaves(tree):
        array = _host_array(path, leaf)
        kind = str(leaf.dtype) if _is_key(leaf) else array.dtype.name
        hasher.update(json.dumps([path, kind, array.shape]).encode() + b"\n")
        hasher.update(array.reshape(-1).view(np.uint8).data)
    return int.from_bytes(hasher.digest(), "big")


def flatten_arrays(tree: Any) -> dict[str, np.ndarray]:
    """A pytree's leaves as NumPy arrays under their paths, "learner/mean", in the order of the tree.

    Typed PRNG keys become their uint32 data, Python numbers become 0-d arrays. Arrays of the tree that already are
    contiguous NumPy arrays are *not* copied.

    Raises:
        TypeError: a leaf is not an array or a number.
        ValueError: two leaves have the same path.

    Example:
        >>> flatten_arrays({"learner": (np.float32(1.5), 2)})
        {'learner/0': array(1.5, dtype=float32), 'learner/1': array(2)}
    """
    arrays: dict[str, np.ndarray] = {}
    for path, leaf in _named_leaves(tree):
        if path in arrays:
            raise ValueError(f"Every leaf of a state must have its own path, but two are called {path!r}: rename one.")
        arrays[path] = _host_array(path, leaf)
    return arrays


def restore_arrays(template: Any, arrays: Mapping[str, np.ndarray], where: str = "the saved state") -> Any:
    """The inverse of `flatten_arrays`: a tree like `template` that holds `arrays`.

    Each leaf comes back as the kind the template has there: a JAX array (uncommitted, on the default device), a typed
    key, a writable NumPy array of its own, or a Python number. A weakly typed JAX scalar stays weakly typed, because
    promotion, and so the bits of a result, depends on it.

    Args:
        template: a tree with the wanted structure; its values are ignored, so a `jax.ShapeDtypeStruct` may stand
            for a JAX array. Where it has an *empty first axis* the saved one may be of any length, for journals grow,
            and may be missing: older versions did not keep that journal.
        arrays: one array for every leaf's path.
        where: what the arrays came from, for the message.

    Raises:
        UsageError: a name, shape or dtype differs; the message names the leaf.
    """
    leaves, structure = jax.tree_util.tree_flatten(template)
    paths = [path for path, _ in _named_leaves(template)]
    advice = "It was written with another configuration or version: use that one, or start a new run."
    arrays = {**dict(_journals(template)), **arrays}
    for path in paths:
        if path not in arrays:
            raise UsageError(f"Expected a leaf {path!r} in {where}, which has none. {advice}")
    surplus = sorted(set(arrays) - set(paths))
    if surplus:
        raise UsageError(f"Expected no leaf {surplus[0]!r} in {where}, which has one. {advice}")
    restored = []
    for path, leaf in zip(paths, leaves, strict=True):
        array = arrays[path]
        wanted, given = _layout(path, leaf), (array.dtype.name, array.shape)
        grown = wanted[1][:1] == (0,) and (wanted[0], wanted[1][1:]) == (given[0], given[1][1:]) and given[1]
        if wanted != given and not grown:
            raise UsageError(
                f"Expected {path!r} in {where} to be {wanted[0]} of shape {wanted[1]}, "
                f"got {given[0]} of shape {given[1]}. {advice}"
            )
        restored.append(_like(leaf, array))
    return jax.tree_util.tree_unflatten(structure, restored)


def _journals(template: Any) -> Iterator[tuple[str, Any]]:
    """Yield the leaves that grow."""
    for path, leaf in _named_leaves(template):
        if isinstance(leaf, np.ndarray) and leaf.shape[:1] == (0,):
            yield path, leaf


def _named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    leaves, structure = jax.tree_util.tree_flatten(tree)
    return zip(_paths(structure), leaves, strict=True)


@functools.lru_cache(maxsize=64)
def _paths(structure: Any) -> tuple[str, ...]:
    """The leaves' paths, which a run asks for in every iteration."""
    numbered = jax.tree_util.tree_unflatten(structure, range(structure.num_leaves))
    found = jax.tree_util.tree_flatten_with_path(numbered)[0]
    return tuple(jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in found)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _host_array(path: str, leaf: Any) -> np.ndarray:
    """A leaf as a contiguous, little-endian NumPy array."""
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    if array.dtype.kind in "OSUMm" or not isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float)):
        raise TypeError(
            f"Every leaf of a state must be an array or a number, got {type(leaf).__name__} at {path!r}: "
            "make it a static field, or keep it out of the state."
        )
    if array.dtype.byteorder == ">" or not array.flags.c_contiguous:
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return array


def _layout(path: str, leaf: Any) -> tuple[str, tuple[int, ...]]:
    """The dtype's name and the shape a leaf is stored with."""
    if _is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, leaf)
        return data.dtype.name, data.shape
    if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
        return leaf.dtype.name, leaf.shape
    array = _host_array(path, leaf)
    return array.dtype.name, array.shape


def _like(leaf: Any, array: np.ndarray) -> Any:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(jnp.zeros((), leaf.dtype)))
    if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
        if leaf.weak_type and array.ndim == 0 and jnp.asarray(array.item()).dtype == array.dtype:
            return jnp.asarray(array.item())
        return jnp.array(array)
    if isinstance(leaf, np.ndarray):
        return array.astype(leaf.dtype, copy=True)
    if isinstance(leaf, np.generic):
        return array.astype(leaf.dtype)[()]
    return array.item()
