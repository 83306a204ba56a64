"""Advantage actor-critic, synchronous: one gradient of the whole rollout."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.algorithms.policy_gradient.batch import Batch, GradientState
from workhorse.algorithms.policy_gradient.policy_gradient import PolicyGradient
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_non_negative
from workhorse.networks.actor_critic import ActorCritic

__all__ = ["A2C"]


@configuration
class A2C(PolicyGradient):
    """One step of the optimiser on every rollout.

    The loss is

        -E[log pi(a | o) A] + value_weight * E[(V - G)^2] / 2 - entropy_weight * E[H],

    A the advantage, taken as a constant, and G = A + V_old the value's target.

    Source: Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning" (arXiv 1602.01783), in the
    synchronous form of OpenAI's baselines. Differs from it by generalised advantages instead of n-step ones (`trace`
    = 1 gives those), by two networks instead of a shared one, and by Adam instead of RMSProp.
    """

    name = "a2c"
    summary = "advantage actor-critic: one step on every rollout"

    num_envs: int = 8
    """Slots trained on, side by side."""
    rollout_steps: int = 16
    """Steps of each slot an iteration."""
    learning_rate: float = 7e-4
    """Step size of the optimiser, before annealing."""
    normalise_advantages: Literal["minibatch", "batch", "none"] = "none"
    """Centre advantages and divide them by their standard deviation: in the rollout (either word), or not."""
    measure_gradients: bool = False
    """Measure how far parts of the rollout agree on the gradient: *half as much again as the one step there is*."""
    value_weight: float = 0.5
    """Weight of the value's loss."""
    entropy_weight: float = 0.0
    """Weight of the policy's entropy."""

    def validate(self) -> None:
        super().validate()
        require_non_negative("A2C", value_weight=self.value_weight, entropy_weight=self.entropy_weight)

    def improve(
        self, state: GradientState, batch: Batch, rate: Float[Array, ""], key: Key
    ) -> tuple[ActorCritic, Any, dict[str, Array]]:
        return self.descend(self.batch_loss, state.params, state.optimiser, self.arranged(batch), rate)

    def batch_loss(self, params: ActorCritic, batch: Batch) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Return the loss of an arranged rollout and its parts."""
        distribution, value, batch = self.read(params, batch)
        log_prob = jax.vmap(lambda one, drawn: one.log_prob(drawn))(distribution, batch.drawn)
        advantage = self.normalised(batch.advantage, "batch", "minibatch")
        surrogate = (log_prob * advantage).mean()
        value_loss = 0.5 * jnp.square(value - batch.target).mean()
        entropy = jax.vmap(lambda one: one.entropy())(distribution).mean()
        total = -surrogate + self.value_weight * value_loss - self.entropy_weight * entropy
        return total, {"surrogate": surrogate, "value_loss": value_loss}
