"""Twin delayed deterministic policy gradient: two critics, smoothed targets, a policy that moves less often."""

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
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.types import Moments, Transitions
from workhorse.networks.layers import mlp_layers, scaled_layers
from workhorse.networks.mlp import MLP

__all__ = ["TD3"]


class TD3State(NamedTuple):
    """The whole state.

    Attributes:
        policy: from observation to A numbers, of which tanh is the action.
        critics: two, from observation and action to a value.
        target_policy, target_critics: what the target is made of; they follow those above.
        optimisers: of policy and critics.
        observations, env_steps, updates: see `ReplayLearner`.
    """

    policy: MLP
    critics: tuple[MLP, MLP]
    target_policy: MLP
    target_critics: tuple[MLP, MLP]
    optimisers: tuple[Any, Any]
    observations: Moments
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


class TD3Actor(NamedTuple):
    policy: MLP
    scaling: tuple[Float[Array, "D"], Float[Array, "D"]]
    is_warming_up: Bool[Array, ""]


@configuration
class TD3(ReplayLearner):
    """Two critics by the smaller of two target critics at a noisy action, and a policy that moves every d-th update.

        a' = clip(mu'(s') + clip(e, -c, c), -1, 1),   e ~ N(0, sigma'^2)
        y  = r + gamma (1 - terminated) min_i Q'_i(s', a')
        critics:  mean (Q_i(s, a) - y)^2, summed over i
        policy:   mean -Q_1(s, mu(s)),   mu(s) = tanh(f(s))

    The targets follow in those updates in which the policy moves, and only then. The action that the task is sent is
    clip(mu(s) + x, -1, 1), x ~ N(0, sigma^2).

    Source: Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods" (arXiv 1802.09477).
    Noise is in units of half an action's range, whatever the task's bounds, as in the code published with it.
    """

    name = "td3"
    summary = "deterministic policy, two critics with smoothed targets, from a replay"
    takes = "box"

    noise_std: float = 0.1
    """Standard deviation sigma of exploration noise, in units of half the range of an action."""
    target_noise_std: float = 0.2
    """Standard deviation sigma' of the noise on the target policy's actions."""
    target_noise_clip: float = 0.5
    """Bound c of that noise."""
    policy_every: int = 2
    """Updates d of the critics for one of the policy and the targets."""

    def validate(self) -> None:
        super().validate()
        require_positive("TD3", policy_every=self.policy_every)
        require_non_negative(
            "TD3", noise_std=self.noise_std, target_noise_std=self.target_noise_std,
            target_noise_clip=self.target_noise_clip,
        )  # fmt: skip
        if self.target_noise_std == 0 and self.target_noise_clip != TD3.target_noise_clip:
            raise UsageError("TD3.target_noise_clip has no effect without target_noise_std: leave one of the two out.")

    # --- acting ---

    def init(self, key: Key) -> TD3State:
        keys = jax.random.split(key, 3)
        size, actions = self.spec.observation.size, self.action_size
        policy = MLP.uniform(keys[0], (size, *self.hidden, actions))
        first, second = (MLP.uniform(one, (size + actions, *self.hidden, 1)) for one in keys[1:])
        critics = (first, second)
        optimisers = (ADAM.init(policy), ADAM.init(critics))  # type: ignore[arg-type]
        return TD3State(policy, critics, policy, critics, optimisers, **self.counters())

    def actor(self, state: TD3State) -> TD3Actor:
        return TD3Actor(state.policy, self.scaling(state.observations), self.is_warming_up(state))

    def act(
        self, actor: TD3Actor, carry: Carry, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Array, Carry, tuple[()]]:
        """Take the policy's action, with noise where `explore`; draw it uniformly during the warm-up."""
        shape = self.spec.action.shape  # type: ignore[union-attr]
        action = jnp.tanh(actor.policy(self.seen(actor.scaling, obs)))
        if not explore:
            return action.reshape(shape), carry, ()
        noise_key, random_key = jax.random.split(key)
        drawn = jax.random.normal(noise_key, action.shape, jnp.float32)
        noisy = jnp.clip(action + jnp.asarray(self.noise_std, jnp.float32) * drawn, -1.0, 1.0).reshape(shape)
        return jnp.where(actor.is_warming_up, random_action(self.spec, random_key), noisy), carry, ()

    def policy_layers(self, actor: TD3Actor) -> PolicyNetwork:
        scaling = self.artefact_scaling(actor.scaling)
        return scaled_layers(self.spec.observation, *scaling, (*mlp_layers(actor.policy), Squash()))

    # --- learning ---

    def learn(self, state: TD3State, experience: Transitions, key: Key) -> tuple[TD3State, Float[Array, "N"], Metrics]:
        """Do one update of the critics on a batch and, where it is due, one of the policy and the targets."""
        obs, next_obs = self.both_seen(state, experience)
        target = self.target(state, experience, next_obs, key)
        state, error, metrics = self._critics(state, experience, obs, target)

        action = experience.action.reshape(len(obs), -1)
        state, of_policy = where_due(
            state, state.updates, self.policy_every, lambda state: self._policy(state, obs, action)
        )
        return state, error, metrics | of_policy

    def target(
        self, state: TD3State, experience: Transitions, next_obs: Float[Array, "N D"], key: Key
    ) -> Float[Array, "N"]:
        """Return y, from scaled successors."""
        value = jnp.minimum(*values(state.target_critics, next_obs, self.smoothed(state, next_obs, key)))
        return jnp.asarray(self.reward_scale, jnp.float32) * experience.reward + experience.discount * value

    def action_value(self, state: TD3State, obs: Array, action: Array) -> Float[Array, ""]:
        """Return the smaller of both critics' values, as targets take it."""
        seen = self.seen(self.scaling(state.observations), obs)[None]
        value = jnp.minimum(*values(state.critics, seen, action.reshape(1, -1).astype(jnp.float32)))[0]
        return value / jnp.asarray(self.reward_scale, jnp.float32)

    def smoothed(self, state: TD3State, next_obs: Float[Array, "N D"], key: Key) -> Float[Array, "N A"]:
        """Return a', the target policy's actions with noise."""
        spread, bound = (jnp.asarray(one, jnp.float32) for one in (self.target_noise_std, self.target_noise_clip))
        noise = spread * jax.random.normal(key, (len(next_obs), self.action_size), jnp.float32)
        return jnp.clip(jnp.tanh(jax.vmap(state.target_policy)(next_obs)) + jnp.clip(noise, -bound, bound), -1.0, 1.0)

    def _critics(
        self, state: TD3State, experience: Transitions, obs: Float[Array, "N D"], target: Float[Array, "N"]
    ) -> tuple[TD3State, Float[Array, "N"], Metrics]:
        """Return the state after a step of the critics, each transition's error, and metrics."""
        action = experience.action.reshape(len(obs), -1)

        def loss(critics: tuple[MLP, MLP]) -> tuple[Array, tuple[Array, Array]]:
            first, second = values(critics, obs, action)
            errors = first - target, second - target
            return (experience.weight * (jnp.square(errors[0]) + jnp.square(errors[1]))).mean(), (first, errors[0])

        policy_memory, critic_memory = state.optimisers
        gradient, (value, error) = jax.grad(loss, has_aux=True)(state.critics)
        critics, critic_memory = adam_step(state.critics, gradient, critic_memory, self.learning_rate)
        after = state._replace(critics=critics, optimisers=(policy_memory, critic_memory), updates=state.updates + 1)
        return after, jnp.abs(error), {
            "value": value.mean(), "value_max": value.max(), "target": target.mean(),
            "critic_loss": jnp.square(error).mean(), "critic_gradient_norm": optax.tree.norm(gradient),
        }  # fmt: skip

    def _policy(
        self, state: TD3State, obs: Float[Array, "N D"], action: Float[Array, "N A"]
    ) -> tuple[TD3State, Metrics]:
        """Return the state after a step of the policy up the first critic, and one of the targets.

        The batch's own actions are for algorithms that stay near them.
        """

        def loss(policy: MLP) -> tuple[Array, Array]:
            chosen = jnp.tanh(jax.vmap(policy)(obs))
            return -value_of(state.critics[0], obs, chosen).mean(), chosen

        (total, chosen), gradient = jax.value_and_grad(loss, has_aux=True)(state.policy)
        policy_memory, critic_memory = state.optimisers
        policy, policy_memory = adam_step(state.policy, gradient, policy_memory, self.learning_rate)
        after = state._replace(
            policy=policy,
            target_policy=moved_towards(state.target_policy, policy, self.target_rate),
            target_critics=moved_towards(state.target_critics, state.critics, self.target_rate),
            optimisers=(policy_memory, critic_memory),
        )
        saturated = saturated_share(chosen)
        return after, {"policy_loss": total, "saturated_actions": saturated}


def value_of(critic: MLP, obs: Float[Array, "N D"], action: Float[Array, "N A"]) -> Float[Array, "N"]:
    """Return a critic's values of actions."""
    return jax.vmap(critic)(jnp.concatenate([obs, action], axis=-1))[:, 0]


def values(
    critics: tuple[MLP, MLP], obs: Float[Array, "N D"], action: Float[Array, "N A"]
) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
    """Return both critics' values of actions."""
    return value_of(critics[0], obs, action), value_of(critics[1], obs, action)
