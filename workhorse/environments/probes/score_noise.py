"""A probe of gradient estimators: a return that has nothing to do with what was done."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.classic.episode import changed_options, require_episode_limit, tick
from workhorse.environments.probes.clocks import ClockState

__all__ = ["ScoreNoiseProbe"]


@dataclass(frozen=True)
class ScoreNoiseProbe:
    """T steps without reward but the last, which pays a standard normal number, whatever was done.

    The true gradient is zero, so all that an estimator finds is noise. *Known answers*, for one episode, an action
    drawn from N(w, 1) and a perturbation e ~ N(0, 1) of scale sigma of the one parameter w:

        Var[R sum_t d/dw log pi(a_t)]  = Var[R] T        = T             `score_variance`
        Var[R e / sigma]               = Var[R] / sigma^2 = 1 / sigma^2  `perturbation_variance`

    Observation: float32 (1,), the constant 1. Action: (1,), without bounds and effect. The last step terminates.

    Attributes:
        max_episode_steps: T.
    """

    max_episode_steps: int = 8

    def __post_init__(self) -> None:
        require_episode_limit("ScoreNoiseProbe", self.max_episode_steps)

    @cached_property
    def spec(self) -> EnvSpec:
        one, any_action = Box((1.0,), (1.0,)), Box.unbounded(1)
        return EnvSpec("ScoreNoiseProbe", one, any_action, self.max_episode_steps, options=changed_options(self))

    def score_variance(self) -> float:
        """Variance of an episode's score-function estimate of the derivative by w."""
        return float(self.max_episode_steps)

    def perturbation_variance(self, sigma: float) -> float:
        """Variance of an episode's estimate by a perturbation of scale sigma."""
        return 1.0 / sigma**2

    def reset(self, key: Key) -> tuple[ClockState, Float32[Array, "1"]]:
        """Step zero; `key` is not used."""
        return ClockState(jnp.zeros((), jnp.int32)), jnp.ones(1, jnp.float32)

    def step(self, state: ClockState, action: Any, key: Key) -> tuple[ClockState, Step]:
        """Pay at the end; `action` is not used."""
        clock, ended = tick(state.clock, self.max_episode_steps)
        obs = jnp.ones(1, jnp.float32)
        reward = jnp.where(ended, jax.random.normal(key, dtype=jnp.float64), 0.0)
        return ClockState(clock), Step(obs, reward, ended, ended, obs, {})
