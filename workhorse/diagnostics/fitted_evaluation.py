"""Fitted Q evaluation: the value of a *fixed* policy, learnt from a log that another policy made.

    y = r + gamma (1 - terminated) Q'_i(s', pi(s')),   Q_i down mean (Q_i(s, a) - y)^2,   i = 1, 2

No maximum is taken anywhere, so that nothing seeks out actions whose value is made up; *where the policy leaves the
log's actions the value is still an extrapolation*. Two networks learn apart from each other: what they differ by is a
lower end of the error. Targets stay within the values that the log's rewards allow.

Source: Le, Voloshin, Yue 2019, "Batch policy learning under constraints" (arXiv 1903.08738); Fu et al. 2021,
"Benchmarks for deep off-policy evaluation" (arXiv 2103.16596). Differs from them by target networks that follow at
every update, and by outputs in units of the spread of the log's returns.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from workhorse.algorithms.replay_learner import ADAM, adam_step, moved_towards
from workhorse.core.algorithm import Key
from workhorse.core.randomness import draw, root_key
from workhorse.networks.mlp import MLP

__all__ = ["FixedPolicySteps", "FittedValues", "fit_values"]

TARGET_RATE = 0.005


class FixedPolicySteps(NamedTuple):
    """Steps of a log with what the judged policy would do next, leading axis N, float32.

    Attributes:
        obs: scaled, (N, D).
        action: that of the log, as a vector, (N, A); a choice is one-hot.
        reward: raw.
        discount: gamma, and 0 where the task ended.
        next_obs: scaled, (N, D).
        next_action: that of the policy at `next_obs`, (N, A).
    """

    obs: Any
    action: Any
    reward: Any
    discount: Any
    next_obs: Any
    next_action: Any


class FittedValues(NamedTuple):
    """Values of a policy's actions.

    Attributes:
        critics: two, from scaled observation and action to (value - middle) / unit.
        middle, unit: of the values, raw.
        error: root mean square error to the targets over the last tenth of the updates, in units.
    """

    critics: Any
    middle: float
    unit: float
    error: float

    def both(self, obs: np.ndarray, action: np.ndarray) -> Float[np.ndarray, "2 N"]:
        """Return both networks' values of actions at scaled observations, raw."""
        found = [
            np.asarray(_values(self.critics, obs[begin : begin + 65_536], action[begin : begin + 65_536]))
            for begin in range(0, len(obs), 65_536)
        ]
        return self.middle + self.unit * np.concatenate(found, axis=1).astype(np.float64)

    def __call__(self, obs: np.ndarray, action: np.ndarray) -> Float[np.ndarray, "N"]:
        """Return the mean of both."""
        return self.both(obs, action).mean(0)


def fit_values(
    steps: FixedPolicySteps, returns: Float[np.ndarray, "N"], bounds: tuple[float, float], *, seed: int = 0,
    updates: int = 20_000, hidden: tuple[int, ...] = (128, 128), batch_size: int = 256, learning_rate: float = 1e-3,
) -> FittedValues:  # fmt: skip
    """Learn the values of a fixed policy, in one compiled program.

    Args:
        steps: of the log.
        returns: what followed each step in the log, by which outputs are scaled.
        bounds: the lowest and the highest value that there can be.
        seed: of all that is drawn.
        updates, hidden, batch_size, learning_rate: of the networks; the rate falls to 0 along a cosine.
    """
    middle, unit = float(np.mean(returns)), float(max(np.std(returns), 1e-6))
    given = FixedPolicySteps(*(jnp.asarray(column, jnp.float32) for column in steps))
    sizes = (steps.obs.shape[1] + steps.action.shape[1], *hidden, 1)
    scale = np.array([middle, unit, *bounds], np.float32)
    critics, errors = _fitted(given, scale, root_key(seed), sizes, updates, batch_size, jnp.float32(learning_rate))
    last = np.asarray(errors)[-max(updates // 10, 1) :]
    return FittedValues(critics, middle, unit, float(np.sqrt(last.mean())))


@partial(jax.jit, static_argnums=(3, 4, 5))
def _fitted(
    steps: FixedPolicySteps, scale: Array, root: Key, sizes: tuple[int, ...], updates: int, batch_size: int, rate: Array
) -> tuple[tuple[MLP, MLP], Float[Array, "U"]]:
    first, second = (MLP.uniform(draw(root, "init", number), sizes) for number in range(2))
    critics = (first, second)
    middle, unit, low, high = scale

    def one(carry: Any, number: Array) -> tuple[Any, Array]:
        critics, targets, memory = carry
        chosen = jax.random.randint(draw(root, "replay", number), (batch_size,), 0, len(steps.reward))
        batch = FixedPolicySteps(*(column[chosen] for column in steps))
        later = middle + unit * _values(targets, batch.next_obs, batch.next_action)
        target = (jnp.clip(batch.reward + batch.discount * later, low, high) - middle) / unit

        def loss(critics: Any) -> Array:
            return jnp.square(_values(critics, batch.obs, batch.action) - target).sum(0).mean()

        error, gradient = jax.value_and_grad(loss)(critics)
        now = rate * 0.5 * (1 + jnp.cos(jnp.float32(jnp.pi) * number / updates)).astype(jnp.float32)
        critics, memory = adam_step(critics, gradient, memory, now)
        return (critics, moved_towards(targets, critics, TARGET_RATE), memory), error / 2

    begun = (critics, critics, ADAM.init(critics))  # type: ignore[arg-type]
    (_, targets, _), errors = jax.lax.scan(one, begun, jnp.arange(updates, dtype=jnp.uint32))
    return targets, errors  # the targets are a mean over the last updates


@jax.jit
def _values(critics: tuple[MLP, MLP], obs: Float[Array, "N D"], action: Float[Array, "N A"]) -> Float[Array, "2 N"]:
    both = jnp.concatenate([obs, action], axis=-1, dtype=jnp.float32)
    return jnp.stack([jax.vmap(critic)(both)[:, 0] for critic in critics])
