"""A probe of policy gradients with continuous actions: a noisy linear plant, and the gradient by its moments."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.classic.episode import changed_options, require_episode_limit, tick

__all__ = ["LinearQuadraticGaussianProbe", "LinearQuadraticGaussianState"]

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


class LinearQuadraticGaussianState(NamedTuple):
    """`x` is the plant's state; `clock` counts steps."""

    x: Float64[Array, "n"]
    clock: Int[Array, ""]


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

    def reset(self, key: Key) -> tuple[LinearQuadraticGaussianState, Float32[Array, "n"]]:
        """A state around `start`, and what is seen of it."""
        state_key, seen_key = jax.random.split(key)
        x = jnp.array(self.start, jnp.float64) + self._noise(state_key, self.start_std)
        return LinearQuadraticGaussianState(x, jnp.zeros((), jnp.int32)), self._seen(x, seen_key)

    def step(
        self, state: LinearQuadraticGaussianState, action: Float[Array, "m"], key: Key
    ) -> tuple[LinearQuadraticGaussianState, Step]:
        """One step of the plant."""
        a, b, q, r = (jnp.array(matrix, jnp.float64) for matrix in (self.a, self.b, self.q, self.r))
        state_key, seen_key = jax.random.split(key)
        u = action.astype(jnp.float64)
        reward = -(state.x @ q @ state.x + u @ r @ u)
        x = a @ state.x + b @ u + self._noise(state_key, self.noise_std)
        clock, ended = tick(state.clock, self.max_episode_steps)
        obs = self._seen(x, seen_key)
        return LinearQuadraticGaussianState(x, clock), Step(obs, reward, ended, ended, obs, {})

    def _noise(self, key: Key, std: float) -> Float64[Array, "n"]:
        return std * jax.random.normal(key, (len(self.a),), jnp.float64)

    def _seen(self, x: Float64[Array, "n"], key: Key) -> Float32[Array, "n"]:
        return (x + self._noise(key, self.observation_std)).astype(jnp.float32)
