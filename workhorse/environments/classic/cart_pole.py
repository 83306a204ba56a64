"""CartPole: a cart on a rail balances a pole with two pushes."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Float64, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.spec import Box, Discrete, EnvSpec, changed_options
from workhorse.core.types import Step
from workhorse.environments.classic.episode import require_episode_limit, tick

__all__ = ["CartPole", "CartPoleState"]

GRAVITY = 9.8
POLE_MASS = 0.1
TOTAL_MASS = 0.1 + 1.0
HALF_LENGTH = 0.5
POLE_MASS_LENGTH = POLE_MASS * HALF_LENGTH
FORCE = 10.0
STEP_SECONDS = 0.02
ANGLE_LIMIT_RAD = 12 * 2 * math.pi / 360
POSITION_LIMIT_M = 2.4


class CartPoleState(NamedTuple):
    """`physics` is (position m, velocity m/s, pole angle rad, angular velocity rad/s); `clock` counts steps."""

    physics: Float64[Array, "4"]
    clock: Int[Array, ""]


@dataclass(frozen=True)
class CartPole:
    """Gymnasium's CartPole-v1, pure and for one slot.

    With force F = +10 N (action 1) or -10 N (action 0), pole angle a and its rate w, both zero when upright:

        t    = (F + m l w^2 sin a) / M
        a''  = (g sin a - t cos a) / (l (4/3 - m cos^2 a / M))
        x''  = t - m l a'' cos a / M

    with m = 0.1 kg, M = 1.1 kg, half length l = 0.5 m, g = 9.8 m/s^2, then one explicit Euler step of 0.02 s (positions
    move with the *old* velocities). A reset draws each of the four components uniformly from [-0.05, 0.05).

    Observation: float32 (4,), the physics. Action: 0 or 1. Reward: 1 a step, *also for the step that fails*; with
    `sutton_barto_reward` 0 a step and -1 for the step that fails. Terminated: |x| > 2.4 m or |a| > 12 degrees.
    Truncated: after `max_episode_steps`. Stepping a terminated state again is undefined.

    Attributes:
        sutton_barto_reward: pay as the book does, 0 and then -1.
        max_episode_steps: the clock; None for no clock.

    Raises:
        UsageError: `max_episode_steps` is not a positive integer or None.

    Source: Barto, Sutton & Anderson 1983, "Neuronlike adaptive elements that can solve difficult learning control
    problems", with the corrected equations of Florian 2007, as in Gymnasium 1.4 `cartpole.py`. A step differs from it
    by 1.4e-16 at most (XLA contracts multiply-adds and has its own sine); *an open-loop pole grows that past 1e-9
    after some 180 steps*, so long episodes are equal step by step and not as a whole.
    """

    physics_order: ClassVar[tuple[int, ...]] = (0, 2, 1, 3)
    """Places of the positions, and then of the velocities, in `CartPoleState.physics`."""

    sutton_barto_reward: bool = False
    max_episode_steps: int | None = 500

    def __post_init__(self) -> None:
        require_episode_limit("CartPole-v1", self.max_episode_steps)

    @cached_property
    def spec(self) -> EnvSpec:
        high = (2 * POSITION_LIMIT_M, math.inf, 2 * ANGLE_LIMIT_RAD, math.inf)
        return EnvSpec(
            task="CartPole-v1",
            observation=Box(tuple(-bound for bound in high), high),
            action=Discrete(2),
            max_episode_steps=self.max_episode_steps,
            step_seconds=STEP_SECONDS,
            options=changed_options(self),
        )

    def reset(self, key: Key) -> tuple[CartPoleState, Float32[Array, "4"]]:
        """A state near upright and its observation."""
        physics = jax.random.uniform(key, (4,), jnp.float64, -0.05, 0.05)
        return CartPoleState(physics, jnp.zeros((), jnp.int32)), physics.astype(jnp.float32)

    def step(self, state: CartPoleState, action: Int[Array, ""], key: Key) -> tuple[CartPoleState, Step]:
        """One Euler step under a push; `key` is not used, the task draws nothing after the reset."""
        x, x_dot, angle, angle_dot = state.physics
        force = jnp.where(action == 1, FORCE, -FORCE)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        push = (force + POLE_MASS_LENGTH * jnp.square(angle_dot) * sin) / TOTAL_MASS
        angle_acceleration = (GRAVITY * sin - cos * push) / (
            HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * jnp.square(cos) / TOTAL_MASS)
        )
        acceleration = push - POLE_MASS_LENGTH * angle_acceleration * cos / TOTAL_MASS
        x = x + STEP_SECONDS * x_dot
        x_dot = x_dot + STEP_SECONDS * acceleration
        angle = angle + STEP_SECONDS * angle_dot
        angle_dot = angle_dot + STEP_SECONDS * angle_acceleration

        physics = jnp.stack([x, x_dot, angle, angle_dot])
        terminated = (jnp.abs(x) > POSITION_LIMIT_M) | (jnp.abs(angle) > ANGLE_LIMIT_RAD)
        reward = jnp.where(terminated, -1.0, 0.0) if self.sutton_barto_reward else jnp.ones((), jnp.float64)
        clock, truncated = tick(state.clock, self.max_episode_steps)
        obs = physics.astype(jnp.float32)
        return CartPoleState(physics, clock), Step(obs, reward, terminated, truncated, obs, {})
