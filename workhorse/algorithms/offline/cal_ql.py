"""Calibrated Q-learning: conservative Q-learning that pushes no value below what the log earned."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.algorithms.offline.cql import CQL, Sampled
from workhorse.core.configuration import configuration
from workhorse.core.types import Transitions

__all__ = ["CalQL"]


@configuration
class CalQL(CQL):
    """CQL in whose penalty the values of the policy's actions are bounded below by the return of the log.

        L_i(s) = log( 1/M sum_m exp(max(Q_i(s, a_m), G)) / p(a_m) )   for actions of the policy, without the maximum for
                 uniform ones;   G the discounted rewards from s to the end of the log's episode

    A value that is already below G is pushed down no further: the gradient of the maximum is zero there. When the run
    goes on in the task, values are then of the size of returns, and the policy does not have to unlearn that all
    actions but the log's are bad. Where G is not known it is -inf, which is CQL: so it is for steps in the task.

    Source: Nakamoto et al. 2023, "Cal-QL: calibrated offline RL pre-training for efficient online fine-tuning"
    (arXiv 2303.05479). There, returns of episodes in the task are bounds too.
    """

    name = "cal-ql"
    summary = "cql that pushes no value below the log's return; for going on in the task"

    def pushed(self, value: Float[Array, "N M"], sampled: Sampled, experience: Transitions) -> Float[Array, "N M"]:
        bound = jnp.asarray(self.reward_scale, jnp.float32) * experience.return_to_go[:: self.penalty_stride, None]
        return jnp.where(sampled.is_policy, jnp.maximum(value, bound), value)
