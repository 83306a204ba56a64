"""Plane through a frozen policy: its two directions, and the surrogate at any of its points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from workhorse.algorithms.policy_gradient.policy_gradient import Batch, GradientState, PolicyActor, PolicyGradient
from workhorse.algorithms.policy_gradient.ppo import PPO, clipped_surrogate
from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.diagnostics.experience import Experience, policy_step, training_batch
from workhorse.networks.actor_critic import StochasticPolicy
from workhorse.training.rollouts import actor_of

__all__ = ["Frozen", "NoStep", "Pairs", "surrogates"]

ADDRESSES = 2**31
"""First address of the rollouts, away from the episodes at the points, which count from 0."""

BLOCK = 2048
"""Pairs of which the surrogate of a point is computed at once."""


class NoStep(UsageError):
    """The algorithm does not move the policy at this iteration, so there is no plane."""


class Pairs(NamedTuple):
    """Steps of the frozen policy, (N, ...)."""

    obs: np.ndarray
    drawn: np.ndarray
    log_prob: np.ndarray
    advantage: np.ndarray


@dataclass(frozen=True)
class Frozen:
    """The policy of an iteration, the two directions, and steps of it for the surrogate."""

    algorithm: PolicyGradient
    actor: PolicyActor
    params: np.ndarray
    step: np.ndarray
    random: np.ndarray
    steps: Pairs
    env_steps: int

    @staticmethod
    def of(
        algorithm: PolicyGradient, experience: Experience, iteration: int, pairs: int, random_length: float
    ) -> Frozen:
        """Return the plane of an algorithm's step on the first rollout; the next ones give `pairs` for the surrogate.

        Raises:
            NoStep: the algorithm does not move the policy.
        """
        state: GradientState = experience.state
        batches = (training_batch(algorithm, state, rollout) for rollout in experience.rollouts)
        key = draw(root_key(experience.root), "update", iteration)
        step = np.asarray(policy_step(algorithm, state, next(batches), key), np.float64)
        if not step.any():
            raise NoStep(
                f"{type(algorithm).__name__} takes no step at iteration {iteration}, so that there is no direction to "
                "look along: its learning rate has come to zero, or it refused the step. Choose an earlier one."
            )
        rollouts = -(-pairs // (algorithm.rollout_steps * algorithm.num_envs))
        steps = _together([_flat(next(batches)) for _ in range(rollouts)], pairs)
        actor = actor_of(algorithm, state)
        params = np.asarray(ravel_pytree(actor.policy)[0], np.float64)
        random = host_generator(host_keys(experience.root, "noise", iteration)).standard_normal(len(params))
        random *= random_length / np.linalg.norm(random)
        taken = (1 + rollouts) * algorithm.rollout_steps * algorithm.num_slots
        return Frozen(algorithm, actor, params, step, random, steps, taken)

    def at(self, x: float, y: float) -> np.ndarray:
        """Return the parameters at a point of the plane, float32."""
        return (self.params + x * self.step + y * self.random).astype(np.float32)


def _flat(batch: Batch) -> Pairs:
    """Return a batch's steps, slot after slot, so that its first ones are those of whole slots."""
    leaves = (batch.obs, batch.drawn, batch.log_prob, batch.advantage)
    return Pairs(*(np.asarray(leaf).swapaxes(0, 1).reshape(-1, *leaf.shape[2:]) for leaf in leaves))


def _together(parts: list[Pairs], count: int) -> Pairs:
    return Pairs(*(np.concatenate(leaves)[:count] for leaves in zip(*parts, strict=True)))


def surrogates(frozen: Frozen, params: np.ndarray, sizes: list[int]) -> tuple[np.ndarray, list[np.ndarray] | None]:
    """Return E[rho A] at P points by the first pairs, as many as each of S sizes says, (P, S), and the clipped one.

    The latter is S arrays (P,), or None where the algorithm clips nothing.
    """
    steps, count = frozen.steps, sizes[-1]
    weights = np.zeros((len(sizes), -(-count // BLOCK) * BLOCK), np.float32)
    for place, size in enumerate(sizes):
        advantage = steps.advantage[:size].astype(np.float64)
        weights[place, :size] = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    blocks = jax.tree.map(_blocks, steps._replace(advantage=np.zeros(count, np.float32)))
    clip = frozen.algorithm.ratio_clip if isinstance(frozen.algorithm, PPO) else None
    by_block = weights.reshape(len(sizes), -1, BLOCK).swapaxes(0, 1)
    found = [  # point by point: all at once would hold every point's scores in memory
        np.asarray(_surrogate(frozen.actor.policy, one, blocks, by_block, np.inf if clip is None else clip))
        for one in params
    ]
    total = np.stack(found).astype(np.float64) / np.array(sizes)[:, None]
    return total[..., 0], None if clip is None else [total[:, place, 1] for place in range(len(sizes))]


def _blocks(leaf: np.ndarray) -> np.ndarray:
    """Return the rows in blocks of `BLOCK`, filled up with zeros."""
    fill = -len(leaf) % BLOCK
    return np.concatenate([leaf, np.zeros((fill, *leaf.shape[1:]), leaf.dtype)]).reshape(-1, BLOCK, *leaf.shape[1:])


@jax.jit
def _surrogate(
    policy: StochasticPolicy,
    params: Float[Array, "d"],
    blocks: Pairs,
    weights: Float[Array, "blocks S N"],
    clip: float,  # traced, like all else: infinite where the algorithm clips nothing
) -> Float[Array, "S 2"]:
    """Return sums of rho A, and of min(rho A, clip(rho) A), for each row of weights A: (S, 2)."""
    moved = ravel_pytree(policy)[1](params)

    def of_block(total: Float[Array, "S 2"], given: tuple[Pairs, Array]) -> tuple[Float[Array, "S 2"], None]:
        pairs, weight = given
        log_prob = jax.vmap(lambda obs, drawn: moved(obs).log_prob(drawn))(pairs.obs, pairs.drawn)
        ratio = jnp.exp(log_prob - pairs.log_prob)  # may overflow on rows that only fill a block: masked below
        both = [jnp.where(weight != 0, clipped_surrogate(ratio, weight, eps), 0.0) for eps in (None, clip)]
        return total + jnp.stack(both, -1).sum(1, dtype=jnp.float64), None

    return jax.lax.scan(of_block, jnp.zeros((weights.shape[1], 2), jnp.float64), (blocks, weights))[0]
