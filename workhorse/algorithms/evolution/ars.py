"""Augmented random search: step along the best random directions, scaled by the spread of their returns."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.algorithms.evolution.gaussian_search import GaussianState
from workhorse.algorithms.evolution.mirrored_search import MirroredSearch
from workhorse.core.algorithm import Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_positive
from workhorse.core.types import Moments, Returns
from workhorse.math.fitness import finite

__all__ = ["ARS"]


@configuration
class ARS(MirroredSearch):
    """theta <- theta + learning_rate / (b * sigma_R) * sum over the b best pairs of (r_{2i} - r_{2i+1}) eps_i.

    Member 2i acts with theta + noise_std * eps_i, member 2i+1 with theta - noise_std * eps_i. Pairs are ordered by
    max(r_{2i}, r_{2i+1}); sigma_R is the standard deviation of the 2b returns used. Variants: `v1` without and `v2`
    with observation normalisation use every pair (b = num_directions); `v1-t` and `v2-t` the `num_top_directions` best.

    Source: Mania, Guy, Recht 2018, "Simple random search provides a competitive approach to reinforcement learning"
    (arXiv 1803.07055), algorithms 1 and 2. Differs by clipping scaled observations, and by skipping the update when
    all returns used are equal.
    """

    name = "ars"
    summary = "augmented random search: a step along the best random directions (V1, V1-t, V2, V2-t)"

    variant: Literal["v1", "v1-t", "v2", "v2-t"] = "v2-t"
    """v1: observations as they are, v2: normalised, both clipped to `observation_clip`; -t: only the best directions
    count."""
    num_directions: int = 32
    """Mirrored pairs of directions an iteration (N in the paper)."""
    num_top_directions: int = 32
    """Best pairs used in the -t variants (b in the paper)."""
    learning_rate: float = 0.02
    """Step size (alpha in the paper)."""

    @property
    def num_members(self) -> int:
        return 2 * self.num_directions

    def validate(self) -> None:
        super().validate()
        if self.variant not in ("v1", "v1-t", "v2", "v2-t"):
            raise UsageError(f"ARS.variant must be v1, v1-t, v2 or v2-t: got {self.variant!r}.")
        require_positive(
            "ARS",
            num_directions=self.num_directions,
            num_top_directions=self.num_top_directions,
            noise_std=self.noise_std,
            learning_rate=self.learning_rate,
        )
        if self.variant.endswith("-t") and self.num_top_directions > self.num_directions:
            raise UsageError(
                f"ARS.num_top_directions must not exceed num_directions: got {self.num_top_directions} of "
                f"{self.num_directions}. Lower it, or raise num_directions."
            )

    def scaling(self, observations: Moments) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        if self.variant.startswith("v1"):
            size = self.spec.observation.size
            return jnp.zeros(size, jnp.float32), jnp.ones(size, jnp.float32)
        return super().scaling(observations)

    def weights(self, state: GaussianState, experience: Returns) -> Float[Array, "1 N"]:
        """Return the weight of each direction in the step: (r+ - r-) / (b * sigma_R) for the b best, 0 for the rest."""
        fitness = finite(jnp.asarray(experience.fitness, jnp.float64))
        plus, minus = fitness[0::2], fitness[1::2]
        used = self.num_top_directions if self.variant.endswith("-t") else self.num_directions
        best = jnp.argsort(-jnp.maximum(plus, minus), stable=True)[:used]
        spread = jnp.std(jnp.concatenate([plus[best], minus[best]]))
        scale = jnp.where(spread > 0, 1.0 / (used * jnp.where(spread > 0, spread, 1.0)), 0.0)
        return jnp.zeros_like(plus).at[best].set((plus[best] - minus[best]) * scale).astype(jnp.float32)[None]

    def move(
        self, state: GaussianState, experience: Returns, sums: Float[Array, "1 n"]
    ) -> tuple[GaussianState, Metrics]:
        """A step of learning_rate times the direction."""
        step = jnp.float32(self.learning_rate) * sums[0]
        params = state.params + step
        metrics = {"step_norm": jnp.linalg.norm(step), "params_norm": jnp.linalg.norm(params)}
        return self.advanced(state, params, experience), metrics
