"""The best constant action: one action for every step, searched over the whole space and then around the best."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from workhorse.algorithms.rules.contest import Contest, ContestActor, ContestState, scattered, uniform_points
from workhorse.algorithms.rules.drive import action_layers, resting_action
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.layers import PolicyNetwork
from workhorse.core.spec import Box, Discrete, MultiBinary, MultiDiscrete

__all__ = ["ConstantAction"]

MOST_CORNERS = 16
HALVINGS = 6
"""Iterations in which the neighbourhood of the best action shrinks, before it is as wide as at first again."""


@configuration
class ConstantAction(Contest):
    """argmax over a of E[return of a_t = a for all t].

    The first iteration tries the idle action, the corners of a `Box` of up to four components, and points that fill it
    evenly; each later one tries points within half, a quarter, ... of the range around the best. Of choices and
    switches every combination is tried.
    """

    name = "constant"
    summary = "the best constant action, searched over the space and then around the best"

    @property
    def _counts(self) -> tuple[int, ...]:
        """Number of values of each component that is no real number."""
        match self.spec.action:
            case Discrete(count):
                return (count,)
            case MultiDiscrete(counts):
                return counts
            case MultiBinary(size):
                return (2,) * size
        return ()

    @property
    def family_size(self) -> int:
        return min(math.prod(self._counts), super().family_size) if self._counts else super().family_size

    @property
    def template(self) -> Float[np.ndarray, "n"]:
        return np.ravel(resting_action(self.spec)).astype(np.float32)

    def candidates(
        self, draws: Key, numbers: Int[Array, "C"], best: Float[Array, "n"], iteration: Int[Array, ""]
    ) -> Float[Array, "C n"]:
        space = self.spec.action
        if not isinstance(space, Box):
            place = np.cumprod((1, *self._counts[:-1]))
            return (scattered(numbers, self.family_size)[:, None] // place % np.array(self._counts)).astype(jnp.float32)
        middle, half = (part.reshape(-1) for part in space.middle_and_half())
        points = 2 * uniform_points(draws, numbers, space.size) - 1
        corners = 2**space.size if 2**space.size <= MOST_CORNERS else 0
        corner = (numbers - 1)[:, None] >> np.arange(space.size) & 1
        is_corner = (numbers >= 1) & (numbers <= corners)
        first = middle + half * jnp.where(is_corner[:, None], 2 * corner - 1, points)
        first = jnp.where(numbers[:, None] == 0, self.template, first)
        radius = 0.5 ** (1 + (iteration - 1) % HALVINGS)
        found = jnp.where(iteration == 0, first, best + half * radius * points)
        return jnp.clip(found, np.array(space.low), np.array(space.high)).astype(jnp.float32)

    def action_of(self, params: Float[Array, "n"]) -> Array:
        """Return the action that parameters stand for."""
        match self.spec.action:
            case Discrete():
                return params[0].astype(jnp.int32)
            case MultiDiscrete():
                return params.astype(jnp.int32)
            case MultiBinary():
                return params.astype(jnp.int8)
            case Box() as space:
                return params.reshape(space.shape)

    def act(
        self, actor: ContestActor, carry: Float[Array, "n"], obs: Array, key: Key, *, explore: bool
    ) -> tuple[Array, Float[Array, "n"], None]:
        return self.action_of(carry), carry, None

    def policy_layers(self, actor: ContestActor) -> PolicyNetwork:
        return action_layers(self.spec, np.asarray(self.action_of(actor.best)))

    def in_words(self, state: ContestState) -> str:
        action = np.asarray(self.action_of(state.best))
        if isinstance(self.spec.action, Discrete):
            return f"always take choice {int(action)}"
        shown = ", ".join(f"{value:.3g}" for value in np.ravel(action))
        is_scaled = self.spec.unscaled is not None
        return f"always act with ({shown})" + (", where -1 and 1 are the bounds" if is_scaled else "")
