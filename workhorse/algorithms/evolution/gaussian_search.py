"""Base of searches whose members are Gaussian perturbations known by address, and of their lag."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.search import ParameterSearch, SearchActor, SearchState
from workhorse.core.algorithm import Key, Metrics, Rebuildable, State
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.types import Moments, Returns
from workhorse.math import moments, noise

__all__ = ["GaussianSearch", "GaussianState"]


class GaussianState(NamedTuple):
    """A `SearchState`, and with a lag the returns that are learnt from in the next iteration."""

    params: Float[Array, "n"]
    observations: Moments
    noise_key: Key
    iteration: Int[Array, ""]
    pending: Any


@configuration
class GaussianSearch(ParameterSearch, Rebuildable):
    """Members around a centre, and an update made of weighted sums over their perturbations eps_i ~ N(0, I).

    An update is three steps: `weights` turns the fitness into weights of the eps_i, the sums are computed, and
    `move` moves the centre along them. The sums are what costs (perturbations times parameters); they fall into
    blocks (`workhorse.math.noise.weighted_block`) that several processes may share.

    With `lag` 1, theta_{t+1} = theta_t + the step of population t-1: population t acts with parameters that know
    nothing of it, so it may begin while the last episodes of t-1 still run. *Which population is learnt from when is
    fixed*, so no episode is dropped, and no bit depends on who was late. The first iteration learns nothing.
    """

    can_lag: ClassVar[bool] = True

    lag: int = 0
    """Learn from the population of this many iterations ago, 0 or 1; with 1, nobody waits for the last episodes."""

    def validate(self) -> None:
        super().validate()
        if self.lag not in (0, 1):
            raise UsageError(f"{type(self).__name__}.lag must be 0 or 1: got {self.lag}.")
        if self.lag and not self.can_lag:
            raise UsageError(
                f"{type(self).__name__}.lag must be 0: got {self.lag}. {self.name} learns from where its members were "
                "drawn, and that has moved an iteration later. Leave it out, or take openai-es, ars or pgpe."
            )

    def init(self, key: Key) -> State:
        return GaussianState(*super().init(key), pending=self._nothing_yet() if self.lag else ())

    # --- members ---

    def perturbation_of(self, member: Int[Array, ""]) -> Int[Array, ""]:
        """Return the number of the perturbation that a member acts with."""
        return member

    def placed(self, actor: SearchActor, member: Int[Array, ""], eps: Float[Array, "m"]) -> Float[Array, "n"]:
        """Return the parameters of a member whose perturbation is `eps`."""
        raise NotImplementedError(f"{type(self).__name__} does not say where its members are.")

    def displace(self, actor: SearchActor, member: Int[Array, ""]) -> Float[Array, "n"]:
        eps = noise.perturbation(actor.noise_key, self.perturbation_of(member), self.num_drawn)
        return self.placed(actor, member, eps)

    # --- the update ---

    @property
    def num_drawn(self) -> int:
        """Components of a perturbation, which may be more than the parameters n."""
        return self.num_params

    def noise_key(self, state: State) -> Key:
        return jax.random.fold_in(state.noise_key, state.iteration - self.lag)

    def learnt(self, state: State, experience: Returns) -> Returns:
        return state.pending if self.lag else experience

    def kept(self, state: State, experience: Returns) -> State:
        return state._replace(pending=experience) if self.lag else state

    @property
    def num_blocks(self) -> int:
        return noise.num_blocks(self.num_drawn)

    def block(self, key: Key, weights: Float[Array, "K N"], number: int | Int[Array, ""]) -> Float[Array, "K b"]:
        return noise.weighted_block(key, weights, number, self.num_drawn)

    def step(self, state: State, experience: Returns, blocks: list[Array]) -> tuple[State, Metrics]:
        after, metrics = self.move(state, experience, noise.joined(blocks, self.num_drawn))
        if self.lag:  # nothing but the clock moves where there is nothing to learn from yet
            first = state.iteration < self.lag
            unmoved = state._replace(iteration=state.iteration + 1)
            after = jax.tree.map(lambda old, new: jnp.where(first, old, new), unmoved, after)
        return after, metrics

    def move(self, state: State, experience: Returns, sums: Float[Array, "K m"]) -> tuple[State, Metrics]:
        """Return the state after a step along the sums over `num_drawn` components, and its metrics."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it moves.")

    def update(self, state: State, experience: Returns, key: Key) -> tuple[State, Metrics]:
        """One step; nothing in it is drawn, so `key` is not used."""
        due, address = self.learnt(state, experience), self.noise_key(state)
        weights = self.weights(state, due)
        blocks = jax.lax.map(lambda number: self.block(address, weights, number), jnp.arange(self.num_blocks))
        after, metrics = self.step(state, due, list(blocks))
        return self.kept(after, experience), metrics

    def advanced(self, state: State, params: Float[Array, "n"], experience: Returns) -> State:
        """Return the state after an iteration: new parameters, its observations merged in, the clock moved."""
        plain = super().advanced(SearchState(*state[:4]), params, experience)
        return state._replace(**plain._asdict())

    def _nothing_yet(self) -> Returns:
        unseen = moments.empty(self.spec.observation.size, jnp.float64)
        fitness = jnp.zeros(self.num_members, jnp.float32)
        return Returns(fitness, np.float64(0), unseen)
