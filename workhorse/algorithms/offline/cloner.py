"""Bases of the algorithms whose policy is taught the actions of a log: all alike, or the better ones more."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from workhorse.algorithms.offline.log_learner import LogLearner
from workhorse.algorithms.replay_learner import adam_step, random_action, saturated_share
from workhorse.core.algorithm import Actor, Carry, Key, Metrics, State
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import Argmax, PolicyNetwork, Squash
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.spec import Box, Discrete
from workhorse.core.types import Rollout
from workhorse.math.return_range import ReturnRange
from workhorse.networks.layers import mlp_layers, scaled_layers
from workhorse.networks.mlp import MLP

__all__ = ["AdvantageCloner", "ClonedPolicy", "Cloner", "ClonerActor"]

LOG_STD = (-5.0, 2.0)
"""Range of the logarithm of the standard deviation."""

HALF_LOG_2PI = float(0.5 * np.log(2 * np.pi))


class ClonedPolicy(NamedTuple):
    """A policy that is taught actions.

    Attributes:
        network: from observation to A numbers: tanh of them is the mean action, or they are the logits of choices.
        log_std: logarithm of the standard deviation of each component around the mean, whatever the observation, (A,);
            None where the policy has none.
    """

    network: MLP
    log_std: Float[Array, "A"] | None


class ClonerActor(NamedTuple):
    """What acting needs."""

    policy: ClonedPolicy
    scaling: tuple[Float[Array, "D"], Float[Array, "D"]]
    is_warming_up: Bool[Array, ""]


@configuration
class Cloner(LogLearner):
    """Policy that is taught the log's actions by a weighted loss, and acts in the task as it was taught.

        deterministic:  l(s, a) = |tanh f(s) - a|^2 / A
        Gaussian:       l(s, a) = -log N(a; tanh f(s), sigma^2),   sigma of each component, whatever s
        choices:        l(s, a) = -log softmax(f(s))_a

    A state has at least the fields `policy`, `observations`, `env_steps` and `updates`.
    """

    takes: ClassVar[Literal["box", "discrete", "both"]] = "both"

    deterministic: bool = True
    """Teach continuous actions by squared distance; else by the density of a Gaussian around tanh f(s)."""
    noise_std: float = 0.1
    """Standard deviation of exploration noise of a deterministic policy, in units of half the range of an action."""

    def validate(self) -> None:
        super().validate()
        name, cls = type(self).__name__, type(self)
        require_non_negative(name, noise_std=self.noise_std)
        if isinstance(self.spec.action, Discrete) and self.deterministic != cls.deterministic:
            raise UsageError(f"{name}.deterministic has no effect on choices, as {self.spec.task} has: leave it out.")
        if self.noise_std != cls.noise_std and not (self.deterministic and isinstance(self.spec.action, Box)):
            raise UsageError(
                f"{name}.noise_std has no effect on a policy that is drawn from: leave it out, or set deterministic on "
                "a task with continuous actions."
            )

    # --- acting ---

    def new_policy(self, key: Key) -> ClonedPolicy:
        """Return the policy before the first update."""
        network = MLP.uniform(key, (self.spec.observation.size, *self.hidden, self.action_size))
        has_spread = isinstance(self.spec.action, Box) and not self.deterministic
        return ClonedPolicy(network, jnp.zeros(self.action_size, jnp.float32) if has_spread else None)

    def actor(self, state: State) -> ClonerActor:
        return ClonerActor(state.policy, self.scaling(state.observations), self.is_warming_up(state))

    def act(
        self, actor: Actor, carry: Carry, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Array, Carry, tuple[()]]:
        """Take the mean or the likeliest action; draw one where `explore`, uniformly during the warm-up."""
        outputs = actor.policy.network(self.seen(actor.scaling, obs))
        if isinstance(self.spec.action, Discrete):
            likeliest = jnp.argmax(outputs)
            if not explore:
                return likeliest, carry, ()
            policy_key, random_key = jax.random.split(key)
            drawn = jax.random.categorical(policy_key, outputs)
            return jnp.where(actor.is_warming_up, random_action(self.spec, random_key), drawn), carry, ()
        shape = self.spec.action.shape  # type: ignore[union-attr]
        if not explore:
            return jnp.tanh(outputs).reshape(shape), carry, ()
        policy_key, random_key = jax.random.split(key)
        drawn = self.drawn(actor.policy, outputs, policy_key).reshape(shape)
        return jnp.where(actor.is_warming_up, random_action(self.spec, random_key), drawn), carry, ()

    def drawn(self, policy: ClonedPolicy, outputs: Float[Array, "*N A"], key: Key) -> Float[Array, "*N A"]:
        """Draw continuous actions around tanh of the outputs, within their bounds."""
        std = jnp.asarray(self.noise_std, jnp.float32) if policy.log_std is None else jnp.exp(_bounded(policy.log_std))
        return jnp.clip(jnp.tanh(outputs) + std * jax.random.normal(key, outputs.shape, jnp.float32), -1.0, 1.0)

    def policy_layers(self, actor: Actor) -> PolicyNetwork:
        """Return the layers of the mean or the likeliest action. *A Gaussian's spread is not among them*."""
        head = Argmax(draws=True) if isinstance(self.spec.action, Discrete) else Squash()
        layers = (*mlp_layers(actor.policy.network), head)
        return scaled_layers(self.spec.observation, *self.artefact_scaling(actor.scaling), layers)

    # --- learning ---

    def losses(
        self, policy: ClonedPolicy, obs: Float[Array, "N D"], action: Array
    ) -> tuple[Float[Array, "N"], Metrics]:
        """Return the loss l of each of the log's actions, and metrics.

        Args:
            policy: that is taught.
            obs: scaled.
            action: of the log, (N, ...).
        """
        outputs = jax.vmap(policy.network)(obs)
        if isinstance(self.spec.action, Discrete):
            loss = -jnp.take_along_axis(jax.nn.log_softmax(outputs), action[:, None], axis=1)[:, 0]
            return loss, {"cloning_error": (jnp.argmax(outputs, -1) != action).mean(dtype=jnp.float32)}
        mean = jnp.tanh(outputs)
        square = jnp.square(mean - action.reshape(mean.shape))
        metrics = {"cloning_error": square.mean(), "saturated_actions": saturated_share(mean)}
        if policy.log_std is None:
            return square.mean(-1), metrics
        log_std = _bounded(policy.log_std)
        loss = (0.5 * square * jnp.exp(-2 * log_std) + log_std + jnp.float32(HALF_LOG_2PI)).sum(-1)
        return loss, metrics | {"mean_log_std": log_std.mean()}

    def taught(
        self, policy: ClonedPolicy, memory: Any, obs: Float[Array, "N D"], action: Array, weight: Float[Array, "N"],
        rate: Float[Array, ""] | float,
    ) -> tuple[ClonedPolicy, Any, Float[Array, "N"], Metrics]:  # fmt: skip
        """Return the policy after a step down mean w l, Adam's memory, the loss of each action, and metrics."""

        def total(policy: ClonedPolicy) -> tuple[Array, tuple[Array, Metrics]]:
            losses, metrics = self.losses(policy, obs, action)
            return (weight * losses).mean(), (losses, metrics)

        (loss, (losses, metrics)), gradient = jax.value_and_grad(total, has_aux=True)(policy)
        policy, memory = adam_step(policy, gradient, memory, rate)
        return policy, memory, losses, {"policy_loss": loss, **metrics}


