"""Weights of length one: every unit's weight vector is brought back to the unit sphere after a step."""

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["unit_rows", "unit_rows_with_bias"]

SHORTEST = 1e-12
"""A vector shorter than this is left as it is, for it has no direction."""


def unit_rows(weight: Float[Array, "out in"]) -> Float[Array, "out in"]:
    """Return a matrix with each row divided by its 2-norm; a row of zeros stays.

    *A row* holds the weights into one unit. Before a batch norm the length of a row changes nothing but how fast its
    direction moves: as weights grow, equal steps turn them less. With length one the learning rate is the angle.

    Example:
        >>> unit_rows(jnp.array([[8.0, 0.0], [0.0, 2.0]])).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    return weight / _length(jnp.square(weight).sum(1, keepdims=True))


def unit_rows_with_bias(
    weight: Float[Array, "out in"], bias: Float[Array, "out"]
) -> tuple[Float[Array, "out in"], Float[Array, "out"]]:
    """Return weights and biases with each row and its bias, taken as one vector, divided by its 2-norm.

    Example:
        >>> weight, bias = unit_rows_with_bias(jnp.array([[2.0, 2.0]]), jnp.ones(1))
        >>> [round(float(one), 4) for one in (*weight[0], bias[0])]
        [0.6667, 0.6667, 0.3333]
    """
    length = _length(jnp.square(weight).sum(1) + jnp.square(bias))
    return weight / length[:, None], bias / length


def _length(square: Float[Array, "..."]) -> Float[Array, "..."]:
    length = jnp.sqrt(square)
    return jnp.where(length > SHORTEST, length, 1.0)
