"""A probe of slots: each pays a number of its own, which its observation shows."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.classic.episode import changed_options, require_episode_limit, tick

__all__ = ["SlotIdentityProbe", "SlotIdentityState"]


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
