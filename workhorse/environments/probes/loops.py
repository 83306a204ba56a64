"""Probes of loops: how episodes end, which slot is which, and what a policy remembers."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.spec import Box, Discrete, EnvSpec, changed_options
from workhorse.core.types import Step
from workhorse.environments.classic.episode import require_episode_limit, tick

__all__ = ["ClockState", "MemoryProbe", "ResetLeakProbe", "SlotIdentityProbe", "TerminationProbe", "TimeLimitProbe"]


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


class SlotIdentityState(NamedTuple):
    """`identity`, in [0, 1), is the episode's number; `clock` counts steps."""

    identity: Float32[Array, ""]
    clock: Int[Array, ""]


@dataclass(frozen=True)
class SlotIdentityProbe:
    """Every step pays the number that the slot drew from its reset key, and the observation is that number.

    *Known answer*: `reward[t, b] == obs[t, b, 0] == next_obs[t, b, 0]` for every row of a rollout, and the value of an
    observation is obs[0] / (1 - discount). Any mixing of slots - a wrong reshape, a permuted batch, a reset that falls
    into another slot - breaks the first; a value learnt for the wrong slot breaks the second.

    Observation: float32 (1,), in [0, 1). Action: 0 or 1, without effect. Never terminates.

    Attributes:
        max_episode_steps: the clock; after it the slot draws another number.
    """

    max_episode_steps: int = 8

    def __post_init__(self) -> None:
        require_episode_limit("SlotIdentityProbe", self.max_episode_steps)

    @cached_property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            "SlotIdentityProbe", Box((0.0,), (1.0,)), Discrete(2), self.max_episode_steps, options=changed_options(self)
        )

    def value(self, identity: float, discount: float) -> float:
        """The value of the observation `identity`."""
        return identity / (1.0 - discount)

    def reset(self, key: Key) -> tuple[SlotIdentityState, Float32[Array, "1"]]:
        """Draw the episode's number."""
        identity = jax.random.uniform(key, (), jnp.float32)
        return SlotIdentityState(identity, jnp.zeros((), jnp.int32)), identity[None]

    def step(self, state: SlotIdentityState, action: Any, key: Key) -> tuple[SlotIdentityState, Step]:
        """Pay the number; neither `action` nor `key` is used."""
        clock, truncated = tick(state.clock, self.max_episode_steps)
        obs, reward = state.identity[None], state.identity.astype(jnp.float64)
        return SlotIdentityState(state.identity, clock), Step(obs, reward, jnp.zeros((), bool), truncated, obs, {})


class MemoryState(NamedTuple):
    """The cue, 0 or 1, and the number of steps taken."""

    cue: Int[Array, ""]
    clock: Int[Array, ""]


@dataclass(frozen=True)
class MemoryProbe:
    """A cue is shown at the first step only; at the last step the action that names it pays 1.

    *Known answer*: the best policy with memory earns 1 an episode, the best without it 1/2.

    Observation: float32 (2,): -1 or 1 for the cue at the first step and 0 later; 1 at the last step and 0 before.
    Action: 0 or 1, which counts at the last step only. The last step terminates, and the clock runs out with it.

    Attributes:
        max_episode_steps: length of an episode, at least 2.
    """

    max_episode_steps: int = 5

    def __post_init__(self) -> None:
        require_episode_limit("MemoryProbe", self.max_episode_steps)

    @cached_property
    def spec(self) -> EnvSpec:
        box = Box((-1.0, 0.0), (1.0, 1.0))
        return EnvSpec("MemoryProbe", box, Discrete(2), self.max_episode_steps, options=changed_options(self))

    def reset(self, key: Key) -> tuple[MemoryState, Float32[Array, "2"]]:
        """Draw the cue and show it."""
        state = MemoryState(jax.random.bernoulli(key).astype(jnp.int32), jnp.zeros((), jnp.int32))
        return state, jnp.stack([2.0 * state.cue - 1.0, 0.0 * state.cue]).astype(jnp.float32)

    def step(self, state: MemoryState, action: Int[Array, ""], key: Key) -> tuple[MemoryState, Step]:
        """Pay for the cue's name at the last step; `key` is not used."""
        clock, over = tick(state.clock, self.max_episode_steps)
        is_next_last = clock == self.max_episode_steps - 1
        obs = jnp.stack([jnp.zeros(()), is_next_last.astype(jnp.float64)]).astype(jnp.float32)
        reward = jnp.where(over, (action == state.cue).astype(jnp.float64), 0.0)
        return MemoryState(state.cue, clock), Step(obs, reward, over, over, obs, {})
