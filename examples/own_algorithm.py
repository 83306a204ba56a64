"""Write an algorithm of your own, in a module of your own, and train with it.

From the folder of this file:

    workhorse train CartPole-v1 --algorithm own_algorithm:RandomSearch --env-steps 2000
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from workhorse.core.algorithm import Key, Metrics, Population
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import Argmax, Dense, Flatten, PolicyNetwork
from workhorse.core.spec import Discrete, EnvSpec
from workhorse.core.types import Returns


class Best(NamedTuple):
    """The best policy so far, what it earned, and the key of the next candidates."""

    weight: Float[Array, "A D"]
    fitness: Float[Array, ""]
    key: Key


@configuration
class RandomSearch(Population):
    """Draw linear policies at random, play an episode with each, and keep the best one seen."""

    name = "random-search"
    summary = "draw linear policies at random and keep the best one seen"

    spec: EnvSpec
    num_candidates: int = 16
    """Policies drawn in an iteration."""
    weight_std: float = 1.0
    """Standard deviation of each weight."""
    episodes_per_member: int = 1
    """Episodes whose mean return is a policy's fitness."""

    def validate(self) -> None:
        if not isinstance(self.spec.action, Discrete):
            raise UsageError(f"RandomSearch needs discrete actions, but {self.spec.task} has {self.spec.action}.")
        if self.num_candidates < 1:
            raise UsageError(f"RandomSearch.num_candidates must be at least 1: got {self.num_candidates}.")

    @property
    def num_members(self) -> int:
        return self.num_candidates

    def init(self, key: Key) -> Best:
        assert isinstance(self.spec.action, Discrete)
        weight = jnp.zeros((self.spec.action.count, self.spec.observation.size), jnp.float32)
        return Best(weight, jnp.float32(-jnp.inf), key)

    def actor(self, state: Best) -> Best:
        return state

    def begin(self, actor: Best, slot: Int[Array, ""]) -> Float[Array, "A D"]:
        """Return the weights that act in a slot: those of a candidate, or the best ones where `slot` is negative."""
        drawn = jax.random.normal(jax.random.fold_in(actor.key, slot), actor.weight.shape, jnp.float32)
        return jnp.where(slot < 0, actor.weight, jnp.float32(self.weight_std) * drawn)

    def act(
        self, actor: Best, carry: Float[Array, "A D"], obs: Array, key: Key, *, explore: bool
    ) -> tuple[Array, Float[Array, "A D"], None]:
        return jnp.argmax(carry @ obs.reshape(-1).astype(jnp.float32)), carry, None

    def fitness(self, episode_return: Float[np.ndarray, "E"], length: Int[np.ndarray, "E"]) -> Float[Array, "E"]:
        return jnp.asarray(episode_return, jnp.float32)

    def update(self, state: Best, experience: Returns, key: Key) -> tuple[Best, Metrics]:
        """Keep the best candidate where it earned more than the best so far."""
        fitness = jnp.asarray(experience.fitness)
        winner = jnp.argmax(fitness)
        improved = fitness[winner] > state.fitness
        weight = jnp.where(improved, self.begin(state, winner), state.weight)
        return Best(weight, jnp.where(improved, fitness[winner], state.fitness), key), {"best_fitness": fitness[winner]}

    def policy_layers(self, actor: Best) -> PolicyNetwork:
        flat = (Flatten(),) if len(self.spec.observation.shape) > 1 else ()
        return (*flat, Dense(actor.weight), Argmax())
