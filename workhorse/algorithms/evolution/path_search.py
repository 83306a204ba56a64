"""Base of the family of CMA-ES: the best members are recombined, and a path of the steps sets their length."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.ranked_search import RankedSearch
from workhorse.algorithms.evolution.search import SearchActor
from workhorse.core.algorithm import Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.types import Moments, Returns
from workhorse.math.fitness import parent_weights, shared_by_rank

__all__ = ["MOST_GROWTH", "PathSearch", "PathState"]

MOST_GROWTH = 1.0
"""Most that ln(s) may grow in an iteration, as in pycma."""


class PathState(NamedTuple):
    """A `GaussianState` with the step size s, the path p of its steps, and the shape of the perturbations.

    `updates` counts the iterations that learnt something; those in which nobody differed do not.
    """

    params: Float[Array, "n"]
    observations: Moments
    noise_key: Key
    iteration: Int[Array, ""]
    pending: Any
    updates: Int[Array, ""]
    noise_std: Float[Array, ""]
    path: Float[Array, "n"]
    shape: Any


@configuration
class PathSearch(RankedSearch):
    """Recombine the best members; lengthen the steps while they go one way, shorten them while they go to and fro.

    Member i of P acts with m + s * T(eps_i), T linear. With w_i the weights of the members' ranks, which sum to 1,

        z = sum_i w_i eps_i,    m <- m + s * T(z)
        p <- (1 - c) p + sqrt(c (2 - c) mu) z,    mu = 1 / sum_i w_i^2
        s <- s * exp(min(1, growth(|p|)))

    Where members tie, so that weights are shared, mu is that of the weights as they are: then p stays N(0, I)
    distributed under ranks that mean nothing, and s has no drift. (With a fixed mu, ties shorten p, and so s.)
    """

    least_members: ClassVar[int] = 4

    # --- what differs ---

    @property
    def num_parents(self) -> float:
        """Members that are recombined, mu': P/2, where only whole ranks below it + 1/2 have a weight."""
        return self.population_size / 2

    @property
    @abstractmethod
    def path_rate(self) -> float:
        """Rate c of the path."""

    def growth(self, length: Float[Array, ""]) -> Float[Array, ""]:
        """Return the growth of ln(s) at a path of this length: c/d (|p| / E|N(0, I)| - 1), as in CMA-ES.

        The damping is d = 1 + c + 2 max(0, sqrt((mu - 1) / (n + 1)) - 1).
        """
        size = self.num_params
        damping = 1 + self.path_rate + 2 * max(0.0, np.sqrt((self.effective_parents - 1) / (size + 1)) - 1)
        return jnp.float32(self.path_rate / damping) * (length / jnp.float32(self.expected_length) - 1)

    @property
    def expected_length(self) -> float:
        """E|N(0, I)| in n dimensions, by Hansen's series."""
        size = self.num_params
        return float(np.sqrt(size) * (1 - 1 / (4 * size) + 1 / (21 * size**2)))

    def first_shape(self) -> Any:
        """Return what T is made of at the start, where it is the identity."""
        return ()

    def shaped(self, shape: Any, updates: Int[Array, ""], eps: Float[Array, "n"]) -> Float[Array, "n"]:
        """Return T(eps)."""
        return eps

    def reshaped(
        self, state: PathState, path: Float[Array, "n"], weights: Float[Array, "P"], sums: Float[Array, "K n"]
    ) -> Any:
        """Return the shape after an update.

        Args:
            state: before it.
            path: p, after it.
            weights: w_i.
            sums: z, and what else `weights` of the class asks for.
        """
        return ()

    # --- what is shared ---

    @property
    def effective_parents(self) -> float:
        """Mu = 1 / sum_k w_k^2 where nobody ties."""
        return float(1 / np.square(parent_weights(self.num_members, self.num_parents)).sum())

    @property
    def cumulation(self) -> float:
        """The usual rate of a path, (mu + 2) / (n + mu + 5)."""
        mu = self.effective_parents
        return (mu + 2) / (self.num_params + mu + 5)

    def init(self, key: Key) -> PathState:
        path, step = jnp.zeros(self.num_params, jnp.float32), jnp.asarray(self.noise_std, jnp.float32)
        return PathState(
            *super().init(key),
            updates=jnp.zeros((), jnp.int32),
            noise_std=step,
            path=path,
            shape=self.first_shape(),
        )

    def actor(self, state: PathState) -> SearchActor:
        return super().actor(state)._replace(spread=(state.noise_std, state.updates, state.shape))

    def placed(self, actor: SearchActor, member: Int[Array, ""], eps: Float[Array, "n"]) -> Float[Array, "n"]:
        step, updates, shape = actor.spread
        return actor.params + step * self.shaped(shape, updates, eps)

    def weights(self, state: PathState, experience: Returns) -> Float[Array, "K N"]:
        """Return w_i."""
        ranks = parent_weights(self.num_members, self.num_parents)
        return shared_by_rank(jnp.asarray(experience.fitness), ranks).astype(jnp.float32)[None]

    def move(self, state: PathState, experience: Returns, sums: Float[Array, "K n"]) -> tuple[PathState, Metrics]:
        """A step of the mean along T(z), one of the path along z; the step size and the shape follow."""
        weights = self.weights(state, experience)[0]
        step = state.noise_std * self.shaped(state.shape, state.updates, sums[0])
        path = self.lengthened(state.path, sums[0], weights, self.path_rate)
        growth = jnp.minimum(self.growth(jnp.linalg.norm(path)), jnp.float32(MOST_GROWTH))
        after = state._replace(
            params=state.params + step,
            updates=state.updates + 1,
            noise_std=state.noise_std * jnp.exp(growth),
            path=path,
            shape=self.reshaped(state, path, weights, sums),
        )
        return self.settled(state, after, experience, jnp.linalg.norm(step), lambda state: state.noise_std)

    def lengthened(
        self, path: Float[Array, "n"], step: Float[Array, "n"], weights: Float[Array, "P"], rate: float
    ) -> Float[Array, "n"]:
        """Return (1 - rate) path + sqrt(rate (2 - rate) mu) step."""
        root = jnp.sqrt(jnp.asarray(rate * (2 - rate), jnp.float64)).astype(jnp.float32)
        factor = root / jnp.sqrt(jnp.square(weights).sum())
        return jnp.asarray(1 - rate, jnp.float32) * path + factor * step
