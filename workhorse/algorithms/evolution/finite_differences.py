"""Finite differences: wiggle one parameter at a time, the thought experiment that evolution strategies come from."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.search import ParameterSearch, SearchActor, SearchState
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_positive
from workhorse.core.types import Returns
from workhorse.math.fitness import finite

__all__ = ["FiniteDifferences"]


@configuration
class FiniteDifferences(ParameterSearch):
    """Central differences along the axes.

        g_j = (f(theta + h e_j) - f(theta - h e_j)) / 2h
        theta <- theta + learning_rate * g / |g|

    Member 2j has parameter j raised, member 2j+1 lowered, so an iteration costs 2n episodes: with n parameters the
    price of a gradient grows with n, whatever the task needs. `coordinates` bounds it by treating that many
    parameters an iteration, in turn. The step's length is the learning rate: returns have no natural unit.
    """

    name = "finite-differences"
    summary = "wiggle one parameter at a time"

    difference: float = 0.05
    """Distance by which a parameter is moved to either side."""
    learning_rate: float = 0.1
    """Length of a step in parameter space."""
    coordinates: int | None = None
    """Parameters treated an iteration, in turn; all where left out."""

    @property
    def num_coordinates(self) -> int:
        return self.num_params if self.coordinates is None else min(self.coordinates, self.num_params)

    @property
    def num_members(self) -> int:
        return 2 * self.num_coordinates

    def validate(self) -> None:
        super().validate()
        require_positive(
            "FiniteDifferences",
            difference=self.difference,
            learning_rate=self.learning_rate,
            coordinates=1 if self.coordinates is None else self.coordinates,
        )

    def displace(self, actor: SearchActor, member: Int[Array, ""]) -> Float[Array, "n"]:
        sign = 1 - 2 * (member % 2).astype(jnp.float32)
        coordinate = self._coordinates(actor.iteration)[member // 2]
        return actor.params.at[coordinate].add(sign * jnp.float32(self.difference))

    def gradient(self, state: SearchState, fitness: Float[Array, "P"]) -> Float[Array, "n"]:
        """Central differences for the coordinates of this iteration, zero for the others; float32."""
        fitness = finite(fitness)
        slope = (fitness[0::2] - fitness[1::2]) / (2 * self.difference)
        return (
            jnp.zeros(self.num_params, jnp.float32)
            .at[self._coordinates(state.iteration)]
            .set(slope.astype(jnp.float32))
        )

    def update(self, state: SearchState, experience: Returns, key: Key) -> tuple[SearchState, dict[str, Array]]:
        gradient = self.gradient(state, jnp.asarray(experience.fitness, jnp.float64))
        norm = jnp.linalg.norm(gradient)
        step = jnp.where(norm > 0, jnp.float32(self.learning_rate) / jnp.where(norm > 0, norm, 1.0), 0.0) * gradient
        params = state.params + step
        metrics = {
            "gradient_norm": norm,
            "params_norm": jnp.linalg.norm(params),
        }
        return self.advanced(state, params, experience), metrics

    def _coordinates(self, iteration: Int[Array, ""]) -> Int[Array, "C"]:
        return (iteration * self.num_coordinates + jnp.arange(self.num_coordinates)) % self.num_params
