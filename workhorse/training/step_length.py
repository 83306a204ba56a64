"""Length of a step in parameters, for algorithms that do not say themselves how far an update moved them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from workhorse.core.algorithm import Algorithm, Metrics, State

__all__ = ["TOLD", "with_step_norm"]

TOLD = frozenset({"mean_kl", "step_norm", "gradient_norm", "improved"})
"""Metrics that say how far an update went; `improved` is of a search that stays where it is until it finds better."""


def with_step_norm(algorithm: Algorithm, before: State, after: State, metrics: Metrics) -> Metrics:
    """Return the metrics with `step_norm`, the 2-norm of the change of what acts, unless they tell something like it.

    The single-precision arrays of the actor are compared, so *a normaliser among them moves, whatever else does not*.
    """
    if not TOLD.isdisjoint(metrics):
        return metrics
    pairs = zip(jax.tree.leaves(algorithm.actor(before)), jax.tree.leaves(algorithm.actor(after)), strict=True)
    squares: list[Array] = [jnp.square(new - old).sum() for old, new in pairs if new.dtype == jnp.float32]
    return {**metrics, "step_norm": jnp.sqrt(jnp.stack(squares).sum())} if squares else metrics
