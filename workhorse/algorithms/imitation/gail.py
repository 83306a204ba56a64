"""Generative adversarial imitation: PPO on the reward of a discriminator between the expert's steps and its own."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.algorithms.demonstration_learner import nothing_shown, remembered
from workhorse.algorithms.imitation.discriminator import (
    Imitation,
    action_features,
    discriminator_loss,
    imitation_reward,
    num_action_features,
)
from workhorse.algorithms.policy_gradient.batch import Batch, GradientState
from workhorse.algorithms.policy_gradient.ppo import PPO
from workhorse.algorithms.replay_learner import ADAM, OBSERVATION_CLIP, adam_step
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.types import Demonstrations, Moments, Rollout
from workhorse.math import moments
from workhorse.networks.mlp import MLP

__all__ = ["GAIL"]


@configuration
class GAIL(PPO):
    """PPO whose reward is what a discriminator takes for the expert's; the task's own reward is never read.

    Before each update of the policy the discriminator D is trained on minibatches, half of them demonstrations, half
    steps of the rollout, to tell them apart. The reward of a step is then -log(1 - D(o, a)).

    *This reward is positive whatever is done*, so that on a task with an end it pays for not ending, as a constant
    would: on Hopper a policy that stands still looks as if it had learnt. The other way round, log D pays for ending
    soon. `reward_form` chooses; "either" is the difference of both, which can have either sign.

    The state is that of PPO with the discriminator and the demonstrations in `extra`; the loop shows them before the
    first iteration.

    Source: Ho and Ermon 2016, "Generative adversarial imitation learning" (arXiv 1606.03476), which takes TRPO; Fu, Luo
    and Levine 2018 (arXiv 1710.11248) have the difference as their reward; Kostrikov et al. 2019 (arXiv 1809.02925)
    show the bias of either sign.
    """

    name = "gail"
    summary = "ppo on the reward of a discriminator that learns to tell its steps from the expert's"
    presets = {}
    needs_demonstrations: ClassVar[bool] = True

    reward_form: Literal["positive", "negative", "either"] = "positive"
    """-log(1 - D), which pays for staying alive; log D, which pays for ending; or log D - log(1 - D)."""
    discriminator_hidden: tuple[int, ...] = (64, 64)
    """Units of each hidden layer of the discriminator."""
    discriminator_rate: float = 3e-4
    """Step size of Adam, which trains the discriminator."""
    discriminator_updates: int = 32
    """Updates of the discriminator before each of the policy."""
    discriminator_batch_size: int = 128
    """Demonstrations of an update of the discriminator, and as many steps of the rollout."""
    gradient_penalty: float | None = 1.0
    """Weight of the squared distance of the discriminator's slope from 1; None for no such penalty."""
    normalise_inputs: bool = True
    """Centre and scale the discriminator's observations by the moments of the demonstrations."""
    memory_size: int = 100_000
    """Most steps of demonstrations."""

    def validate(self) -> None:
        super().validate()
        layers = {f"discriminator_hidden[{layer}]": units for layer, units in enumerate(self.discriminator_hidden)}
        positive = ("discriminator_rate", "discriminator_updates", "discriminator_batch_size", "memory_size")
        require_positive("GAIL", **{option: getattr(self, option) for option in positive}, **layers)
        if self.gradient_penalty is not None:
            require_non_negative("GAIL", gradient_penalty=self.gradient_penalty)
        if self.reward_form not in ("positive", "negative", "either"):
            raise UsageError(f"GAIL.reward_form must be one of positive, negative, either: got {self.reward_form!r}.")

    def init(self, key: Key) -> GradientState:
        """A learner that has seen nothing and was shown nothing."""
        base = super().init(key)
        size = self.spec.observation.size + num_action_features(self.spec.action)
        network = MLP.create(jax.random.fold_in(key, 1), (size, *self.discriminator_hidden, 1), True, 1.0)
        as_tree: Any = network  # optax's types know no modules
        unseen = moments.empty(self.spec.observation.size, jnp.float64)
        memory = nothing_shown(self.spec, self.memory_size)
        return base._replace(extra=Imitation(network, ADAM.init(as_tree), unseen, memory, jnp.zeros((), jnp.int64)))

    def shown(self, state: GradientState, demonstrations: Demonstrations) -> GradientState:
        """Return the state that has these demonstrations, actions in the algorithm's own numbers, beside its others."""
        kept: Imitation = state.extra
        memory, observations, seen = remembered(kept.memory, kept.observations, kept.seen, demonstrations)
        return state._replace(extra=kept._replace(memory=memory, observations=observations, seen=seen))

    def features(self, observations: Moments, obs: Array, action: Array) -> Float[Array, "F"]:
        """Return one pair as the discriminator reads it."""
        flat = obs.reshape(-1).astype(jnp.float32)
        if self.normalise_inputs:
            scale = moments.inverse_scale(observations).astype(jnp.float32)
            flat = jnp.clip((flat - observations.mean.astype(jnp.float32)) * scale, -OBSERVATION_CLIP, OBSERVATION_CLIP)
        return jnp.concatenate([flat, action_features(self.spec.action, action)])

    def rewards(self, state: GradientState, rollout: Rollout) -> Float[Array, "T B"]:
        """Return what the discriminator pays for the steps of a rollout."""
        kept: Imitation = state.extra

        def one(obs: Array, action: Array) -> Float[Array, ""]:
            return kept.discriminator(self.features(kept.observations, obs, action))[0]

        return imitation_reward(jax.vmap(jax.vmap(one))(rollout.obs, rollout.action), self.reward_form)

    def batch(self, state: GradientState, rollout: Rollout) -> tuple[Batch, Moments, Float[Array, "B"]]:
        """A rollout as it is learnt from: with the discriminator's rewards, not the task's."""
        return super().batch(state, rollout._replace(reward=self.rewards(state, rollout)))

    def update(self, state: GradientState, experience: Rollout, key: Key) -> tuple[GradientState, dict[str, Array]]:
        """Train the discriminator on a rollout (T, B), and then the policy on its rewards."""
        kept, told = self.discriminated(state.extra, experience, jax.random.fold_in(key, 1))
        now = state._replace(extra=kept)
        after, metrics = super().update(now, experience, key)
        paid = self.rewards(now, experience)[:, : self.num_envs]
        return after._replace(extra=kept), metrics | told | {"imitation_reward": paid.mean()}

    def discriminated(self, kept: Imitation, rollout: Rollout, key: Key) -> tuple[Imitation, dict[str, Array]]:
        """Return what is kept with a discriminator that was trained on the steps of the slots trained on."""
        read = jax.vmap(lambda obs, action: self.features(kept.observations, obs, action))
        flat = (leaf[:, : self.num_envs].reshape(-1, *leaf.shape[2:]) for leaf in (rollout.obs, rollout.action))
        own = read(*flat)
        there = jnp.maximum(jnp.minimum(kept.seen, self.memory_size), 1)
        penalty = None if self.gradient_penalty is None else jnp.asarray(self.gradient_penalty, jnp.float32)
        count = (self.discriminator_batch_size,)

        def one(carry: tuple[MLP, Any], key: Key) -> tuple[tuple[MLP, Any], dict[str, Array]]:
            network, memory = carry
            keys = jax.random.split(key, 3)
            rows = jax.random.randint(keys[0], count, 0, there)
            expert = read(kept.memory.obs[rows], kept.memory.action[rows])
            policy = own[jax.random.randint(keys[1], count, 0, len(own))]
            mixing = jax.random.uniform(keys[2], count, jnp.float32)
            gradient, told = jax.grad(discriminator_loss, has_aux=True)(network, expert, policy, mixing, penalty)
            return adam_step(network, gradient, memory, self.discriminator_rate), told

        start = (kept.discriminator, kept.optimiser)
        (network, memory), told = jax.lax.scan(one, start, jax.random.split(key, self.discriminator_updates))
        return kept._replace(discriminator=network, optimiser=memory), jax.tree.map(jnp.mean, told)
