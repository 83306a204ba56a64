"""Conditional variational autoencoder of actions: a model of what a log does in a state, with more than one mode."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.core.algorithm import Key
from workhorse.networks.mlp import MLP

__all__ = ["ActionVAE"]

LOG_STD = (-4.0, 15.0)
"""Range of the logarithm of the standard deviation of a latent."""


class ActionVAE(eqx.Module):
    """Latents z ~ N(m(s, a), d(s, a)^2) from state and action, and actions tanh(f(s, z)) from state and latent.

        loss = mean |tanh(f(s, z)) - a|^2 + w mean -(1 + log d^2 - m^2 - d^2) / 2,   z = m + d e,  e ~ N(0, 1)

    Both means are over rows and components. The second is the KL divergence from N(0, 1) of a component, in nats.

    Attributes:
        encoder: from observation and action to m and log d, 2 Z numbers; log d is clipped to [-4, 15].
        decoder: from observation and latent to f, A numbers.

    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes" (arXiv 1312.6114).
    """

    encoder: MLP
    decoder: MLP

    @staticmethod
    def create(key: Key, observations: int, actions: int, hidden: tuple[int, ...]) -> ActionVAE:
        """Return networks with twice as many latents as components of an action."""
        of_encoder, of_decoder = jax.random.split(key)
        latents = 2 * actions
        return ActionVAE(
            MLP.uniform(of_encoder, (observations + actions, *hidden, 2 * latents)),
            MLP.uniform(of_decoder, (observations + latents, *hidden, actions)),
        )

    @property
    def num_latents(self) -> int:
        """Z."""
        return self.encoder.weights[-1].shape[0] // 2

    def decoded(self, obs: Float[Array, "N D"], latent: Float[Array, "N Z"]) -> Float[Array, "N A"]:
        """Return f, actions before tanh."""
        return jax.vmap(self.decoder)(jnp.concatenate([obs, latent], axis=1))

    def encoded(
        self, obs: Float[Array, "N D"], action: Float[Array, "N A"]
    ) -> tuple[Float[Array, "N Z"], Float[Array, "N Z"]]:
        """Return m and log d."""
        mean, log_std = jnp.split(jax.vmap(self.encoder)(jnp.concatenate([obs, action], axis=1)), 2, axis=1)
        return mean, jnp.clip(log_std, *LOG_STD)

    def losses(
        self, obs: Float[Array, "N D"], action: Float[Array, "N A"], key: Key
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Return the mean squared error of reconstructed actions, and the mean KL divergence of a latent."""
        mean, log_std = self.encoded(obs, action)
        latent = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, jnp.float32)
        error = jnp.square(jnp.tanh(self.decoded(obs, latent)) - action).mean()
        return error, -0.5 * (1 + 2 * log_std - jnp.square(mean) - jnp.exp(2 * log_std)).mean()
