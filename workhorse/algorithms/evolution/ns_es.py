"""Novelty search by evolution strategies: climb towards behaviour that was not seen before."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.gaussian_search import GaussianSearch
from workhorse.algorithms.evolution.search import SearchActor
from workhorse.core.algorithm import Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_positive
from workhorse.core.types import Moments, Returns
from workhorse.math import noise
from workhorse.math.fitness import centred_ranks

__all__ = ["NSES", "NoveltyState", "novelty"]


class NoveltyState(NamedTuple):
    """A `GaussianState` whose parameters are the best centre's, with all centres and the archive.

    Attributes:
        centres: policies that are climbed from in turn, (M, n).
        optimisers: Adam's moments of each, leading axis M.
        chosen: number of the centre that this iteration's members surround.
        fitness: mean fitness of each centre when it was last played, -inf before; float64 (M,).
        behaviours: of each centre when it was last played; float32 (M, 2).
        archive: behaviour of centres as they were, the oldest overwritten first, float32 (A, 2).
        archived: behaviours ever put there.
    """

    params: Float[Array, "n"]
    observations: Moments
    noise_key: Key
    iteration: Int[Array, ""]
    pending: Any
    centres: Float[Array, "M n"]
    optimisers: optax.OptState
    chosen: Int[Array, ""]
    fitness: Float[Array, "M"]
    behaviours: Float[Array, "M 2"]
    archive: Float[Array, "A 2"]
    archived: Int[Array, ""]


@configuration
class NSES(GaussianSearch):
    """Ascend the novelty of behaviour, with `novelty_weight` below 1 mixed with the return.

    A behaviour is two numbers: components `behaviour` of an episode's last observation, rounded to float16, so that a
    member costs 4 bytes of fitness and 4 of behaviour. Its novelty is its mean distance to the `num_neighbours` nearest
    behaviours in the archive. An iteration picks one of M centres: first each in turn, then with a probability in
    proportion to the novelty that its last behaviour has *by now*. It plays mirrored pairs around it, and the centre
    itself, whose behaviour enters the archive. Centres begin `noise_std` apart. With w the novelty weight,

        u = w rank(novelty) + (1 - w) rank(fitness)
        g = 1 / (2 N noise_std) sum_i (u_{2i} - u_{2i+1}) eps_i,    centre <- centre + Adam(g)

    The policy that is evaluated and kept is the centre that earned most when it was last played.

    Source: Conti et al. 2018, "Improving exploration in evolution strategies for deep reinforcement learning via a
    population of novelty-seeking agents" (arXiv 1712.06560). Differs by an archive of bounded size (theirs grows for
    ever, and with it the cost of a member) and by adding a centre's behaviour before its next step, not after its last.
    """

    name = "ns-es"
    summary = "novelty search: climb towards behaviour that was not seen before"
    presets = {"nsr-es": ("novelty and return, half and half", {"novelty_weight": 0.5})}
    can_lag = False
    behaviour_size = 2

    behaviour: tuple[int, ...] = (0, 1)
    """Components of an episode's last observation that are its behaviour."""
    num_pairs: int = 16
    """Mirrored pairs of an iteration."""
    noise_std: float = 0.05
    """Standard deviation of the parameter perturbations."""
    learning_rate: float = 0.02
    """Adam's step size."""
    novelty_weight: float = 1.0
    """Part of the utility that is novelty; the rest is the return."""
    num_centres: int = 3
    """Policies that are climbed from in turn, M."""
    centre_episodes: int = 2
    """Times that the chosen centre itself is played, for its behaviour and its fitness."""
    num_neighbours: int = 10
    """Nearest behaviours that novelty is measured by."""
    archive_size: int = 1_000
    """Behaviours that are kept, the oldest overwritten first."""

    @property
    def num_members(self) -> int:
        return 2 * self.num_pairs + self.centre_episodes

    def validate(self) -> None:
        super().validate()
        require_positive(
            "NSES",
            num_pairs=self.num_pairs,
            noise_std=self.noise_std,
            learning_rate=self.learning_rate,
            num_centres=self.num_centres,
            centre_episodes=self.centre_episodes,
            num_neighbours=self.num_neighbours,
            archive_size=self.archive_size,
        )
        if not 0 <= self.novelty_weight <= 1:
            raise UsageError(f"NSES.novelty_weight must be in [0, 1]: got {self.novelty_weight}.")
        size = self.spec.observation.size
        if len(self.behaviour) != 2 or not all(0 <= place < size for place in self.behaviour):
            raise UsageError(
                f"NSES.behaviour must be two components of an observation of {self.spec.task}, from 0 to {size - 1}: "
                f"got {self.behaviour}."
            )

    def init(self, key: Key) -> NoveltyState:
        start, params_key = super().init(key), jax.random.fold_in(key, jnp.uint32(2**32 - 1))
        # apart, or a first centre in the middle of its own symmetric members would have nowhere to go
        away = jax.vmap(lambda row: noise.perturbation(params_key, row, self.num_params))(jnp.arange(self.num_centres))
        is_other = (jnp.arange(self.num_centres) > 0)[:, None]
        centres = start.params + jnp.where(is_other, jnp.asarray(self.noise_std, jnp.float32) * away, 0.0)
        return NoveltyState(
            *start,
            centres=centres,
            optimisers=jax.vmap(self._adam().init)(centres),
            chosen=jnp.zeros((), jnp.int32),
            fitness=jnp.full(self.num_centres, -jnp.inf),
            behaviours=jnp.zeros((self.num_centres, 2), jnp.float32),
            archive=jnp.zeros((self.archive_size, 2), jnp.float32),
            archived=jnp.zeros((), jnp.int32),
        )

    # --- members ---

    def describe(self, last_obs: Float[np.ndarray, "E ..."]) -> np.ndarray:
        return last_obs.reshape(len(last_obs), -1)[:, list(self.behaviour)].astype(np.float16)

    def actor(self, state: NoveltyState) -> SearchActor:
        return super().actor(state)._replace(spread=state.centres[state.chosen])

    def perturbation_of(self, member: Int[Array, ""]) -> Int[Array, ""]:
        return jnp.minimum(member, 2 * self.num_pairs - 1) // 2

    def placed(self, actor: SearchActor, member: Int[Array, ""], eps: Float[Array, "n"]) -> Float[Array, "n"]:
        sign = jnp.where(member < 2 * self.num_pairs, 1 - 2 * (member % 2), 0).astype(jnp.float32)
        return actor.spread + sign * jnp.asarray(self.noise_std, jnp.float32) * eps

    # --- the update ---

    def weights(self, state: NoveltyState, experience: Returns) -> Float[Array, "1 N"]:
        """(u_{2i} - u_{2i+1}) / (2 N noise_std) for each pair."""
        pairs, share = 2 * self.num_pairs, jnp.asarray(self.novelty_weight, jnp.float64)
        archive, archived = self._archived(state, experience)
        found = novelty(jnp.asarray(experience.behaviour)[:pairs], archive, archived, self.num_neighbours)
        ranks = centred_ranks(found.astype(jnp.float64))
        earned = centred_ranks(jnp.asarray(experience.fitness, jnp.float64)[:pairs])
        utility = share * ranks + (1 - share) * earned
        weights = (utility[0::2] - utility[1::2]) / (2 * self.num_pairs * self.noise_std)
        return weights.astype(jnp.float32)[None]

    def move(self, state: NoveltyState, experience: Returns, sums: Float[Array, "1 n"]) -> tuple[NoveltyState, Metrics]:
        """Adam's step of the chosen centre; then the next one is drawn."""
        place, (archive, archived) = state.chosen, self._archived(state, experience)
        optimiser = jax.tree.map(lambda leaf: leaf[place], state.optimisers)
        step, optimiser = self._adam().update(-sums[0], optimiser)
        centres = state.centres.at[place].add(step)
        earned = jnp.asarray(experience.fitness, jnp.float64)[2 * self.num_pairs :].mean()
        fitness = state.fitness.at[place].set(jnp.where(jnp.isnan(earned), -jnp.inf, earned))
        params = centres[jnp.argmax(fitness)]
        behaviours = jnp.asarray(experience.behaviour)
        seen = novelty(behaviours[: 2 * self.num_pairs], archive, archived, self.num_neighbours)
        centre_behaviours = state.behaviours.at[place].set(self._centre_behaviour(experience))
        after = self.advanced(state, params, experience)._replace(
            centres=centres,
            optimisers=jax.tree.map(lambda all, one: all.at[place].set(one), state.optimisers, optimiser),
            chosen=self._next(state, novelty(centre_behaviours, archive, archived, self.num_neighbours)),
            fitness=fitness,
            behaviours=centre_behaviours,
            archive=archive,
            archived=archived,
        )
        metrics = {
            "gradient_norm": jnp.linalg.norm(sums[0]),
            "step_norm": jnp.linalg.norm(step),
            "params_norm": jnp.linalg.norm(params),
            "novelty": seen.mean(),
            "best_fitness": fitness.max(),
        }
        return after, metrics

    def _next(self, state: NoveltyState, novelty: Float[Array, "M"]) -> Int[Array, ""]:
        """Draw the next centre in proportion to novelty, once each was played."""
        address = jax.random.fold_in(jax.random.fold_in(state.noise_key, state.iteration), jnp.uint32(2**32 - 1))
        known = jnp.nan_to_num(novelty)
        drawn = jax.random.categorical(address, jnp.log(jnp.where(known.sum() > 0, known, 1.0)))
        turn = state.iteration + 1
        return jnp.where(turn < self.num_centres, turn, drawn).astype(jnp.int32)

    def _centre_behaviour(self, experience: Returns) -> Float[Array, "2"]:
        """Return the mean over the chosen centre's episodes."""
        return jnp.asarray(experience.behaviour, jnp.float32)[2 * self.num_pairs :].mean(0)

    def _archived(self, state: NoveltyState, experience: Returns) -> tuple[Float[Array, "A 2"], Int[Array, ""]]:
        """Return the archive with the chosen centre's behaviour where it is finite, and the number so far."""
        behaviour = self._centre_behaviour(experience)
        known = jnp.isfinite(behaviour).all()
        archive = state.archive.at[state.archived % self.archive_size].set(behaviour)
        return jnp.where(known, archive, state.archive), state.archived + known

    def _adam(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)


