"""Policy gradients with parameter-based exploration, by ClipUp: a Gaussian whose every deviation adapts."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.gaussian_search import GaussianSearch
from workhorse.algorithms.evolution.search import SearchActor
from workhorse.core.algorithm import Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_positive
from workhorse.core.types import Moments, Returns
from workhorse.math.fitness import centred_ranks

__all__ = ["PGPE", "PGPEState", "clipped_up"]


class PGPEState(NamedTuple):
    """A `GaussianState` with ClipUp's velocity and the standard deviation of each parameter."""

    params: Float[Array, "n"]
    observations: Moments
    noise_key: Key
    iteration: Int[Array, ""]
    pending: Any
    velocity: Float[Array, "n"]
    deviation: Float[Array, "n"]


@configuration
class PGPE(GaussianSearch):
    """Follow the gradient of E[f(m + s * eps)] in the mean m and in the deviations s, of each parameter one.

    Member 2i acts with m + s * eps_i, member 2i+1 with m - s * eps_i. With u the centred ranks of all members,

        d_i = (u_{2i} - u_{2i+1}) / 2,    a_i = (u_{2i} + u_{2i+1}) / 2 - mean(u)
        g_m = 1/N sum_i d_i s * eps_i,    g_s = s * 1/N sum_i a_i (eps_i^2 - 1)
        v <- clip(momentum * v + learning_rate * g_m / |g_m|, max_speed),    m <- m + v
        s <- clip(s + deviation_learning_rate * g_s, (1 - max_change) s, (1 + max_change) s)

    where clip(v, max_speed) shortens v to that length if it is longer. Where g_m is 0, as when all fitness ties, v only
    decays. All deviations begin at radius / sqrt(n), so that a perturbation is about `radius` long.

    With `steps_per_iteration`, an iteration whose first `num_pairs` pairs took fewer steps than that is given more
    pairs: as many times the first as would reach the quota at their pace, up to `max_pairs`. The first batch alone
    decides, when it is complete. With `lag` 1, s is that of now, which an iteration changed by `max_change` at the most
    since the members were drawn.

    Source: Sehnke et al. 2010, "Parameter-exploring policy gradients"; Toklu, Liskowski and Srivastava 2020, "ClipUp: a
    simple and powerful optimizer for distribution-based policy evolution" (arXiv 2008.02387). Differs from their code
    by taking more pairs in one go: theirs asks batch by batch until the quota is met.
    """

    name = "pgpe"
    summary = "a Gaussian over policies with a deviation for each parameter, moved by ClipUp"
    only_at_start = ("radius",)

    num_pairs: int = 16
    """Mirrored pairs of an iteration."""
    max_speed: float = 0.15
    """Greatest length of a step of the mean."""
    learning_rate: float = 0.075
    """Length of the gradient's part of a step; the source takes half of `max_speed`, or up to all of it."""
    momentum: float = 0.9
    """Part of the last step that is kept."""
    radius: float = 2.25
    """Length of a perturbation at the start; the source takes 15 times `max_speed`."""
    deviation_learning_rate: float = 0.1
    """Step size of the deviations."""
    max_change: float = 0.2
    """Greatest relative change of a deviation in an iteration."""
    steps_per_iteration: int | None = None
    """Environment steps that an iteration should have, by more pairs where episodes are short."""
    max_pairs: int | None = None
    """Most pairs of an iteration where there is such a quota; eight times `num_pairs` where left out."""

    @property
    def num_members(self) -> int:
        return 2 * self.num_pairs

    def more_members(self, steps: int) -> int:
        if self.steps_per_iteration is None or steps >= self.steps_per_iteration:
            return 0
        batches = -(-self.steps_per_iteration // max(steps, 1))
        return (min(batches, self._most_batches) - 1) * self.num_members

    @property
    def _most_batches(self) -> int:
        return 8 if self.max_pairs is None else self.max_pairs // self.num_pairs

    def validate(self) -> None:
        super().validate()
        require_positive(
            "PGPE",
            num_pairs=self.num_pairs,
            max_speed=self.max_speed,
            learning_rate=self.learning_rate,
            radius=self.radius,
            steps_per_iteration=1 if self.steps_per_iteration is None else self.steps_per_iteration,
        )
        if not 0 <= self.momentum < 1:
            raise UsageError(f"PGPE.momentum must be in [0, 1): got {self.momentum}.")
        if not 0 <= self.max_change < 1:
            raise UsageError(f"PGPE.max_change must be in [0, 1), or deviations reach 0: got {self.max_change}.")
        if self.max_pairs is not None and self.steps_per_iteration is None:
            raise UsageError("PGPE.max_pairs is for steps_per_iteration, which is not given. Leave it out.")
        if self.max_pairs is not None and self.max_pairs < self.num_pairs:
            raise UsageError(
                f"PGPE.max_pairs must be at least num_pairs: got {self.max_pairs} of {self.num_pairs}. Raise it."
            )
        if self.lag and self.steps_per_iteration is not None:
            raise UsageError(
                "PGPE.lag must be 0 with steps_per_iteration: the quota asks for the whole first batch before an "
                "iteration goes on. Leave one of them out."
            )

    def init(self, key: Key) -> PGPEState:
        start, size = super().init(key), self.num_params
        deviation = jnp.full(size, jnp.float32(self.radius) / jnp.sqrt(jnp.float32(size)))
        return PGPEState(*start, velocity=jnp.zeros(size, jnp.float32), deviation=deviation)

    def actor(self, state: PGPEState) -> SearchActor:
        return super().actor(state)._replace(spread=state.deviation)

    def perturbation_of(self, member: Int[Array, ""]) -> Int[Array, ""]:
        return member // 2

    def placed(self, actor: SearchActor, member: Int[Array, ""], eps: Float[Array, "n"]) -> Float[Array, "n"]:
        sign = 1 - 2 * (member % 2).astype(jnp.float32)
        return actor.params + sign * (actor.spread * eps)

    def weights(self, state: PGPEState, experience: Returns) -> Float[Array, "2 N"]:
        """Return d_i / N and a_i / N."""
        utility = centred_ranks(jnp.asarray(experience.fitness, jnp.float64))
        plus, minus = utility[0::2], utility[1::2]
        rows = jnp.stack([(plus - minus) / 2, (plus + minus) / 2 - utility.mean()])
        return (rows / plus.shape[0]).astype(jnp.float32)

    def move(self, state: PGPEState, experience: Returns, sums: Float[Array, "2 n"]) -> tuple[PGPEState, Metrics]:
        """A step of ClipUp for the mean, a bounded one for the deviations."""
        gradient, slope = state.deviation * sums
        velocity = clipped_up(state.velocity, gradient, self.learning_rate, self.momentum, self.max_speed)
        params = state.params + velocity
        most = jnp.asarray(self.max_change, jnp.float32) * state.deviation
        change = jnp.clip(jnp.asarray(self.deviation_learning_rate, jnp.float32) * slope, -most, most)
        deviation = state.deviation + change
        metrics = {
            "gradient_norm": jnp.linalg.norm(gradient),
            "step_norm": jnp.linalg.norm(velocity),
            "params_norm": jnp.linalg.norm(params),
            "noise_std": deviation.mean(),
        }
        after = self.advanced(state, params, experience)
        return after._replace(velocity=velocity, deviation=deviation), metrics


def clipped_up(
    velocity: Float[Array, "n"], gradient: Float[Array, "n"], learning_rate: float, momentum: float, max_speed: float
) -> Float[Array, "n"]:
    """Return ClipUp's next velocity: clip(momentum * v + learning_rate * g / |g|, max_speed), float32.

    Example:
        >>> clipped_up(jnp.zeros(2), jnp.array([0.0, 0.001]), 0.1, 0.9, 0.3)
        Array([0. , 0.1], dtype=float32)
        >>> clipped_up(jnp.array([0.2, 0.0]), jnp.zeros(2), 0.1, 0.5, 0.3)
        Array([0.1, 0. ], dtype=float32)
        >>> clipped_up(jnp.array([2.0, 0.0]), jnp.zeros(2), 0.1, 0.5, 0.3)
        Array([0.3, 0. ], dtype=float32)
    """
    length = jnp.linalg.norm(gradient)
    along = jnp.where(length > 0, gradient / jnp.where(length > 0, length, 1.0), 0.0)
    wanted = jnp.asarray(momentum, jnp.float32) * velocity + jnp.asarray(learning_rate, jnp.float32) * along
    wanted = wanted.astype(jnp.float32)
    speed, most = jnp.linalg.norm(wanted), jnp.asarray(max_speed, jnp.float32)
    return jnp.where(speed > most, wanted * (most / jnp.where(speed > 0, speed, 1.0)), wanted)
