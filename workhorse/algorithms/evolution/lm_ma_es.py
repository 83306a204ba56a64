"""Limited-memory matrix adaptation: a few vectors in the place of MA-ES's matrix."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.path_search import PathSearch, PathState
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_positive

__all__ = ["LMMAES"]


@configuration
class LMMAES(PathSearch):
    """Stretch steps along a few vectors that remember where the search went, each over a time of its own.

    Member i of P acts with m + s * T(eps_i), where T goes through vectors m_1 ... m_k, of which the j-th is in use
    after j updates:

        d <- eps;    for each j:  d <- (1 - a_j) d + a_j m_j (m_j . d),    a_j = 1 / (1.5^(j-1) n)

    T is linear, so that the mean of members is one T of a sum. With w_i the weights of the P/2 best,
    z = sum_i w_i eps_i and mu = 1 / sum_i w_i^2,

        m <- m + s * T(z)
        p <- (1 - c) p + sqrt(c (2 - c) mu) z
        m_j <- (1 - b_j) m_j + sqrt(b_j (2 - b_j) mu) z,    b_j = min(1, P / (4^(j-1) n))
        s <- s * exp(min(1, c/d (|p| / E|N(0, I)| - 1))),    d = 1 + c + 2 max(0, sqrt((mu - 1) / (n + 1)) - 1)

    with c = (mu + 2) / (n + mu + 5), and k = 4 + 3 ln n vectors, but not more than n / 8.

    Source: Loshchilov, Glasmachers and Beyer 2017, "Limited-memory matrix adaptation for large scale black-box
    optimization" (arXiv 1705.06693). Differs from it by b_j of at most 1 (at P > 2n theirs has the root of a negative
    number), by fewer vectors where n is small (with b_j = 1 several are the last step, and stretch it again and again),
    by c and the growth of s, which are MA-ES's (their c = 2P/n is for P far below n), and by weights that ties share.
    """

    name = "lm-ma-es"
    summary = "MA-ES in the memory of a few vectors, for policies of any size"

    num_vectors: int | None = None
    """Vectors that are remembered, k; 4 + 3 ln n for n parameters, and at most n / 8, where left out."""

    @property
    def path_rate(self) -> float:
        return self.cumulation

    @property
    def memory(self) -> int:
        """Vectors that are remembered."""
        if self.num_vectors is not None:
            return self.num_vectors
        return max(1, min(4 + int(3 * np.log(self.num_params)), self.num_params // 8))

    def validate(self) -> None:
        super().validate()
        if self.num_params < 2:
            raise UsageError("lm-ma-es needs at least 2 parameters: with 1 there is no shape to learn. Take snes.")
        if self.num_vectors is not None:
            require_positive("LMMAES", num_vectors=self.num_vectors)

    def first_shape(self) -> Float[Array, "k n"]:
        return jnp.zeros((self.memory, self.num_params), jnp.float32)

    def shaped(self, shape: Float[Array, "k n"], updates: Int[Array, ""], eps: Float[Array, "n"]) -> Float[Array, "n"]:
        number = np.arange(self.memory)
        rates = jnp.asarray(1 / (1.5**number * self.num_params), jnp.float32)

        def through(d: Float[Array, "n"], turn: tuple[Array, Array, Array]) -> tuple[Float[Array, "n"], None]:
            vector, rate, number = turn
            # a sum of products and no dot product, whose order depends on the processor
            stretched = (1 - rate) * d + rate * (vector * d).sum() * vector
            return jnp.where(number < updates, stretched, d), None

        return jax.lax.scan(through, eps, (shape, rates, jnp.asarray(number)))[0]

    def reshaped(
        self, state: PathState, path: Float[Array, "n"], weights: Float[Array, "P"], sums: Float[Array, "1 n"]
    ) -> Float[Array, "k n"]:
        rates = np.minimum(1.0, self.num_members / (4.0 ** np.arange(self.memory) * self.num_params))
        moved = [
            self.lengthened(vector, sums[0], weights, float(rate))
            for vector, rate in zip(state.shape, rates, strict=True)
        ]
        return jnp.stack(moved)
