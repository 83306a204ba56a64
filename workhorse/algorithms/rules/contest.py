"""Base of searches among candidates: the best so far are judged again beside fresh ones, and every episode counts."""

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from workhorse.algorithms.rules.standing import Standing, leader, means, opened, replaced, scored
from workhorse.core.algorithm import Key, Metrics, Population
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_positive
from workhorse.core.types import Returns

__all__ = ["Contest", "ContestActor", "ContestState", "scattered", "uniform_points"]

UNLIMITED = 2**31 - 1


class ContestState(NamedTuple):
    """The candidates, the one that leads, the key of the fresh ones, the clock."""

    standing: Standing
    best: Num[Array, "n"]
    draws: Key
    iteration: Int[Array, ""]


class ContestActor(NamedTuple):
    """Parameters of each member of the population, and of the candidate that leads."""

    members: Num[Array, "P n"]
    best: Num[Array, "n"]


@configuration
class Contest(Population):
    """A population of candidates, of which the `num_finalists` best so far are judged again in every iteration.

    The other members are fresh. The policy is the finalist with the highest mean over all its episodes, among those
    that were judged at least `trials` times, so that one lucky episode does not win. *Every candidate's episodes are
    training steps*, also of those that come to nothing: that is the price of choosing.
    """

    num_candidates: int = 48
    """Fresh candidates an iteration."""
    num_finalists: int = 16
    """Best candidates so far, which are judged again in every iteration."""
    trials: int = 4
    """Times that a candidate must have been judged to become the policy, once one has been."""
    episodes_per_member: int = 1
    """Episodes of a candidate each time it is judged."""

    @property
    def num_members(self) -> int:
        return self.num_finalists + self.num_candidates

    @property
    def family_size(self) -> int:
        """Number of candidates that there are, numbered from 0."""
        return UNLIMITED

    @abstractmethod
    def candidates(
        self, draws: Key, numbers: Int[Array, "C"], best: Num[Array, "n"], iteration: Int[Array, ""]
    ) -> Num[Array, "C n"]:
        """Return the parameters of candidates by their numbers.

        Args:
            draws: the run's key for them.
            numbers: running numbers, from 0; beyond `family_size` the parameters mean nothing.
            best: the candidate that leads.
            iteration: in which they are first played.
        """

    @property
    @abstractmethod
    def template(self) -> Num[np.ndarray, "n"]:
        """Parameters that stand where none are known yet: their number and type."""

    def validate(self) -> None:
        require_positive(
            type(self).__name__,
            num_candidates=self.num_candidates,
            num_finalists=self.num_finalists,
            trials=self.trials,
            episodes_per_member=self.episodes_per_member,
        )

    def init(self, key: Key) -> ContestState:
        start, best = jnp.zeros((), jnp.int32), jnp.asarray(self.template)
        first = self.candidates(key, jnp.arange(self.num_members), best, start).astype(best.dtype)
        return ContestState(opened(first, self.family_size), first[0], key, start)

    def actor(self, state: ContestState) -> ContestActor:
        return ContestActor(state.standing.candidates[state.standing.place], state.best)

    def parameters(self, actor: ContestActor, slot: Int[Array, ""]) -> Num[Array, "n"]:
        """Return the parameters of the candidate in a slot, or of the leading one where `slot` is negative."""
        return jnp.where(slot < 0, actor.best, actor.members[jnp.maximum(slot, 0)])

    def begin(self, actor: ContestActor, slot: Int[Array, ""]) -> Any:
        return self.parameters(actor, slot)

    def fitness(self, episode_return: Float[np.ndarray, "E"], length: Int[np.ndarray, "E"]) -> Float[Array, "E"]:
        return jnp.asarray(episode_return, jnp.float32)

    def update(self, state: ContestState, experience: Returns, key: Key) -> tuple[ContestState, Metrics]:
        """Judge, choose the leader, and let the fresh candidates of the next iteration in."""
        standing = scored(state.standing, jnp.asarray(experience.fitness))
        place, clock = leader(standing, self.trials), state.iteration + 1
        best = standing.candidates[place]
        numbers = self.num_members + state.iteration.astype(jnp.int64) * self.num_candidates
        numbers = numbers + jnp.arange(self.num_candidates)
        fresh = self.candidates(state.draws, numbers, best, clock)
        after = replaced(standing, fresh, numbers < self.family_size, self.family_size)
        mean = means(standing)[place]
        metrics = {
            "best_fitness": jnp.where(jnp.isfinite(mean), mean, jnp.nan),
            "best_episodes": standing.count[place] * self.episodes_per_member,
            "candidates": jnp.minimum(numbers[0], self.family_size).astype(jnp.float64),
        }
        return ContestState(after, best, state.draws, clock), metrics

    @abstractmethod
    def in_words(self, state: ContestState) -> str:
        """Return the policy in plain words."""


def scattered(numbers: Int[Array, "C"], size: int) -> Int[Array, "C"]:
    """Return number * stride mod size: as numbers go from 0 to size - 1, every place of a family once, far apart.

    Example:
        >>> scattered(jnp.arange(8), 8).tolist()
        [0, 5, 2, 7, 4, 1, 6, 3]
    """
    stride = max(1, round(size * (5**0.5 - 1) / 2))
    while math.gcd(stride, size) > 1:
        stride += 1
    return numbers.astype(jnp.int64) * stride % size


def uniform_points(draws: Key, numbers: Int[Array, "C"], size: int) -> Float[Array, "C n"]:
    """Return points of [0, 1)^n that fill it evenly: frac(shift + number * (1/g, 1/g^2, ..., 1/g^n)), float64.

    g > 1 solves g^(n+1) = g + 1; `shift` is drawn once from the key.

    Example:
        >>> points = uniform_points(jax.random.key(0), jnp.arange(1000), 2)
        >>> round(float((points < 0.25).all(axis=1).mean()), 2)
        0.06

    Source: the additive recurrence of Roberts 2018, "The unreasonable effectiveness of quasirandom sequences".
    """
    ratio = 2.0
    for _ in range(64):
        ratio = (1 + ratio) ** (1 / (size + 1))
    step = ratio ** -np.arange(1.0, size + 1)
    shift = jax.random.uniform(draws, (size,), jnp.float64)
    return jnp.mod(shift + numbers[:, None] * step, 1.0)
