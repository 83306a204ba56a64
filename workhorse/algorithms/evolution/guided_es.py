"""Guided evolution strategies: half of the noise lies in the plane of the last steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from workhorse.algorithms.evolution.gaussian_search import GaussianSearch
from workhorse.algorithms.evolution.search import SearchActor
from workhorse.core.algorithm import Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_positive
from workhorse.core.types import Moments, Returns
from workhorse.math.fitness import centred_ranks

__all__ = ["GuidedES", "GuidedState", "orthonormal"]


class GuidedState(NamedTuple):
    """A `GaussianState` with Adam's moments, the last gradients, newest first, and the plane that they span.

    Attributes:
        gradients: zeros where there was none yet.
        basis: orthonormal rows; a row of zeros where a gradient adds no new direction.
    """

    params: Float[Array, "n"]
    observations: Moments
    noise_key: Key
    iteration: Int[Array, ""]
    pending: Any
    optimiser: optax.OptState
    gradients: Float[Array, "k n"]
    basis: Float[Array, "k n"]


@configuration
class GuidedES(GaussianSearch):
    """Perturb along the plane U of the last k gradient estimates as much as along everything else.

    Member 2i acts with theta + noise_std * eps_i, member 2i+1 with theta - noise_std * eps_i, where

        eps_i = sqrt(a) z_i + sqrt((1 - a) n / j) U' z'_i,    z_i ~ N(0, I_n),    z'_i ~ N(0, I_k)
        g = 1 / (2 N noise_std) sum_i (u_{2i} - u_{2i+1}) eps_i,    theta <- theta + Adam(g)

    with u the centred ranks, a the `full_share` of the variance, and j <= k the directions that U has. *Before the
    first step there are none, and a is 1*: no direction is preferred that nothing speaks for. A perturbation's mean
    squared length is noise_std^2 n whatever a is.

    Source: Maheswaranathan et al. 2019, "Guided evolutionary strategies" (arXiv 1806.10230). Differs by the plane,
    which there comes from a surrogate gradient and here from the search's own last estimates, so that every worker
    knows it; by ranks; by Adam instead of plain steps; and by the scale of the noise, there noise_std^2 in all and
    here in each parameter, as in the other strategies.
    """

    name = "guided-es"
    summary = "evolution strategies that perturb mostly along their own last gradients"
    can_lag = False

    num_pairs: int = 16
    """Mirrored pairs of an iteration."""
    noise_std: float = 0.03
    """Standard deviation of a parameter's perturbation, on average over parameters."""
    learning_rate: float = 0.02
    """Adam's step size."""
    num_guides: int = 4
    """Gradient estimates that are remembered, k, but one less than the parameters at most."""
    full_share: float = 0.5
    """Share a of the noise's variance that lies along all parameters; 1 is openai-es."""

    @property
    def num_members(self) -> int:
        return 2 * self.num_pairs

    @property
    def num_drawn(self) -> int:
        return self.num_params + self.guides

    @property
    def guides(self) -> int:
        """Gradient estimates that are remembered."""
        return min(self.num_guides, self.num_params - 1)

    def validate(self) -> None:
        super().validate()
        require_positive(
            "GuidedES",
            num_pairs=self.num_pairs,
            noise_std=self.noise_std,
            learning_rate=self.learning_rate,
            num_guides=self.num_guides,
        )
        if not 0 < self.full_share <= 1:
            raise UsageError(f"GuidedES.full_share must be above 0 and at most 1: got {self.full_share}.")
        if self.num_params < 2:
            raise UsageError("guided-es needs at least 2 parameters: with 1 there is no plane. Take openai-es.")

    def init(self, key: Key) -> GuidedState:
        start, nothing = super().init(key), jnp.zeros((self.guides, self.num_params), jnp.float32)
        return GuidedState(*start, optimiser=self._adam().init(start.params), gradients=nothing, basis=nothing)

    def actor(self, state: GuidedState) -> SearchActor:
        return super().actor(state)._replace(spread=state.basis)

    def perturbation_of(self, member: Int[Array, ""]) -> Int[Array, ""]:
        return member // 2

    def placed(self, actor: SearchActor, member: Int[Array, ""], eps: Float[Array, "m"]) -> Float[Array, "n"]:
        sign = 1 - 2 * (member % 2).astype(jnp.float32)
        return actor.params + sign * jnp.asarray(self.noise_std, jnp.float32) * self._guided(actor.spread, eps)

    def weights(self, state: GuidedState, experience: Returns) -> Float[Array, "1 N"]:
        """(u_{2i} - u_{2i+1}) / (2 N noise_std) for each pair."""
        utility = centred_ranks(jnp.asarray(experience.fitness, jnp.float64))
        weights = (utility[0::2] - utility[1::2]) / (2 * self.num_pairs * self.noise_std)
        return weights.astype(jnp.float32)[None]

    def move(self, state: GuidedState, experience: Returns, sums: Float[Array, "1 m"]) -> tuple[GuidedState, Metrics]:
        """Adam's step up the gradient, which then is the first of the guides."""
        gradient = self._guided(state.basis, sums[0])  # eps is linear in (z, z'), so the sum of eps is that of sums
        step, optimiser = self._adam().update(-gradient, state.optimiser)
        params = state.params + jnp.asarray(step)
        length, within = jnp.linalg.norm(gradient), jnp.linalg.norm(_times(state.basis, gradient))
        shifted = jnp.concatenate([gradient[None], state.gradients[:-1]])
        gradients = jnp.where(length > 0, shifted, state.gradients)  # where all tie, nothing is forgotten
        basis = orthonormal(gradients)
        metrics = {
            "gradient_norm": length,
            "step_norm": jnp.linalg.norm(step),
            "params_norm": jnp.linalg.norm(params),
            "guided_share": jnp.where(length > 0, jnp.square(within / jnp.where(length > 0, length, 1.0)), 0.0),
        }
        after = self.advanced(state, params, experience)
        return after._replace(optimiser=optimiser, gradients=gradients, basis=basis), metrics

    def _guided(self, basis: Float[Array, "k n"], drawn: Float[Array, "m"]) -> Float[Array, "n"]:
        """Return sqrt(a) z + sqrt((1 - a) n / j) U' z' for drawn = (z, z')."""
        size = self.num_params
        directions = jnp.square(basis).sum(1).round().sum()
        full = jnp.where(directions > 0, jnp.asarray(self.full_share, jnp.float32), jnp.float32(1.0))
        scale = jnp.sqrt((1 - full) * size / jnp.maximum(directions, 1))
        along = sum((drawn[size + row] * basis[row] for row in range(self.guides)), jnp.zeros(size, jnp.float32))
        return jnp.sqrt(full) * drawn[:size] + scale * along

    def _adam(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)


def orthonormal(rows: Float[Array, "k n"]) -> Float[Array, "k n"]:
    """Return orthonormal rows that span what `rows` span, by Gram and Schmidt from the first on, float32.

    A row that adds no direction, a thousandth of its length or less, becomes zeros. The order of all sums is fixed.

    Example:
        >>> orthonormal(jnp.array([[3.0, 0.0], [6.0, 0.0], [1.0, 2.0]], jnp.float32)).tolist()
        [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """
    found: list[Array] = []
    for row in rows:
        left = row
        for _ in range(2):  # once more for what rounding left
            for unit in found:
                left = left - (unit * left).sum() * unit
        length, before = jnp.linalg.norm(left), jnp.linalg.norm(row)
        is_new: Bool[Array, ""] = length > jnp.float32(1e-3) * before
        found.append(jnp.where(is_new, left / jnp.where(is_new, length, 1.0), 0.0).astype(jnp.float32))
    return jnp.stack(found)


def _times(basis: Float[Array, "k n"], vector: Float[Array, "n"]) -> Float[Array, "k"]:
    return jax.vmap(lambda row: (row * vector).sum())(basis)
