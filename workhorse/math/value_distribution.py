"""Values as distributions over fixed atoms: their means, and the projection of a shifted, shrunk one onto the atoms."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["atoms", "cross_entropy", "mean_value", "projected"]


def atoms(lowest: float | Array, highest: float | Array, count: int) -> Float[Array, "n"]:
    """Return `count` values, evenly spaced from the lowest to the highest, float32.

    Example:
        >>> atoms(-1.0, 1.0, 5).tolist()
        [-1.0, -0.5, 0.0, 0.5, 1.0]
    """
    low, high = jnp.asarray(lowest, jnp.float32), jnp.asarray(highest, jnp.float32)
    return low + (high - low) * (jnp.arange(count, dtype=jnp.float32) / (count - 1))


def mean_value(logits: Float[Array, "n"], support: Float[Array, "n"]) -> Float[Array, ""]:
    """Return the mean of the distribution softmax(logits) over the atoms."""
    return jax.nn.softmax(logits) @ support


def projected(
    probability: Float[Array, "n"], support: Float[Array, "n"], shift: Float[Array, ""], discount: Float[Array, ""]
) -> Float[Array, "n"]:
    """Return the distribution of shift + discount * Z, Z over the atoms, as one over the same atoms.

    Each mass is shared by the two atoms next to where it falls, in proportion to how near they are, so that the mean
    is kept; what falls beyond the ends goes to the atom there, *and then the mean is not kept*.

    Args:
        probability: of each atom.
        support: the atoms, evenly spaced.
        shift: a reward, for one.
        discount: in [0, 1].

    Example:
        >>> projected(jnp.array([0.0, 1.0, 0.0]), atoms(0.0, 2.0, 3), jnp.array(0.25), jnp.array(1.0)).tolist()
        [0.0, 0.75, 0.25]

    Source: Bellemare, Dabney and Munos 2017, "A distributional perspective on reinforcement learning" (arXiv
    1707.06887), equation 7.
    """
    low, width = support[0], support[1] - support[0]
    place = jnp.clip((shift + discount * support - low) / width, 0.0, len(support) - 1.0)
    below = jnp.floor(place)
    share = place - below
    left = below.astype(jnp.int32)
    right = jnp.minimum(left + 1, len(support) - 1)
    empty = jnp.zeros_like(probability)
    return empty.at[left].add(probability * (1 - share)).at[right].add(probability * share)


def cross_entropy(target: Float[Array, "n"], logits: Float[Array, "n"]) -> Float[Array, ""]:
    """Return -sum p log q, q = softmax(logits): least, the entropy of p, where q = p."""
    return -(target * jax.nn.log_softmax(logits)).sum()
