"""What searches along mirrored Gaussian perturbations share: the members, and the sum that the update is made of."""

from abc import abstractmethod
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.search import Actor, ParameterSearch
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.types import Returns
from workhorse.math import noise

__all__ = ["MirroredSearch"]


@configuration
class MirroredSearch(ParameterSearch):
    """Member 2i acts with theta + noise_std * eps_i, member 2i+1 with theta - noise_std * eps_i.

    An update is three steps: `weights` turns the fitness into a weight for each eps_i, the direction is the weighted
    sum of the eps_i, and `step` moves along it. The sum is what costs (pairs times parameters); it falls into blocks
    (`workhorse.math.noise.weighted_block`) that several processes may share.
    """

    noise_std: float = 0.03
    """Standard deviation of the parameter perturbations."""

    @abstractmethod
    def weights(self, experience: Returns) -> Float[Array, "N"]:
        """What each pair's perturbation weighs in the direction, float32."""

    @abstractmethod
    def step(self, state: Any, experience: Returns, direction: Float[Array, "n"]) -> tuple[Any, dict[str, Array]]:
        """The learner after a step along the direction, and its metrics."""

    def displace(self, actor: Actor, member: Int[Array, ""]) -> Float[Array, "n"]:
        sign = 1 - 2 * (member % 2).astype(jnp.float32)
        scale = sign * jnp.asarray(self.noise_std, jnp.float32)
        return actor.params + scale * noise.perturbation(actor.noise_key, member // 2, actor.params.shape[0])

    def update(self, state: Any, experience: Returns, key: Key) -> tuple[Any, dict[str, Array]]:
        """One step; nothing in it is drawn, so `key` is not used."""
        noise_key = self.actor(state).noise_key
        direction = noise.weighted_sum(noise_key, self.weights(experience), state.params.shape[0])
        return self.step(state, experience, direction)
