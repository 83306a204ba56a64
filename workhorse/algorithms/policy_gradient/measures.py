"""Measures of an update: the policy's change, the value's fit to returns, the certainty of the gradient."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.algorithms.policy_gradient.batch import Batch
from workhorse.math.distributions import Distribution, divergence
from workhorse.networks.actor_critic import StochasticPolicy
from workhorse.networks.recurrent import Recurrent

__all__ = ["explained_variance", "gradient_agreement", "policy_change", "probability_ratio", "surrogate_gain"]


def policy_change(
    before: Distribution, after: Distribution, drawn: Float[Array, "N ..."], log_prob: Float[Array, "N"]
) -> dict[str, Array]:
    """Measure how far a policy moved, on N steps of the one before.

    mean_kl, max_kl: KL(before || after) over the observations; max_ratio: the greatest probability ratio of an action
    that was taken; entropy: of the policy after, mean.
    """
    kl = jax.vmap(divergence)(before, after)
    ratio = probability_ratio(after, drawn, log_prob)
    entropy = jax.vmap(lambda one: one.entropy())(after)
    return {"mean_kl": kl.mean(), "max_kl": kl.max(), "max_ratio": ratio.max(), "entropy": entropy.mean()}


def probability_ratio(
    after: Distribution, drawn: Float[Array, "N ..."], log_prob: Float[Array, "N"]
) -> Float[Array, "N"]:
    """Return the probability of each draw after the update, over that before."""
    return jnp.exp(jax.vmap(lambda one, action: one.log_prob(action))(after, drawn) - log_prob)


def surrogate_gain(after: Distribution, batch: Batch) -> Float[Array, ""]:
    """E[(rho - 1) A] / sd(A) over N steps: what the update claims to have won, in standard deviations of advantage."""
    rho = probability_ratio(after, batch.drawn, batch.log_prob)
    return ((rho - 1.0) * batch.advantage).mean() / (batch.advantage.std() + 1e-8)


def explained_variance(prediction: Float[Array, "N"], target: Float[Array, "N"]) -> Float[Array, ""]:
    """1 - Var(target - prediction) / Var(target); 1 is perfect, 0 no better than a constant; 0 for a constant target.

    *Against its own targets, which contain the prediction, it flatters.*
    """
    spread = target.var()
    return jnp.where(spread > 0, 1.0 - (target - prediction).var() / jnp.where(spread > 0, spread, 1.0), 0.0)


def gradient_agreement(policy: StochasticPolicy, batch: Batch) -> dict[str, Array]:
    """Measure signal and noise of the policy's gradient on a rollout (T, B), from parts of it that share no slot.

    With g_m the gradient of E[rho A] on part m of M, advantages normalised over the whole rollout,

        gradient_signal = mean of g_m . g_n over pairs,   gradient_noise = (mean |g_m|^2 - signal) / M,

    unbiased for |mu|^2 and for the trace of the covariance of the whole rollout's estimate, so that two such
    estimates have a mean cosine of about signal / (signal + noise). A part is whole slots, because the steps of one
    slot depend on each other. *One iteration says little*: add up both over some before dividing. Nothing is
    measured on a single slot, or of a policy with memory.

    Source: McCandlish et al. 2018 (arXiv 1812.06162), appendix A, with parts in place of two batch sizes.
    """
    parts = _parts(batch.advantage.shape[1])
    if parts < 2 or isinstance(policy.network, Recurrent):
        return {}
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    rows = (batch.obs, batch.drawn, advantage * batch.weight)

    def split(leaf: Array) -> Array:  # (T, B, ...) to (M, T B / M, ...)
        apart = leaf.reshape(leaf.shape[0], parts, -1, *leaf.shape[2:]).swapaxes(0, 1)
        return apart.reshape(parts, -1, *leaf.shape[2:])

    def score(policy: StochasticPolicy, obs: Array, drawn: Array, weight: Array) -> Array:
        log_prob = jax.vmap(lambda one, action: policy(one).log_prob(action))(obs, drawn)
        return (log_prob * weight).mean()

    gradients = jax.vmap(jax.grad(score), in_axes=(None, 0, 0, 0))(policy, *map(split, rows))
    flat = jnp.concatenate([leaf.reshape(parts, -1) for leaf in jax.tree.leaves(gradients)], 1)
    gram = flat @ flat.T
    squares = jnp.trace(gram)
    signal = (gram.sum() - squares) / (parts * (parts - 1))
    return {"gradient_signal": signal, "gradient_noise": (squares / parts - signal) / parts}


def _parts(slots: int) -> int:
    """Return the number of equal parts of the slots: the most up to 8 that divide them; of 11 or 26 slots, more."""
    few = max(parts for parts in range(1, 9) if slots % parts == 0)
    return few if few > 2 or slots <= 8 else min(parts for parts in range(9, slots + 1) if slots % parts == 0)
