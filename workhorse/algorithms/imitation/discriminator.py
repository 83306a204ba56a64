"""Discriminator of imitation: how much a step looks like one of the expert, and the reward of it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.core.spec import ActionSpace, Discrete, MultiDiscrete
from workhorse.core.types import Demonstrations, Moments
from workhorse.networks.mlp import MLP

__all__ = [
    "Imitation",
    "RewardForm",
    "action_features",
    "discriminator_loss",
    "imitation_reward",
    "num_action_features",
]

RewardForm = Literal["positive", "negative", "either"]


class Imitation(NamedTuple):
    """What adversarial imitation keeps beside a policy gradient's own state.

    Attributes:
        discriminator: from a pair's features to the logit of its being the expert's.
        optimiser: memory of Adam.
        observations: moments of the demonstrations' observations, float64.
        memory: the demonstrations, a ring.
        seen: demonstrations ever, int64.
    """

    discriminator: MLP
    optimiser: Any
    observations: Moments
    memory: Demonstrations
    seen: Int[Array, ""]


def action_features(space: ActionSpace, action: Array) -> Float[Array, "F"]:
    """Return one action as numbers that a network reads: components, switches, or a one-hot for each choice.

    Example:
        >>> action_features(MultiDiscrete((2, 3)), jnp.array([1, 0])).tolist()
        [0.0, 1.0, 1.0, 0.0, 0.0]
    """
    match space:
        case Discrete(count):
            return jax.nn.one_hot(action, count, dtype=jnp.float32)
        case MultiDiscrete(counts):
            return jnp.concatenate([jax.nn.one_hot(action[i], n, dtype=jnp.float32) for i, n in enumerate(counts)])
    return action.reshape(-1).astype(jnp.float32)


def num_action_features(space: ActionSpace) -> int:
    """Return how many numbers `action_features` has."""
    match space:
        case Discrete(count):
            return count
        case MultiDiscrete(counts):
            return sum(counts)
    return space.size


def discriminator_loss(
    discriminator: MLP, expert: Float[Array, "N F"], policy: Float[Array, "N F"], mixing: Float[Array, "N"],
    penalty: Float[Array, ""] | None,
) -> tuple[Float[Array, ""], dict[str, Array]]:  # fmt: skip
    """Return the discriminator's loss on features of pairs of the expert and of the policy, and what describes it.

        -mean log D(expert) - mean log(1 - D(policy)) + w mean (|grad logit(x)| - 1)^2,   D = sigmoid(logit),

    x between an expert's and a policy's pair, `mixing` of the way from the second to the first.

    Args:
        discriminator: gives the logit.
        expert, policy: features.
        mixing: in [0, 1].
        penalty: w; None for no such term, whose gradient of a gradient is left out then.

    Source of the penalty: Gulrajani et al. 2017, "Improved training of Wasserstein GANs" (arXiv 1704.00028).
    """

    def logit(features: Float[Array, "F"]) -> Float[Array, ""]:
        return discriminator(features)[0]

    of_expert, of_policy = jax.vmap(logit)(expert), jax.vmap(logit)(policy)
    loss = jax.nn.softplus(-of_expert).mean() + jax.nn.softplus(of_policy).mean()
    told = {
        "discriminator_loss": loss,
        "discriminator_accuracy": 0.5 * ((of_expert > 0).mean() + (of_policy <= 0).mean()),
    }
    if penalty is None:
        return loss, told
    between = policy + mixing[:, None] * (expert - policy)
    slope = jax.vmap(jax.grad(logit))(between)
    length = jnp.sqrt(jnp.square(slope).sum(-1) + jnp.float32(1e-12))  # the square root has no slope at 0
    return loss + penalty * jnp.square(length - 1).mean(), told


def imitation_reward(logit: Float[Array, "..."], form: RewardForm) -> Float[Array, "..."]:
    """Return what a pair is worth, by the logit of its being the expert's, D = sigmoid(logit).

        positive:  -log(1 - D) > 0
        negative:  log D < 0
        either:    log D - log(1 - D) = logit

    *What is always positive pays for every step*, so that a policy on a task that ends episodes learns to stay alive
    whatever the expert does; what is always negative pays for an early end.

    Example:
        >>> [round(float(imitation_reward(jnp.float32(0.0), form)), 4) for form in ("positive", "negative", "either")]
        [0.6931, -0.6931, 0.0]
    """
    match form:
        case "positive":
            return jax.nn.softplus(logit)
        case "negative":
            return -jax.nn.softplus(-logit)
    return logit
