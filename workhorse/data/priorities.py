"""Sum tree: draws numbers with frequencies proportional to priorities that change.

Every node has `WIDTH` children: a million leaves lie five levels below the root, not twenty as in a tree of pairs. A
draw and an update of 256 of them take 73 us of one core; with 8, 32 or 128 children 111, 120 or 295. In a tree of pairs
XLA copies whole levels: twenty times as long, and six times as long to compile.

The sums and maxima are functions of the leaves alone, to the bit, so that leaves are all that a checkpoint has to hold.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.core.algorithm import Key

__all__ = ["PriorityTree", "grown", "leaves_for", "stratified", "with_leaves"]

WIDTH = 16
"""Children of a node, a power of two."""


class PriorityTree(NamedTuple):
    """Priorities, and the sums and maxima of each node's leaves.

    Attributes:
        leaves: the priorities, float32 (L,).
        sums: float64, level by level; the nodes above the leaves first, the children of the root last.
        maxima: float32, in the same way.
    """

    leaves: Float[Array, "L"]
    sums: tuple[Float[Array, "n"], ...]
    maxima: tuple[Float[Array, "n"], ...]

    @property
    def total(self) -> Float[Array, ""]:
        """Sum of all priorities."""
        return _sum(self.sums[-1])

    @property
    def largest(self) -> Float[Array, ""]:
        """The largest priority there is now."""
        return self.maxima[-1].max()


def leaves_for(count: int) -> int:
    """Return the number of leaves of a tree that has room for `count`.

    Example:
        >>> leaves_for(5), leaves_for(129)
        (16, 144)
    """
    return max(-(-count // WIDTH), 1) * WIDTH


def grown(leaves: Float[Array, "L"]) -> PriorityTree:
    """Return the tree of these leaves, as many as `leaves_for` gives.

    Example:
        >>> tree = grown(jnp.zeros(leaves_for(4), jnp.float32).at[2].set(4.0).at[5].set(2.0))
        >>> float(tree.total), float(tree.largest)
        (6.0, 4.0)
    """
    sums, maxima = [leaves.astype(jnp.float64)], [leaves]
    while len(sums) == 1 or len(sums[-1]) > WIDTH:
        for level, of in ((sums, _sum), (maxima, _maximum)):
            nodes = of(level[-1].reshape(-1, WIDTH))
            level.append(jnp.pad(nodes, (0, -len(nodes) % WIDTH)))
    return PriorityTree(leaves, tuple(sums[1:]), tuple(maxima[1:]))


def _sum(children: Float[Array, "... W"]) -> Float[Array, "..."]:
    """Return sums over the last axis, in one order of additions whatever a compiler makes of it."""
    while children.shape[-1] > 1:
        half = children.shape[-1] // 2
        children = children[..., :half] + children[..., half:]
    return children[..., 0]


def _maximum(children: Float[Array, "... W"]) -> Float[Array, "..."]:
    return children.max(-1)


def with_leaves(tree: PriorityTree, numbers: Int[Array, "N"], priorities: Float[Array, "N"]) -> PriorityTree:
    """Return the tree with new priorities, at least 0, of some leaves, and of all above them.

    A number that occurs twice gets the larger of its priorities, in whatever order a machine writes them.

    Example:
        >>> tree = with_leaves(grown(jnp.ones(leaves_for(4), jnp.float32)), jnp.array([2]), jnp.array([5.0]))
        >>> float(tree.total), float(tree.largest)
        (20.0, 5.0)
    """
    leaves = tree.leaves.at[numbers].set(0.0).at[numbers].max(priorities.astype(jnp.float32))
    sums, maxima, below, node = list[Array](), list[Array](), (leaves, leaves), numbers
    for level in zip(tree.sums, tree.maxima, strict=True):
        node = node // WIDTH
        children = [array.reshape(-1, WIDTH)[node] for array in below]
        below = (
            level[0].at[node].set(_sum(children[0].astype(jnp.float64))),
            level[1].at[node].set(_maximum(children[1])),
        )
        sums.append(below[0])
        maxima.append(below[1])
    return PriorityTree(leaves, tuple(sums), tuple(maxima))


def stratified(tree: PriorityTree, key: Key, count: int) -> tuple[Int[Array, "N"], Float[Array, "N"]]:
    """Draw leaves with frequencies proportional to their priorities, one from each of `count` equal parts of the sum.

    Returns:
        The leaves' numbers, and their priorities, float64.

    A leaf of priority 0 is never drawn. Nothing can be drawn from a tree whose sum is 0.

    Source: Schaul et al. 2016, "Prioritized experience replay" (arXiv 1511.05952), appendix B.2.1.
    """
    part = (jnp.arange(count) + jax.random.uniform(key, (count,), jnp.float64)) / count
    node, place, priority = jnp.zeros(count, jnp.int64), part * tree.total, jnp.zeros(count)
    for level in (*reversed(tree.sums), tree.leaves):
        children = level.reshape(-1, WIDTH)[node].astype(jnp.float64)
        until = jnp.cumsum(children, axis=-1)
        child = (until <= place[:, None]).sum(-1)
        # for rounding: a place at the very end must not fall off into leaves of priority 0
        last = WIDTH - 1 - jnp.argmax(children[:, ::-1] > 0, axis=-1)
        child = jnp.minimum(child, last)
        before = jnp.where(child > 0, jnp.take_along_axis(until, jnp.maximum(child - 1, 0)[:, None], 1)[:, 0], 0.0)
        node, place = node * WIDTH + child, jnp.maximum(place - before, 0.0)
        priority = jnp.take_along_axis(children, child[:, None], 1)[:, 0]
    return node, priority
