"""The idle action at every step: what doing nothing earns."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from workhorse.algorithms.rules.drive import action_layers, resting_action
from workhorse.core.algorithm import Key, Metrics, Population
from workhorse.core.configuration import configuration
from workhorse.core.layers import PolicyNetwork
from workhorse.core.ranges import require_positive
from workhorse.core.types import Returns

__all__ = ["Clock", "Untrained", "ZeroAction"]


class Clock(NamedTuple):
    """The number of iterations so far: all that changes in a policy that learns nothing."""

    iteration: Int[Array, ""]


@configuration
class Untrained(Population):
    """A policy that learns nothing. Its members are all alike, so its training return is its return."""

    episodes_per_member: int = 16
    """Episodes an iteration."""

    @property
    def num_members(self) -> int:
        return 1

    def validate(self) -> None:
        require_positive(type(self).__name__, episodes_per_member=self.episodes_per_member)

    def init(self, key: Key) -> Clock:
        return Clock(jnp.zeros((), jnp.int32))

    def actor(self, state: Clock) -> tuple[()]:
        return ()

    def fitness(self, episode_return: Float[np.ndarray, "E"], length: Int[np.ndarray, "E"]) -> Float[Array, "E"]:
        return jnp.asarray(episode_return, jnp.float32)

    def update(self, state: Clock, experience: Returns, key: Key) -> tuple[Clock, Metrics]:
        """Learn nothing; the metric is this iteration's mean return."""
        return Clock(state.iteration + 1), {"best_fitness": jnp.asarray(experience.fitness, jnp.float64).mean()}


@configuration
class ZeroAction(Untrained):
    """Zero moved into the task's bounds, the first of several choices, every switch off.

    On 9 of the 11 MuJoCo tasks it earns more than random actions do, so it belongs to the floor of every score.
    """

    name = "zero"
    summary = "do nothing: the action zero, or the first choice, at every step"

    def act(
        self, actor: tuple[()], carry: tuple[()], obs: Array, key: Key, *, explore: bool
    ) -> tuple[Array, tuple[()], None]:
        return jnp.asarray(resting_action(self.spec)), carry, None

    def policy_layers(self, actor: tuple[()]) -> PolicyNetwork:
        return action_layers(self.spec, resting_action(self.spec))

    def in_words(self, state: Clock) -> str:
        """Return the policy in plain words."""
        return "do nothing"
