"""TD3 with behaviour cloning: the policy also stays near the actions of the log."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.algorithms.actor_critic.td3 import TD3, TD3State, value_of
from workhorse.algorithms.offline.log_learner import LogLearner
from workhorse.algorithms.replay_learner import adam_step, moved_towards, saturated_share
from workhorse.core.algorithm import Metrics
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_positive
from workhorse.networks.mlp import MLP

__all__ = ["TD3BC"]


@configuration
class TD3BC(LogLearner, TD3):
    """TD3 whose policy maximises values scaled to size one less the squared distance to the log's action.

        policy:  mean -lambda Q_1(s, mu(s)) + |mu(s) - a|^2 / A,   lambda = alpha / mean |Q_1(s, mu(s))|

    The critics are those of TD3.

    Source: Fujimoto and Gu 2021, "A minimalist approach to offline reinforcement learning" (arXiv 2106.06860). Their
    scale 1e-3 is added to the standard deviations of observations; here constant components are left as they are.
    """

    name = "td3+bc"
    summary = "TD3 that stays near the actions of a log"

    value_weight: float = 2.5
    """Weight alpha of the value beside the distance to the log's action."""

    def validate(self) -> None:
        super().validate()
        require_positive("TD3BC", value_weight=self.value_weight)

    def _policy(
        self, state: TD3State, obs: Float[Array, "N D"], action: Float[Array, "N A"]
    ) -> tuple[TD3State, Metrics]:
        """Return the state after a step of the policy, and one of the targets."""

        def loss(policy: MLP) -> tuple[Array, tuple[Array, Array]]:
            chosen = jnp.tanh(jax.vmap(policy)(obs))
            value = value_of(state.critics[0], obs, chosen)
            weight = jnp.asarray(self.value_weight, jnp.float32) / jax.lax.stop_gradient(jnp.abs(value).mean() + 1e-8)
            distance = jnp.square(chosen - action).mean()
            return distance - weight * value.mean(), (chosen, distance)

        (total, (chosen, distance)), gradient = jax.value_and_grad(loss, has_aux=True)(state.policy)
        policy_memory, critic_memory = state.optimisers
        policy, policy_memory = adam_step(state.policy, gradient, policy_memory, self.learning_rate)
        after = state._replace(
            policy=policy,
            target_policy=moved_towards(state.target_policy, policy, self.target_rate),
            target_critics=moved_towards(state.target_critics, state.critics, self.target_rate),
            optimisers=(policy_memory, critic_memory),
        )
        return after, {
            "policy_loss": total, "cloning_error": distance, "saturated_actions": saturated_share(chosen),
        }  # fmt: skip
