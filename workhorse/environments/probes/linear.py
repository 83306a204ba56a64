"""Probes of control: linear plants, quadratic costs, and what is best there in closed form."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Float32, Float64, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, EnvSpec, changed_options
from workhorse.core.types import Step
from workhorse.environments.classic.episode import require_episode_limit, tick

__all__ = ["LinearQuadraticGaussianProbe", "LinearQuadraticProbe"]

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


class PlantState(NamedTuple):
    """`x` is the plant's state; `clock` counts steps."""

    x: Float64[Array, "n"]
    clock: Int[Array, ""]


@dataclass(frozen=True)
class LinearQuadraticProbe:
    """A linear plant with a quadratic price on state and action; by default a double integrator.

        x' = A x + B u,        reward = -(x^T Q x + u^T R u)       of the state *before* the step

    *Known answer*: the policy u = -K x with K = `optimal_gain(discount)` is optimal over an endless horizon (the clock
    must be bootstrapped through), and the value of x is -x^T P x with P = `optimal_cost(discount)`, where

        P = Q + d A^T P A - d^2 A^T P B (R + d B^T P B)^-1 B^T P A,    K = d (R + d B^T P B)^-1 B^T P A.

    Observation: float32 (n,), x. Action: (m,), without bounds. A reset draws x uniformly from [-1, 1)^n. The task never
    terminates; truncated after `max_episode_steps`.

    Attributes:
        a, b: the plant, (n, n) and (n, m), as tuples of rows.
        q, r: prices of state and action, (n, n) positive semi-definite and (m, m) positive definite.
        max_episode_steps: the clock; None for no clock.

    Raises:
        UsageError: the shapes do not fit together, or `max_episode_steps` is not a positive integer or None.

    Source: Bertsekas, "Dynamic programming and optimal control", vol. 1, section 4.1, with a discount.
    """

    a: Matrix = ((1.0, 0.1), (0.0, 1.0))
    b: Matrix = ((0.0,), (0.1,))
    q: Matrix = ((1.0, 0.0), (0.0, 1.0))
    r: Matrix = ((0.1,),)
    max_episode_steps: int | None = 100

    def __post_init__(self) -> None:
        require_episode_limit("LinearQuadraticProbe", self.max_episode_steps)
        shapes = tuple(np.shape(matrix) for matrix in (self.a, self.b, self.q, self.r))
        n, m = len(self.a), len(self.b[0])
        if shapes != ((n, n), (n, m), (n, n), (m, m)):
            raise UsageError(
                f"LinearQuadraticProbe: a, b, q, r must have the shapes (n, n), (n, m), (n, n), (m, m), not {shapes}."
            )

    @cached_property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            "LinearQuadraticProbe",
            Box.unbounded(len(self.a)),
            Box.unbounded(len(self.r)),
            self.max_episode_steps,
            options=changed_options(self),
        )

    def optimal_cost(self, discount: float) -> np.ndarray:
        """P, (n, n): the least discounted cost from x is x^T P x. `discount` in (0, 1]."""
        root = np.sqrt(discount)
        return scipy.linalg.solve_discrete_are(
            root * np.array(self.a), root * np.array(self.b), np.array(self.q), np.array(self.r)
        )

    def optimal_gain(self, discount: float) -> np.ndarray:
        """K, (m, n): act u = -K x. `discount` in (0, 1]."""
        a, b, r, cost = np.array(self.a), np.array(self.b), np.array(self.r), self.optimal_cost(discount)
        return discount * np.linalg.solve(r + discount * b.T @ cost @ b, b.T @ cost @ a)

    def reset(self, key: Key) -> tuple[PlantState, Float32[Array, "n"]]:
        """A state in the unit box around the goal, and its observation."""
        x = jax.random.uniform(key, (len(self.a),), jnp.float64, -1.0, 1.0)
        return PlantState(x, jnp.zeros((), jnp.int32)), x.astype(jnp.float32)

    def step(self, state: PlantState, action: Float[Array, "m"], key: Key) -> tuple[PlantState, Step]:
        """One step of the plant; `key` is not used, the task draws nothing after the reset."""
        a, b, q, r = (jnp.array(matrix, jnp.float64) for matrix in (self.a, self.b, self.q, self.r))
        u = action.astype(jnp.float64)
        reward = -(state.x @ q @ state.x + u @ r @ u)
        x = a @ state.x + b @ u
        clock, truncated = tick(state.clock, self.max_episode_steps)
        obs = x.astype(jnp.float32)
        return PlantState(x, clock), Step(obs, reward, jnp.zeros((), bool), truncated, obs, {})


