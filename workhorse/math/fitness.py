"""Fitness shaping: what a population's returns are turned into before they weigh its perturbations."""

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["centred_ranks", "standardised"]


def centred_ranks(fitness: Float[Array, "P"]) -> Float[Array, "P"]:
    """Ranks scaled to [-0.5, 0.5]: the worst member gets -0.5, the best 0.5.

    u_i = (rank_i) / (P - 1) - 0.5, rank_i in 0 ... P-1. Only the order matters, so a positive factor on the reward or
    a constant added to every return changes nothing. Equal fitnesses share the mean of their ranks, so a population in
    which nobody differs gives zeros; *breaking ties by position would push the parameters along the first members'
    noise*. A member whose fitness is not a number ranks last.

    Example:
        >>> centred_ranks(jnp.array([3.0, 100.0, -5.0]))
        Array([ 0. ,  0.5, -0.5], dtype=float64)
        >>> centred_ranks(jnp.array([1.0, 1.0, 2.0]))
        Array([-0.25, -0.25,  0.5 ], dtype=float64)

    Source: Wierstra et al. 2014, "Natural evolution strategies"; Salimans et al. 2017. Differs from their code by
    sharing ranks among ties.
    """
    fitness = jnp.where(jnp.isnan(fitness), -jnp.inf, fitness)
    ordered = jnp.sort(fitness)
    below = jnp.searchsorted(ordered, fitness, side="left")
    not_above = jnp.searchsorted(ordered, fitness, side="right")
    rank = (below + not_above - 1).astype(fitness.dtype) / 2
    return rank / jnp.maximum(fitness.shape[0] - 1, 1) - 0.5


def standardised(fitness: Float[Array, "P"]) -> Float[Array, "P"]:
    """Fitness minus its mean, over its standard deviation; zeros where all are equal.

    Example:
        >>> standardised(jnp.array([1.0, 3.0]))
        Array([-1.,  1.], dtype=float64)
    """
    deviation = jnp.std(fitness)
    return jnp.where(deviation > 0, (fitness - jnp.mean(fitness)) / jnp.where(deviation > 0, deviation, 1.0), 0.0)
