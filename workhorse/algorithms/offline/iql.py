"""Implicit Q-learning: no action outside the log is ever asked for its value."""

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
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_non_negative
from workhorse.core.types import Moments, Transitions
from workhorse.math.return_range import ReturnRange
from workhorse.networks.mlp import MLP

__all__ = ["IQL", "expectile_loss"]


class IQLState(NamedTuple):
    """The whole state.

    Attributes:
        policy: that is taught.
        value: V, from observation to a value.
        critics: two, from observation and action to a value.
        target_critics: that follow them.
        optimisers: of policy, value and critics.
        returns: range by which rewards are scaled.
        observations, env_steps, updates: see `ReplayLearner`.
    """

    policy: ClonedPolicy
    value: MLP
    critics: tuple[MLP, MLP]
    target_critics: tuple[MLP, MLP]
    optimisers: tuple[Any, Any, Any]
    returns: ReturnRange
    observations: Moments
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


@configuration
class IQL(AdvantageCloner):
    """Values by expectile regression on the log's own actions, and a policy taught those with an advantage.

        A(s, a) = min_i Q'_i(s, a) - V(s)
        value:    mean |tau - 1(A < 0)| A^2
        critics:  mean (Q_i(s, a) - f r - gamma (1 - terminated) V(s'))^2, summed over i
        policy:   mean min(exp(beta A(s, a)), 100) l(s, a)

    V is between the mean of the log's actions (tau = 1/2) and the best of them (tau -> 1): a maximum over actions that
    are there, so that none is needed that is not. l is of `Cloner`, f scales rewards. All of an update's parts see the
    same networks, those before it.

    Source: Kostrikov et al. 2021, "Offline reinforcement learning with implicit Q-learning" (arXiv 2110.06169), with
    the settings for locomotion. In the code published with it, policy and critics see the value network after its step.
    """

    name = "iql"
    summary = "implicit Q-learning: expectiles of the log's own actions, and a policy taught the better ones"

    expectile: float = 0.7
    """Expectile tau of the values of the log's actions that V is; 0.5 is their mean."""
    anneal_learning_rate: bool = True
    """Let the policy's learning rate fall to zero along a half cosine over `anneal_env_steps`."""
    anneal_env_steps: int = 0
    """Updates over which it falls; 0 for the budget of the run, or for no fall where it goes on from another run."""

    def validate(self) -> None:
        super().validate()
        require_non_negative("IQL", anneal_env_steps=self.anneal_env_steps)
        if not 0 < self.expectile < 1:
            raise UsageError(f"IQL.expectile must be between 0 and 1, both excluded: got {self.expectile}.")

    def init(self, key: Key) -> IQLState:
        keys = jax.random.split(key, 4)
        size, actions = self.spec.observation.size, self.action_size
        policy, value = self.new_policy(keys[0]), MLP.uniform(keys[1], (size, *self.hidden, 1))
        first, second = (MLP.uniform(one, (size + actions, *self.hidden, 1)) for one in keys[2:])
        critics = (first, second)
        optimisers: Any = tuple(map(ADAM.init, (policy, value, critics)))  # type: ignore[arg-type]
        return IQLState(policy, value, critics, critics, optimisers, **self.counters())

    def rate(self, state: IQLState) -> Float[Array, ""]:
        """Return the policy's learning rate: l (1 + cos(pi t)) / 2, t <= 1 the share of updates that are done."""
        rate = jnp.asarray(self.learning_rate, jnp.float32)
        if not self.anneal_learning_rate or not self.anneal_env_steps:
            return rate
        done = jnp.minimum(state.updates.astype(jnp.float32) / self.anneal_env_steps, 1.0)
        return rate * 0.5 * (1 + jnp.cos(jnp.float32(jnp.pi) * done))

    def learn(self, state: IQLState, experience: Transitions, key: Key) -> tuple[IQLState, Float[Array, "N"], Metrics]:
        """Do one update of everything on a batch; no randomness is needed."""
        obs, next_obs = self.both_seen(state, experience)
        action = self.as_input(experience.action)
        target = self.target(state, experience, next_obs)
        aim = jnp.minimum(*values(state.target_critics, obs, action))
        policy_memory, value_memory, critic_memory = state.optimisers
        value, value_memory, advantage = self._value(state.value, value_memory, obs, aim, experience.weight)
        critics, critic_memory, error, metrics = self._critics(
            state.critics, critic_memory, obs, action, target, experience.weight
        )
        weight, of_weights = self.weights(advantage)
        policy, policy_memory, _, of_policy = self.taught(
            state.policy, policy_memory, obs, experience.action, experience.weight * weight, self.rate(state)
        )
        after = state._replace(
            policy=policy,
            value=value,
            critics=critics,
            target_critics=moved_towards(state.target_critics, critics, self.target_rate),
            optimisers=(policy_memory, value_memory, critic_memory),
            updates=state.updates + 1,
        )
        metrics |= {"advantage": advantage.mean(), "learning_rate": self.rate(state)}
        metrics["reward_factor"] = self.factor(state)
        return after, error, metrics | of_weights | of_policy

    def target(self, state: IQLState, experience: Transitions, next_obs: Float[Array, "N D"]) -> Float[Array, "N"]:
        """Return f r + gamma (1 - terminated) V(s'), from scaled successors."""
        ahead = jax.vmap(state.value)(next_obs)[:, 0]
        return self.factor(state) * experience.reward + experience.discount * ahead

    def action_value(self, state: IQLState, obs: Array, action: Array) -> Float[Array, ""]:
        """Return the smaller of both critics' values."""
        seen = self.seen(self.scaling(state.observations), obs)[None]
        return jnp.minimum(*values(state.critics, seen, self.as_input(action[None])))[0] / self.factor(state)

    def _value(
        self, value: MLP, memory: Any, obs: Float[Array, "N D"], aim: Float[Array, "N"], weight: Float[Array, "N"]
    ) -> tuple[MLP, Any, Float[Array, "N"]]:
        """Return V after a step of its expectile regression, Adam's memory, and the advantages before the step."""
        expectile = jnp.asarray(self.expectile, jnp.float32)

        def loss(value: MLP) -> tuple[Array, Array]:
            advantage = aim - jax.vmap(value)(obs)[:, 0]
            return (weight * expectile_loss(advantage, expectile)).mean(), advantage

        gradient, advantage = jax.grad(loss, has_aux=True)(value)
        value, memory = adam_step(value, gradient, memory, self.learning_rate)
        return value, memory, advantage

    def _critics(
        self, critics: tuple[MLP, MLP], memory: Any, obs: Array, action: Array, target: Array, weight: Array
    ) -> tuple[tuple[MLP, MLP], Any, Float[Array, "N"], Metrics]:
        """Return the critics after a step, Adam's memory, each transition's error, and metrics."""

        def loss(critics: tuple[MLP, MLP]) -> tuple[Array, tuple[Array, Array]]:
            first, second = values(critics, obs, action)
            errors = first - target, second - target
            return (weight * (jnp.square(errors[0]) + jnp.square(errors[1]))).mean(), (first, errors[0])

        gradient, (value, error) = jax.grad(loss, has_aux=True)(critics)
        critics, memory = adam_step(critics, gradient, memory, self.learning_rate)
        return critics, memory, jnp.abs(error), {
            "value": value.mean(), "value_max": value.max(), "target": target.mean(),
            "critic_loss": jnp.square(error).mean(), "critic_gradient_norm": optax.tree.norm(gradient),
        }  # fmt: skip


def expectile_loss(error: Float[Array, "..."], expectile: Float[Array, ""]) -> Float[Array, "..."]:
    """Return |tau - 1(u < 0)| u^2 of errors u = data - estimate: its mean is least at the tau-expectile of the data.

    Example:
        >>> expectile_loss(jnp.array([2.0, -2.0], jnp.float32), jnp.float32(0.75)).tolist()
        [3.0, 1.0]

    Source: Newey and Powell 1987, "Asymmetric least squares estimation and testing".
    """
    return jnp.where(error < 0, 1 - expectile, expectile) * jnp.square(error)
