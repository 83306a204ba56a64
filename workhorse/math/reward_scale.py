"""Scale of rewards from the discounted sums of those collected, so that values fit into a fixed range."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from workhorse.core.types import Moments
from workhorse.math import moments

__all__ = ["RewardSums", "reward_factor"]

SMALLEST = 1e-8
"""A scale below this is none: rewards have been zero so far."""


class RewardSums(NamedTuple):
    """Discounted sum of rewards of each slot's episode so far, and the moments of all such sums, float64.

    Attributes:
        current: G of each slot, 0 at the start of an episode, (B,).
        moments: of G after every step of every slot.
        largest: the largest |G|.
    """

    current: Float[Array, "B"]
    moments: Moments
    largest: Float[Array, ""]

    @staticmethod
    def start(num_slots: int) -> "RewardSums":
        """Return the sums before the first step."""
        zero = jnp.zeros((), jnp.float64)
        return RewardSums(jnp.zeros(num_slots, jnp.float64), moments.empty(1, jnp.float64), zero)

    def after(
        self, reward: Float[Array, "T B"], ended: Bool[Array, "T B"], discount: Float[Array, ""] | float
    ) -> "RewardSums":
        """Return the sums after steps (T, B) were taken.

        G = discount * G + r is recorded, and *only then* set to zero where the episode ended: its last reward belongs
        to it, and none of it to the next one.

        Example:
            >>> ended = jnp.array([[False], [True], [False]])
            >>> found = RewardSums.start(1).after(jnp.ones((3, 1)), ended, 0.5)
            >>> found.moments.mean.round(4).tolist(), float(found.largest), found.current.tolist()
            ([1.1667], 1.5, [1.0])
        """
        discount = jnp.asarray(discount, jnp.float64)

        def step(current: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
            reward, ended = given
            total = discount * current + reward
            return jnp.where(ended, 0.0, total), total

        current, totals = jax.lax.scan(step, self.current, (reward.astype(jnp.float64), ended))
        largest = jnp.maximum(self.largest, jnp.abs(totals).max())
        return RewardSums(current, moments.merge(self.moments, moments.of(totals.reshape(-1, 1))), largest)


def reward_factor(sums: RewardSums, limit: Float[Array, ""] | float) -> Float[Array, ""]:
    """Return the factor of a reward, 1 / max(sqrt(Var G), max |G| / limit), float32; 1 while all rewards were zero.

    The discounted sums so scaled have a standard deviation of at most 1 and none exceeds `limit`.

    Example:
        >>> sums = RewardSums.start(1).after(jnp.full((2, 1), 8.0), jnp.zeros((2, 1), bool), 0.0)
        >>> float(reward_factor(sums, 4.0))
        0.5

    Source: Lee et al. 2025, "Hyperspherical normalization for scalable deep reinforcement learning" (arXiv 2502.15280).
    """
    scale = jnp.maximum(moments.spread(sums.moments)[0], sums.largest / jnp.asarray(limit, jnp.float64))
    return jnp.where(scale > SMALLEST, 1.0 / jnp.where(scale > SMALLEST, scale, 1.0), 1.0).astype(jnp.float32)
