"""Algorithms that live outside the package, one of each kind, built on nothing but the interface."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from workhorse.core.algorithm import OnPolicy, Population, Rebuildable
from workhorse.core.configuration import configuration
from workhorse.core.layers import Dense, head_for
from workhorse.math import noise


class LinearState(NamedTuple):
    """A linear policy, and the number of iterations behind it."""

    weight: jax.Array
    noise_key: jax.Array
    iteration: jax.Array


class _Linear:
    """A linear policy for a `Discrete` task: its scores choose, or their softmax is drawn from."""

    def init(self, key):
        weight_key, noise_key = jax.random.split(key)
        shape = (self.spec.action.count, self.spec.observation.size)
        return LinearState(0.1 * jax.random.normal(weight_key, shape, jnp.float32), noise_key, jnp.int32(0))

    def actor(self, state):
        return state

    def policy_layers(self, actor):
        return (Dense(actor.weight), head_for(self.spec.action))

    def validate(self):
        """Every setting will do."""


@configuration
class Guess(_Linear, Population):
    """Keep the best of random policies around the one that is there."""

    name = "guess"
    summary = "keeps the best of some random policies"

    spec: object
    num_guesses: int = 6
    """Random policies an iteration."""
    spread: float = 1.0
    """Standard deviation of a guess."""
    episodes_per_member: int = 1
    """Episodes a guess is judged by."""

    @property
    def num_members(self):
        return self.num_guesses

    def fitness(self, episode_return, length):
        return jnp.asarray(episode_return, jnp.float32)

    def _guess(self, actor, member):
        key = jax.random.fold_in(jax.random.fold_in(actor.noise_key, actor.iteration), member)
        noise = jax.random.normal(key, actor.weight.shape, jnp.float32)
        return actor.weight + jnp.where(member > 0, jnp.float32(self.spread), 0.0) * noise

    def begin(self, actor, slot):
        return self._guess(actor, jnp.maximum(slot, 0))

    def act(self, actor, carry, obs, key, *, explore):
        return jnp.argmax(carry @ obs.reshape(-1)), carry, ()

    def update(self, state, experience, key):
        best = jnp.argmax(experience.fitness)
        after = LinearState(self._guess(state, best), state.noise_key, state.iteration + 1)
        return after, {"best": experience.fitness[best]}


@configuration
class Climb(_Linear, Rebuildable):
    """Step along perturbations weighed by their fitness, so that any worker can rebuild the step."""

    name = "climb"
    summary = "steps along perturbations weighed by fitness"

    spec: object
    num_pairs: int = 4
    """Perturbations an iteration, each tried both ways."""
    step_size: float = 0.1
    """Length of a step."""
    episodes_per_member: int = 1
    """Episodes a member is judged by."""

    num_members = property(lambda self: 2 * self.num_pairs)
    num_params = property(lambda self: self.spec.action.count * self.spec.observation.size)

    def fitness(self, episode_return, length):
        return jnp.asarray(episode_return, jnp.float32)

    def noise_key(self, state):
        return jax.random.fold_in(state.noise_key, state.iteration)

    def begin(self, actor, slot):
        eps = noise.perturbation(self.noise_key(actor), jnp.maximum(slot, 0) // 2, actor.weight.size)
        sign = jnp.where(slot < 0, 0.0, 1.0 - 2.0 * (slot % 2)).astype(jnp.float32)
        return actor.weight + sign * eps.reshape(actor.weight.shape)

    def act(self, actor, carry, obs, key, *, explore):
        return jnp.argmax(carry @ obs.reshape(-1)), carry, ()

    def weights(self, state, experience):
        fitness = jnp.asarray(experience.fitness, jnp.float32)
        return (fitness[0::2] - fitness[1::2])[None]

    @property
    def num_blocks(self):
        return noise.num_blocks(self.num_params)

    def block(self, key, weights, number):
        return noise.weighted_block(key, weights, number, self.num_params)

    def step(self, state, experience, blocks):
        (direction,) = noise.joined(blocks, self.num_params)
        length = jnp.linalg.norm(direction)
        move = jnp.where(length > 0, jnp.float32(self.step_size) / jnp.maximum(length, 1e-12), 0.0) * direction
        after = LinearState(state.weight + move.reshape(state.weight.shape), state.noise_key, state.iteration + 1)
        return after, {"direction_norm": length}

    def update(self, state, experience, key):
        weights, key = self.weights(state, experience), self.noise_key(state)
        blocks = [self.block(key, weights, number) for number in range(self.num_blocks)]
        return self.step(state, experience, blocks)


@configuration
class Scores(_Linear, OnPolicy):
    """Raise the probability of actions in proportion to the reward they got."""

    name = "scores"
    summary = "scores of actions times their own reward"

    spec: object
    num_envs: int = 4
    """Slots trained on."""
    held_out_envs: int = 0
    """Slots only measured on."""
    rollout_steps: int = 16
    """Steps of a slot an iteration."""
    step_size: float = 0.01
    """Size of a step."""

    def act(self, actor, carry, obs, key, *, explore):
        scores = actor.weight @ obs.reshape(-1)
        return jax.random.categorical(key, scores) if explore else jnp.argmax(scores), carry, ()

    def update(self, state, experience, key):
        def surrogate(weight):
            log_p = jax.nn.log_softmax(experience.obs.astype(jnp.float32) @ weight.T)
            taken = jnp.take_along_axis(log_p, experience.action[..., None], -1)[..., 0]
            return (taken * experience.reward).mean()

        gradient = jax.grad(surrogate)(state.weight)
        weight = state.weight + jnp.float32(self.step_size) * gradient.astype(jnp.float32)
        return LinearState(weight, state.noise_key, state.iteration + 1), {"gradient_norm": jnp.linalg.norm(gradient)}