def _bounded(log_std: Float[Array, "A"]) -> Float[Array, "A"]:
    return jnp.clip(log_std, *map(jnp.float32, LOG_STD))


@configuration
class AdvantageCloner(Cloner):
    """Cloner whose loss is weighted by how much better an action is than the policy, or the log, at that place.

        w(s, a) = min(exp(beta A(s, a)), weight_clip)

    *beta is per unit of A*, so that rewards are scaled: by the longest episode's steps over the range of the episodes'
    returns, both of the log (see `workhorse.math.return_range`). A state has the field `returns` besides.
    """

    is_stochastic: ClassVar[bool] = True

    deterministic: bool = False
    """Teach continuous actions by squared distance; else by the density of a Gaussian around tanh f(s)."""
    inverse_temperature: float = 3.0
    """Factor beta of an advantage in the exponent of its weight; 0 for weights that are all alike."""
    weight_clip: float = 100.0
    """Largest weight of an action."""
    scale_rewards: bool = True
    """Scale rewards by the longest episode's steps over the range of returns in the log."""

    def validate(self) -> None:
        super().validate()
        name = type(self).__name__
        require_non_negative(name, inverse_temperature=self.inverse_temperature)
        require_positive(name, weight_clip=self.weight_clip)
        if self.scale_rewards and self.reward_scale != type(self).reward_scale:
            raise UsageError(
                f"{name}.reward_scale adds nothing to scale_rewards, which is on: leave one of the two out."
            )

    def observe(self, state: State, rollout: Rollout) -> State:
        """Return the state after steps (T, B) were taken; *the range of returns stays once something was learnt*."""
        ended = rollout.terminated | rollout.truncated
        returns = jax.tree.map(
            lambda old, new: jnp.where(state.updates > 0, old, new),
            state.returns, state.returns.after(rollout.reward, ended),
        )  # fmt: skip
        return super().observe(state, rollout)._replace(returns=returns)

    def factor(self, state: State) -> Float[Array, ""]:
        """Return the factor of rewards where they are learnt from."""
        return state.returns.factor() if self.scale_rewards else jnp.asarray(self.reward_scale, jnp.float32)

    def counters(self) -> dict[str, Any]:
        return super().counters() | {"returns": ReturnRange.start(self.num_envs)}

    def weights(self, advantage: Float[Array, "N"]) -> tuple[Float[Array, "N"], Metrics]:
        """Return the weight w of actions with these advantages, and metrics."""
        highest = jnp.asarray(self.weight_clip, jnp.float32)
        exponent = jnp.asarray(self.inverse_temperature, jnp.float32) * advantage
        weight = jnp.exp(jnp.minimum(exponent, jnp.log(highest)))  # no overflow on the way
        clipped = (exponent >= jnp.log(highest)).mean(dtype=jnp.float32)
        return weight, {"advantage_weight": weight.mean(), "clipped_weights": clipped}

    def as_input(self, action: Array) -> Float[Array, "N A"]:
        """Return actions (N, ...) as a critic reads them: laid flat, or a 1 in the place of the choice."""
        if isinstance(self.spec.action, Discrete):
            return jax.nn.one_hot(action, self.action_size, dtype=jnp.float32)
        return action.reshape(len(action), -1).astype(jnp.float32)

    def drawn_inputs(self, policy: ClonedPolicy, obs: Float[Array, "N D"], key: Key) -> Float[Array, "N A"]:
        """Draw an action of the policy at each scaled observation, as a critic reads it."""
        outputs = jax.vmap(policy.network)(obs)
        if isinstance(self.spec.action, Discrete):
            choice: Int[Array, "N"] = jax.random.categorical(key, outputs)
            return self.as_input(choice)
        return self.drawn(policy, outputs, key)
