"""Cross-entropy method: fit a Gaussian over policies to its best members, again and again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.search import ParameterSearch, SearchActor
from workhorse.core.algorithm import Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.types import Moments, Returns
from workhorse.math import noise

__all__ = ["CEM", "Gaussian"]


class Gaussian(NamedTuple):
    """A `SearchState` whose parameters are the mean of a Gaussian, and its standard deviations."""

    params: Float[Array, "n"]
    observations: Moments
    noise_key: Key
    iteration: Int[Array, ""]
    std: Float[Array, "n"]


@configuration
class CEM(ParameterSearch):
    """theta_i = mean + std * eps_i;  mean, std^2 <- mean and variance of the best members, plus extra variance.

        std^2 <- Var(best) + (extra_std * max(1 - t / extra_iterations, 0))^2,   t = 0, 1, ...

    The variance is over the elites themselves (divided by their number). Without the extra variance the Gaussian
    shrinks before it has found anything. The policy is the mean. *Each member plays several episodes*, because elites
    chosen by one lucky episode are how the method fails on noisy tasks.

    Source: Szita and Lorincz 2006, "Learning Tetris using the noisy cross-entropy method" (Neural Computation 18).
    Differs by what falls linearly, there the extra variance and here its root, and by the default sizes, which are
    those of a few parameters.
    """

    name = "cem"
    summary = "cross-entropy method: a Gaussian over policies, fitted to its best members"
    only_at_start = ("initial_std",)

    num_candidates: int = 20
    """Members drawn in an iteration."""
    num_elites: int = 4
    """Best members that the Gaussian is fitted to."""
    initial_std: float = 1.0
    """Standard deviation of each parameter at the start."""
    extra_std: float = 0.5
    """Extra standard deviation in the first iteration."""
    extra_iterations: int = 10
    """Iterations over which the extra standard deviation falls to zero."""
    episodes_per_member: int = 3
    """Episodes whose mean return is a member's fitness."""
    normalise_observations: bool = False
    """Centre and scale observations by their running mean and standard deviation."""
    observation_clip: float = 1e6
    """Clip observations to plus or minus this; the default leaves them as they are."""

    @property
    def num_members(self) -> int:
        return self.num_candidates

    def validate(self) -> None:
        super().validate()
        require_positive(
            "CEM",
            num_candidates=self.num_candidates,
            num_elites=self.num_elites,
            initial_std=self.initial_std,
            extra_iterations=self.extra_iterations,
        )
        require_non_negative("CEM", extra_std=self.extra_std)
        if self.num_elites > self.num_candidates:
            raise UsageError(
                f"CEM.num_elites must not exceed num_candidates: got {self.num_elites} of {self.num_candidates}. "
                "Lower it, or raise num_candidates."
            )

    def init(self, key: Key) -> Gaussian:
        start = super().init(key)
        return Gaussian(*start, std=jnp.full(start.params.shape, self.initial_std, jnp.float32))

    def actor(self, state: Gaussian) -> SearchActor:
        return super().actor(state)._replace(spread=state.std)

    def displace(self, actor: SearchActor, member: Int[Array, ""]) -> Float[Array, "n"]:
        return actor.params + actor.spread * noise.perturbation(actor.noise_key, member, actor.params.shape[0])

    def update(self, state: Gaussian, experience: Returns, key: Key) -> tuple[Gaussian, Metrics]:
        """Fit the Gaussian to the elites; nothing is drawn, so `key` is not used."""
        fitness = jnp.asarray(experience.fitness, jnp.float64)
        best = jnp.argsort(-jnp.where(jnp.isnan(fitness), -jnp.inf, fitness), stable=True)[: self.num_elites]
        actor = self.actor(state)
        elites = jax.vmap(lambda member: self.displace(actor, member))(best)
        left = jnp.maximum(1 - state.iteration.astype(jnp.float32) / self.extra_iterations, 0)
        extra = jnp.asarray(self.extra_std, jnp.float32) * left
        params, std = elites.mean(axis=0), jnp.sqrt(elites.var(axis=0) + extra**2)
        metrics = {
            "elite_fitness": fitness[best].mean(),
            "mean_std": std.mean(),
            "params_norm": jnp.linalg.norm(params),
        }
        return Gaussian(*self.advanced(state, params, experience), std=std), metrics

    def in_words(self, state: Gaussian) -> str:
        """Return the policy in plain words."""
        return f"the mean of a Gaussian over {self.policy} policies with {self.num_params} parameters"
