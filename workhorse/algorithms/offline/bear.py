"""Bootstrapping error accumulation reduction: a policy within the support of what a model of the log would do."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from workhorse.algorithms.actor_critic.sac import LOG_STD
from workhorse.algorithms.actor_critic.td3 import value_of, values
from workhorse.algorithms.offline.log_learner import LogLearner
from workhorse.algorithms.replay_learner import ADAM, adam_step, moved_towards, random_action, saturated_share
from workhorse.core.algorithm import Carry, Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import PolicyNetwork, Squash
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.types import Moments, Transitions
from workhorse.math.distributions import TanhGaussian
from workhorse.networks.layers import mlp_layers, scaled_layers
from workhorse.networks.mlp import MLP
from workhorse.networks.vae import ActionVAE

__all__ = ["BEAR", "discrepancy"]

LOG_MULTIPLIER = (-5.0, 10.0)
"""Range of the logarithm of the multiplier."""

LATENT_BOUND = 0.5
"""Latents of the model are drawn from N(0, 1) and clipped to plus or minus this, as in BCQ."""

WITHIN = 0.999
"""Bound of an action whose inverse of tanh is asked for."""


class BEARState(NamedTuple):
    """The whole state.

    Attributes:
        model: of the log's actions: an autoencoder, or a network as the policy's.
        policy: outputs means, then what gives the spreads, 2 A numbers.
        critics: two, from observation and action to a value.
        target_policy, target_critics: what the target is made of.
        log_multiplier: logarithm of the weight of the constraint.
        optimisers: of model, policy, critics and multiplier.
        observations, env_steps, updates: see `ReplayLearner`.
    """

    model: Any
    policy: MLP
    critics: tuple[MLP, MLP]
    target_policy: MLP
    target_critics: tuple[MLP, MLP]
    log_multiplier: Float[Array, ""]
    optimisers: tuple[Any, Any, Any, Any]
    observations: Moments
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


class BEARActor(NamedTuple):
    policy: MLP
    critic: MLP
    scaling: tuple[Float[Array, "D"], Float[Array, "D"]]
    is_warming_up: Bool[Array, ""]


@configuration
class BEAR(LogLearner):
    """A policy up the values of its actions, whose samples stay close to those of a model of the log.

        y = r + gamma (1 - terminated) max_k v(s', a'_k),   a'_k ~ pi'(.|s'),   v = q min_i Q'_i + (1 - q) max_i Q'_i
        critics:     mean (Q_i(s, a) - y)^2, summed over i
        policy:      mean -min_i Q_i(s, a) + lambda (MMD(s) - eps),   a ~ pi(.|s), reparameterised
        multiplier:  lambda rises while the mean of MMD is above eps

    MMD(s) is the `discrepancy` between some actions of the policy and some of the model, both before tanh. It is small
    wherever the policy keeps to the support of the model, whatever weight it gives to actions there. In the first
    `cloning_updates` the policy lowers MMD alone.

    With `explore` the action is the best by Q_1 of `acting_candidates` drawn ones, as published. *Without, it is tanh
    of the policy's mean*, which an artefact can hold.

    Source: Kumar et al. 2019, "Stabilizing off-policy Q-learning via bootstrapping error reduction" (arXiv 1906.00949).
    """

    name = "bear"
    summary = "a policy within the support of a model of the log, by maximum mean discrepancy"
    takes = "box"
    is_stochastic = True

    behaviour: Literal["vae", "gaussian"] = "vae"
    """Model of the log's actions: an autoencoder, or a Gaussian before tanh."""
    model_hidden: tuple[int, ...] = (256, 256)
    """Units of each hidden layer of the model of the log."""
    kernel: Literal["laplacian", "gaussian"] = "laplacian"
    """Kernel of the discrepancy."""
    kernel_width: float = 20.0
    """Width of the kernel, in units of actions before tanh, squared for the Gaussian one."""
    num_matched: int = 5
    """Actions of the policy and of the model that are compared in each state."""
    allowed_discrepancy: float = 0.05
    """Discrepancy eps that the policy may have."""
    num_candidates: int = 10
    """Actions of which a target takes the best."""
    acting_candidates: int = 10
    """Actions of which the best is taken where the policy explores."""
    pessimism: float = 0.75
    """Weight q of the smaller of two values in a target; the rest is that of the larger one."""
    cloning_updates: int = 10_000
    """Updates at the start in which the policy only comes close to the model."""
    divergence_weight: float = 0.5
    """Weight of the divergence of latents in the loss of an autoencoder."""
    policy_rate_share: float = 0.3
    """Step size of the policy, as a share of `learning_rate`."""
    multiplier_rate: float = 1e-3
    """Step size of Adam on the logarithm of the multiplier."""

    def validate(self) -> None:
        super().validate()
        layers = {f"model_hidden[{layer}]": units for layer, units in enumerate(self.model_hidden)}
        positive = (
            "kernel_width", "num_matched", "num_candidates", "acting_candidates", "policy_rate_share",
            "multiplier_rate",
        )  # fmt: skip
        require_positive("BEAR", **{option: getattr(self, option) for option in positive}, **layers)
        require_non_negative(
            "BEAR", allowed_discrepancy=self.allowed_discrepancy, cloning_updates=self.cloning_updates,
            divergence_weight=self.divergence_weight,
        )  # fmt: skip
        if not 0 <= self.pessimism <= 1:
            raise UsageError(f"BEAR.pessimism must be in [0, 1]: got {self.pessimism}.")
        if self.behaviour == "gaussian" and self.divergence_weight != BEAR.divergence_weight:
            raise UsageError("BEAR.divergence_weight has no effect with behaviour=gaussian: leave one of the two out.")

    # --- acting ---

    def init(self, key: Key) -> BEARState:
        keys = jax.random.split(key, 4)
        size, actions = self.spec.observation.size, self.action_size
        if self.behaviour == "vae":
            model: Any = ActionVAE.create(keys[0], size, actions, self.model_hidden)
        else:
            model = MLP.uniform(keys[0], (size, *self.model_hidden, 2 * actions))
        policy = MLP.uniform(keys[1], (size, *self.hidden, 2 * actions))
        first, second = (MLP.uniform(one, (size + actions, *self.hidden, 1)) for one in keys[2:])
        critics, log_multiplier = (first, second), jnp.zeros((), jnp.float32)
        optimisers: Any = tuple(map(ADAM.init, (model, policy, critics, log_multiplier)))  # type: ignore[arg-type]
        return BEARState(
            model, policy, critics, policy, critics, log_multiplier, optimisers, **self.counters()
        )  # fmt: skip

    def actor(self, state: BEARState) -> BEARActor:
        return BEARActor(
            state.policy, state.critics[0], self.scaling(state.observations), self.is_warming_up(state)
        )  # fmt: skip

    def act(
        self, actor: BEARActor, carry: Carry, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Array, Carry, tuple[()]]:
        """Take the best of drawn actions where `explore`, uniformly during the warm-up; else tanh of the mean."""
        shape, seen = self.spec.action.shape, self.seen(actor.scaling, obs)  # type: ignore[union-attr]
        if not explore:
            return TanhGaussian.bounded(actor.policy(seen), *LOG_STD).mode().reshape(shape), carry, ()
        draw_key, random_key = jax.random.split(key)
        candidate = jnp.tanh(unsquashed(actor.policy, seen[None], draw_key, self.acting_candidates)[0])
        many = jnp.tile(seen, (self.acting_candidates, 1))
        best = candidate[jnp.argmax(value_of(actor.critic, many, candidate))].reshape(shape)
        return jnp.where(actor.is_warming_up, random_action(self.spec, random_key), best), carry, ()

    def policy_layers(self, actor: BEARActor) -> PolicyNetwork:
        *hidden, last = actor.policy.weights
        *biases, bias = actor.policy.biases
        count = self.action_size
        means = MLP((*hidden, last[:count]), (*biases, bias[:count]), actor.policy.activation)
        scaling = self.artefact_scaling(actor.scaling)
        return scaled_layers(self.spec.observation, *scaling, (*mlp_layers(means), Squash()))

    # --- learning ---

    def learn(
        self, state: BEARState, experience: Transitions, key: Key
    ) -> tuple[BEARState, Float[Array, "N"], Metrics]:
        """Do one update of everything on a batch."""
        obs, next_obs = self.both_seen(state, experience)
        action = experience.action.reshape(len(obs), -1)
        model_key, target_key, policy_key = jax.random.split(key, 3)
        target = self.target(state, experience, next_obs, target_key)
        state, model_metrics = self._model(state, obs, action, model_key)
        state, error, metrics = self._critics(state, experience, obs, action, target)
        state, policy_metrics = self._policy(state, obs, policy_key)
        after = state._replace(
            target_policy=moved_towards(state.target_policy, state.policy, self.target_rate),
            target_critics=moved_towards(state.target_critics, state.critics, self.target_rate),
            updates=state.updates + 1,
        )
        return after, error, metrics | model_metrics | policy_metrics

    def target(
        self, state: BEARState, experience: Transitions, next_obs: Float[Array, "N D"], key: Key
    ) -> Float[Array, "N"]:
        """Return y, from scaled successors."""
        rows = (len(next_obs), self.num_candidates)
        action = jnp.tanh(unsquashed(state.target_policy, next_obs, key, self.num_candidates))
        many = jnp.repeat(next_obs, self.num_candidates, axis=0)
        value = self.mixed(*values(state.target_critics, many, action.reshape(len(many), -1))).reshape(rows)
        return jnp.asarray(self.reward_scale, jnp.float32) * experience.reward + experience.discount * value.max(1)

    def mixed(self, first: Float[Array, "N"], second: Float[Array, "N"]) -> Float[Array, "N"]:
        """Return q min + (1 - q) max of two critics' values."""
        share = jnp.asarray(self.pessimism, jnp.float32)
        return share * jnp.minimum(first, second) + (1 - share) * jnp.maximum(first, second)

    def action_value(self, state: BEARState, obs: Array, action: Array) -> Float[Array, ""]:
        """Return both critics' values of an action, mixed as in a target."""
        seen = self.seen(self.scaling(state.observations), obs)[None]
        value = self.mixed(*values(state.critics, seen, action.reshape(1, -1).astype(jnp.float32)))[0]
        return value / jnp.asarray(self.reward_scale, jnp.float32)

    def modelled(self, model: Any, obs: Float[Array, "N D"], key: Key) -> Float[Array, "N m A"]:
        """Draw actions of the model before tanh, `num_matched` for each observation."""
        if isinstance(model, MLP):
            return unsquashed(model, obs, key, self.num_matched)
        many = jnp.repeat(obs, self.num_matched, axis=0)
        latent = jax.random.normal(key, (len(many), model.num_latents), jnp.float32)
        drawn = model.decoded(many, jnp.clip(latent, -LATENT_BOUND, LATENT_BOUND))
        return drawn.reshape(len(obs), self.num_matched, -1)

    def model_loss(
        self, model: Any, obs: Float[Array, "N D"], action: Float[Array, "N A"], key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        """Return what the model's step lowers, and its parts."""
        if isinstance(model, MLP):
            distribution = jax.vmap(lambda outputs: TanhGaussian.bounded(outputs, *LOG_STD))(jax.vmap(model)(obs))
            unlikely = -jax.vmap(TanhGaussian.log_prob)(distribution, jnp.arctanh(jnp.clip(action, -WITHIN, WITHIN)))
            return unlikely.mean(), {"model_error": unlikely.mean()}
        error, divergence = model.losses(obs, action, key)
        total = error + jnp.asarray(self.divergence_weight, jnp.float32) * divergence
        return total, {"model_error": error, "latent_divergence": divergence}

    def _model(self, state: BEARState, obs: Array, action: Array, key: Key) -> tuple[BEARState, Metrics]:
        """Return the state after a step of the model, and metrics."""
        loss = lambda model: self.model_loss(model, obs, action, key)  # noqa: E731
        gradient, metrics = jax.grad(loss, has_aux=True)(state.model)
        model, memory = adam_step(state.model, gradient, state.optimisers[0], self.learning_rate)
        return state._replace(model=model, optimisers=(memory, *state.optimisers[1:])), metrics

    def _critics(
        self, state: BEARState, experience: Transitions, obs: Array, action: Array, target: Array
    ) -> tuple[BEARState, Float[Array, "N"], Metrics]:
        """Return the state after a step of the critics, each transition's error, and metrics."""

        def loss(critics: tuple[MLP, MLP]) -> tuple[Array, tuple[Array, Array]]:
            first, second = values(critics, obs, action)
            errors = first - target, second - target
            return (experience.weight * (jnp.square(errors[0]) + jnp.square(errors[1]))).mean(), (first, errors[0])

        gradient, (value, error) = jax.grad(loss, has_aux=True)(state.critics)
        of_model, of_policy, memory, of_multiplier = state.optimisers
        critics, memory = adam_step(state.critics, gradient, memory, self.learning_rate)
        after = state._replace(critics=critics, optimisers=(of_model, of_policy, memory, of_multiplier))
        return after, jnp.abs(error), {
            "value": value.mean(), "value_max": value.max(), "target": target.mean(),
            "critic_loss": jnp.square(error).mean(), "critic_gradient_norm": optax.tree.norm(gradient),
        }  # fmt: skip

    def _policy(self, state: BEARState, obs: Float[Array, "N D"], key: Key) -> tuple[BEARState, Metrics]:
        """Return the state after a step of the policy, and one of the multiplier."""
        model_key, policy_key = jax.random.split(key)
        of_model = self.modelled(state.model, obs, model_key)
        multiplier = jnp.exp(state.log_multiplier)
        climbs = (state.updates >= self.cloning_updates).astype(jnp.float32)

        def loss(policy: MLP) -> tuple[Array, tuple[Array, Array, Array]]:
            drawn = unsquashed(policy, obs, policy_key, self.num_matched)
            apart = discrepancy(drawn, of_model, self.kernel, self.kernel_width).mean()
            chosen = jnp.tanh(drawn[:, 0])
            value = jnp.minimum(*values(state.critics, obs, chosen)).mean()
            return multiplier * apart - climbs * value, (apart, value, chosen)

        gradient, (apart, value, chosen) = jax.grad(loss, has_aux=True)(state.policy)
        memory_of_model, memory, of_critics, of_multiplier = state.optimisers
        rate = jnp.asarray(self.policy_rate_share, jnp.float32) * jnp.asarray(self.learning_rate, jnp.float32)
        policy, memory = adam_step(state.policy, gradient, memory, rate)
        slope = -multiplier * (apart - jnp.asarray(self.allowed_discrepancy, jnp.float32))
        log_multiplier, of_multiplier = adam_step(state.log_multiplier, slope, of_multiplier, self.multiplier_rate)
        after = state._replace(
            policy=policy,
            log_multiplier=jnp.clip(log_multiplier, *LOG_MULTIPLIER),
            optimisers=(memory_of_model, memory, of_critics, of_multiplier),
        )
        return after, {
            "policy_loss": -value, "discrepancy": apart, "constraint_weight": multiplier,
            "saturated_actions": saturated_share(chosen),
        }  # fmt: skip


def unsquashed(policy: MLP, obs: Float[Array, "N D"], key: Key, count: int) -> Float[Array, "N m A"]:
    """Draw actions of a policy before tanh, `count` for each observation."""
    distribution = jax.vmap(lambda outputs: TanhGaussian.bounded(outputs, *LOG_STD))(jax.vmap(policy)(obs))
    rows, size = distribution.mean.shape
    noise = jax.random.normal(key, (rows, count, size), jnp.float32)
    return distribution.mean[:, None] + jnp.exp(distribution.log_std)[:, None] * noise


def discrepancy(
    x: Float[Array, "N m A"], y: Float[Array, "N n A"], kernel: Literal["laplacian", "gaussian"], width: Any
) -> Float[Array, "N"]:
    """Return the maximum mean discrepancy between two sets of samples in each row.

        sqrt(mean_ij k(x_i, x_j) + mean_ij k(y_i, y_j) - 2 mean_ij k(x_i, y_j) + 1e-6)
        k(x, y) = exp(-|x - y|_1 / (2 width)), or exp(-|x - y|_2^2 / (2 width)) for the Gaussian kernel

    *A sample is compared with itself too*, as published: of equal sets it is sqrt(1e-6) = 0.001.

    Example:
        >>> x, y = jnp.zeros((1, 2, 1)), jnp.ones((1, 2, 1))
        >>> [round(float(discrepancy(x, other, "laplacian", 0.5)[0]), 3) for other in (x, y)]
        [0.001, 1.124]
    """
    norm = jnp.abs if kernel == "laplacian" else jnp.square
    scale = -0.5 / jnp.asarray(width, jnp.float32)

    def mean_kernel(one: Array, other: Array) -> Array:
        apart = norm(one[:, :, None] - other[:, None]).sum(-1)
        return jnp.exp(scale * apart).mean((1, 2))

    square = mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)
    return jnp.sqrt(jnp.maximum(square, 0.0) + jnp.float32(1e-6))