@dataclass(frozen=True)
class LinearQuadraticGaussianProbe:
    """A linear plant, pushed and seen through Gaussian noise, with a quadratic price; it ends after T steps.

        x_0 ~ N(start, start_std^2 I),   x' = A x + B u + w,  w ~ N(0, noise_std^2 I)
        o = x + v,  v ~ N(0, observation_std^2 I),     reward = -(x^T Q x + u^T R u)  of the state *before* the step

    *Known answer*: under the policy u ~ N(W o + c, diag(exp(2 log_std))) state and action stay Gaussian, so that their
    means and covariances, carried from step to step, give the mean return J(W, c, log_std), `expected_return`;
    differentiating that gives its gradient, `gradient`.

    Observation: float32 (n,), o. Action: (m,), without bounds. The last step terminates; the clock runs out with it, so
    `truncated` is true as well.

    Attributes:
        a, b: the plant, (n, n) and (n, m), as tuples of rows.
        q, r: prices of state and action, (n, n) and (m, m).
        start: mean of the first state, (n,).
        start_std, noise_std, observation_std: standard deviations of every component.
        max_episode_steps: T.

    Raises:
        UsageError: the shapes do not fit together, or `max_episode_steps` is not a positive integer.
    """

    a: Matrix = ((1.0, 0.4), (0.0, 0.9))
    b: Matrix = ((0.0, 0.3), (0.5, 0.0))
    q: Matrix = ((1.0, 0.0), (0.0, 0.3))
    r: Matrix = ((0.2, 0.0), (0.0, 0.1))
    start: Vector = (1.0, -0.5)
    start_std: float = 0.5
    noise_std: float = 0.2
    observation_std: float = 0.1
    max_episode_steps: int = 4

    def __post_init__(self) -> None:
        require_episode_limit("LinearQuadraticGaussianProbe", self.max_episode_steps)
        shapes = tuple(np.shape(matrix) for matrix in (self.a, self.b, self.q, self.r, self.start))
        n, m = len(self.a), len(self.b[0])
        if shapes != ((n, n), (n, m), (n, n), (m, m), (n,)):
            raise UsageError(
                "LinearQuadraticGaussianProbe: a, b, q, r, start must have the shapes (n, n), (n, m), (n, n), (m, m), "
                f"(n,), not {shapes}."
            )

    @cached_property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            "LinearQuadraticGaussianProbe",
            Box.unbounded(len(self.a)),
            Box.unbounded(len(self.r)),
            self.max_episode_steps,
            options=changed_options(self),
        )

    def expected_return(self, weight: Any, bias: Any, log_std: Any) -> Float64[Array, ""]:
        """J, of the policy with weights (m, n), biases (m,) and logarithms of standard deviations (m,)."""
        a, b, q, r = (jnp.array(matrix, jnp.float64) for matrix in (self.a, self.b, self.q, self.r))
        weight, bias, log_std = (jnp.asarray(part, jnp.float64) for part in (weight, bias, log_std))
        eye = jnp.eye(len(self.a), dtype=jnp.float64)
        drawn = jnp.diag(jnp.exp(2 * log_std)) + self.observation_std**2 * weight @ weight.T  # what x does not explain

        def advance(moments: Any, _: Any) -> tuple[Any, Array]:
            mean, covariance = moments
            action = weight @ mean + bias
            state_price = jnp.trace(q @ covariance) + mean @ q @ mean
            action_price = jnp.trace(r @ (weight @ covariance @ weight.T + drawn)) + action @ r @ action
            closed = a + b @ weight
            spread = closed @ covariance @ closed.T + b @ drawn @ b.T + self.noise_std**2 * eye
            return (a @ mean + b @ action, spread), -(state_price + action_price)

        begun = jnp.array(self.start, jnp.float64), self.start_std**2 * eye
        return jax.lax.scan(advance, begun, None, self.max_episode_steps)[1].sum()

    def gradient(self, weight: Any, bias: Any, log_std: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The gradients of J with respect to weights, biases and log_std."""
        at = tuple(jnp.asarray(part, jnp.float64) for part in (weight, bias, log_std))
        found = jax.grad(self.expected_return, argnums=(0, 1, 2))(*at)
        return np.asarray(found[0]), np.asarray(found[1]), np.asarray(found[2])

    def reset(self, key: Key) -> tuple[PlantState, Float32[Array, "n"]]:
        """A state around `start`, and what is seen of it."""
        state_key, seen_key = jax.random.split(key)
        x = jnp.array(self.start, jnp.float64) + self._noise(state_key, self.start_std)
        return PlantState(x, jnp.zeros((), jnp.int32)), self._seen(x, seen_key)

    def step(self, state: PlantState, action: Float[Array, "m"], key: Key) -> tuple[PlantState, Step]:
        """One step of the plant."""
        a, b, q, r = (jnp.array(matrix, jnp.float64) for matrix in (self.a, self.b, self.q, self.r))
        state_key, seen_key = jax.random.split(key)
        u = action.astype(jnp.float64)
        reward = -(state.x @ q @ state.x + u @ r @ u)
        x = a @ state.x + b @ u + self._noise(state_key, self.noise_std)
        clock, ended = tick(state.clock, self.max_episode_steps)
        obs = self._seen(x, seen_key)
        return PlantState(x, clock), Step(obs, reward, ended, ended, obs, {})

    def _noise(self, key: Key, std: float) -> Float64[Array, "n"]:
        return std * jax.random.normal(key, (len(self.a),), jnp.float64)

    def _seen(self, x: Float64[Array, "n"], key: Key) -> Float32[Array, "n"]:
        return (x + self._noise(key, self.observation_std)).astype(jnp.float32)
