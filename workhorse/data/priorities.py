"""Sum tree: draws numbers with frequencies proportional to priorities that change.

A tree over L leaves, L a power of two, is one array of 2 L numbers: the root is number 1, the children of number i are
2 i and 2 i + 1, the leaves are the last L. A second array of the same shape holds maxima. Both are functions of the
leaves alone, to the bit, so that leaves are all that a checkpoint has to hold.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.core.algorithm import Key

__all__ = ["PriorityTree", "grown", "leaves_for", "stratified", "with_leaves"]


class PriorityTree(NamedTuple):
    """Sums and maxima of priorities.

    Attributes:
        sums: float64 (2 L,); number 0 is not used.
        maxima: float32 (2 L,).
    """

    sums: Float[Array, "n"]
    maxima: Float[Array, "n"]

    @property
    def leaves(self) -> Float[Array, "L"]:
        """The priorities, float32."""
        return self.maxima[len(self.maxima) // 2 :]

    @property
    def total(self) -> Float[Array, ""]:
        """Sum of all priorities."""
        return self.sums[1]

    @property
    def largest(self) -> Float[Array, ""]:
        """The largest priority there is now."""
        return self.maxima[1]


def leaves_for(count: int) -> int:
    """Return the least power of two that is at least `count`.

    Example:
        >>> leaves_for(5), leaves_for(8)
        (8, 8)
    """
    return 1 << max(count - 1, 0).bit_length()


def grown(leaves: Float[Array, "L"]) -> PriorityTree:
    """Return the tree of these leaves.

    Example:
        >>> tree = grown(jnp.array([1.0, 0.0, 2.0, 1.0], jnp.float32))
        >>> float(tree.total), float(tree.largest)
        (4.0, 2.0)
    """
    sums, maxima = [leaves.astype(jnp.float64)], [leaves]
    while len(sums[-1]) > 1:
        sums.append(sums[-1].reshape(-1, 2).sum(1))
        maxima.append(maxima[-1].reshape(-1, 2).max(1))
    unused = jnp.zeros(1)
    return PriorityTree(
        jnp.concatenate([unused.astype(jnp.float64), *reversed(sums)]),
        jnp.concatenate([unused.astype(jnp.float32), *reversed(maxima)]),
    )


def with_leaves(tree: PriorityTree, numbers: Int[Array, "N"], priorities: Float[Array, "N"]) -> PriorityTree:
    """Return the tree with new priorities of some leaves, and of all above them.

    *Numbers that occur twice must come with equal priorities*: which of two values is kept is not defined.

    Example:
        >>> tree = with_leaves(grown(jnp.ones(4, jnp.float32)), jnp.array([2]), jnp.array([5.0]))
        >>> float(tree.total), float(tree.largest)
        (8.0, 5.0)
    """
    sums, maxima = tree
    count = len(maxima) // 2
    node = numbers + count
    sums = sums.at[node].set(priorities.astype(jnp.float32).astype(jnp.float64))
    maxima = maxima.at[node].set(priorities.astype(jnp.float32))
    for _ in range(count.bit_length() - 1):
        node = node // 2
        sums = sums.at[node].set(sums[2 * node] + sums[2 * node + 1])
        maxima = maxima.at[node].set(jnp.maximum(maxima[2 * node], maxima[2 * node + 1]))
    return PriorityTree(sums, maxima)


def stratified(tree: PriorityTree, key: Key, count: int) -> Int[Array, "N"]:
    """Draw leaves with frequencies proportional to their priorities, one from each of `count` equal parts of the sum.

    A leaf of priority 0 is never drawn. Nothing can be drawn from a tree whose sum is 0.

    Source: Schaul et al. 2016, "Prioritized experience replay" (arXiv 1511.05952), appendix B.2.1.
    """
    part = (jnp.arange(count) + jax.random.uniform(key, (count,), jnp.float64)) / count

    def descend(place: Float[Array, ""]) -> Int[Array, ""]:
        node = jnp.ones((), jnp.int64)
        for _ in range((len(tree.sums) // 2).bit_length() - 1):
            left = tree.sums[2 * node]
            # the second test is for rounding: a place at the very end must not fall off into leaves of priority 0
            goes_right = (place >= left) & (tree.sums[2 * node + 1] > 0)
            place = jnp.where(goes_right, place - left, place)
            node = 2 * node + goes_right
        return node - len(tree.sums) // 2

    return jax.vmap(descend)(part * tree.total)
