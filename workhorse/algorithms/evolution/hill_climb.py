"""Hill climbing: add noise; if the result improves, keep the change; repeat."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.search import ParameterSearch, SearchActor, SearchState
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_positive
from workhorse.core.types import Returns
from workhorse.math import noise

__all__ = ["HillClimb"]


@configuration
class HillClimb(ParameterSearch):
    """theta <- argmax of f over {theta, theta + noise_std * eps_1, ..., theta + noise_std * eps_k}.

    The simplest search there is, and the baseline that anything cleverer must beat. Member 0 is the policy as it
    stands, judged anew every iteration: a policy kept for one lucky episode would otherwise block all progress. With
    `num_candidates=1` this is "add noise; if the result improves, keep the change; repeat" to the letter.
    """

    name = "hill-climb"
    summary = "add noise; if the result improves, keep the change; repeat"

    num_candidates: int = 7
    """Changed policies tried an iteration, beside the policy as it stands."""
    noise_std: float = 0.1
    """Standard deviation of a change to each parameter."""

    @property
    def num_members(self) -> int:
        return 1 + self.num_candidates

    def validate(self) -> None:
        super().validate()
        require_positive("HillClimb", num_candidates=self.num_candidates, noise_std=self.noise_std)

    def displace(self, actor: SearchActor, member: Int[Array, ""]) -> Float[Array, "n"]:
        change = jnp.float32(self.noise_std) * noise.perturbation(actor.noise_key, member, actor.params.shape[0])
        return jnp.where(member == 0, actor.params, actor.params + change)

    def update(self, state: SearchState, experience: Returns, key: Key) -> tuple[SearchState, dict[str, Array]]:
        fitness = jnp.asarray(experience.fitness, jnp.float64)
        best = jnp.argmax(jnp.where(jnp.isnan(fitness), -jnp.inf, fitness))
        params = self.displace(self.actor(state), best)
        metrics = {
            "improved": (best > 0).astype(jnp.float64),
            "improvement": fitness[best] - fitness[0],
            "params_norm": jnp.linalg.norm(params),
        }
        return self.advanced(state, params, experience), metrics
