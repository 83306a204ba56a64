"""Pendulum: a torque-limited motor swings a rod up and keeps it there."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Float64, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, EnvSpec, changed_options
from workhorse.core.types import Step
from workhorse.environments.classic.episode import require_episode_limit, tick

__all__ = ["Pendulum", "PendulumState"]

MAX_SPEED = 8.0
MAX_TORQUE = 2.0
STEP_SECONDS = 0.05
MASS = 1.0
LENGTH = 1.0


class PendulumState(NamedTuple):
    """`physics` is (angle rad, not wrapped, zero upright; angular velocity rad/s); `clock` counts steps."""

    physics: Float64[Array, "2"]
    clock: Int[Array, ""]


@dataclass(frozen=True)
class Pendulum:
    """Gymnasium's Pendulum-v1, pure and for one slot.

    With torque u clipped to [-2, 2] N m and angle a wrapped to [-pi, pi) in the cost alone:

        reward = -(a^2 + 0.1 w^2 + 0.001 u^2)                    of the state *before* the step
        w'     = clip(w + (3 g / (2 l) sin a + 3 u / (m l^2)) dt, -8, 8)
        a'     = a + w' dt

    with m = 1 kg, l = 1 m, dt = 0.05 s. A reset draws a from [-pi, pi) and w from [-1, 1) uniformly.

    Observation: float32 (3,), (cos a, sin a, w). Action: (1,), in N m. Reward: in [-16.2736044, 0]. The task never
    terminates; truncated after `max_episode_steps`.

    Attributes:
        g: gravity, m/s^2, any finite number.
        max_episode_steps: the clock; None for no clock.

    Raises:
        UsageError: `g` is not finite, or `max_episode_steps` is not a positive integer or None.

    Source: Gymnasium 1.4 `pendulum.py`. The torque's terms are formed in the action's own dtype, as NumPy does there.
    """

    g: float = 10.0
    max_episode_steps: int | None = 200

    def __post_init__(self) -> None:
        require_episode_limit("Pendulum-v1", self.max_episode_steps)
        if not math.isfinite(self.g):
            raise UsageError(f"Pendulum-v1: g must be a finite number of m/s^2, not {self.g!r}.")

    @cached_property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            task="Pendulum-v1",
            observation=Box((-1.0, -1.0, -MAX_SPEED), (1.0, 1.0, MAX_SPEED)),
            action=Box((-MAX_TORQUE,), (MAX_TORQUE,)),
            max_episode_steps=self.max_episode_steps,
            step_seconds=STEP_SECONDS,
            options=changed_options(self),
        )

    def reset(self, key: Key) -> tuple[PendulumState, Float32[Array, "3"]]:
        """An angle anywhere, a slow spin, and their observation."""
        high = jnp.array([math.pi, 1.0])
        physics = jax.random.uniform(key, (2,), jnp.float64, -high, high)
        return PendulumState(physics, jnp.zeros((), jnp.int32)), _observe(physics)

    def step(self, state: PendulumState, action: Float[Array, "1"], key: Key) -> tuple[PendulumState, Step]:
        """One step of semi-implicit Euler; `key` is not used, the task draws nothing after the reset."""
        angle, speed = state.physics
        torque = jnp.clip(action, -MAX_TORQUE, MAX_TORQUE)[0]
        wrapped = (angle + math.pi) % (2 * math.pi) - math.pi
        cost = wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2
        acceleration = 3 * self.g / (2 * LENGTH) * jnp.sin(angle) + 3.0 / (MASS * LENGTH**2) * torque
        speed = jnp.clip(speed + acceleration * STEP_SECONDS, -MAX_SPEED, MAX_SPEED)
        angle = angle + speed * STEP_SECONDS

        physics = jnp.stack([angle, speed])
        clock, truncated = tick(state.clock, self.max_episode_steps)
        obs = _observe(physics)
        return PendulumState(physics, clock), Step(obs, -cost, jnp.zeros((), bool), truncated, obs, {})


def _observe(physics: Float64[Array, "2"]) -> Float32[Array, "3"]:
    angle, speed = physics
    return jnp.stack([jnp.cos(angle), jnp.sin(angle), speed]).astype(jnp.float32)
