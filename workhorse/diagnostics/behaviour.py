"""A model of the policy that made a log, for logs that do not hold the density of their actions."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from workhorse.algorithms.replay_learner import ADAM, adam_step
from workhorse.core.algorithm import Key
from workhorse.core.randomness import draw, root_key
from workhorse.networks.mlp import MLP

__all__ = ["LEAST_LOG_STD", "behaviour_log_prob"]

LEAST_LOG_STD = -4.0
"""Least logarithm of the model's standard deviation: a log without noise has no density."""


def behaviour_log_prob(
    obs: Float[np.ndarray, "N D"], action: Float[np.ndarray, "N A"], *, is_choice: bool, seed: int = 0,
    updates: int = 5_000, hidden: tuple[int, ...] = (64, 64), batch_size: int = 256, learning_rate: float = 1e-3,
) -> Float[np.ndarray, "N"]:  # fmt: skip
    """Return the log density of a log's actions under a Gaussian, or for choices a softmax, fitted to them.

    The Gaussian's mean is a network's, its standard deviation one number for each component.

    Args:
        obs: scaled.
        action: vectors; choices one-hot.
        is_choice: whether they are.
        seed, updates, hidden, batch_size, learning_rate: of the fit.
    """
    sizes = (obs.shape[1], *hidden, action.shape[1])
    given = jnp.asarray(obs, jnp.float32), jnp.asarray(action, jnp.float32)
    model = _fitted(*given, root_key(seed), sizes, updates, batch_size, jnp.float32(learning_rate), is_choice)
    parts = range(0, len(obs), 65_536)
    found = [_log_prob(model, *(column[at : at + 65_536] for column in given), is_choice) for at in parts]
    return np.concatenate([np.asarray(part, np.float64) for part in found])


@partial(jax.jit, static_argnums=(3, 4, 5, 7))
def _fitted(
    obs: Array, action: Array, root: Key, sizes: tuple[int, ...], updates: int, batch_size: int, rate: Array,
    is_choice: bool,
) -> Any:  # fmt: skip
    model: Any = (MLP.uniform(draw(root, "init", 2), sizes), jnp.zeros(sizes[-1], jnp.float32))

    def one(carry: Any, number: Array) -> tuple[Any, None]:
        model, memory = carry
        chosen = jax.random.randint(draw(root, "replay", 2, number), (batch_size,), 0, len(obs))

        def loss(model: Any) -> Array:
            return -_log_prob(model, obs[chosen], action[chosen], is_choice).mean()

        slope: Any = jax.grad(loss)(model)
        return adam_step(model, slope, memory, rate), None

    (model, _), _ = jax.lax.scan(one, (model, ADAM.init(model)), jnp.arange(updates, dtype=jnp.uint32))
    return model


@partial(jax.jit, static_argnums=3)
def _log_prob(model: Any, obs: Array, action: Array, is_choice: bool) -> Float[Array, "N"]:
    network, log_std = model
    outputs = jax.vmap(network)(obs)
    if is_choice:
        return (jax.nn.log_softmax(outputs) * action).sum(1)
    log_std = jnp.maximum(log_std, LEAST_LOG_STD)
    away = (action - outputs) * jnp.exp(-log_std)
    return (-0.5 * jnp.square(away) - log_std - jnp.float32(0.5 * np.log(2 * np.pi))).sum(1)
