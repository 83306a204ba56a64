"""MountainCar: a car too weak for the hill rocks itself out of the valley."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Float64, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec, changed_options
from workhorse.core.types import Step
from workhorse.environments.classic.episode import require_episode_limit, tick

__all__ = ["MountainCar", "MountainCarState"]

MIN_POSITION, MAX_POSITION = -1.2, 0.6
MAX_SPEED = 0.07
GOAL_POSITION = 0.5
FORCE = 0.001
GRAVITY = 0.0025


class MountainCarState(NamedTuple):
    """`physics` is (position, velocity a step); `clock` counts steps."""

    physics: Float64[Array, "2"]
    clock: Int[Array, ""]


@dataclass(frozen=True)
class MountainCar:
    """Gymnasium's MountainCar-v0, pure and for one slot.

        v' = clip(v + 0.001 (action - 1) - 0.0025 cos 3x, -0.07, 0.07)
        x' = clip(x + v', -1.2, 0.6),      and v' = 0 where the car runs into the left wall

    Time is counted in steps, so the task has no seconds. A reset draws x uniformly from [-0.6, -0.4), at rest.

    Observation: float32 (2,), (x, v). Action: 0, 1, 2 for left, nothing, right. Reward: -1 a step. Terminated:
    x' >= 0.5 and v' >= `goal_velocity`. Truncated: after `max_episode_steps`.

    Attributes:
        goal_velocity: the least velocity to arrive with.
        max_episode_steps: the clock; None for no clock.

    Raises:
        UsageError: `goal_velocity` is not finite, or `max_episode_steps` is not a positive integer or None.

    Source: Moore 1990, "Efficient memory-based learning for robot control"; as in Gymnasium 1.4 `mountain_car.py`.
    """

    goal_velocity: float = 0.0
    max_episode_steps: int | None = 200

    def __post_init__(self) -> None:
        require_episode_limit("MountainCar-v0", self.max_episode_steps)
        if not math.isfinite(self.goal_velocity):
            raise UsageError(f"MountainCar-v0: goal_velocity must be a finite number, not {self.goal_velocity!r}.")

    @cached_property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            task="MountainCar-v0",
            observation=Box((MIN_POSITION, -MAX_SPEED), (MAX_POSITION, MAX_SPEED)),
            action=Discrete(3),
            max_episode_steps=self.max_episode_steps,
            options=changed_options(self),
        )

    def reset(self, key: Key) -> tuple[MountainCarState, Float32[Array, "2"]]:
        """At rest near the bottom of the valley, and its observation."""
        physics = jnp.stack([jax.random.uniform(key, (), jnp.float64, -0.6, -0.4), jnp.zeros((), jnp.float64)])
        return MountainCarState(physics, jnp.zeros((), jnp.int32)), physics.astype(jnp.float32)

    def step(self, state: MountainCarState, action: Int[Array, ""], key: Key) -> tuple[MountainCarState, Step]:
        """One step of the car; `key` is not used, the task draws nothing after the reset."""
        position, velocity = state.physics
        velocity = velocity + ((action - 1) * FORCE + jnp.cos(3 * position) * -GRAVITY)
        velocity = jnp.clip(velocity, -MAX_SPEED, MAX_SPEED)
        position = jnp.clip(position + velocity, MIN_POSITION, MAX_POSITION)
        velocity = jnp.where((position == MIN_POSITION) & (velocity < 0), 0.0, velocity)

        physics = jnp.stack([position, velocity])
        terminated = (position >= GOAL_POSITION) & (velocity >= self.goal_velocity)
        clock, truncated = tick(state.clock, self.max_episode_steps)
        obs = physics.astype(jnp.float32)
        return MountainCarState(physics, clock), Step(obs, -jnp.ones((), jnp.float64), terminated, truncated, obs, {})
