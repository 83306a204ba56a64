"""Fitness shaping: what a population's returns are turned into before they weigh its perturbations."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

__all__ = ["centred_ranks", "differ", "finite", "parent_weights", "shared_by_rank", "standardised"]


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
    fitness = _known(fitness)
    ordered = jnp.sort(fitness)
    below = jnp.searchsorted(ordered, fitness, side="left")
    not_above = jnp.searchsorted(ordered, fitness, side="right")
    rank = (below + not_above - 1).astype(fitness.dtype) / 2
    return rank / jnp.maximum(fitness.shape[0] - 1, 1) - 0.5


def standardised(fitness: Float[Array, "P"]) -> Float[Array, "P"]:
    """Fitness minus its mean, over its standard deviation; zeros where all are equal. `finite` replaces what is not.

    Example:
        >>> standardised(jnp.array([1.0, 3.0]))
        Array([-1.,  1.], dtype=float64)
    """
    fitness = finite(fitness)
    deviation = jnp.std(fitness)
    return jnp.where(deviation > 0, (fitness - jnp.mean(fitness)) / jnp.where(deviation > 0, deviation, 1.0), 0.0)


def parent_weights(population: int, parents: int | float) -> Float[np.ndarray, "P"]:
    """Weight of each rank in a recombination of the best members, the best first, float64; they sum to 1.

    w_k is proportional to ln(parents + 1/2) - ln k for the `parents` best, k = 1 ... P, and 0 for the others.

    Example:
        >>> parent_weights(4, 2).round(3).tolist()
        [0.804, 0.196, 0.0, 0.0]

    Source: Hansen 2016, "The CMA evolution strategy: a tutorial" (arXiv 1604.00772).
    """
    weights = np.maximum(np.log(parents + 0.5) - np.log(np.arange(1, population + 1)), 0.0)
    return weights / weights.sum()


def shared_by_rank(fitness: Float[Array, "P"], weights: Float[np.ndarray, "P"]) -> Float[Array, "P"]:
    """Weight of each member, where `weights` has one for each rank, the best first.

    Members of equal fitness share the mean of the weights of their ranks, so the order in which they are numbered
    changes nothing. A member whose fitness is not a number ranks last.

    Example:
        >>> shared_by_rank(jnp.array([1.0, 5.0, 1.0]), np.array([0.7, 0.3, 0.0]))
        Array([0.15, 0.7 , 0.15], dtype=float64)
    """
    cost = 0.0 - _known(fitness)
    ordered, so_far = jnp.sort(cost), jnp.asarray(np.concatenate([[0.0], np.cumsum(weights)]))
    first = jnp.searchsorted(ordered, cost, side="left")
    after = jnp.searchsorted(ordered, cost, side="right")
    return (so_far[after] - so_far[first]) / (after - first)


def differ(fitness: Float[Array, "P"]) -> Bool[Array, ""]:
    """Tell whether any two members differ; one that is not a number is like minus infinity.

    Example:
        >>> bool(differ(jnp.array([2.0, 2.0]))), bool(differ(jnp.array([2.0, jnp.nan])))
        (False, True)
    """
    known = _known(fitness)
    return known.max() > known.min()


def finite(fitness: Float[Array, "P"]) -> Float[Array, "P"]:
    """Fitness with the worst finite one for NaN and minus infinity, and the best for infinity; zeros where none is.

    For searches that weigh members by how much they earned, and not by rank: there one such number would make the whole
    step NaN.

    Example:
        >>> finite(jnp.array([1.0, jnp.nan, 3.0, jnp.inf]))
        Array([1., 1., 3., 3.], dtype=float64)
    """
    known = jnp.isfinite(fitness)
    least = jnp.where(known, fitness, jnp.inf).min()
    most = jnp.where(known, fitness, -jnp.inf).max()
    return jnp.where(known.any(), jnp.clip(_known(fitness), least, most), 0.0)


def _known(fitness: Float[Array, "P"]) -> Float[Array, "P"]:
    """Fitness with minus infinity where it is not a number: such a member is worst."""
    return jnp.where(jnp.isnan(fitness), -jnp.inf, fitness)
