"""Model-predictive path integral control: the plan moves to a weighted mean of noisy ones."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.demonstration_learner import CopyActor
from workhorse.algorithms.planning.planner import BoxPlanner, WarmPlan
from workhorse.core.algorithm import Action, Key
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_positive
from workhorse.core.types import Tried

__all__ = ["MPPI", "path_weights"]


@configuration
class MPPI(BoxPlanner):
    """Exponentially weighted mean of plans.

        plan' = sum over n of w_n plan_n,   w = softmax((R - max R) / (temperature * spread(R)))

    R are the plans' returns and spread(R) is their standard deviation. The mean is tried once more by itself, a round
    of one plan, so that its return is known.

    Source: Williams et al. 2017, "Information theoretic MPC for model-based reinforcement learning". Differs from it by
    a temperature in units of the returns' spread instead of their own, which needs no tuning to a task's rewards, by no
    price of control beside the task's, and by noise from splines.
    """

    name = "mppi"
    summary = "move the plan to the exponentially weighted mean of noisy ones, before each action"

    temperature: float = 0.1
    """Temperature of the weights, in units of the standard deviation of the plans' returns."""

    def validate(self) -> None:
        super().validate()
        require_positive("MPPI", temperature=self.temperature)

    @property
    def round_sizes(self) -> tuple[int, ...]:
        return (*(self.num_plans,) * self.num_rounds, 1)

    def propose(self, actor: CopyActor, carry: WarmPlan, key: Key, *, round: Int[Array, ""], count: int) -> Action:
        """Return the plans of a round; in the last one the mean alone."""
        if count == 1:
            return carry.plan[None]
        return super().propose(actor, carry, key, round=round, count=count)

    def refine(
        self, actor: CopyActor, carry: WarmPlan, plans: Action, tried: Tried, *, round: Int[Array, ""]
    ) -> WarmPlan:
        returns, reward = self.returns(tried)
        if len(plans) == 1:
            return WarmPlan(plans[0], reward[0])
        weights = path_weights(returns, self.temperature)
        mean = jnp.tensordot(weights.astype(jnp.float32), plans, axes=1)
        return WarmPlan(self.clipped(mean), jnp.full_like(carry.reward, jnp.nan))


def path_weights(returns: Float[Array, "N"], temperature: Float[Array, ""] | float) -> Float[Array, "N"]:
    """Return softmax(R / (temperature * spread(R))); equal weights where all returns are equal.

    Example:
        >>> path_weights(jnp.array([0.0, 2.0]), 1.0 / jnp.log(3.0)).round(2).tolist()
        [0.1, 0.9]
    """
    apart = returns - returns.max()
    spread = jnp.sqrt(jnp.square(returns - returns.mean()).mean())
    return jax.nn.softmax(apart / jnp.where(spread > 0, temperature * spread, 1.0))
