"""Mean and variance of a stream of vectors, exact under merging in a fixed order."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from workhorse.core.types import Moments

__all__ = ["empty", "inverse_scale", "merge", "merge_all", "observe", "of", "spread"]

CONSTANT_BELOW = 1e-6
"""A component whose standard deviation is below this is taken as constant and reads as zero once normalised."""


def empty(size: int, dtype: DTypeLike) -> Moments:
    """Moments of nothing: count 0, mean 0, deviation 0."""
    return Moments(jnp.zeros((), dtype), jnp.zeros(size, dtype), jnp.zeros(size, dtype))


def observe(moments: Moments, sample: Float[Array, "D"], counted: Bool[Array, ""] | bool = True) -> Moments:
    """Moments with one more sample, by Welford's recurrence; unchanged where `counted` is false.

    n' = n + 1;  mean' = mean + (x - mean) / n';  M2' = M2 + (x - mean)(x - mean').

    Example:
        >>> two = observe(observe(empty(1, jnp.float32), jnp.ones(1)), jnp.full(1, 3.0))
        >>> [float(leaf.item()) for leaf in two]
        [2.0, 2.0, 2.0]

    Source: Welford 1962, "Note on a method for calculating corrected sums of squares and products".
    """
    weight = jnp.asarray(counted, moments.count.dtype)
    count = moments.count + weight
    before = sample - moments.mean
    mean = moments.mean + before * (weight / jnp.maximum(count, 1))
    return Moments(count, mean, moments.deviation + weight * before * (sample - mean))


def of(samples: Float[Array, "N D"] | Float[np.ndarray, "N D"]) -> Moments:
    """Moments of samples that are there at once, float64.

    Example:
        >>> [leaf.tolist() for leaf in of(jnp.array([[1.0], [3.0]]))]
        [2.0, [2.0], [2.0]]
    """
    samples = jnp.asarray(samples).astype(jnp.float64)
    mean = samples.mean(0)
    return Moments(jnp.asarray(float(len(samples)), jnp.float64), mean, jnp.square(samples - mean).sum(0))


def merge(one: Moments, other: Moments) -> Moments:
    """Moments of two disjoint sets of samples together.

    n = n1 + n2;  mean = mean1 + (mean2 - mean1) n2 / n;  M2 = M2_1 + M2_2 + (mean2 - mean1)^2 n1 n2 / n.
    The order of merging changes the last bits, so callers keep it fixed.

    Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    count = one.count + other.count
    share = other.count / jnp.maximum(count, 1)
    apart = other.mean - one.mean
    return Moments(
        count, one.mean + apart * share, one.deviation + other.deviation + apart * apart * (one.count * share)
    )


def merge_all(stacked: Moments, start: Moments) -> Moments:
    """Merge a leading axis of moments into `start`, one after the other, first to last, in `start`'s precision."""
    stacked = jax.tree.map(lambda leaf: leaf.astype(start.mean.dtype), stacked)
    return jax.lax.scan(lambda total, one: (merge(total, one), None), start, stacked)[0]


def spread(moments: Moments) -> Float[Array, "D"]:
    """Standard deviation, sqrt(M2 / n); zero before the first sample."""
    return jnp.sqrt(moments.deviation / jnp.maximum(moments.count, 1))


def inverse_scale(moments: Moments, constant_below: float = CONSTANT_BELOW) -> Float[Array, "D"]:
    """Return the factor of a centred observation: 1 / standard deviation.

    0 where the standard deviation is zero or less than `constant_below` (so that the component reads as zero instead of
    as amplified rounding), and 1 for every component as long as fewer than two samples were seen.

    Source: Mania et al. 2018 set such components to zero as well.
    """
    deviation = spread(moments)
    constant = (deviation < constant_below) | (deviation == 0)
    scale = jnp.where(constant, 0.0, 1.0 / jnp.where(constant, 1.0, deviation))
    return jnp.where(moments.count < 2, jnp.ones_like(scale), scale)
