"""CMA-ES with a diagonal covariance matrix."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.path_search import PathSearch, PathState
from workhorse.core.configuration import configuration
from workhorse.core.types import Returns

__all__ = ["Diagonal", "SepCMAES"]


class Diagonal(NamedTuple):
    """The variances C and the path of the steps that they learn from."""

    variance: Float[Array, "n"]
    path: Float[Array, "n"]


@configuration
class SepCMAES(PathSearch):
    """Adapt the variance of each parameter to the steps that succeeded.

    Member i of P acts with m + s * sqrt(C) eps_i, C diagonal. With w_i the weights of the P/2 best, z = sum_i w_i eps_i
    and mu = 1 / sum_i w_i^2,

        m <- m + s * sqrt(C) z
        p <- (1 - c) p + sqrt(c (2 - c) mu) z,    c = (mu + 2) / (n + mu + 5)
        q <- (1 - c_q) q + h sqrt(c_q (2 - c_q) mu) sqrt(C) z,    c_q = (4 + mu/n) / (n + 4 + 2 mu/n)
        C <- (1 - c_1 - c_mu) C + c_1 (q^2 + (1 - h) c_q (2 - c_q) C) + c_mu C sum_i w_i eps_i^2
        s <- s * exp(min(1, c/d (|p| / E|N(0, I)| - 1))),    d = 1 + c + 2 max(0, sqrt((mu - 1) / (n + 1)) - 1)

    with c_1 = k 2 / ((n + 1.3)^2 + mu), c_mu = k 2 (mu - 2 + 1/mu) / ((n + 2)^2 + mu), and k = (n + 2) / 3, because a
    diagonal has fewer numbers to learn; c_1 + c_mu is held at 1 or less. h is 1, but 0 while
    |p| is above (1.4 + 2 / (n + 1)) sqrt(1 - (1 - c)^(2t)) E|N(0, I)|, with t the updates so far.

    Source: Ros and Hansen 2008, "A simple modification in CMA-ES achieving linear time and space complexity"; rates of
    Hansen 2016, "The CMA evolution strategy: a tutorial" (arXiv 1604.00772). Differs from pycma by positive weights
    only, and by weights that ties share.
    """

    name = "sep-cma-es"
    summary = "CMA-ES with a variance for each parameter and no correlations"

    @property
    def path_rate(self) -> float:
        return self.cumulation

    @property
    def shape_path_rate(self) -> float:
        """Rate c_q of the path that the variances learn from."""
        size, mu = self.num_params, self.effective_parents
        return (4 + mu / size) / (size + 4 + 2 * mu / size)

    @property
    def shape_rates(self) -> tuple[float, float]:
        """Rates c_1 and c_mu of the variances."""
        size, mu = self.num_params, self.effective_parents
        factor = (size + 2) / 3
        one = min(1.0, factor * 2 / ((size + 1.3) ** 2 + mu))
        return one, min(1 - one, factor * 2 * (mu - 2 + 1 / mu) / ((size + 2) ** 2 + mu))

    def first_shape(self) -> Diagonal:
        size = self.num_params
        return Diagonal(jnp.ones(size, jnp.float32), jnp.zeros(size, jnp.float32))

    def shaped(self, shape: Diagonal, updates: Int[Array, ""], eps: Float[Array, "n"]) -> Float[Array, "n"]:
        return jnp.sqrt(shape.variance) * eps

    def weights(self, state: PathState, experience: Returns) -> Float[Array, "2 N"]:
        """Return w_i, for both sums."""
        weights = super().weights(state, experience)
        return jnp.concatenate([weights, weights])

    def reshaped(
        self, state: PathState, path: Float[Array, "n"], weights: Float[Array, "P"], sums: Float[Array, "2 n"]
    ) -> Diagonal:
        variance, rate = state.shape.variance, self.shape_path_rate
        size, (one, many) = self.num_params, self.shape_rates
        since_start = 1 - jnp.float32(1 - self.path_rate) ** (2 * (state.updates + 1)).astype(jnp.float32)
        usual = jnp.linalg.norm(path) < jnp.sqrt(since_start) * jnp.float32(
            (1.4 + 2 / (size + 1)) * self.expected_length
        )
        moved = self.lengthened(state.shape.path, jnp.sqrt(variance) * sums[0], weights, rate)
        longer = jnp.where(usual, moved, jnp.float32(1 - rate) * state.shape.path)
        made_up = jnp.where(usual, 0.0, jnp.float32(rate * (2 - rate)))
        # the weights sum to 1, so that sum w eps^2 = 1 + sum w (eps^2 - 1)
        kept = jnp.float32(1 - one) + jnp.float32(one) * made_up + jnp.float32(many) * sums[1]
        after = jnp.maximum(kept, 0.0) * variance + jnp.float32(one) * jnp.square(longer)
        return Diagonal(after, longer)
