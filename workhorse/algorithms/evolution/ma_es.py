"""Matrix adaptation: CMA-ES without its covariance matrix, and so without an eigen-decomposition."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.path_search import PathSearch, PathState
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.math import noise

__all__ = ["MAES", "times"]

TOGETHER = 8
"""Columns, or members, that one pass over the matrix adds; it changes the speed and no bit."""


@configuration
class MAES(PathSearch):
    """Adapt a matrix that turns N(0, I) into the distribution of steps that succeed.

    Member i of P acts with m + s * d_i, d_i = M eps_i. With w_i the weights of the P/2 best, z = sum_i w_i eps_i and
    mu = 1 / sum_i w_i^2,

        m <- m + s * M z
        p <- (1 - c) p + sqrt(c (2 - c) mu) z,    c = (mu + 2) / (n + mu + 5)
        M <- (1 - c_1/2 - c_mu/2) M + c_1/2 (M p) p^T + c_mu/2 sum_i w_i d_i eps_i^T
        s <- s * exp(min(1, c/d (|p| / E|N(0, I)| - 1))),    d = 1 + c + 2 max(0, sqrt((mu - 1) / (n + 1)) - 1)

    with c_1 = 2 / ((n + 1.3)^2 + mu) and c_mu = min(1 - c_1, 2 (mu - 2 + 1/mu) / ((n + 2)^2 + mu)). All products are
    sums in a fixed order, so that machines agree to the last bit, which routines for eigenvectors do not.

    Source: Beyer and Sendhoff 2017, "Simplify your covariance matrix adaptation evolution strategy", whose
    M [I + c_1/2 (p p^T - I) + c_mu/2 (sum_i w_i eps_i eps_i^T - I)] is the same M, with n^3 operations for n^2 P.
    Differs from it by weights that ties share.
    """

    name = "ma-es"
    summary = "CMA-ES by a matrix of steps, for up to 2,048 parameters"
    most_params: ClassVar[int] = 2048

    @property
    def path_rate(self) -> float:
        return self.cumulation

    @property
    def shape_rates(self) -> tuple[float, float]:
        """Rates c_1 and c_mu of the matrix."""
        size, mu = self.num_params, self.effective_parents
        one = 2 / ((size + 1.3) ** 2 + mu)
        return one, min(1 - one, 2 * (mu - 2 + 1 / mu) / ((size + 2) ** 2 + mu))

    def validate(self) -> None:
        super().validate()
        size = self.num_params
        if size > self.most_params:
            raise UsageError(
                f"MAES is for at most {self.most_params:,} parameters, but the policy has {size:,}: its matrix would "
                f"take {_in_words(4 * size**2)}, about four times that in an update. Take lm-ma-es or sep-cma-es."
            )

    def first_shape(self) -> Float[Array, "n n"]:
        return jnp.eye(self.num_params, dtype=jnp.float32)

    def shaped(self, shape: Float[Array, "n n"], updates: Int[Array, ""], eps: Float[Array, "n"]) -> Float[Array, "n"]:
        return times(shape, eps)

    def reshaped(
        self, state: PathState, path: Float[Array, "n"], weights: Float[Array, "P"], sums: Float[Array, "1 n"]
    ) -> Float[Array, "n n"]:
        """Return the matrix after an update; every process draws the perturbations for it again."""
        one, many = (jnp.float32(rate / 2) for rate in self.shape_rates)
        key, columns = self.noise_key(state), state.shape
        members = jnp.arange(self.num_members)
        eps = jax.vmap(lambda member: noise.perturbation(key, member, self.num_params))(members)
        steps = jax.vmap(lambda row: times(columns, row))(eps)
        right = jnp.concatenate([one * path[None], (many * weights)[:, None] * eps])
        left = jnp.concatenate([times(columns, path)[None], steps])

        def add(total: Float[Array, "n n"], pair: tuple[Array, Array]) -> tuple[Float[Array, "n n"], None]:
            row, step = pair
            return total + row[:, None] * step[None, :], None

        return jax.lax.scan(add, (1 - one - many) * columns, (right, left), unroll=TOGETHER)[0]


def times(columns: Float[Array, "n n"], vector: Float[Array, "n"]) -> Float[Array, "n"]:
    """Return M v, column after column, where columns[j] is column j of M.

    Example:
        >>> times(jnp.array([[1.0, 2.0], [0.0, 3.0]], jnp.float32), jnp.array([10.0, 1.0], jnp.float32))
        Array([10., 23.], dtype=float32)
    """

    def add(total: Float[Array, "n"], one: tuple[Array, Array]) -> tuple[Float[Array, "n"], None]:
        column, factor = one
        return total + factor * column, None

    return jax.lax.scan(add, jnp.zeros_like(vector), (columns, vector), unroll=TOGETHER)[0]


def _in_words(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.0f} MiB"
