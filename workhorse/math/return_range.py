"""Range of the returns of episodes, by which the rewards of a log are scaled."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

__all__ = ["ReturnRange"]

LEAST_SHARE = 0.1
"""The range counts as at least this share of the largest absolute return: else a log of equal episodes, as an expert's,
would have its rewards blown up."""


class ReturnRange(NamedTuple):
    """Least and greatest undiscounted return of the episodes seen, and the steps of the longest, float64.

    Attributes:
        current: return of each slot's episode so far, (B,).
        steps: of each slot's episode so far, (B,).
        least, greatest: of episodes that ended; plus and minus infinity before the first.
        longest: steps of the longest episode that ended.
    """

    current: Float[Array, "B"]
    steps: Float[Array, "B"]
    least: Float[Array, ""]
    greatest: Float[Array, ""]
    longest: Float[Array, ""]

    @staticmethod
    def start(num_slots: int) -> "ReturnRange":
        """Return the range before the first step."""
        zero = jnp.zeros(num_slots, jnp.float64)
        infinite = jnp.full((), jnp.inf, jnp.float64)
        return ReturnRange(zero, zero, infinite, -infinite, jnp.zeros((), jnp.float64))

    def after(self, reward: Float[Array, "T K"], ended: Bool[Array, "T K"]) -> "ReturnRange":
        """Return the range after T steps of the first K slots.

        Example:
            >>> ended = jnp.array([[False], [True], [True]])
            >>> found = ReturnRange.start(1).after(jnp.array([[1.0], [2.0], [5.0]]), ended)
            >>> float(found.least), float(found.greatest), float(found.longest)
            (3.0, 5.0, 2.0)
        """
        count = reward.shape[1]

        def step(carry: tuple[Array, ...], given: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
            current, steps, least, greatest, longest = carry
            reward, ended = given
            current, steps = current + reward, steps + 1
            least = jnp.minimum(least, jnp.where(ended, current, jnp.inf).min())
            greatest = jnp.maximum(greatest, jnp.where(ended, current, -jnp.inf).max())
            longest = jnp.maximum(longest, jnp.where(ended, steps, 0).max())
            return (jnp.where(ended, 0.0, current), jnp.where(ended, 0.0, steps), least, greatest, longest), None

        begun = (self.current[:count], self.steps[:count], self.least, self.greatest, self.longest)
        (current, steps, *seen), _ = jax.lax.scan(step, begun, (reward.astype(jnp.float64), ended))
        return ReturnRange(self.current.at[:count].set(current), self.steps.at[:count].set(steps), *seen)

    def factor(self) -> Float[Array, ""]:
        """Return longest / max(greatest - least, 0.1 max |return|), float32; 1 before an episode ended, or at 0 / 0.

        Rewards times it are about one a step in the best episodes, whatever their unit, if the worst earn nothing.

        Example:
            >>> ended = jnp.array([[True], [True]])
            >>> float(ReturnRange.start(1).after(jnp.array([[-10.0], [30.0]]), ended).factor())
            0.02500000037252903

        Source: the code published with Kostrikov et al. 2021, "Offline reinforcement learning with implicit
        Q-learning" (arXiv 2110.06169), which has 1000 for the longest episode and knows no least range.
        """
        largest = jnp.maximum(jnp.abs(self.least), jnp.abs(self.greatest))
        width = jnp.maximum(self.greatest - self.least, LEAST_SHARE * largest)
        is_known = (self.longest > 0) & (width > 0)
        return jnp.where(is_known, self.longest / jnp.where(is_known, width, 1.0), 1.0).astype(jnp.float32)
