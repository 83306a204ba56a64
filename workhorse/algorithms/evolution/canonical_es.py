"""The canonical evolution strategy: the best members' weighted mean, and one step size."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.algorithms.evolution.path_search import PathSearch
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError

__all__ = ["CanonicalES"]


@configuration
class CanonicalES(PathSearch):
    """Move to the weighted mean of the best members.

    Member i acts with m + s * eps_i. With w_k proportional to ln(mu' + 1/2) - ln k for the mu' best members,

        m <- m + s * z,    z = sum_i w_i eps_i
        p <- (1 - c) p + sqrt(c (2 - c) mu) z,    mu = 1 / sum_i w_i^2,    c = path_factor (mu + 2) / (n + mu + 5)
        s <- s * exp(min(1, c/2 (|p|^2 / n - 1)))

    Source: Chrabaszcz, Loshchilov and Hutter 2018, "Back to basics: benchmarking canonical evolution strategies for
    playing Atari" (arXiv 1802.08842), and the code published with it, whose step size adapts. Differs from it by
    weights that ties share, by a bound on the growth of s, and by half of its rate (that code has such a factor, at 1).
    """

    name = "canonical-es"
    summary = "the weighted mean of the best members, with one step size that adapts"
    least_members = 2

    parents: int | None = None
    """Best members that are recombined, mu'; a quarter of the population where left out."""
    path_factor: float = 0.5
    """Factor of the rate c at which path and step size adapt."""

    @property
    def num_parents(self) -> int:
        return max(1, self.population_size // 4) if self.parents is None else self.parents

    @property
    def path_rate(self) -> float:
        return self.path_factor * self.cumulation

    def validate(self) -> None:
        super().validate()
        if self.parents is not None and not 1 <= self.parents < self.population_size:
            raise UsageError(
                f"CanonicalES.parents must be at least 1 and fewer than population_size, {self.population_size}: got "
                f"{self.parents}."
            )

        if not 0 < self.path_factor <= 1:
            raise UsageError(f"CanonicalES.path_factor must be above 0 and at most 1: got {self.path_factor}.")

    def growth(self, length: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(self.path_rate / 2, jnp.float32) * (length**2 / self.num_params - 1)
