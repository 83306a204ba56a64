"""Base of searches along mirrored Gaussian perturbations of one standard deviation."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.gaussian_search import GaussianSearch
from workhorse.algorithms.evolution.search import SearchActor
from workhorse.core.configuration import configuration
from workhorse.math import noise

__all__ = ["MirroredSearch"]


@configuration
class MirroredSearch(GaussianSearch):
    """Member 2i acts with theta + noise_std * eps_i, member 2i+1 with theta - noise_std * eps_i."""

    noise_std: float = 0.03
    """Standard deviation of the parameter perturbations."""

    def displace(self, actor: SearchActor, member: Int[Array, ""]) -> Float[Array, "n"]:
        sign = 1 - 2 * (member % 2).astype(jnp.float32)
        scale = sign * jnp.asarray(self.noise_std, jnp.float32)
        return actor.params + scale * noise.perturbation(actor.noise_key, member // 2, actor.params.shape[0])
