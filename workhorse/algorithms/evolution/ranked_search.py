"""Base of searches that recombine the best members by rank: SNES and the family of CMA-ES."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.algorithms.evolution.gaussian_search import GaussianSearch
from workhorse.core.algorithm import Metrics, State
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_positive
from workhorse.core.types import Returns
from workhorse.math.fitness import differ

__all__ = ["RankedSearch"]


@configuration
class RankedSearch(GaussianSearch):
    """Members that are all drawn afresh around a centre, without mirroring, and count by their ranks.

    Members of equal fitness share the weights of their ranks. In an iteration in which *nobody* differs, the search
    learns nothing: centre, deviations and paths stay as they are.
    """

    can_lag: ClassVar[bool] = False
    least_members: ClassVar[int] = 2
    only_at_start = ("noise_std",)

    population_size: int = 48
    """Members of an iteration."""
    noise_std: float = 0.3
    """Standard deviation of the parameter perturbations at the start."""

    @property
    def num_members(self) -> int:
        return self.population_size

    def validate(self) -> None:
        super().validate()
        owner = type(self).__name__
        require_positive(owner, noise_std=self.noise_std)
        if self.population_size < self.least_members:
            raise UsageError(
                f"{owner}.population_size must be at least {self.least_members} for {self.name}: got "
                f"{self.population_size}. Raise it."
            )

    def settled(
        self,
        before: State,
        after: State,
        experience: Returns,
        step_norm: Array,
        deviation: Callable[[Any], Float[Array, ""]],
    ) -> tuple[Any, Metrics]:
        """Return `after`, or `before` where nobody differs, with the clock moved on; and the metrics.

        Args:
            before, after: states whose clocks have not moved.
            experience: learnt from.
            step_norm: length of the centre's step, had somebody differed.
            deviation: from a state to the mean standard deviation of a parameter's perturbation.
        """
        learns = differ(jnp.asarray(experience.fitness))
        key, unkeyed = before.noise_key, before._replace(noise_key=())
        chosen = jax.tree.map(lambda new, old: jnp.where(learns, new, old), after._replace(noise_key=()), unkeyed)
        chosen = chosen._replace(noise_key=key)
        metrics = {
            "step_norm": jnp.where(learns, step_norm, 0.0),
            "params_norm": jnp.linalg.norm(chosen.params),
            "noise_std": deviation(chosen),
        }
        return self.advanced(chosen, chosen.params, experience), metrics
