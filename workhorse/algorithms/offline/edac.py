"""Ensemble-diversified actor-critic: many critics that disagree on how a value changes with the action."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.algorithms.offline.ensemble_sac import EnsembleSAC
from workhorse.core.algorithm import Metrics
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_non_negative
from workhorse.networks.ensemble import Ensemble

__all__ = ["EDAC", "likeness"]

SHORTEST = 1e-12
"""Added to the squared length of a slope before it is divided by it."""


@configuration
class EDAC(EnsembleSAC):
    """SAC with the smallest of N critics, whose slopes in the action are pushed apart at the log's actions.

        y = r + gamma (1 - terminated) (min_i Q'_i(s', a') - alpha log pi(a'|s')),   a' ~ pi(.|s')
        critics:  sum_i mean (Q_i(s, a) - y)^2 + eta / (N - 1) mean sum_{i != j} cos(g_i, g_j),   g_i = dQ_i/da (s, a)

    The less alike the slopes, the sooner the smallest value falls away from the log's actions, so that fewer critics
    are as careful as many. With eta = 0 it is SAC-N. Policy and temperature are those of SAC.

    Source: An et al. 2021, "Uncertainty-based offline reinforcement learning with diversified Q-ensemble"
    (arXiv 2110.01548). The sum over pairs is computed as |sum_i u_i|^2 - sum_i |u_i|^2 of unit slopes u_i.
    """

    name = "edac"
    summary = "SAC with many critics whose slopes are pushed apart"

    hidden: tuple[int, ...] = (256, 256, 256)
    """Units of each hidden layer of every network."""
    diversity_weight: float = 1.0
    """Weight eta of the likeness of the critics' slopes; 0 for SAC-N."""

    def validate(self) -> None:
        super().validate()
        require_non_negative("EDAC", diversity_weight=self.diversity_weight)

    def regulariser(
        self, critics: Ensemble, obs: Float[Array, "N D"], action: Float[Array, "N A"]
    ) -> tuple[Float[Array, ""], Metrics]:
        alike = likeness(critics, obs, action)
        return jnp.asarray(self.diversity_weight, jnp.float32) * alike, {"critic_likeness": alike}


def likeness(critics: Ensemble, obs: Float[Array, "N D"], action: Float[Array, "N A"]) -> Float[Array, ""]:
    """Return the mean over rows of sum_{i != j} cos(g_i, g_j) / (K - 1), g_i the slope of value i in the action."""
    count = len(critics.weights[0])
    each = jnp.broadcast_to(obs, (count, *obs.shape))

    def total(action: Array) -> Array:
        return critics(jnp.concatenate([each, action], axis=2)).sum()

    slope = jax.grad(total)(jnp.broadcast_to(action, (count, *action.shape)))
    unit = slope * jax.lax.rsqrt(jnp.square(slope).sum(2, keepdims=True) + jnp.float32(SHORTEST))
    pairs = jnp.square(unit.sum(0)).sum(1) - jnp.square(unit).sum((0, 2))
    return pairs.mean() / (count - 1)
