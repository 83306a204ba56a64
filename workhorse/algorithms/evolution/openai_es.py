"""Evolution strategies as published by OpenAI: mirrored Gaussian perturbations, ranks, Adam."""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.mirrored_search import MirroredSearch
from workhorse.core.algorithm import Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.types import Moments, Returns
from workhorse.math.fitness import centred_ranks, finite, standardised

__all__ = ["OpenAIES", "State"]


class State(NamedTuple):
    """A `GaussianState` with Adam's moments and the cap on the next iteration's episodes."""

    params: Float[Array, "n"]
    observations: Moments
    noise_key: Key
    iteration: Int[Array, ""]
    pending: Any
    optimiser: optax.OptState
    episode_cap: Float[Array, ""]


@configuration
class OpenAIES(MirroredSearch):
    """Ascend the smoothed objective E[f(theta + noise_std * eps)] by its score-function gradient.

    Member 2i acts with theta + noise_std * eps_i, member 2i+1 with theta - noise_std * eps_i. With u the shaped
    fitness,

        g = 1 / (2 n noise_std) * sum_i (u_{2i} - u_{2i+1}) eps_i
        theta <- (1 - learning_rate * weight_decay) theta + Adam(g)

    where n is the number of pairs. Nothing but (member, return, length) leaves an episode; eps_i is drawn again from
    its address where it is needed, so memory does not grow with the population.

    Source: Salimans et al. 2017, "Evolution strategies as a scalable alternative to reinforcement learning"
    (arXiv 1703.03864), algorithm 2. Differs from the code published with it by a gradient in true units (1/noise_std;
    Adam does not care), decoupled weight decay, ranks shared among ties, observation moments from every episode
    instead of one in a hundred, and a fixed set of episodes an iteration (that code stops at a quota of episodes and
    so drops the long ones, which come in last).
    """

    name = "openai-es"
    summary = "evolution strategies: mirrored sampling, centred ranks, Adam"

    num_pairs: int = 32
    """Mirrored pairs of perturbations an iteration."""
    learning_rate: float = 0.02
    """Adam's step size."""
    adam_beta1: float = 0.9
    """Adam's decay of the gradient's mean."""
    adam_beta2: float = 0.999
    """Adam's decay of the gradient's second moment."""
    weight_decay: float = 0.0
    """Decoupled weight decay: parameters shrink by learning_rate * weight_decay an iteration."""
    fitness_shaping: Literal["centred-ranks", "standardised", "none"] = "centred-ranks"
    """Weights of the perturbations: ranks, z-scores, or the returns themselves."""
    adaptive_episode_cap: float | None = None
    """Cut training episodes at this multiple of the last iteration's mean length (the paper: 2); off by default."""

    @property
    def num_members(self) -> int:
        return 2 * self.num_pairs

    def validate(self) -> None:
        super().validate()
        require_positive(
            "OpenAIES", num_pairs=self.num_pairs, noise_std=self.noise_std, learning_rate=self.learning_rate
        )
        if self.fitness_shaping not in ("centred-ranks", "standardised", "none"):
            raise UsageError(
                f"OpenAIES.fitness_shaping must be centred-ranks, standardised or none: got {self.fitness_shaping!r}."
            )
        require_non_negative("OpenAIES", weight_decay=self.weight_decay)
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"OpenAIES.{name} must be in [0, 1): got {getattr(self, name)}.")
        if self.learning_rate * self.weight_decay >= 1:
            raise UsageError("OpenAIES.weight_decay times learning_rate must stay below 1, or parameters change sign.")
        if self.adaptive_episode_cap is not None and not self.adaptive_episode_cap >= 1:
            raise UsageError(f"OpenAIES.adaptive_episode_cap must be at least 1: got {self.adaptive_episode_cap}.")

    def init(self, key: Key) -> State:
        start = super().init(key)
        no_cap = jnp.asarray(jnp.inf, jnp.float32)
        return State(*start, optimiser=self._optimiser().init(start.params), episode_cap=no_cap)

    def episode_steps(self, state: State) -> int | None:
        cap = super().episode_steps(state)
        if self.adaptive_episode_cap is None or jnp.isinf(state.episode_cap):
            return cap
        return int(min(state.episode_cap, cap or jnp.inf))

    def weights(self, state: State, experience: Returns) -> Float[Array, "1 N"]:
        """(u_{2i} - u_{2i+1}) / (2 n noise_std) for each pair, u the shaped fitness."""
        shape = {"centred-ranks": centred_ranks, "standardised": standardised, "none": finite}
        utility = shape[self.fitness_shaping](jnp.asarray(experience.fitness, jnp.float64))
        weights = (utility[0::2] - utility[1::2]) / (2 * self.num_pairs * self.noise_std)
        return weights.astype(jnp.float32)[None]

    def move(self, state: State, experience: Returns, sums: Float[Array, "1 n"]) -> tuple[State, Metrics]:
        """Adam's step up the gradient."""
        direction = sums[0]
        step, optimiser = self._optimiser().update(-direction, state.optimiser)
        kept = jnp.float32(1.0) - jnp.float32(self.learning_rate) * jnp.float32(self.weight_decay)
        params = kept * state.params + step
        cap = jnp.inf if self.adaptive_episode_cap is None else self.adaptive_episode_cap
        metrics = {
            "gradient_norm": jnp.linalg.norm(direction),
            "step_norm": jnp.linalg.norm(params - state.params),
            "params_norm": jnp.linalg.norm(params),
        }
        episode_cap = jnp.ceil(jnp.float32(cap) * jnp.asarray(experience.mean_length, jnp.float32))
        after = self.advanced(state, params, experience)
        return after._replace(optimiser=optimiser, episode_cap=episode_cap), metrics

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate, b1=self.adam_beta1, b2=self.adam_beta2)
