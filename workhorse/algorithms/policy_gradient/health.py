"""Measures of the soundness of a rollout and an update: scalars that warnings are made of.

They are computed from the rollout itself, with their own few lines for what matters (which step terminated, what its
true successor was, what the policy that acted would draw), so that a fault in the learner's batch does not hide itself.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Rollout
from workhorse.math.distributions import Bernoullis, DiagonalGaussian, Distribution
from workhorse.networks.mlp import MLP

__all__ = ["acting", "noise_agreement", "scales", "units", "value_residual"]

DEAD_BELOW = 1e-2
"""A hidden unit whose activation's standard deviation over steps is below this says nothing about the observation."""

UNIT_STEPS = 256
"""Steps at most that hidden units are looked at on."""


def acting(distribution: Distribution, spec: EnvSpec, rollout: Rollout) -> dict[str, Float[Array, ""]]:
    """Compare the actions (T, B) with the distributions that they should be draws of.

    log_prob_gap: the greatest |log pi(a|o) - recorded log probability|; rounding where the recorded one is true.
    saturated_actions: share of components whose likeliest action lies outside finite bounds; mean_log_std: the mean
    logarithm of their standard deviations. Neither for discrete actions.
    noise_across_slots, noise_over_time, noise_level: see `noise_agreement`.
    """
    drawn, recorded = rollout.extras
    log_prob = jax.vmap(jax.vmap(lambda one, action: one.log_prob(action)))(distribution, drawn)
    found = {"log_prob_gap": jnp.abs(log_prob - recorded).max()}
    if isinstance(distribution, DiagonalGaussian) and isinstance(spec.action, Box):
        low, high = (jnp.asarray(bound, jnp.float32) for bound in (spec.action.low, spec.action.high))
        found["saturated_actions"] = ((distribution.mean < low) | (distribution.mean > high)).mean()
        found["mean_log_std"] = distribution.log_std.mean()
    return found | noise_agreement(_noise(distribution, drawn))


def _noise(distribution: Distribution, drawn: Array) -> Float[Array, "T B A"]:
    """Return what the draw added to its own expectation: of mean zero, and independent between steps and slots."""
    if isinstance(distribution, DiagonalGaussian):
        return (drawn - distribution.mean) * jnp.exp(-distribution.log_std)
    if isinstance(distribution, Bernoullis):
        return drawn - jax.nn.sigmoid(distribution.logits)
    choices = distribution.logits.shape[-1]
    noise = jax.nn.one_hot(drawn, choices) - jax.nn.softmax(distribution.logits)
    return noise.reshape(*noise.shape[:2], -1)  # the choices of several groups side by side


def noise_agreement(noise: Float[Array, "T B A"]) -> dict[str, Float[Array, ""]]:
    """Measure how far the noise of different slots, and of one step and the next, is the same noise.

    With e_tb the noise (a vector) of step t and slot b, and v = mean |e|^2,

        noise_across_slots = mean over t of |mean_b e_tb|^2 B / v      1 where slots are independent, B where equal
        noise_over_time    = mean of e_tb . e_(t+1)b / v               0 where steps are independent, 1 where equal
        noise_level        = mean of the first component over its standard error    new in every iteration

    Nothing is said (NaN) of a policy that is all but certain of its actions, v below .001.

    Example:
        >>> same = jnp.tile(jax.random.normal(jax.random.key(0), (64, 1, 2)), (1, 8, 1))
        >>> found = noise_agreement(same)
        >>> round(float(found["noise_across_slots"]), 3), abs(float(found["noise_over_time"])) < 0.3
        (8.0, True)
    """
    square = jnp.square(noise).sum(-1).mean()
    square = jnp.where(square > 1e-3, square, jnp.nan)
    across = jnp.square(noise.mean(1)).sum(-1).mean() * noise.shape[1] / square
    over = (noise[:-1] * noise[1:]).sum(-1).mean() / square
    first = noise[..., 0]
    level = first.mean() / jnp.sqrt(jnp.square(first).mean() / first.size + 1e-12) + 0.0 * square
    return {"noise_across_slots": across, "noise_over_time": over, "noise_level": level}


def units(network: MLP, obs: Float[Array, "T B D"]) -> dict[str, Float[Array, ""]]:
    """dead_units: share of the hidden units that put out the same on every observation; nothing for a linear one."""
    if len(network.weights) < 2:
        return {}
    flat = obs.reshape(-1, obs.shape[-1])
    stride = max(flat.shape[0] // UNIT_STEPS, 1)
    *hidden, _ = jax.vmap(network.layers)(flat[::stride])
    spread = jnp.concatenate([layer.std(0) for layer in hidden])
    return {"dead_units": (spread < DEAD_BELOW).mean()}


def scales(
    obs: Float[Array, "T B D"], reward: Float[Array, "T B"], clips: tuple[Any, Any], raw: Rollout
) -> dict[str, Float[Array, ""]]:
    """Measure what is fed to the networks.

    observation_scale: the greatest root mean square of a component; observations_clipped, rewards_clipped: shares at
    their bounds; reward_mean: raw.
    """
    found = {"observation_scale": jnp.sqrt(jnp.square(obs).mean((0, 1))).max(), "reward_mean": raw.reward.mean()}
    for name, seen, bound in (("observations_clipped", obs, clips[0]), ("rewards_clipped", reward, clips[1])):
        if bound is not None:
            found[name] = (jnp.abs(seen) >= jnp.float32(bound)).mean()
    return found


def value_residual(
    value: Float[Array, "T B"],
    next_value: Float[Array, "T B"],
    reward: Float[Array, "T B"],
    terminated: Array,
    discount: Float[Array, ""],
) -> dict[str, Float[Array, ""]]:
    """Return the value's one-step error  d = r + gamma (1 - terminated) V(o') - V(o),  before the update.

    td_error_mean, td_error_spread: its mean and standard deviation; value_mean, value_spread: those of V. *A value
    function that has caught up with its policy has a mean of zero, whatever happens at terminations and clocks.*
    """
    error = reward + discount * (1.0 - terminated.astype(jnp.float32)) * next_value - value
    return {
        "td_error_mean": error.mean(),
        "td_error_spread": error.std(),
        "value_mean": value.mean(),
        "value_spread": value.std(),
    }
