"""The previous action as part of the observation, for pure environments. See `workhorse.environments.shown_action`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.core.algorithm import Key
from workhorse.core.shown_action import Shown, shown_spec
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.protocol import JaxEnv

__all__ = ["ShownActionPure", "ShownState"]

_DRAWS = 0x5AC7
"""Folded into a step's key, so that what is drawn to be shown is not what the task draws."""


class ShownState(NamedTuple):
    """State of the task, and the numbers of the last action."""

    inner: Any
    shown: Float[Array, "A"]


@dataclass(frozen=True)
class ShownActionPure:
    """A pure environment whose observations end with the action of the step before: a `JaxEnv`.

    Attributes:
        env: with one discrete choice or a box as actions, and vectors as observations.
        kind: True; or "random" for a random action of the space instead, drawn from the key of the step.
    """

    env: JaxEnv
    kind: Shown

    @property
    def spec(self) -> EnvSpec:
        return self._spec

    @cached_property
    def _spec(self) -> EnvSpec:
        return shown_spec(self.env.spec, self.kind)

    @property
    def physics_order(self) -> Any:
        """Order of the state's physics, where the task has one of its own; see `workhorse.environments.batch`."""
        return getattr(self.env, "physics_order", None)

    def reset(self, key: Key) -> tuple[ShownState, Any]:
        """Start an episode of the task, with zeros in place of an action."""
        inner, obs = self.env.reset(key)
        shown = jnp.zeros(self.spec.observation.size - self.env.spec.observation.size, jnp.float32)
        return ShownState(inner, shown), jnp.concatenate([obs, shown.astype(obs.dtype)])

    def step(self, state: ShownState, action: Any, key: Key) -> tuple[ShownState, Step]:
        """Take a step of the task, and show its action."""
        inner, step = self.env.step(state.inner, action, key)
        told = self._random(jax.random.fold_in(key, _DRAWS)) if self.kind == "random" else action
        shown = self._numbers(told)
        obs = jnp.concatenate([step.next_obs, shown.astype(step.next_obs.dtype)])
        return ShownState(inner, shown), step._replace(obs=obs, next_obs=obs)

    def _numbers(self, action: Any) -> Float[Array, "A"]:
        space = self.env.spec.action
        if isinstance(space, Discrete):
            return jax.nn.one_hot(action, space.count, dtype=jnp.float32)
        return jnp.asarray(action, jnp.float32).reshape(-1)

    def _random(self, key: Key) -> Any:
        space = self.env.spec.action
        if isinstance(space, Discrete):
            return jax.random.randint(key, (), 0, space.count)
        assert isinstance(space, Box)  # as in every classic task
        low, high = (jnp.asarray(bound, jnp.float32).reshape(space.shape) for bound in (space.low, space.high))
        return jax.random.uniform(key, space.shape, jnp.float32, low, high)
