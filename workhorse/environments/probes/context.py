"""A probe of baselines: a reward most of which is the state's, and nothing that is done can change."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.classic.episode import changed_options

__all__ = ["ContextProbe"]


class ContextState(NamedTuple):
    """What the reward depends on."""

    x: Float32[Array, ""]


@dataclass(frozen=True)
class ContextProbe:
    """One step that pays the action, and far more or less for where it was taken.

        reward = offset + slope x + a,   x uniform in [-1, 1] and observed

    *Known answers*, for a ~ N(0, 1), where the value of x is  offset + slope x,  and for the gradient by the mean's
    weight and bias and the logarithm of the standard deviation, log pi's being (e x, e, e^2 - 1) with e = a:

        E[g]                          = (0, 1, 0)
        tr Cov[(R - V) g]             = 13                               `variance(exact=True)`
        tr Cov[R g]                   = 13 + 10/3 offset^2 + 6/5 slope^2

    Observation: float32 (1,), x. Action: (1,), without bounds. Every first step terminates; the clock of one step runs
    out with it, so `truncated` is true as well.

    Attributes:
        offset: what every state pays.
        slope: what a state pays for its place.
    """

    offset: float = 0.0
    slope: float = 10.0

    @cached_property
    def spec(self) -> EnvSpec:
        return EnvSpec("ContextProbe", Box((-1.0,), (1.0,)), Box.unbounded(1), 1, options=changed_options(self))

    def value(self, x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
        """The value of x when actions have mean zero."""
        return self.offset + self.slope * x

    def variance(self, exact: bool) -> float:
        """Trace of the covariance of one sample's gradient, with the exact baseline or with none."""
        return 13.0 + (0.0 if exact else 10 / 3 * self.offset**2 + 6 / 5 * self.slope**2)

    def reset(self, key: Key) -> tuple[ContextState, Float32[Array, "1"]]:
        """Somewhere between -1 and 1."""
        x = jax.random.uniform(key, (), jnp.float32, -1.0, 1.0)
        return ContextState(x), x[None]

    def step(self, state: ContextState, action: Float[Array, "1"], key: Key) -> tuple[ContextState, Step]:
        """Pay and end; `key` is not used."""
        reward = self.value(state.x.astype(jnp.float64)) + action[0].astype(jnp.float64)
        over = jnp.ones((), bool)
        return state, Step(state.x[None], reward, over, over, state.x[None], {})