def novelty(
    behaviour: Float[Array, "P 2"], archive: Float[Array, "A 2"], archived: Int[Array, ""], neighbours: int
) -> Float[Array, "P"]:
    """Return the mean distance of each behaviour to its nearest ones in the archive, float32.

    Args:
        behaviour: of the members; one with a NaN has novelty NaN.
        archive: behaviours, of which the first `archived` count.
        archived: how many; with none, novelty is 0.
        neighbours: how many, or as many as there are.

    Example:
        >>> archive = jnp.array([[0.0, 0.0], [3.0, 4.0], [9.0, 9.0]], jnp.float32)
        >>> novelty(jnp.array([[0.0, 0.0]], jnp.float32), archive, jnp.asarray(2), 2).tolist()
        [2.5]
    """
    size = archive.shape[0]
    nearest = min(neighbours, size)
    apart = jnp.linalg.norm(behaviour.astype(jnp.float32)[:, None] - archive[None], axis=2)
    apart = jnp.where(jnp.arange(size) < archived, apart, jnp.inf)
    least = jnp.sort(apart, axis=1)[:, :nearest]
    counts = jnp.isfinite(least)
    found = jnp.where(counts, least, 0.0).sum(1) / jnp.maximum(counts.sum(1), 1)
    return jnp.where(jnp.isnan(behaviour).any(1), jnp.nan, found)
