"""Probes of gradient estimators and baselines: gradients and variances in closed form."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int
from scipy.special import softmax

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec, changed_options
from workhorse.core.types import Step
from workhorse.environments.classic.episode import require_episode_limit, tick
from workhorse.environments.probes.loops import ClockState

__all__ = ["BanditProbe", "ContextProbe", "QuadraticProbe", "ScoreNoiseProbe"]


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


class ContextState(NamedTuple):
    """The number that the reward depends on."""

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
        """Return the estimate of one mirrored pair with `noise` (n,), at every sigma: -2 e e^T (w - target)."""
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
