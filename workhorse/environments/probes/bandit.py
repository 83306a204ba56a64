"""A probe of policy gradients: one step, and a gradient that the softmax gives in closed form."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int
from scipy.special import softmax

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.classic.episode import changed_options, tick
from workhorse.environments.probes.clocks import ClockState

__all__ = ["BanditProbe"]


@dataclass(frozen=True)
class BanditProbe:
    """One step that pays a normal number, whose mean depends on the arm that was pulled.

    *Known answers*, for arms of means m pulled with p = softmax(z):

        J(z)      = p . m                  `expected_return`
        dJ / dz_a = p_a (m_a - J)          `gradient`
        Var[R]    = p . (m - J)^2 + s^2    `return_variance`

    The observation is the constant (1,), so a linear policy's scores z are its weights plus its biases, and J has the
    same gradient with respect to either.

    Observation: float32 (1,). Action: an arm, from 0. Every first step terminates; the clock of one step runs out with
    it, so `truncated` is true as well. There is one start state.

    Attributes:
        means: mean reward of each arm, m; at least two.
        reward_std: standard deviation of every arm's reward, s.

    Raises:
        UsageError: there are less than two arms.
    """

    means: tuple[float, ...] = (1.0, 2.0, 4.0)
    reward_std: float = 1.0

    def __post_init__(self) -> None:
        if len(self.means) < 2:
            raise UsageError(f"BanditProbe: means must name at least two arms, not {len(self.means)}.")

    @cached_property
    def spec(self) -> EnvSpec:
        return EnvSpec("BanditProbe", Box((1.0,), (1.0,)), Discrete(len(self.means)), 1, options=changed_options(self))

    def expected_return(self, scores: np.ndarray) -> float:
        """J, of the policy with these scores, (A,)."""
        return float(softmax(scores) @ np.array(self.means))

    def gradient(self, scores: np.ndarray) -> np.ndarray:
        """The gradient of J with respect to the scores, (A,)."""
        return softmax(scores) * (np.array(self.means) - self.expected_return(scores))

    def return_variance(self, scores: np.ndarray) -> float:
        """Variance of the return."""
        away = np.array(self.means) - self.expected_return(scores)
        return float(softmax(scores) @ away**2 + self.reward_std**2)

    def reset(self, key: Key) -> tuple[ClockState, Float32[Array, "1"]]:
        """The constant observation; `key` is not used."""
        return ClockState(jnp.zeros((), jnp.int32)), jnp.ones(1, jnp.float32)

    def step(self, state: ClockState, action: Int[Array, ""], key: Key) -> tuple[ClockState, Step]:
        """Pay and end."""
        noise: Any = jax.random.normal(key, dtype=jnp.float64)
        reward = jnp.array(self.means, jnp.float64)[action] + self.reward_std * noise
        clock, truncated = tick(state.clock, 1)
        obs = jnp.ones(1, jnp.float32)
        return ClockState(clock), Step(obs, reward, jnp.ones((), bool), truncated, obs, {})
