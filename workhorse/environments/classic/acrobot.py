"""Acrobot: a two-link chain, driven at the elbow alone, swings its tip above a line."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Float64, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec, changed_options
from workhorse.core.types import Step
from workhorse.environments.classic.episode import require_episode_limit, tick

__all__ = ["Acrobot", "AcrobotState"]

MASS_1 = MASS_2 = 1.0
LENGTH_1 = 1.0
CENTRE_1 = CENTRE_2 = 0.5
INERTIA = 1.0
GRAVITY = 9.8
MAX_SPEED_1 = 4 * math.pi
MAX_SPEED_2 = 9 * math.pi


class AcrobotState(NamedTuple):
    """`physics` is (angle 1, angle 2 relative to link 1, rad; their rates, rad/s); `clock` counts steps."""

    physics: Float64[Array, "4"]
    clock: Int[Array, ""]


@dataclass(frozen=True)
class Acrobot:
    """Gymnasium's Acrobot-v1, pure and for one slot.

    Angle a is link 1's from hanging down, b link 2's relative to link 1. With unit masses, lengths and inertias,
    centres of mass at 1/2, torque u in {-1, 0, 1} N m at the elbow:

        d1   = m lc^2 + m (l^2 + lc^2 + 2 l lc cos b) + 2 I,     d2 = m (lc^2 + l lc cos b) + I
        phi2 = m lc g cos(a + b - pi/2)
        phi1 = -m l lc b'^2 sin b - 2 m l lc b' a' sin b + (m lc + m l) g cos(a - pi/2) + phi2
        b''  = (u + d2/d1 phi1 - m l lc a'^2 sin b - phi2) / (m lc^2 + I - d2^2/d1)       ("nips": without a'^2)
        a''  = -(d2 b'' + phi1) / d1

    one step of fourth-order Runge-Kutta over `dt`, then angles wrapped to [-pi, pi] and rates clipped to 4 pi and
    9 pi. A reset draws the four components uniformly from [-0.1, 0.1), *rounded to float32* as Gymnasium does.

    Observation: float32 (6,), (cos a, sin a, cos b, sin b, a', b'). Action: 0, 1, 2 for torque -1, 0, 1. Reward: -1 a
    step, 0 for the step that arrives. Terminated: -cos a - cos(a + b) > 1. Truncated: after `max_episode_steps`.

    Attributes:
        torque_noise_max: each step's torque gets a uniform draw from [-torque_noise_max, torque_noise_max); 0 for none.
        book_or_nips: which equations, those of the book or of the 1996 paper.
        dt: seconds a step.
        max_episode_steps: the clock; None for no clock.

    The first three are class attributes in Gymnasium, there to be set on the unwrapped environment.

    Raises:
        UsageError: an option is outside what is said above.

    Source: Sutton 1996, "Generalization in reinforcement learning: successful examples using sparse coarse coding";
    Sutton & Barto 2018; as in Gymnasium 1.4 `acrobot.py`.
    """

    torque_noise_max: float = 0.0
    book_or_nips: Literal["book", "nips"] = "book"
    dt: float = 0.2
    max_episode_steps: int | None = 500

    def __post_init__(self) -> None:
        require_episode_limit("Acrobot-v1", self.max_episode_steps)
        if self.book_or_nips not in ("book", "nips"):
            raise UsageError(f"Acrobot-v1: book_or_nips must be 'book' or 'nips', not {self.book_or_nips!r}.")
        if not (math.isfinite(self.torque_noise_max) and self.torque_noise_max >= 0):
            raise UsageError(f"Acrobot-v1: torque_noise_max must be at least 0, not {self.torque_noise_max!r}.")
        if not (math.isfinite(self.dt) and self.dt > 0):
            raise UsageError(f"Acrobot-v1: dt must be a positive number of seconds, not {self.dt!r}.")

    @cached_property
    def spec(self) -> EnvSpec:
        high = (1.0, 1.0, 1.0, 1.0, MAX_SPEED_1, MAX_SPEED_2)
        return EnvSpec(
            task="Acrobot-v1",
            observation=Box(tuple(-bound for bound in high), high),
            action=Discrete(3),
            max_episode_steps=self.max_episode_steps,
            step_seconds=self.dt,
            options=changed_options(self),
        )

    def reset(self, key: Key) -> tuple[AcrobotState, Float32[Array, "6"]]:
        """A state close to hanging at rest and its observation."""
        drawn = jax.random.uniform(key, (4,), jnp.float64, -0.1, 0.1)
        physics = jax.lax.reduce_precision(
            drawn, exponent_bits=8, mantissa_bits=23
        )  # XLA may drop a cast and its undoing
        return AcrobotState(physics, jnp.zeros((), jnp.int32)), _observe(physics)

    def step(self, state: AcrobotState, action: Int[Array, ""], key: Key) -> tuple[AcrobotState, Step]:
        """One Runge-Kutta step; `key` gives the torque's noise where there is one."""
        torque = jnp.asarray(action, jnp.float64) - 1.0
        if self.torque_noise_max > 0:
            bound = self.torque_noise_max
            torque = torque + jax.random.uniform(key, (), jnp.float64, -bound, bound)
        a, b, a_dot, b_dot = self._integrate(state.physics, torque)
        physics = jnp.stack(
            [
                _wrap(a),
                _wrap(b),
                jnp.clip(a_dot, -MAX_SPEED_1, MAX_SPEED_1),
                jnp.clip(b_dot, -MAX_SPEED_2, MAX_SPEED_2),
            ]
        )
        terminated = -jnp.cos(physics[0]) - jnp.cos(physics[1] + physics[0]) > 1.0
        reward = jnp.where(terminated, 0.0, -1.0)
        clock, truncated = tick(state.clock, self.max_episode_steps)
        obs = _observe(physics)
        return AcrobotState(physics, clock), Step(obs, reward, terminated, truncated, obs, {})

    def _integrate(self, y: Float64[Array, "4"], torque: Float64[Array, ""]) -> Float64[Array, "4"]:
        """Classic fourth-order Runge-Kutta over one step."""
        half = self.dt / 2.0
        k1 = self._derivative(y, torque)
        k2 = self._derivative(y + half * k1, torque)
        k3 = self._derivative(y + half * k2, torque)
        k4 = self._derivative(y + self.dt * k3, torque)
        return y + self.dt / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)

    def _derivative(self, y: Float64[Array, "4"], torque: Float64[Array, ""]) -> Float64[Array, "4"]:
        """Time derivative of the physics, the equations of the class docstring."""
        a, b, a_dot, b_dot = y
        cos_b, sin_b = jnp.cos(b), jnp.sin(b)
        arm = MASS_2 * LENGTH_1 * CENTRE_2
        d1 = MASS_1 * CENTRE_1**2 + MASS_2 * (LENGTH_1**2 + CENTRE_2**2 + 2 * LENGTH_1 * CENTRE_2 * cos_b) + 2 * INERTIA
        d2 = MASS_2 * (CENTRE_2**2 + LENGTH_1 * CENTRE_2 * cos_b) + INERTIA
        phi2 = MASS_2 * CENTRE_2 * GRAVITY * jnp.cos(a + b - math.pi / 2.0)
        phi1 = (
            -arm * b_dot**2 * sin_b
            - 2 * arm * b_dot * a_dot * sin_b
            + (MASS_1 * CENTRE_1 + MASS_2 * LENGTH_1) * GRAVITY * jnp.cos(a - math.pi / 2)
            + phi2
        )
        centrifugal = arm * a_dot**2 * sin_b if self.book_or_nips == "book" else 0.0
        b_acceleration = (torque + d2 / d1 * phi1 - centrifugal - phi2) / (MASS_2 * CENTRE_2**2 + INERTIA - d2**2 / d1)
        a_acceleration = -(d2 * b_acceleration + phi1) / d1
        return jnp.stack([a_dot, b_dot, a_acceleration, b_acceleration])


def _wrap(angle: Float64[Array, ""]) -> Float64[Array, ""]:
    """Shift by whole turns into [-pi, pi], leaving what lies inside untouched.

    Gymnasium subtracts turns one at a time; the number of turns is counted here first. A step of 0.2 s turns at most
    9 pi * 0.2 rad, so this subtracts once and agrees to the bit.
    """
    turn = 2 * math.pi
    above = jnp.ceil((angle - math.pi) / turn)
    below = jnp.ceil((-math.pi - angle) / turn)
    return angle - turn * jnp.maximum(above, 0.0) + turn * jnp.maximum(below, 0.0)


def _observe(physics: Float64[Array, "4"]) -> Float32[Array, "6"]:
    a, b, a_dot, b_dot = physics
    return jnp.stack([jnp.cos(a), jnp.sin(a), jnp.cos(b), jnp.sin(b), a_dot, b_dot]).astype(jnp.float32)
