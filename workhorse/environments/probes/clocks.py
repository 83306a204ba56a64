"""Probes of how episodes end: reward 1 under a clock, the same with termination, and a false value after the reset."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.classic.episode import changed_options, require_episode_limit, tick

__all__ = ["ClockState", "ResetLeakProbe", "TerminationProbe", "TimeLimitProbe"]


class ClockState(NamedTuple):
    """Nothing but the steps taken since the reset."""

    clock: Int[Array, ""]


@dataclass(frozen=True)
class TimeLimitProbe:
    """Reward 1 at every step, for ever; only a clock cuts episodes after T steps.

    *Known answer*: whatever is done, the value is 1 / (1 - discount) at every observation, the last one included. An
    algorithm that takes the clock for the end of the task finds (1 - discount^(T - t)) / (1 - discount) instead, which
    is `TerminationProbe`'s answer.

    Observation: float32 (1,), t / T. Action: 0 or 1, without effect. There is one start state.

    Attributes:
        max_episode_steps: T.
    """

    max_episode_steps: int = 8

    def __post_init__(self) -> None:
        require_episode_limit("TimeLimitProbe", self.max_episode_steps)

    @cached_property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            "TimeLimitProbe", Box((0.0,), (1.0,)), Discrete(2), self.max_episode_steps, options=changed_options(self)
        )

    def value(self, discount: float) -> float:
        """The value of every observation."""
        return 1.0 / (1.0 - discount)

    def reset(self, key: Key) -> tuple[ClockState, Float32[Array, "1"]]:
        """Step zero; `key` is not used."""
        return ClockState(jnp.zeros((), jnp.int32)), jnp.zeros(1, jnp.float32)

    def step(self, state: ClockState, action: Any, key: Key) -> tuple[ClockState, Step]:
        """Pay 1 and count; neither `action` nor `key` is used."""
        clock, truncated = tick(state.clock, self.max_episode_steps)
        obs = _fraction(clock, self.max_episode_steps)
        return ClockState(clock), Step(obs, jnp.ones(()), jnp.zeros((), bool), truncated, obs, {})


@dataclass(frozen=True)
class TerminationProbe:
    """`TimeLimitProbe`'s twin: the same rewards and observations, but the task itself ends after T steps.

    *Known answer*: the value after t steps is (1 - discount^(T - t)) / (1 - discount), whatever is done.

    Observation: float32 (1,), t / T. Action: 0 or 1, without effect. There is one start state. The clock of
    `spec.max_episode_steps` = T + 1 never fires.

    Attributes:
        num_steps: T.
    """

    num_steps: int = 8

    def __post_init__(self) -> None:
        require_episode_limit("TerminationProbe", self.num_steps)

    @cached_property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            "TerminationProbe", Box((0.0,), (1.0,)), Discrete(2), self.num_steps + 1, options=changed_options(self)
        )

    def value(self, discount: float, steps_taken: int = 0) -> float:
        """The value after `steps_taken` steps of an episode."""
        return (1.0 - discount ** (self.num_steps - steps_taken)) / (1.0 - discount)

    def reset(self, key: Key) -> tuple[ClockState, Float32[Array, "1"]]:
        """Step zero; `key` is not used."""
        return ClockState(jnp.zeros((), jnp.int32)), jnp.zeros(1, jnp.float32)

    def step(self, state: ClockState, action: Any, key: Key) -> tuple[ClockState, Step]:
        """Pay 1, count, end at T; neither `action` nor `key` is used."""
        clock, truncated = tick(state.clock, self.num_steps + 1)
        obs = _fraction(clock, self.num_steps)
        return ClockState(clock), Step(obs, jnp.ones(()), clock >= self.num_steps, truncated, obs, {})


@dataclass(frozen=True)
class ResetLeakProbe:
    """The reset's observation is worth far less than the one the clock cut off: a bootstrap from it shows at once.

    The first step of an episode pays `entry_reward`, every later one 1, and the clock cuts after two. The observation
    says which of the two comes next: (1, 0) after a reset, (0, 1) ever after.

    *Known answer*: the value of (0, 1) is 1 / (1 - discount), that of (1, 0) entry_reward + discount / (1 - discount).
    An algorithm that bootstraps a cut episode from the reset observation finds `leaked_value` for (0, 1).

    Action: 0 or 1, without effect. There is one start state.

    Attributes:
        entry_reward: what the first step pays.
    """

    entry_reward: float = -100.0

    @cached_property
    def spec(self) -> EnvSpec:
        return EnvSpec("ResetLeakProbe", Box((0.0, 0.0), (1.0, 1.0)), Discrete(2), 2, options=changed_options(self))

    def value(self, discount: float) -> tuple[float, float]:
        """The values of (1, 0), after a reset, and of (0, 1), later."""
        later = 1.0 / (1.0 - discount)
        return self.entry_reward + discount * later, later

    def leaked_value(self, discount: float) -> float:
        """The wrong value of (0, 1): the solution of v = 1 + discount (entry_reward + discount v)."""
        return (1.0 + discount * self.entry_reward) / (1.0 - discount**2)

    def reset(self, key: Key) -> tuple[ClockState, Float32[Array, "2"]]:
        """The observation (1, 0); `key` is not used."""
        return ClockState(jnp.zeros((), jnp.int32)), jnp.array([1.0, 0.0], jnp.float32)

    def step(self, state: ClockState, action: Any, key: Key) -> tuple[ClockState, Step]:
        """Pay the entry or 1; neither `action` nor `key` is used."""
        reward = jnp.where(state.clock == 0, self.entry_reward, 1.0)
        clock, truncated = tick(state.clock, 2)
        obs = jnp.array([0.0, 1.0], jnp.float32)
        return ClockState(clock), Step(obs, reward, jnp.zeros((), bool), truncated, obs, {})


def _fraction(clock: Int[Array, ""], limit: int) -> Float32[Array, "1"]:
    return (clock / limit).astype(jnp.float32)[None]
