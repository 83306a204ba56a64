"""Base of searches along mirrored perturbations of one standard deviation."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.isotropic_search import IsotropicSearch
from workhorse.core.configuration import configuration

__all__ = ["MirroredSearch"]


@configuration
class MirroredSearch(IsotropicSearch):
    """Member 2i acts with theta + noise_std * eps_i, member 2i+1 with theta - noise_std * eps_i."""

    def perturbation_of(self, member: Int[Array, ""]) -> Int[Array, ""]:
        return member // 2

    def sign_of(self, member: Int[Array, ""]) -> Float[Array, ""]:
        return 1 - 2 * (member % 2).astype(jnp.float32)
