"""ReBRAC: TD3 with the distance to the log's actions in the policy's loss and in the critics' target."""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.algorithms.actor_critic.td3 import TD3, TD3State, values
from workhorse.algorithms.offline.log_learner import LogLearner
from workhorse.algorithms.replay_learner import ADAM, adam_step, moved_towards, saturated_share
from workhorse.core.algorithm import Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_non_negative
from workhorse.core.types import Transitions
from workhorse.networks.layer_norm_mlp import LayerNormMLP
from workhorse.networks.mlp import MLP

__all__ = ["ReBRAC"]


@configuration
class ReBRAC(LogLearner, TD3):
    """TD3 on normalised critics, with two penalties on leaving the log's actions.

        y = r + gamma (1 - terminated) (min_i Q'_i(s', a') - beta_2 |a' - b'|^2)
        critics:  mean (Q_i(s, a) - y)^2, summed over i
        policy:   mean beta_1 |mu(s) - a|^2 - min_i Q_i(s, mu(s)) / mean |min_i Q_i(s, mu(s))|

    a' is TD3's smoothed action of the target policy, b' what the log did at s'. The critics are `LayerNormMLP`s.

    *At the end of an episode that a clock cut, the log did nothing at s'*; there its last action stands for b', one
    step in hundreds.

    Source: Tarasov et al. 2023, "Revisiting the minimalist approach to offline reinforcement learning" (arXiv
    2305.09836). There beta_1 and beta_2 are tuned for each data set, from 0.001 to 0.1; here one pair is the default.
    Observations are scaled, norms lie before the activations, and weights begin uniform in all layers.
    """

    name = "rebrac"
    summary = "TD3 with normalised critics, held to a log's actions in policy and target"

    hidden: tuple[int, ...] = (256, 256, 256)
    """Units of each hidden layer of every network."""
    batch_size: int = 1024
    """Transitions of an update."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    policy_penalty: float = 0.01
    """Weight beta_1 of the policy's squared distance to the log's action."""
    critic_penalty: float = 0.01
    """Weight beta_2 of the target action's squared distance to what the log did next."""

    def validate(self) -> None:
        super().validate()
        require_non_negative("ReBRAC", policy_penalty=self.policy_penalty, critic_penalty=self.critic_penalty)

    def init(self, key: Key) -> TD3State:
        keys = jax.random.split(key, 3)
        size, actions = self.spec.observation.size, self.action_size
        policy = MLP.uniform(keys[0], (size, *self.hidden, actions))
        networks = tuple(LayerNormMLP.uniform(one, (size + actions, *self.hidden, 1)) for one in keys[1:])
        optimisers: Any = (ADAM.init(policy), ADAM.init(networks))  # type: ignore[arg-type]
        critics = cast(tuple[MLP, MLP], networks)  # TD3 only calls them
        return TD3State(policy, critics, policy, critics, optimisers, **self.counters())

    def target(
        self, state: TD3State, experience: Transitions, next_obs: Float[Array, "N D"], key: Key
    ) -> Float[Array, "N"]:
        """Return y, from scaled successors."""
        chosen = self.smoothed(state, next_obs, key)
        away = jnp.square(chosen - experience.next_action.reshape(chosen.shape)).sum(-1)
        value = jnp.minimum(*values(state.target_critics, next_obs, chosen))
        ahead = value - jnp.asarray(self.critic_penalty, jnp.float32) * away
        return jnp.asarray(self.reward_scale, jnp.float32) * experience.reward + experience.discount * ahead

    def _policy(
        self, state: TD3State, obs: Float[Array, "N D"], action: Float[Array, "N A"]
    ) -> tuple[TD3State, Metrics]:
        """Return the state after a step of the policy, and one of the targets."""

        def loss(policy: MLP) -> tuple[Array, tuple[Array, Array]]:
            chosen = jnp.tanh(jax.vmap(policy)(obs))
            square = jnp.square(chosen - action)
            value = jnp.minimum(*values(state.critics, obs, chosen))
            size = jax.lax.stop_gradient(jnp.abs(value).mean() + jnp.float32(1e-8))
            penalty = jnp.asarray(self.policy_penalty, jnp.float32) * square.sum(-1)
            return (penalty - value / size).mean(), (chosen, square.mean())

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
