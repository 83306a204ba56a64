"""How candidates stand: each one's episodes, which of them go on, and which one leads."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

__all__ = ["Standing", "leader", "means", "opened", "replaced", "scored"]


class Standing(NamedTuple):
    """Candidates of a search and what they have earned so far.

    Attributes:
        candidates: parameters of each, one row a candidate.
        total: sum of the fitness of each candidate's plays, float64.
        count: plays of each candidate.
        place: candidate that each member of the population plays next.
    """

    candidates: Num[Array, "P n"]
    total: Float[Array, "P"]
    count: Int[Array, "P"]
    place: Int[Array, "P"]


def opened(candidates: Num[Array, "P n"], distinct: int) -> Standing:
    """Return the standing before the first play; the first `distinct` rows are played, in turn, by all members."""
    count = candidates.shape[0]
    place = jnp.arange(count) % min(distinct, count)
    return Standing(candidates, jnp.zeros(count, jnp.float64), jnp.zeros(count, jnp.int32), place.astype(jnp.int32))


def scored(standing: Standing, fitness: Float[Array, "P"]) -> Standing:
    """Return the standing after every member has played; a fitness that is no number counts against its candidate."""
    total = standing.total.at[standing.place].add(fitness.astype(jnp.float64))
    return standing._replace(total=total, count=standing.count.at[standing.place].add(1))


def means(standing: Standing) -> Float[Array, "P"]:
    """Return the mean fitness of each candidate, -inf where it has not been played or is no number."""
    mean = standing.total / jnp.maximum(standing.count, 1)
    return jnp.where((standing.count > 0) & ~jnp.isnan(mean), mean, -jnp.inf)


def leader(standing: Standing, trials: int) -> Int[Array, ""]:
    """Return the candidate with the highest mean among those played at least `trials` times.

    Until one has been, those that were played most often count. *One lucky play leads only for as long as all others
    have had no more*: the highest of many first plays is too high on average, and this is the remedy.
    """
    fair = standing.count >= jnp.minimum(trials, standing.count.max())
    return jnp.argmax(jnp.where(fair, means(standing), -jnp.inf))


def replaced(standing: Standing, fresh: Num[Array, "C n"], is_new: Bool[Array, "C"], distinct: int) -> Standing:
    """Return the standing of the next iteration: the best candidates first, fresh ones after them.

    The P - C candidates with the highest means stay, with all they have earned. Where `is_new` is false there is no
    fresh candidate left, and the member plays one of those that stay.

    Args:
        standing: after `scored`.
        fresh: parameters of the newcomers.
        is_new: which of them are candidates that were not tried before.
        distinct: number of candidates that can stay at most.
    """
    count, kept = standing.count.shape[0], standing.count.shape[0] - fresh.shape[0]
    order = jnp.argsort(-means(standing), stable=True)[:kept]
    none = jnp.zeros(fresh.shape[0], standing.count.dtype)
    turns = jnp.arange(count) % max(min(kept, distinct), 1)
    is_own = jnp.concatenate([jnp.arange(kept) < distinct, is_new])
    return Standing(
        jnp.concatenate([standing.candidates[order], fresh.astype(standing.candidates.dtype)]),
        jnp.concatenate([standing.total[order], none.astype(jnp.float64)]),
        jnp.concatenate([standing.count[order], none]),
        jnp.where(is_own, jnp.arange(count), turns).astype(jnp.int32),
    )
