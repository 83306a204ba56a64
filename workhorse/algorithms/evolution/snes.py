"""Separable natural evolution strategy: a Gaussian whose deviations follow the natural gradient."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.ranked_search import RankedSearch
from workhorse.algorithms.evolution.search import SearchActor
from workhorse.core.algorithm import Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_positive
from workhorse.core.types import Moments, Returns
from workhorse.math.fitness import parent_weights, shared_by_rank

__all__ = ["SNES", "SNESState"]


class SNESState(NamedTuple):
    """A `GaussianState` with the standard deviation of each parameter."""

    params: Float[Array, "n"]
    observations: Moments
    noise_key: Key
    iteration: Int[Array, ""]
    pending: Any
    deviation: Float[Array, "n"]


@configuration
class SNES(RankedSearch):
    """Follow the natural gradient of E[u(m + s * eps)] in the mean m and in the deviations s, of each parameter one.

    Member i of P acts with m + s * eps_i. The member of rank k = 1 ... P, the best first, has the utility

        u_k = max(0, ln(P/2 + 1) - ln k) / sum_j max(0, ln(P/2 + 1) - ln j) - 1/P
        m <- m + learning_rate * s * sum_i u_i eps_i
        s <- s * exp(deviation_learning_rate / 2 * sum_i u_i (eps_i^2 - 1))

    with a deviation_learning_rate of (3 + ln n) / (5 sqrt(n)) where none is given.

    Source: Wierstra et al. 2014, "Natural evolution strategies", algorithm 6 and table 1. Differs from it by utilities
    that ties share.
    """

    name = "snes"
    summary = "a Gaussian over policies with a deviation for each parameter, moved by the natural gradient"

    learning_rate: float = 1.0
    """Step size of the mean."""
    deviation_learning_rate: float | None = None
    """Step size of the deviations; (3 + ln n) / (5 sqrt(n)) for n parameters where left out."""

    def validate(self) -> None:
        super().validate()
        require_positive("SNES", learning_rate=self.learning_rate)
        if self.deviation_learning_rate is not None:
            require_positive("SNES", deviation_learning_rate=self.deviation_learning_rate)

    def init(self, key: Key) -> SNESState:
        start = super().init(key)
        return SNESState(*start, deviation=jnp.full(self.num_params, jnp.asarray(self.noise_std, jnp.float32)))

    def actor(self, state: SNESState) -> SearchActor:
        return super().actor(state)._replace(spread=state.deviation)

    def placed(self, actor: SearchActor, member: Int[Array, ""], eps: Float[Array, "n"]) -> Float[Array, "n"]:
        return actor.params + actor.spread * eps

    def weights(self, state: SNESState, experience: Returns) -> Float[Array, "2 N"]:
        """Return the utilities, for both sums."""
        # parent_weights(P, (P + 1) / 2) has ln(P/2 + 1) in place of ln(parents + 1/2)
        utility = parent_weights(self.num_members, (self.num_members + 1) / 2) - 1 / self.num_members
        weights = shared_by_rank(jnp.asarray(experience.fitness), utility).astype(jnp.float32)
        return jnp.stack([weights, weights])

    def move(self, state: SNESState, experience: Returns, sums: Float[Array, "2 n"]) -> tuple[SNESState, Metrics]:
        """A step of the mean, and one of the deviations."""
        step = jnp.asarray(self.learning_rate, jnp.float32) * state.deviation * sums[0]
        given, size = self.deviation_learning_rate, self.num_params
        rate = jnp.asarray((3 + np.log(size)) / (5 * np.sqrt(size)) if given is None else given, jnp.float32)
        deviation = state.deviation * jnp.exp(rate / 2 * sums[1])
        after = state._replace(params=state.params + step, deviation=deviation)
        return self.settled(state, after, experience, jnp.linalg.norm(step), lambda state: state.deviation.mean())
