"""Deep deterministic policy gradient: a deterministic policy that climbs a learnt value, from a replay."""

from typing import Any, Literal, NamedTuple

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
)
from workhorse.core.algorithm import Actor, Carry, Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import PolicyNetwork, Squash
from workhorse.core.ranges import require_non_negative
from workhorse.core.types import Moments, Transitions
from workhorse.networks.layers import mlp_layers, scaled_layers
from workhorse.networks.mlp import MLP

__all__ = ["DDPG"]


class DDPGState(NamedTuple):
    """The whole state.

    Attributes:
        policy: from observation to A numbers, of which tanh is the action.
        critic: from observation and action to a value.
        target_policy, target_critic: what the target is made of; they follow the two above.
        optimisers: of policy and critic.
        observations, env_steps, updates: see `ReplayLearner`.
    """

    policy: MLP
    critic: MLP
    target_policy: MLP
    target_critic: MLP
    optimisers: tuple[Any, Any]
    observations: Moments
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


class DDPGActor(NamedTuple):
    policy: MLP
    scaling: tuple[Float[Array, "D"], Float[Array, "D"]]
    is_warming_up: Bool[Array, ""]


@configuration
class DDPG(ReplayLearner):
    """One critic, trained to the value of the target policy's action, and a policy up the critic.

        y = r + gamma (1 - terminated) Q'(s', mu'(s'))
        critic:   mean (Q(s, a) - y)^2
        policy:   mean -Q(s, mu(s)),   mu(s) = tanh(f(s))

    The action that the task is sent is clip(mu(s) + x, -1, 1). x is drawn anew at each step ("gaussian"), or it is an
    Ornstein-Uhlenbeck process ("ou"), which each slot remembers and which starts at 0 in every episode:

        x_0 = 0,   x_t = (1 - theta) x_{t-1} + sigma e_t,   e_t ~ N(0, 1)

    *Its standard deviation grows to sigma / sqrt(theta (2 - theta))*: 1.9 sigma for theta = 0.15.

    Source: Lillicrap et al. 2016, "Continuous control with deep reinforcement learning" (arXiv 1509.02971). Differs
    from it by one learning rate for both networks, no weight decay, no batch normalisation, and the action as an input
    of the critic's first layer.
    """

    name = "ddpg"
    summary = "deterministic policy and one critic, from a replay"
    takes = "box"

    noise: Literal["gaussian", "ou", "none"] = "gaussian"
    """Exploration noise: drawn anew at each step, correlated in time, or none."""
    noise_std: float = 0.1
    """Standard deviation sigma of what is drawn at each step, in units of half the range of an action."""
    noise_reversion: float = 0.15
    """Share theta of the correlated noise that is lost at each step."""

    def validate(self) -> None:
        super().validate()
        require_non_negative("DDPG", noise_std=self.noise_std)
        if not 0 < self.noise_reversion <= 1:
            raise UsageError(f"DDPG.noise_reversion must be in (0, 1]: got {self.noise_reversion}.")
        if self.noise != "ou" and self.noise_reversion != DDPG.noise_reversion:
            raise UsageError(
                f'DDPG.noise_reversion has no effect with noise="{self.noise}": leave it out, or set noise to ou.'
            )
        if self.noise == "none" and self.noise_std != DDPG.noise_std:
            raise UsageError('DDPG.noise_std has no effect with noise="none": leave one of the two out.')

    # --- acting ---

    def init(self, key: Key) -> DDPGState:
        policy_key, critic_key = jax.random.split(key)
        size, actions = self.spec.observation.size, self.action_size
        policy = MLP.uniform(policy_key, (size, *self.hidden, actions))
        critic = MLP.uniform(critic_key, (size + actions, *self.hidden, 1))
        optimisers = (ADAM.init(policy), ADAM.init(critic))  # type: ignore[arg-type]
        return DDPGState(policy, critic, policy, critic, optimisers, **self.counters())

    def actor(self, state: DDPGState) -> DDPGActor:
        return DDPGActor(state.policy, self.scaling(state.observations), self.is_warming_up(state))

    def begin(self, actor: Actor, slot: Int[Array, ""]) -> Carry:
        """Return the noise at the start of an episode: zero where it is correlated, else nothing."""
        return jnp.zeros(self.action_size, jnp.float32) if self.noise == "ou" else ()

    def act(
        self, actor: DDPGActor, carry: Carry, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Array, Carry, tuple[()]]:
        """Take the policy's action, with noise where `explore`; draw it uniformly during the warm-up."""
        shape = self.spec.action.shape  # type: ignore[union-attr]
        action = jnp.tanh(actor.policy(self.seen(actor.scaling, obs)))
        if not explore:
            return action.reshape(shape), carry, ()
        noise_key, random_key = jax.random.split(key)
        noise, carry = self.explored(carry, noise_key)
        noisy = jnp.clip(action + noise, -1.0, 1.0).reshape(shape)
        return jnp.where(actor.is_warming_up, random_action(self.spec, random_key), noisy), carry, ()

    def explored(self, carry: Carry, key: Key) -> tuple[Float[Array, "A"], Carry]:
        """Return the noise of a step, and what the slot remembers of it."""
        drawn = jnp.asarray(self.noise_std, jnp.float32) * jax.random.normal(key, (self.action_size,), jnp.float32)
        if self.noise == "ou":
            drawn = (1 - jnp.asarray(self.noise_reversion, jnp.float32)) * carry + drawn
            return drawn, drawn
        return (drawn if self.noise == "gaussian" else jnp.zeros_like(drawn)), carry

    def policy_layers(self, actor: DDPGActor) -> PolicyNetwork:
        scaling = self.artefact_scaling(actor.scaling)
        return scaled_layers(self.spec.observation, *scaling, (*mlp_layers(actor.policy), Squash()))

    # --- learning ---

    def learn(
        self, state: DDPGState, experience: Transitions, key: Key
    ) -> tuple[DDPGState, Float[Array, "N"], Metrics]:
        """Do one update of everything on a batch: the critic, then the policy up the new critic, then the targets."""
        obs, next_obs = self.both_seen(state, experience)
        action = experience.action.reshape(len(obs), -1)
        target = self.target(state, experience, next_obs)

        def critic_loss(critic: MLP) -> tuple[Array, tuple[Array, Array]]:
            value = value_of(critic, obs, action)
            error = value - target
            return (experience.weight * jnp.square(error)).mean(), (value, error)

        policy_memory, critic_memory = state.optimisers
        slope, (value, error) = jax.grad(critic_loss, has_aux=True)(state.critic)
        critic, critic_memory = adam_step(state.critic, slope, critic_memory, self.learning_rate)

        def policy_loss(policy: MLP) -> tuple[Array, Array]:
            chosen = jnp.tanh(jax.vmap(policy)(obs))
            return -value_of(critic, obs, chosen).mean(), chosen

        (loss, chosen), upward = jax.value_and_grad(policy_loss, has_aux=True)(state.policy)
        policy, policy_memory = adam_step(state.policy, upward, policy_memory, self.learning_rate)
        after = state._replace(
            policy=policy,
            critic=critic,
            target_policy=moved_towards(state.target_policy, policy, self.target_rate),
            target_critic=moved_towards(state.target_critic, critic, self.target_rate),
            optimisers=(policy_memory, critic_memory),
            updates=state.updates + 1,
        )
        metrics = {
            "value": value.mean(), "value_max": value.max(), "target": target.mean(),
            "critic_loss": jnp.square(error).mean(), "critic_gradient_norm": optax.tree.norm(slope),
            "policy_loss": loss, "saturated_actions": saturated_share(chosen),
        }  # fmt: skip
        return after, jnp.abs(error), metrics

    def action_value(self, state: DDPGState, obs: Array, action: Array) -> Float[Array, ""]:
        seen = self.seen(self.scaling(state.observations), obs)[None]
        value = value_of(state.critic, seen, action.reshape(1, -1).astype(jnp.float32))[0]
        return value / jnp.asarray(self.reward_scale, jnp.float32)

    def target(self, state: DDPGState, experience: Transitions, next_obs: Float[Array, "N D"]) -> Float[Array, "N"]:
        """Return y, from scaled successors."""
        value = value_of(state.target_critic, next_obs, jnp.tanh(jax.vmap(state.target_policy)(next_obs)))
        return jnp.asarray(self.reward_scale, jnp.float32) * experience.reward + experience.discount * value


def value_of(critic: MLP, obs: Float[Array, "N D"], action: Float[Array, "N A"]) -> Float[Array, "N"]:
    """Return a critic's values of actions."""
    return jax.vmap(critic)(jnp.concatenate([obs, action], axis=-1))[:, 0]
