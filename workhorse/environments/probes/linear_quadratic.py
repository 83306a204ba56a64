"""A probe of control: linear dynamics, quadratic cost, and the optimal feedback in closed form."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Float32, Float64, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.classic.episode import changed_options, require_episode_limit, tick

__all__ = ["LinearQuadraticProbe", "LinearQuadraticState"]

Matrix = tuple[tuple[float, ...], ...]


class LinearQuadraticState(NamedTuple):
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

    def reset(self, key: Key) -> tuple[LinearQuadraticState, Float32[Array, "n"]]:
        """A state in the unit box around the goal, and its observation."""
        x = jax.random.uniform(key, (len(self.a),), jnp.float64, -1.0, 1.0)
        return LinearQuadraticState(x, jnp.zeros((), jnp.int32)), x.astype(jnp.float32)

    def step(
        self, state: LinearQuadraticState, action: Float[Array, "m"], key: Key
    ) -> tuple[LinearQuadraticState, Step]:
        """One step of the plant; `key` is not used, the task draws nothing after the reset."""
        a, b, q, r = (jnp.array(matrix, jnp.float64) for matrix in (self.a, self.b, self.q, self.r))
        u = action.astype(jnp.float64)
        reward = -(state.x @ q @ state.x + u @ r @ u)
        x = a @ state.x + b @ u
        clock, truncated = tick(state.clock, self.max_episode_steps)
        obs = x.astype(jnp.float32)
        return LinearQuadraticState(x, clock), Step(obs, reward, jnp.zeros((), bool), truncated, obs, {})
