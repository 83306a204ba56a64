"""Advantage-weighted actor-critic: critics of the policy's own actions, and a policy taught the log's better ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from workhorse.algorithms.actor_critic.td3 import values
from workhorse.algorithms.offline.cloner import AdvantageCloner, ClonedPolicy
from workhorse.algorithms.replay_learner import ADAM, adam_step, moved_towards
from workhorse.core.algorithm import Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.types import Moments, Transitions
from workhorse.math.return_range import ReturnRange
from workhorse.networks.mlp import MLP

__all__ = ["AWAC"]


class AWACState(NamedTuple):
    """The whole state.

    Attributes:
        policy: that is taught.
        critics: two, from observation and action to a value.
        target_critics: that follow them.
        optimisers: of policy and critics.
        returns: range by which rewards are scaled.
        observations, env_steps, updates: see `ReplayLearner`.
    """

    policy: ClonedPolicy
    critics: tuple[MLP, MLP]
    target_critics: tuple[MLP, MLP]
    optimisers: tuple[Any, Any]
    returns: ReturnRange
    observations: Moments
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


@configuration
class AWAC(AdvantageCloner):
    """Two critics of the policy's own actions, and a policy taught the log's actions by their advantage over them.

        y = f r + gamma (1 - terminated) min_i Q'_i(s', a'),   a' ~ pi(.|s')
        critics:  mean (Q_i(s, a) - y)^2, summed over i
        A(s, a) = min_i Q_i(s, a) - min_i Q_i(s, b),   b ~ pi(.|s)
        policy:   mean min(exp(beta A(s, a)), 100) l(s, a)

    l is of `Cloner`, f scales rewards. The policy never climbs a critic: it only leans towards actions of the log.

    Source: Nair et al. 2020, "AWAC: accelerating online reinforcement learning with offline datasets" (arXiv
    2006.09359). There the weights of a batch sum to one; here each is clipped, as in later code. Our spread of the
    policy does not depend on the observation.
    """

    name = "awac"
    summary = "advantage-weighted actor-critic: critics of its own actions, taught the log's better ones"

    inverse_temperature: float = 1.0
    """Factor beta of an advantage in the exponent of its weight; 0 for weights that are all alike."""

    def init(self, key: Key) -> AWACState:
        keys = jax.random.split(key, 3)
        sizes = (self.spec.observation.size + self.action_size, *self.hidden, 1)
        policy = self.new_policy(keys[0])
        first, second = (MLP.uniform(one, sizes) for one in keys[1:])
        critics = (first, second)
        optimisers = (ADAM.init(policy), ADAM.init(critics))  # type: ignore[arg-type]
        return AWACState(policy, critics, critics, optimisers, **self.counters())

    def learn(
        self, state: AWACState, experience: Transitions, key: Key
    ) -> tuple[AWACState, Float[Array, "N"], Metrics]:
        """Do one update of the critics and then of the policy on a batch."""
        obs, next_obs = self.both_seen(state, experience)
        next_key, policy_key = jax.random.split(key)
        action, target = self.as_input(experience.action), self.target(state, experience, next_obs, next_key)

        def loss(critics: tuple[MLP, MLP]) -> tuple[Array, tuple[Array, Array]]:
            first, second = values(critics, obs, action)
            errors = first - target, second - target
            return (experience.weight * (jnp.square(errors[0]) + jnp.square(errors[1]))).mean(), (first, errors[0])

        policy_memory, critic_memory = state.optimisers
        gradient, (value, error) = jax.grad(loss, has_aux=True)(state.critics)
        critics, critic_memory = adam_step(state.critics, gradient, critic_memory, self.learning_rate)
        advantage = self.advantage(critics, state.policy, obs, action, policy_key)
        weight, of_weights = self.weights(advantage)
        policy, policy_memory, _, of_policy = self.taught(
            state.policy, policy_memory, obs, experience.action, experience.weight * weight, self.learning_rate
        )
        after = state._replace(
            policy=policy,
            critics=critics,
            target_critics=moved_towards(state.target_critics, critics, self.target_rate),
            optimisers=(policy_memory, critic_memory),
            updates=state.updates + 1,
        )
        metrics = {
            "value": value.mean(), "value_max": value.max(), "target": target.mean(),
            "critic_loss": jnp.square(error).mean(), "critic_gradient_norm": optax.tree.norm(gradient),
            "advantage": advantage.mean(), "reward_factor": self.factor(state),
        }  # fmt: skip
        return after, jnp.abs(error), metrics | of_weights | of_policy

    def target(
        self, state: AWACState, experience: Transitions, next_obs: Float[Array, "N D"], key: Key
    ) -> Float[Array, "N"]:
        """Return y, from scaled successors."""
        ahead = jnp.minimum(*values(state.target_critics, next_obs, self.drawn_inputs(state.policy, next_obs, key)))
        return self.factor(state) * experience.reward + experience.discount * ahead

    def advantage(
        self, critics: tuple[MLP, MLP], policy: ClonedPolicy, obs: Float[Array, "N D"], action: Array, key: Key
    ) -> Float[Array, "N"]:
        """Return A of actions, as critics read them, at scaled observations."""
        own = self.drawn_inputs(policy, obs, key)
        return jnp.minimum(*values(critics, obs, action)) - jnp.minimum(*values(critics, obs, own))

    def action_value(self, state: AWACState, obs: Array, action: Array) -> Float[Array, ""]:
        """Return the smaller of both critics' values, as targets take it."""
        seen = self.seen(self.scaling(state.observations), obs)[None]
        return jnp.minimum(*values(state.critics, seen, self.as_input(action[None])))[0] / self.factor(state)
