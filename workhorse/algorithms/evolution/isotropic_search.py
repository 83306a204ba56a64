"""Base of searches whose perturbations have one standard deviation, and are of full or of low rank."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.gaussian_search import GaussianSearch
from workhorse.algorithms.evolution.search import SearchActor
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.math import low_rank_noise
from workhorse.math.low_rank_noise import Factors, Matrices
from workhorse.networks.low_rank import perturbed_output
from workhorse.networks.mlp import MLP

__all__ = ["IsotropicSearch"]


@configuration
class IsotropicSearch(GaussianSearch):
    """A member acts with theta + sign * noise_std * eps, and the update is a weighted sum over the eps alone.

    With `perturbation_rank` r, each matrix W (m, n) of the policy is perturbed by E = A B^T / sqrt(r) instead of by
    m * n independent normals; A (m, r) and B (n, r) are standard normal, biases keep full noise. A member is its
    factors, the matrices stay shared among all members, and the update is one matrix product a layer:

        h (W + s E)^T = h W^T + s / sqrt(r) (h B) A^T,      sum_i w_i E_i = 1 / sqrt(r) (diag(w) A)^T B

    Source of the low rank: Sarkar et al. 2025 (arXiv 2511.16652), EGGROLL.
    """

    noise_std: float = 0.03
    """Standard deviation of the parameter perturbations."""
    perturbation_rank: int | None = None
    """Perturb each weight matrix by noise of this rank, which is cheaper; by full Gaussian noise where left out."""

    def validate(self) -> None:
        super().validate()
        if self.perturbation_rank is not None and self.perturbation_rank < 1:
            raise UsageError(
                f"{type(self).__name__}.perturbation_rank must be at least 1: got {self.perturbation_rank}. Leave it "
                "out for noise of full rank."
            )

    def sign_of(self, member: Int[Array, ""]) -> Float[Array, ""]:
        """Return the sign that a member's perturbation is taken with, float32."""
        return jnp.float32(1)

    def placed(self, actor: SearchActor, member: Int[Array, ""], eps: Float[Array, "n"]) -> Float[Array, "n"]:
        scale = self.sign_of(member) * jnp.asarray(self.noise_std, jnp.float32)
        return actor.params + scale * eps

    def displace(self, actor: SearchActor, member: Int[Array, ""]) -> Float[Array, "n"]:
        if self.perturbation_rank is None:
            return super().displace(actor, member)
        layers = self._factors(actor, member)
        biases = tuple(layer.bias for layer in layers if layer.bias is not None)
        return self.placed(actor, member, _flat(tuple(layer.matrix for layer in layers), biases))

    # --- acting ---

    def begin(self, actor: SearchActor, slot: Int[Array, ""]) -> Any:
        """The member's network, or with a low rank its factors; a negative number is the unperturbed policy."""
        if self.perturbation_rank is None:
            return super().begin(actor, slot)
        member = jnp.maximum(slot, 0)
        scale = jnp.where(slot < 0, jnp.float32(0), self.sign_of(member) * jnp.asarray(self.noise_std, jnp.float32))
        return tuple(layer.scaled(scale) for layer in self._factors(actor, member))

    def output(self, actor: SearchActor, carry: Any, scaled: Float[Array, "D"]) -> Float[Array, "A"]:
        if self.perturbation_rank is None:
            return super().output(actor, carry, scaled)
        member: tuple[Factors, ...] = carry
        return perturbed_output(self.to_network(actor.params), member, scaled)

    def _factors(self, actor: SearchActor, member: Int[Array, ""]) -> tuple[Factors, ...]:
        assert self.perturbation_rank is not None
        index = self.perturbation_of(member)
        return low_rank_noise.factors(actor.noise_key, index, self._matrices, self.perturbation_rank)

    # --- the update ---

    @property
    def num_blocks(self) -> int:
        return super().num_blocks if self.perturbation_rank is None else 1

    def block(self, key: Key, weights: Float[Array, "1 N"], number: int | Int[Array, ""]) -> Float[Array, "1 b"]:
        if self.perturbation_rank is None:
            return super().block(key, weights, number)
        return _flat(*low_rank_noise.weighted_matrices(key, weights[0], self._matrices, self.perturbation_rank))[None]

    @property
    def _matrices(self) -> Matrices:
        network = jax.eval_shape(self.network, jax.random.key(0))
        return Matrices(tuple(weight.shape for weight in network.weights), bool(network.biases))


def _flat(weights: tuple[Array, ...], biases: tuple[Array, ...]) -> Float[Array, "n"]:
    """Flatten as the parameters of a network are."""
    return ravel_pytree(MLP(weights, biases))[0]
