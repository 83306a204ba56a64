"""Predictive sampling: try a few noisy copies of the plan, and keep the best."""

import jax.numpy as jnp
from jaxtyping import Array, Int

from workhorse.algorithms.demonstration_learner import CopyActor
from workhorse.algorithms.planning.planner import BoxPlanner, WarmPlan
from workhorse.core.algorithm import Action
from workhorse.core.configuration import configuration
from workhorse.core.types import Tried

__all__ = ["PredictiveSampling"]


@configuration
class PredictiveSampling(BoxPlanner):
    """Random search over plans with a warm start.

        plan' = argmax over n of return(plan_n),   plan_0 = plan,  plan_1 = 0,  plan_n = clip(plan + noise_n)

    Of equal plans the first is kept, so that nothing changes where nothing is better.

    Source: Howell et al. 2022, "Predictive sampling: real-time behaviour synthesis with MuJoCo" (arXiv 2212.00541).
    There the plan itself is a spline whose knots are sampled anew at each step; here only the noise is one. The plan
    that stands still is added.
    """

    name = "predictive-sampling"
    summary = "try noisy copies of the plan in the simulator before each action, and keep the best"

    def refine(
        self, actor: CopyActor, carry: WarmPlan, plans: Action, tried: Tried, *, round: Int[Array, ""]
    ) -> WarmPlan:
        returns, reward = self.returns(tried)
        best = jnp.argmax(returns)
        return WarmPlan(plans[best], reward[best])
