"""Soft actor-critic: a stochastic policy that earns rewards and entropy, from a replay."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from workhorse.algorithms.replay_learner import (
    ADAM,
    ReplayLearner,
    adam_step,
    moved_towards,
    random_action,
    saturated_share,
    where_due,
)
from workhorse.core.algorithm import Carry, Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import PolicyNetwork, Squash
from workhorse.core.ranges import require_positive
from workhorse.core.types import Moments, Transitions
from workhorse.math.distributions import TanhGaussian
from workhorse.networks.layers import mlp_layers, scaled_layers
from workhorse.networks.mlp import MLP

__all__ = ["SAC"]

LOG_STD = (-5.0, 2.0)
"""Range of the logarithm of the standard deviation before squashing."""


class SACState(NamedTuple):
    """The whole state.

    Attributes:
        policy: outputs means, then logarithms of standard deviations, 2 A numbers.
        critics: two, from observation and action to a value.
        targets: what the critics are trained towards.
        log_temperature: logarithm of alpha.
        optimisers: of policy, critics and temperature.
        observations, env_steps, updates: see `ReplayLearner`.
    """

    policy: MLP
    critics: tuple[MLP, MLP]
    targets: tuple[MLP, MLP]
    log_temperature: Float[Array, ""]
    optimisers: tuple[Any, Any, Any]
    observations: Moments
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


class SACActor(NamedTuple):
    policy: MLP
    scaling: tuple[Float[Array, "D"], Float[Array, "D"]]
    is_warming_up: Bool[Array, ""]


@configuration
class SAC(ReplayLearner):
    """Two critics by the smaller of two target critics, a policy up the smaller critic, a temperature by its entropy.

        y = r + gamma (1 - terminated) (min_i Q'_i(s', a') - alpha log pi(a'|s')),   a' ~ pi(.|s')
        critics:      mean (Q_i(s, a) - y)^2, summed over i
        policy:       mean (alpha log pi(a|s) - min_i Q_i(s, a)),   a ~ pi(.|s), reparameterised
        temperature:  mean (-log alpha (log pi(a|s) + H*))

    Actions are tanh of a Gaussian whose mean and log standard deviation a network gives, in [-1, 1]; the entropy is of
    the action in that space, whatever the task's bounds.

    Source: Haarnoja et al. 2018, "Soft actor-critic algorithms and applications" (arXiv 1812.05905). The step of the
    temperature is along -log alpha, as in the code published with it, and the log standard deviation is bounded
    smoothly to [-5, 2].
    """

    name = "sac"
    summary = "soft actor-critic: stochastic policy and two critics, from a replay"
    only_at_start = ("temperature",)
    takes = "box"
    is_stochastic = True

    target_entropy: float | None = None
    """Entropy H* of the policy, in nats, that the temperature steers to; None for minus the number of components."""
    temperature: float = 1.0
    """Weight alpha of the entropy at the start."""
    learn_temperature: bool = True
    """Steer the temperature; else it stays as it is."""
    policy_every: int = 1
    """Updates of the critics for one of the policy and the temperature."""

    def validate(self) -> None:
        super().validate()
        require_positive("SAC", temperature=self.temperature, policy_every=self.policy_every)
        if self.target_entropy is not None:
            if not self.learn_temperature:
                raise UsageError(
                    "SAC.target_entropy has no effect without learn_temperature: leave one of the two out."
                )
            highest = self.action_size * float(jnp.log(2.0))
            if not self.target_entropy < highest:
                raise UsageError(
                    f"SAC.target_entropy must be below {highest:.3f} nats, the entropy of uniform actions in [-1, 1]: "
                    f"got {self.target_entropy}."
                )

    @property
    def wanted_entropy(self) -> Float[Array, ""]:
        """The entropy H*."""
        return jnp.asarray(-self.action_size if self.target_entropy is None else self.target_entropy, jnp.float32)

    @property
    def policy_rate(self) -> Float[Array, ""]:
        """Step size of the policy and the temperature."""
        return jnp.asarray(self.learning_rate, jnp.float32)

    def pessimistic(self, critics: Any, obs: Float[Array, "N D"], action: Float[Array, "N A"]) -> Float[Array, "N"]:
        """Return the smallest of the critics' values of actions."""
        return jnp.minimum(*values(critics, obs, action))

    def climbed(self, critics: Any, obs: Float[Array, "N D"], action: Float[Array, "N A"]) -> Float[Array, "N"]:
        """Return what the policy climbs: the pessimistic value."""
        return self.pessimistic(critics, obs, action)

    # --- acting ---

    def init(self, key: Key) -> SACState:
        keys = jax.random.split(key, 3)
        size, actions = self.spec.observation.size, self.action_size
        policy = MLP.uniform(keys[0], (size, *self.hidden, 2 * actions))
        first, second = (MLP.uniform(one, (size + actions, *self.hidden, 1)) for one in keys[1:])
        critics, log_temperature = (first, second), jnp.log(jnp.asarray(self.temperature, jnp.float32))
        optimisers: Any = tuple(map(ADAM.init, (policy, critics, log_temperature)))  # type: ignore[arg-type]
        return SACState(policy, critics, critics, log_temperature, optimisers, **self.counters())

    def actor(self, state: SACState) -> SACActor:
        return SACActor(state.policy, self.scaling(state.observations), self.is_warming_up(state))

    def act(
        self, actor: SACActor, carry: Carry, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Array, Carry, tuple[()]]:
        """Draw an action where `explore`, uniformly during the warm-up; else take tanh of the mean."""
        distribution = TanhGaussian.bounded(actor.policy(self.seen(actor.scaling, obs)), *LOG_STD)
        if not explore:
            return distribution.mode().reshape(self.spec.action.shape), carry, ()  # type: ignore[union-attr]
        drawn, _ = distribution.sample(key)
        drawn = drawn.reshape(self.spec.action.shape)  # type: ignore[union-attr]
        return jnp.where(actor.is_warming_up, random_action(self.spec, key), drawn), carry, ()

    def policy_layers(self, actor: SACActor) -> PolicyNetwork:
        *hidden, last = actor.policy.weights
        *biases, bias = actor.policy.biases
        count = self.action_size
        means = MLP((*hidden, last[:count]), (*biases, bias[:count]), actor.policy.activation)
        scaling = self.artefact_scaling(actor.scaling)
        return scaled_layers(self.spec.observation, *scaling, (*mlp_layers(means), Squash()))

    # --- learning ---

    def learn(self, state: SACState, experience: Transitions, key: Key) -> tuple[SACState, Float[Array, "N"], Metrics]:
        """Do one update of everything on a batch."""
        obs, next_obs = self.both_seen(state, experience)
        action = experience.action.reshape(len(obs), -1)
        next_key, policy_key = jax.random.split(key)
        target = self.target(state, experience, next_obs, next_key)
        critics, critic_memory, error, metrics = self._critics(state, obs, action, target, experience.weight)
        state = state._replace(critics=critics, updates=state.updates + 1)

        state, of_policy = where_due(
            state, state.updates, self.policy_every, lambda state: self._policy(state, obs, policy_key)
        )
        policy_memory, _, temperature_memory = state.optimisers
        state = state._replace(
            targets=moved_towards(state.targets, state.critics, self.target_rate),
            optimisers=(policy_memory, critic_memory, temperature_memory),
        )
        return state, error, metrics | of_policy | {"temperature": jnp.exp(state.log_temperature)}

    def target(
        self, state: SACState, experience: Transitions, next_obs: Float[Array, "N D"], key: Key
    ) -> Float[Array, "N"]:
        """Return y, from scaled successors."""
        noise = jax.random.normal(key, (len(next_obs), self.action_size), jnp.float32)
        next_action, log_prob = jax.vmap(_at)(jax.vmap(state.policy)(next_obs), noise)
        value = self.pessimistic(state.targets, next_obs, next_action)
        reward = jnp.float32(self.reward_scale) * experience.reward
        return reward + experience.discount * (value - jnp.exp(state.log_temperature) * log_prob)

    def action_value(self, state: SACState, obs: Array, action: Array) -> Float[Array, ""]:
        """Return the smaller of both critics' soft values."""
        seen = self.seen(self.scaling(state.observations), obs)[None]
        value = self.climbed(state.critics, seen, action.reshape(1, -1).astype(jnp.float32))[0]
        return value / jnp.asarray(self.reward_scale, jnp.float32)

    def entropy_bonus(self, state: SACState, obs: Array, key: Key) -> Float[Array, ""]:
        seen = self.seen(self.scaling(state.observations), obs)
        _, log_prob = TanhGaussian.bounded(state.policy(seen), *LOG_STD).sample(key)
        return -jnp.exp(state.log_temperature) * log_prob / jnp.asarray(self.reward_scale, jnp.float32)

    def _critics(
        self, state: SACState, obs: Array, action: Array, target: Array, weight: Array
    ) -> tuple[tuple[MLP, MLP], Any, Float[Array, "N"], Metrics]:
        """Return the critics after a step, the optimiser's memory, each transition's error, and metrics."""

        def loss(critics: tuple[MLP, MLP]) -> tuple[Array, tuple[Array, Array]]:
            first, second = values(critics, obs, action)
            errors = first - target, second - target
            return (weight * (jnp.square(errors[0]) + jnp.square(errors[1]))).mean(), (first, errors[0])

        gradient, (value, error) = jax.grad(loss, has_aux=True)(state.critics)
        critics, memory = adam_step(state.critics, gradient, state.optimisers[1], self.learning_rate)
        metrics = {
            "value": value.mean(), "value_max": value.max(), "target": target.mean(),
            "critic_loss": jnp.square(error).mean(), "critic_gradient_norm": optax.tree.norm(gradient),
        }  # fmt: skip
        return critics, memory, jnp.abs(error), metrics

    def _policy(self, state: SACState, obs: Float[Array, "N D"], key: Key) -> tuple[SACState, Metrics]:
        """Return the state after a step of the policy, and then of the temperature."""
        noise = jax.random.normal(key, (len(obs), self.action_size), jnp.float32)
        temperature = jnp.exp(state.log_temperature)

        def loss(policy: MLP) -> tuple[Array, tuple[Array, Array]]:
            action, log_prob = jax.vmap(_at)(jax.vmap(policy)(obs), noise)
            value = self.climbed(state.critics, obs, action)
            return (temperature * log_prob - value).mean(), (log_prob, action)

        (total, (log_prob, action)), gradient = jax.value_and_grad(loss, has_aux=True)(state.policy)
        policy_memory, critic_memory, temperature_memory = state.optimisers
        policy, policy_memory = adam_step(state.policy, gradient, policy_memory, self.policy_rate)
        log_temperature = state.log_temperature
        if self.learn_temperature:
            slope = -(log_prob.mean() + self.wanted_entropy)
            log_temperature, temperature_memory = adam_step(
                log_temperature, slope, temperature_memory, self.policy_rate
            )
        after = state._replace(
            policy=policy,
            log_temperature=log_temperature,
            optimisers=(policy_memory, critic_memory, temperature_memory),
        )
        return after, {
            "policy_loss": total,
            "entropy": -log_prob.mean(),
            "saturated_actions": saturated_share(action),
        }


def _at(outputs: Float[Array, "out"], noise: Float[Array, "A"]) -> tuple[Float[Array, "A"], Float[Array, ""]]:
    return TanhGaussian.bounded(outputs, *LOG_STD).at(noise)


def values(
    critics: tuple[MLP, MLP], obs: Float[Array, "N D"], action: Float[Array, "N A"]
) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
    """Return both critics' values of actions."""
    both = jnp.concatenate([obs, action], axis=-1)
    first, second = critics
    return jax.vmap(first)(both)[:, 0], jax.vmap(second)(both)[:, 0]
