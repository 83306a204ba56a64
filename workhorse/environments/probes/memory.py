"""A probe of memory: what is right at the end was shown at the beginning, and never again."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.classic.episode import changed_options, require_episode_limit, tick

__all__ = ["MemoryProbe", "MemoryState"]


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
