"""Batch-constrained Q-learning: a model of the log proposes actions, a small network moves them, critics choose."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from workhorse.algorithms.actor_critic.td3 import value_of, values
from workhorse.algorithms.offline.log_learner import LogLearner
from workhorse.algorithms.replay_learner import ADAM, adam_step, moved_towards, random_action, saturated_share
from workhorse.core.algorithm import Carry, Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import PolicyNetwork, Squash
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.types import Moments, Transitions
from workhorse.networks.layers import mlp_layers, scaled_layers
from workhorse.networks.mlp import MLP
from workhorse.networks.vae import ActionVAE

__all__ = ["BCQ"]

LATENT_BOUND = 0.5
"""Latents that are proposed from are drawn from N(0, 1) and clipped to plus or minus this."""


class BCQState(NamedTuple):
    """The whole state.

    Attributes:
        model: of the log's actions.
        mover: from observation and action to A numbers, the perturbation network.
        critics: two, from observation and action to a value.
        copy: from observation to A numbers, of which tanh is what `act` without `explore` does.
        target_mover, target_critics: what the target is made of.
        optimisers: of model, mover, critics and copy.
        observations, env_steps, updates: see `ReplayLearner`.
    """

    model: ActionVAE
    mover: MLP
    critics: tuple[MLP, MLP]
    copy: MLP
    target_mover: MLP
    target_critics: tuple[MLP, MLP]
    optimisers: tuple[Any, Any, Any, Any]
    observations: Moments
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


class BCQActor(NamedTuple):
    model: ActionVAE
    mover: MLP
    critic: MLP
    copy: MLP
    scaling: tuple[Float[Array, "D"], Float[Array, "D"]]
    is_warming_up: Bool[Array, ""]


@configuration
class BCQ(LogLearner):
    """Q-learning over actions that a model of the log proposes, each moved a little to where the critic is higher.

        a_k = clip(b_k + phi tanh(x(s, b_k)), -1, 1),   b_k = tanh(f(s, z_k)),   z_k ~ clip(N(0, 1), -0.5, 0.5)
        y   = r + gamma (1 - terminated) max_k v(s', a'_k),   v = q min_i Q'_i + (1 - q) max_i Q'_i
        critics:  mean (Q_i(s, a) - y)^2, summed over i
        mover x:  mean -Q_1(s, a_1)
        model f:  see `ActionVAE`

    With `explore` the action is the best by Q_1 of `acting_candidates`, drawn anew, as published. *Without, it is that
    of a copy*: a network without random numbers, which an artefact can hold, taught by the squared distance to the best
    of the candidates of each target, at s'. Where the best actions of a state are far apart it is between them, and
    the first state of an episode is never shown to it.

    Source: Fujimoto et al. 2019, "Off-policy deep reinforcement learning without exploration" (arXiv 1812.02900). Its
    networks were wider: 400-300, and 750-750 for the model.
    """

    name = "bcq"
    summary = "Q-learning over actions that a model of the log proposes"
    takes = "box"

    model_hidden: tuple[int, ...] = (256, 256)
    """Units of each hidden layer of the model of the log."""
    num_candidates: int = 10
    """Actions of which a target takes the best."""
    acting_candidates: int = 100
    """Actions of which the best is taken where the policy explores."""
    reach: float = 0.05
    """Most phi by which a component of a proposed action is moved, in units of half its range."""
    pessimism: float = 0.75
    """Weight q of the smaller of two values in a target; the rest is that of the larger one."""
    divergence_weight: float = 0.5
    """Weight w of the divergence of latents in the loss of the model."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    batch_size: int = 100
    """Transitions of an update."""

    def validate(self) -> None:
        super().validate()
        layers = {f"model_hidden[{layer}]": units for layer, units in enumerate(self.model_hidden)}
        require_positive(
            "BCQ", num_candidates=self.num_candidates, acting_candidates=self.acting_candidates, **layers
        )  # fmt: skip
        require_non_negative("BCQ", divergence_weight=self.divergence_weight)
        for option, most in (("reach", 2), ("pessimism", 1)):
            if not 0 <= getattr(self, option) <= most:
                raise UsageError(f"BCQ.{option} must be in [0, {most}]: got {getattr(self, option)}.")

    # --- acting ---

    def init(self, key: Key) -> BCQState:
        keys = jax.random.split(key, 5)
        size, actions = self.spec.observation.size, self.action_size
        model = ActionVAE.create(keys[0], size, actions, self.model_hidden)
        mover = MLP.uniform(keys[1], (size + actions, *self.hidden, actions))
        first, second = (MLP.uniform(one, (size + actions, *self.hidden, 1)) for one in keys[2:4])
        copy, critics = MLP.uniform(keys[4], (size, *self.hidden, actions)), (first, second)
        optimisers: Any = tuple(map(ADAM.init, (model, mover, critics, copy)))  # type: ignore[arg-type]
        return BCQState(model, mover, critics, copy, mover, critics, optimisers, **self.counters())

    def actor(self, state: BCQState) -> BCQActor:
        scaling, is_warming_up = self.scaling(state.observations), self.is_warming_up(state)
        return BCQActor(state.model, state.mover, state.critics[0], state.copy, scaling, is_warming_up)

    def act(
        self, actor: BCQActor, carry: Carry, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Array, Carry, tuple[()]]:
        """Take the best of drawn candidates where `explore`, uniformly during the warm-up; else what the copy does."""
        shape, seen = self.spec.action.shape, self.seen(actor.scaling, obs)  # type: ignore[union-attr]
        if not explore:
            return jnp.tanh(actor.copy(seen)).reshape(shape), carry, ()
        draw_key, random_key = jax.random.split(key)
        many = jnp.tile(seen, (self.acting_candidates, 1))
        candidate = self.moved(actor.mover, many, self.proposed(actor.model, many, draw_key))
        best = candidate[jnp.argmax(value_of(actor.critic, many, candidate))].reshape(shape)
        return jnp.where(actor.is_warming_up, random_action(self.spec, random_key), best), carry, ()

    def policy_layers(self, actor: BCQActor) -> PolicyNetwork:
        scaling = self.artefact_scaling(actor.scaling)
        return scaled_layers(self.spec.observation, *scaling, (*mlp_layers(actor.copy), Squash()))

    # --- learning ---

    def learn(self, state: BCQState, experience: Transitions, key: Key) -> tuple[BCQState, Float[Array, "N"], Metrics]:
        """Do one update of everything on a batch."""
        obs, next_obs = self.both_seen(state, experience)
        action = experience.action.reshape(len(obs), -1)
        model_key, target_key, mover_key = jax.random.split(key, 3)
        of_model, of_mover, of_critics, of_copy = state.optimisers

        model, of_model, model_metrics = self._model(state.model, of_model, obs, action, model_key)
        target, best = self.target(state._replace(model=model), experience, next_obs, target_key)
        critics, of_critics, error, metrics = self._critics(state, of_critics, experience, obs, action, target)
        proposed = self.proposed(model, obs, mover_key)
        mover, of_mover, mover_metrics = self._mover(state.mover, of_mover, critics[0], obs, proposed)
        copy, of_copy, distance = self._copy(state.copy, of_copy, next_obs, best)
        after = state._replace(
            model=model,
            mover=mover,
            critics=critics,
            copy=copy,
            target_mover=moved_towards(state.target_mover, mover, self.target_rate),
            target_critics=moved_towards(state.target_critics, critics, self.target_rate),
            optimisers=(of_model, of_mover, of_critics, of_copy),
            updates=state.updates + 1,
        )
        return after, error, metrics | model_metrics | mover_metrics | {"copy_error": distance}

    def proposed(self, model: ActionVAE, obs: Float[Array, "N D"], key: Key) -> Float[Array, "N A"]:
        """Draw an action of the model for each observation."""
        latent = jax.random.normal(key, (len(obs), model.num_latents), jnp.float32)
        return jnp.tanh(model.decoded(obs, jnp.clip(latent, -LATENT_BOUND, LATENT_BOUND)))

    def moved(self, mover: MLP, obs: Float[Array, "N D"], action: Float[Array, "N A"]) -> Float[Array, "N A"]:
        """Return actions moved by at most `reach`."""
        step = jnp.tanh(jax.vmap(mover)(jnp.concatenate([obs, action], axis=1)))
        return jnp.clip(action + jnp.asarray(self.reach, jnp.float32) * step, -1.0, 1.0)

    def target(
        self, state: BCQState, experience: Transitions, next_obs: Float[Array, "N D"], key: Key
    ) -> tuple[Float[Array, "N"], Float[Array, "N A"]]:
        """Return y, from scaled successors, and the best of each row's candidates there."""
        rows = (len(next_obs), self.num_candidates)
        many = jnp.repeat(next_obs, self.num_candidates, axis=0)
        candidate = self.moved(state.target_mover, many, self.proposed(state.model, many, key))
        value = self.mixed(*values(state.target_critics, many, candidate)).reshape(rows)
        best = jnp.argmax(value, axis=1)[:, None]
        chosen = jnp.take_along_axis(candidate.reshape(*rows, -1), best[:, :, None], axis=1)[:, 0]
        reward = jnp.asarray(self.reward_scale, jnp.float32) * experience.reward
        return reward + experience.discount * jnp.take_along_axis(value, best, axis=1)[:, 0], chosen

    def mixed(self, first: Float[Array, "N"], second: Float[Array, "N"]) -> Float[Array, "N"]:
        """Return q min + (1 - q) max of two critics' values."""
        share = jnp.asarray(self.pessimism, jnp.float32)
        return share * jnp.minimum(first, second) + (1 - share) * jnp.maximum(first, second)

    def action_value(self, state: BCQState, obs: Array, action: Array) -> Float[Array, ""]:
        """Return both critics' values of an action, mixed as in a target."""
        seen = self.seen(self.scaling(state.observations), obs)[None]
        value = self.mixed(*values(state.critics, seen, action.reshape(1, -1).astype(jnp.float32)))[0]
        return value / jnp.asarray(self.reward_scale, jnp.float32)

    def _model(
        self, model: ActionVAE, memory: Any, obs: Array, action: Array, key: Key
    ) -> tuple[ActionVAE, Any, Metrics]:
        """Return the model after a step, the optimiser's memory, and metrics."""

        def loss(model: ActionVAE) -> tuple[Array, tuple[Array, Array]]:
            error, divergence = model.losses(obs, action, key)
            return error + jnp.asarray(self.divergence_weight, jnp.float32) * divergence, (error, divergence)

        gradient, (error, divergence) = jax.grad(loss, has_aux=True)(model)
        model, memory = adam_step(model, gradient, memory, self.learning_rate)
        return model, memory, {"model_error": error, "latent_divergence": divergence}

    def _critics(
        self, state: BCQState, memory: Any, experience: Transitions, obs: Array, action: Array, target: Array
    ) -> tuple[tuple[MLP, MLP], Any, Float[Array, "N"], Metrics]:
        """Return the critics after a step, the optimiser's memory, each transition's error, and metrics."""

        def loss(critics: tuple[MLP, MLP]) -> tuple[Array, tuple[Array, Array]]:
            first, second = values(critics, obs, action)
            errors = first - target, second - target
            return (experience.weight * (jnp.square(errors[0]) + jnp.square(errors[1]))).mean(), (first, errors[0])

        gradient, (value, error) = jax.grad(loss, has_aux=True)(state.critics)
        critics, memory = adam_step(state.critics, gradient, memory, self.learning_rate)
        return critics, memory, jnp.abs(error), {
            "value": value.mean(), "value_max": value.max(), "target": target.mean(),
            "critic_loss": jnp.square(error).mean(), "critic_gradient_norm": optax.tree.norm(gradient),
        }  # fmt: skip

    def _mover(self, mover: MLP, memory: Any, critic: MLP, obs: Array, proposed: Array) -> tuple[MLP, Any, Metrics]:
        """Return the perturbation network after a step up the first critic, the memory, and metrics."""

        def loss(mover: MLP) -> tuple[Array, Array]:
            chosen = self.moved(mover, obs, proposed)
            return -value_of(critic, obs, chosen).mean(), chosen

        (total, chosen), gradient = jax.value_and_grad(loss, has_aux=True)(mover)
        mover, memory = adam_step(mover, gradient, memory, self.learning_rate)
        return mover, memory, {"policy_loss": total, "saturated_actions": saturated_share(chosen)}

    def _copy(self, copy: MLP, memory: Any, obs: Array, best: Array) -> tuple[MLP, Any, Float[Array, ""]]:
        """Return the copy after a step towards the chosen actions, the memory, and its mean squared distance."""
        distance, gradient = jax.value_and_grad(lambda copy: jnp.square(jnp.tanh(jax.vmap(copy)(obs)) - best).mean())(
            copy
        )
        copy, memory = adam_step(copy, gradient, memory, self.learning_rate)
        return copy, memory, distance
