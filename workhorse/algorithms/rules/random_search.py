"""Guessing: draw policies at random, keep the best, and judge it again before believing it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.search import ParameterSearch, SearchActor
from workhorse.algorithms.rules.standing import Standing, leader, means, opened, replaced, scored
from workhorse.core.algorithm import Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_positive
from workhorse.core.types import Moments, Returns
from workhorse.math import noise

__all__ = ["GuessState", "RandomSearch"]


class GuessState(NamedTuple):
    """A `SearchState` whose parameters are those of the leading guess, and how the guesses stand."""

    params: Float[Array, "n"]
    observations: Moments
    noise_key: Key
    iteration: Int[Array, ""]
    standing: Standing


@configuration
class RandomSearch(ParameterSearch):
    """theta ~ N(0, weight_std^2 I), independent of everything seen; the policy is the best guess so far.

    The `num_finalists` best guesses are judged again in every iteration, beside `num_candidates` fresh ones. The policy
    is the one with the highest mean over all its episodes among those that were judged `trials` times, so that one
    lucky episode does not win; *the episodes of all guesses are training steps*. Observations are not normalised: a
    guess must mean the same in every iteration.

    Source: the protocol of Oller, Glasmachers and Cuccu 2020, "Analyzing reinforcement learning benchmarks with random
    weight guessing" (arXiv 2004.07707), which judges every guess by 20 episodes; here only the best are judged again.
    """

    name = "random-search"
    summary = "guess linear policies and keep the best, judged again before it counts"

    num_candidates: int = 16
    """GuessState an iteration."""
    num_finalists: int = 4
    """Best guesses so far, which are judged again in every iteration."""
    trials: int = 5
    """Times that a guess must have been judged to become the policy, once one has been."""
    weight_std: float = 1.0
    """Standard deviation of each parameter."""
    normalise_observations: bool = False
    """Centre and scale observations by their running mean and standard deviation."""
    observation_clip: float = 1e6
    """Clip observations to plus or minus this; the default leaves them as they are."""

    @property
    def num_members(self) -> int:
        return self.num_finalists + self.num_candidates

    def validate(self) -> None:
        super().validate()
        require_positive(
            "RandomSearch",
            num_candidates=self.num_candidates,
            num_finalists=self.num_finalists,
            trials=self.trials,
            weight_std=self.weight_std,
        )

    def guesses(self, key: Key, iteration: Int[Array, ""], count: int) -> Float[Array, "C n"]:
        """Return the guesses of an iteration."""
        address = jax.random.fold_in(key, iteration)
        rows = jax.vmap(lambda row: noise.perturbation(address, row, self.num_params))(jnp.arange(count))
        return jnp.float32(self.weight_std) * rows

    def init(self, key: Key) -> GuessState:
        start = super().init(key)
        first = self.guesses(start.noise_key, start.iteration, self.num_members)
        return GuessState(first[0], *start[1:], standing=opened(first, self.num_members))

    def actor(self, state: GuessState) -> SearchActor:
        standing = state.standing
        return super().actor(state)._replace(spread=standing.candidates[standing.place])

    def displace(self, actor: SearchActor, member: Int[Array, ""]) -> Float[Array, "n"]:
        return actor.spread[member]

    def update(self, state: GuessState, experience: Returns, key: Key) -> tuple[GuessState, Metrics]:
        standing = scored(state.standing, jnp.asarray(experience.fitness))
        place, clock = leader(standing, self.trials), state.iteration + 1
        params, mean = standing.candidates[place], means(standing)[place]
        fresh = self.guesses(state.noise_key, clock, self.num_candidates)
        after = replaced(standing, fresh, jnp.ones(self.num_candidates, bool), self.num_members)
        metrics = {
            "best_fitness": jnp.where(jnp.isfinite(mean), mean, jnp.nan),
            "best_episodes": standing.count[place] * self.episodes_per_member,
            "candidates": (self.num_members + state.iteration * self.num_candidates).astype(jnp.float64),
            "params_norm": jnp.linalg.norm(params),
        }
        return GuessState(*self.advanced(state, params, experience), standing=after), metrics

    def in_words(self, state: GuessState) -> str:
        """Return the policy in plain words."""
        return f"a guessed {self.policy} policy with {self.num_params} parameters"
