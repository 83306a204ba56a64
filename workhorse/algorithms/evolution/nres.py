"""Noise-reuse evolution strategies: steps from windows of unfinished episodes, for long horizons."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from workhorse.algorithms.evolution.search import SearchActor, SearchedPolicy
from workhorse.core.algorithm import Key, Metrics, OnPolicy
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_positive
from workhorse.core.types import Moments, Rollout
from workhorse.math import moments, noise
from workhorse.networks.mlp import MLP

__all__ = ["NRES", "Particle", "ReuseState"]


class ReuseState(NamedTuple):
    """A `SearchState` with Adam's moments."""

    params: Float[Array, "n"]
    observations: Moments
    noise_key: Key
    iteration: Int[Array, ""]
    optimiser: optax.OptState


class Particle(NamedTuple):
    """The perturbation that a slot keeps for its whole episode, in units of `noise_std`, with its sign."""

    eps: Float[Array, "n"]


@configuration
class NRES(SearchedPolicy, OnPolicy):
    """Learn every `rollout_steps` steps, while each episode keeps its perturbation from beginning to end.

    Slot 2i acts with theta + noise_std * eps, slot 2i+1 with theta - noise_std * eps; theta moves on during the
    episode, eps does not. After a window of W steps in every slot, with L the sum of a slot's rewards in it less
    the mean reward of all slots' steps for each of its steps,

        g = 1 / (noise_std M W) sum over slots of L * (+-eps),    theta <- theta + Adam(g)

    where M is the number of slots. An episode that ends within a window is followed by one with a new eps, and each
    has its own L. So work per update is equal by construction, and nobody waits for a long episode; but a step sees
    what a perturbation does within W steps of an episode that began with another theta.

    The slots' first episodes are cut at evenly spaced times, so that a window holds all parts of an episode, and not
    the same part of all of them. It is meant for tasks without early ends.

    Source: Li et al. 2023, "Noise-reuse in online evolution strategies" (arXiv 2304.12180). Differs by a baseline
    instead of the mirrored difference (equal where both slots of a pair run), so that a pair whose one half fell can go
    on; by Adam instead of plain steps; and the halves of a pair do not share the randomness of the task.
    """

    name = "nres"
    summary = "evolution strategies that learn within episodes: noise is kept, steps come every few time steps"

    num_envs: int = 32
    """Slots, two for each perturbation."""
    held_out_envs: int = 0
    """More slots in which the policy acts unperturbed, only measured on."""
    rollout_steps: int = 100
    """Steps of each slot between two updates, W."""
    noise_std: float = 0.1
    """Standard deviation of the parameter perturbations."""
    learning_rate: float = 0.01
    """Adam's step size."""

    def validate(self) -> None:
        super().validate()
        require_positive(
            "NRES",
            num_envs=self.num_envs,
            rollout_steps=self.rollout_steps,
            noise_std=self.noise_std,
            learning_rate=self.learning_rate,
        )
        if self.num_envs % 2:
            raise UsageError(f"NRES.num_envs must be even, two for each perturbation: got {self.num_envs}.")
        if self.held_out_envs < 0:
            raise UsageError(f"NRES.held_out_envs must be at least 0: got {self.held_out_envs}.")

    def first_ends(self) -> np.ndarray | None:
        """Return evenly spaced steps at which the slots' first episodes are cut, both of a pair together."""
        pairs, clock = self.num_envs // 2, self.spec.max_episode_steps
        if clock is None:
            return None
        ends = np.repeat(clock * np.arange(pairs) // pairs, 2)
        return np.concatenate([ends, np.zeros(self.held_out_envs, ends.dtype)])

    def init(self, key: Key) -> ReuseState:
        params_key, noise_key = jax.random.split(key)
        params = ravel_pytree(self.network(params_key))[0]
        unseen = moments.empty(self.spec.observation.size, jnp.float64)
        return ReuseState(params, unseen, noise_key, jnp.zeros((), jnp.int32), self._adam().init(params))

    def actor(self, state: ReuseState) -> SearchActor:
        mean, inverse_scale = self.scaling(state.observations)
        address = jax.random.fold_in(state.noise_key, state.iteration)
        return SearchActor(state.params, mean, inverse_scale, address, state.iteration)

    def begin(self, actor: SearchActor, slot: Int[Array, ""]) -> Particle:
        """Return the perturbation of an episode that begins in this iteration; none for the policy itself."""
        return Particle(self._eps(actor.noise_key, slot))

    def _eps(self, address: Key, slot: Int[Array, ""]) -> Float[Array, "n"]:
        sign = (1 - 2 * (slot % 2)).astype(jnp.float32)
        eps = sign * noise.perturbation(address, jnp.maximum(slot, 0) // 2, self.num_params)
        return jnp.where((slot >= 0) & (slot < self.num_envs), eps, 0.0)

    def act(
        self, actor: SearchActor, carry: Particle, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Array, Particle, tuple[()]]:
        """Act as `SearchedPolicy` does, with theta of now and the episode's eps; without exploration theta alone."""
        scale = jnp.asarray(self.noise_std if explore else 0.0, jnp.float32)
        network: MLP = self.to_network(actor.params + scale * carry.eps)
        action, _, _ = super().act(actor, network, obs, key, explore=explore)
        return action, carry, ()

    def update(self, state: ReuseState, experience: Rollout, key: Key) -> tuple[ReuseState, Metrics]:
        """One step of Adam; nothing is drawn."""
        count = self.num_envs
        reward = jnp.asarray(experience.reward, jnp.float64)[:, :count]
        ended = (experience.terminated | experience.truncated)[:, :count]
        begun_before = jnp.cumsum(ended, 0) - ended == 0  # the step's episode is the one that the window began with
        gain = reward - reward.mean()
        old, new = (jnp.where(mask, gain, 0.0).sum(0) for mask in (begun_before, ~begun_before))
        weights = jnp.stack([old, new]) / (self.noise_std * count * self.rollout_steps)
        address = jax.random.fold_in(state.noise_key, state.iteration)
        fresh = jax.vmap(lambda slot: self._eps(address, slot))(jnp.arange(count))
        gradient = _weighted(weights[0], experience.carry.eps[:count]) + _weighted(weights[1], fresh)
        step, optimiser = self._adam().update(-gradient, state.optimiser)
        params = state.params + jnp.asarray(step)
        flat = experience.obs.reshape(-1, self.spec.observation.size)
        observations = moments.merge(state.observations, moments.of(flat))
        metrics = {
            "gradient_norm": jnp.linalg.norm(gradient),
            "step_norm": jnp.linalg.norm(step),
            "params_norm": jnp.linalg.norm(params),
        }
        return ReuseState(params, observations, state.noise_key, state.iteration + 1, optimiser), metrics

    def _adam(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)


def _weighted(weights: Float[Array, "M"], rows: Float[Array, "M n"]) -> Float[Array, "n"]:
    """Return the weighted sum of rows, in their order, float32."""
    zero = jnp.zeros(rows.shape[1], jnp.float32)
    pairs = (weights.astype(jnp.float32), rows)
    return jax.lax.scan(lambda total, one: (total + one[0] * one[1], None), zero, pairs)[0]
