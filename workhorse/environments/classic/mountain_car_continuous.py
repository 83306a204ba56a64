"""MountainCarContinuous: the weak car with a continuous engine and a price on force."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, EnvSpec, changed_options
from workhorse.core.types import Step
from workhorse.environments.classic.episode import require_episode_limit, tick

__all__ = ["MountainCarContinuous", "MountainCarContinuousState"]

MIN_POSITION, MAX_POSITION = -1.2, 0.6
MAX_SPEED = 0.07
GOAL_POSITION = 0.45
POWER = 0.0015
GRAVITY = 0.0025


class MountainCarContinuousState(NamedTuple):
    """`physics` is (position, velocity a step), rounded to float32 after every step; `clock` counts steps."""

    physics: Float64[Array, "2"]
    clock: Int[Array, ""]


@dataclass(frozen=True)
class MountainCarContinuous:
    """Gymnasium's MountainCarContinuous-v0, pure and for one slot.

        v' = clip(v + 0.0015 clip(u, -1, 1) - 0.0025 cos 3x, -0.07, 0.07)
        x' = clip(x + v', -1.2, 0.6),      and v' = 0 where the car runs into the left wall
        reward = 100 [terminated] - 0.1 u^2                      *u not clipped*

    Time is counted in steps, so the task has no seconds. A reset draws x uniformly from [-0.6, -0.4), at rest.

    Observation: float32 (2,), (x, v). Action: (1,). Terminated: x' >= 0.45 and v' >= `goal_velocity`. Truncated: after
    `max_episode_steps`.

    *The physics is float32 after the first step.* Gymnasium keeps the state it returns as observation, and NumPy then
    adds in float32; parity over an episode needs the same roundings, so they are written out below. The state is held
    in float64 all the same, where every float32 is exact, because the reset's position is a float64 there too.

    Attributes:
        goal_velocity: the least velocity to arrive with.
        max_episode_steps: the clock; None for no clock.

    Raises:
        UsageError: `goal_velocity` is not finite, or `max_episode_steps` is not a positive integer or None.

    Source: Moore 1990, "Efficient memory-based learning for robot control"; as in Gymnasium 1.4
    `continuous_mountain_car.py`, for float32 actions.
    """

    goal_velocity: float = 0.0
    max_episode_steps: int | None = 999

    def __post_init__(self) -> None:
        require_episode_limit("MountainCarContinuous-v0", self.max_episode_steps)
        if not math.isfinite(self.goal_velocity):
            raise UsageError(
                f"MountainCarContinuous-v0: goal_velocity must be a finite number, not {self.goal_velocity!r}."
            )

    @cached_property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            task="MountainCarContinuous-v0",
            observation=Box((MIN_POSITION, -MAX_SPEED), (MAX_POSITION, MAX_SPEED)),
            action=Box((-1.0,), (1.0,)),
            max_episode_steps=self.max_episode_steps,
            options=changed_options(self),
        )

    def reset(self, key: Key) -> tuple[MountainCarContinuousState, Float32[Array, "2"]]:
        """At rest near the bottom of the valley, and its observation."""
        physics = jnp.stack([jax.random.uniform(key, (), jnp.float64, -0.6, -0.4), jnp.zeros((), jnp.float64)])
        return MountainCarContinuousState(physics, jnp.zeros((), jnp.int32)), physics.astype(jnp.float32)

    def step(
        self, state: MountainCarContinuousState, action: Float[Array, "1"], key: Key
    ) -> tuple[MountainCarContinuousState, Step]:
        """One step of the car; `key` is not used, the task draws nothing after the reset."""
        position, velocity = state.physics
        first = state.clock == 0
        slope = GRAVITY * jnp.cos(jnp.where(first, 3 * position, _round(3 * position)))
        velocity = jnp.where(
            first, velocity + _thrust(action, slope), _round(velocity + _round(_thrust(action, slope)))
        )
        velocity = jnp.clip(velocity, -_SPEED, _SPEED)
        position = position + velocity
        position = jnp.clip(jnp.where(first, position, _round(position)), _LEFT, _RIGHT)
        velocity = jnp.where((position == _LEFT) & (velocity < 0), 0.0, velocity)
        terminated = (position >= jnp.where(first, GOAL_POSITION, _GOAL)) & (
            velocity >= _as_float32(self.goal_velocity)
        )
        paid = action[0].astype(jnp.float64)
        reward = jnp.where(terminated, 100.0, 0.0) - paid**2 * 0.1

        physics = _round(jnp.stack([position, velocity]))
        clock, truncated = tick(state.clock, self.max_episode_steps)
        obs = physics.astype(jnp.float32)
        return MountainCarContinuousState(physics, clock), Step(obs, reward, terminated, truncated, obs, {})


def _round(x: Float64[Array, "..."]) -> Float64[Array, "..."]:
    """The nearest float32, as a float64; XLA may drop a cast there and back, but it keeps this."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=23)


def _thrust(action: Float[Array, "1"], slope: Float64[Array, ""]) -> Float64[Array, ""]:
    """Change of velocity by engine and slope.

    Inside [-1, 1] NumPy rounds the product and the difference to float32, as is spelt out here (in float32 itself XLA
    would contract the two); a clipped action is the Python float of the bound there, and both are float64.
    """
    force = action[0].astype(jnp.float64)
    inside = _round(_round(force * _as_float32(POWER)) - _round(slope))
    outside = jnp.sign(force) * POWER - slope
    return jnp.where(jnp.abs(force) > 1.0, outside, inside)


def _as_float32(x: float) -> float:
    return float(np.float32(x))


_SPEED, _LEFT, _RIGHT, _GOAL = (_as_float32(x) for x in (MAX_SPEED, MIN_POSITION, MAX_POSITION, GOAL_POSITION))
