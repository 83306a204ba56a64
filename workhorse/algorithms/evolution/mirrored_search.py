"""Base of searches along mirrored Gaussian perturbations: the members, and the sum that the update is made of."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.search import ParameterSearch, SearchActor
from workhorse.core.algorithm import Key, Metrics, Rebuildable, State
from workhorse.core.configuration import configuration
from workhorse.core.types import Returns
from workhorse.math import noise

__all__ = ["MirroredSearch"]


@configuration
class MirroredSearch(ParameterSearch, Rebuildable):
    """Member 2i acts with theta + noise_std * eps_i, member 2i+1 with theta - noise_std * eps_i.

    An update is three steps: `weights` turns the fitness into a weight for each eps_i, the direction is the weighted
    sum of the eps_i, and `step` moves along it. The sum is what costs (pairs times parameters); it falls into blocks
    (`workhorse.math.noise.weighted_block`) that several processes may share.
    """

    noise_std: float = 0.03
    """Standard deviation of the parameter perturbations."""

    def displace(self, actor: SearchActor, member: Int[Array, ""]) -> Float[Array, "n"]:
        sign = 1 - 2 * (member % 2).astype(jnp.float32)
        scale = sign * jnp.asarray(self.noise_std, jnp.float32)
        return actor.params + scale * noise.perturbation(actor.noise_key, member // 2, actor.params.shape[0])

    def update(self, state: State, experience: Returns, key: Key) -> tuple[State, Metrics]:
        """One step; nothing in it is drawn, so `key` is not used."""
        direction = noise.weighted_sum(self.noise_key(state), self.weights(experience), state.params.shape[0])
        return self.step(state, experience, direction)
