"""A probe of evolution strategies: one step, whose return is a quadratic of the policy's parameters."""

from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.classic.episode import changed_options, tick
from workhorse.environments.probes.clocks import ClockState

__all__ = ["QuadraticProbe"]


@dataclass(frozen=True)
class QuadraticProbe:
    """One step that pays minus the squared distance of the action from a target.

        reward = -|a - target|^2

    The observation is the constant (1,), so a linear policy's action *is* its parameter vector w (no bias, no
    normalisation of the observation), and the return f(w) = -|w - target|^2 is exact: no sampling, no time.

    *Known answers*, for noise e ~ N(0, I) of scale sigma, n components:

        E f(w + sigma e)                                  = f(w) - n sigma^2          `smoothed_return`
        grad_w E f(w + sigma e)                           = -2 (w - target)           `gradient`
        e (f(w + sigma e) - f(w - sigma e)) / (2 sigma)   = -2 e e^T (w - target)     `mirrored_gradient`, exactly

    Observation: float32 (1,). Action: (n,), without bounds. Every first step terminates; the clock of one step runs
    out with it, so `truncated` is true as well. There is one start state.

    Attributes:
        target: the best action.
    """

    target: tuple[float, ...] = (1.0, -2.0, 0.5)

    @cached_property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            "QuadraticProbe", Box((1.0,), (1.0,)), Box.unbounded(len(self.target)), 1, options=changed_options(self)
        )

    def smoothed_return(self, parameters: np.ndarray, sigma: float) -> float:
        """The mean return of parameters with noise of scale sigma."""
        offset = np.asarray(parameters, np.float64) - np.array(self.target)
        return float(-offset @ offset - len(self.target) * sigma**2)

    def gradient(self, parameters: np.ndarray) -> np.ndarray:
        """The gradient of `smoothed_return`, the same at every sigma."""
        return -2.0 * (np.asarray(parameters, np.float64) - np.array(self.target))

    def mirrored_gradient(self, parameters: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """What one mirrored pair with `noise` (n,) estimates, at every sigma: -2 e e^T (w - target)."""
        return np.asarray(noise) * (np.asarray(noise) @ self.gradient(parameters))

    def reset(self, key: Key) -> tuple[ClockState, Float32[Array, "1"]]:
        """The constant observation; `key` is not used."""
        return ClockState(jnp.zeros((), jnp.int32)), jnp.ones(1, jnp.float32)

    def step(self, state: ClockState, action: Float[Array, "n"], key: Key) -> tuple[ClockState, Step]:
        """Pay and end; `key` is not used."""
        reward = -jnp.sum(jnp.square(action.astype(jnp.float64) - jnp.array(self.target, jnp.float64)))
        clock, truncated = tick(state.clock, 1)
        obs = jnp.ones(1, jnp.float32)
        return ClockState(clock), Step(obs, reward, jnp.ones((), bool), truncated, obs, {})
