"""Genetic algorithm: children of the best policies by mutation alone; the elite is judged by fresh episodes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.search import ParameterSearch, SearchActor, SearchState
from workhorse.core.algorithm import Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_positive
from workhorse.core.types import Moments, Returns
from workhorse.math import noise

__all__ = ["GA", "Herd"]


class Herd(NamedTuple):
    """A `SearchState` whose parameters are the elite's, with what may have children and what may become the elite.

    Attributes:
        parents: the elite first.
        candidates: the elite first, then the best children of the last iteration.
    """

    params: Float[Array, "n"]
    observations: Moments
    noise_key: Key
    iteration: Int[Array, ""]
    parents: Float[Array, "T n"]
    candidates: Float[Array, "C n"]


@configuration
class GA(ParameterSearch):
    """child = parent + noise_std * eps, the parent drawn evenly among the T best; no crossover.

    An iteration plays one episode of each of `num_children` children and `candidate_episodes` fresh episodes of each
    of C candidates: the elite so far, and the C - 1 best children of the iteration before. The candidate with the
    highest mean over its *fresh* episodes is the new elite: it is never the maximum of noise that made it a candidate,
    and an elite that was lucky has to prove itself again. The parents of the next children are the elite and the T - 1
    best children.

    A child is a parent's number and an address, so every worker makes the next parents from the fitness alone.

    Source: Such et al. 2017, "Deep neuroevolution: genetic algorithms are a competitive alternative for training deep
    neural networks for reinforcement learning" (arXiv 1712.06567), algorithm 1. Differs by judging the elite anew in
    every iteration beside the next children, by the same small number of episodes as the other candidates, and by
    first children that are all mutations of one policy (theirs are drawn one by one).
    """

    name = "ga"
    summary = "a genetic algorithm: mutated children of the best, the elite judged by fresh episodes"

    num_children: int = 20
    """Children of an iteration, each judged by `episodes_per_member` episodes."""
    num_parents: int = 6
    """Policies that have children, T."""
    num_candidates: int = 3
    """Policies that may become the elite, C, the standing elite among them."""
    candidate_episodes: int = 5
    """Times that a candidate is judged afresh."""
    noise_std: float = 0.1
    """Standard deviation of a mutation of each parameter."""

    @property
    def num_members(self) -> int:
        return self.num_children + self.num_candidates * self.candidate_episodes

    def validate(self) -> None:
        super().validate()
        require_positive(
            "GA",
            num_children=self.num_children,
            num_parents=self.num_parents,
            num_candidates=self.num_candidates,
            candidate_episodes=self.candidate_episodes,
            noise_std=self.noise_std,
        )
        least = max(self.num_parents, self.num_candidates) - 1
        if self.num_children < least:
            raise UsageError(
                f"GA.num_children must be at least {least}, one less than the larger one of num_parents, "
                f"{self.num_parents}, and num_candidates, {self.num_candidates}: got {self.num_children}. Raise it."
            )

    def starts(self, episodes: Int[np.ndarray, "E"]) -> Int[np.ndarray, "E"]:
        """With shared starts, the k-th episodes of all candidates begin alike."""
        if not self.shared_starts:
            return episodes
        member, place = np.divmod(episodes, self.episodes_per_member)
        turn = np.maximum(member - self.num_children, 0) % self.candidate_episodes
        return turn * self.episodes_per_member + place

    def init(self, key: Key) -> Herd:
        start = super().init(key)
        parents, candidates = (
            jnp.broadcast_to(start.params, (count, self.num_params))
            for count in (self.num_parents, self.num_candidates)
        )
        return Herd(*start, parents=parents, candidates=candidates)

    def actor(self, state: Herd) -> SearchActor:
        return super().actor(state)._replace(spread=(state.parents, state.candidates))

    def displace(self, actor: SearchActor, member: Int[Array, ""]) -> Float[Array, "n"]:
        """Return a child's parameters, or from `num_children` on a candidate's."""
        parents, candidates = actor.spread
        place = jnp.clip((member - self.num_children) // self.candidate_episodes, 0, self.num_candidates - 1)
        # an address beyond those of all perturbations
        drawn = jax.random.fold_in(jax.random.fold_in(actor.noise_key, jnp.uint32(2**32 - 1)), member)
        parent = parents[jax.random.randint(drawn, (), 0, self.num_parents)]
        eps = noise.perturbation(actor.noise_key, jnp.minimum(member, self.num_children - 1), actor.params.shape[0])
        child = parent + jnp.asarray(self.noise_std, jnp.float32) * eps
        return jnp.where(member < self.num_children, child, candidates[place])

    def update(self, state: Herd, experience: Returns, key: Key) -> tuple[Herd, Metrics]:
        """Choose the elite among the candidates and the parents among the children; nothing is drawn."""
        fitness = jnp.asarray(experience.fitness, jnp.float64)
        fitness = jnp.where(jnp.isnan(fitness), -jnp.inf, fitness)
        judged = fitness[self.num_children :].reshape(self.num_candidates, self.candidate_episodes).mean(1)
        place = jnp.argmax(judged)  # the standing elite where they tie
        elite = state.candidates[place]
        best = jnp.argsort(-fitness[: self.num_children], stable=True)
        actor = self.actor(state)
        children = jax.vmap(lambda member: self.displace(actor, member))(
            best[: max(self.num_parents, self.num_candidates) - 1]
        )
        ranked = jnp.concatenate([elite[None], children])
        metrics = {
            "best_fitness": judged[place],
            "improved": (place > 0).astype(jnp.float64),
            "params_norm": jnp.linalg.norm(elite),
        }
        plain = self.advanced(SearchState(*state[:4]), elite, experience)
        return Herd(*plain, ranked[: self.num_parents], ranked[: self.num_candidates]), metrics
