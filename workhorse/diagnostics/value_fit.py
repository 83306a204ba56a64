"""Value network fitted to returns of a frozen policy: the best baseline that the run's architecture can hold, V*."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from workhorse.algorithms.policy_gradient.policy_gradient import Batch, GradientState, PolicyGradient
from workhorse.core.algorithm import Key
from workhorse.core.randomness import draw, permutation
from workhorse.core.types import Rollout
from workhorse.math.returns import lambda_returns
from workhorse.networks.mlp import MLP

__all__ = ["Fitted", "Trajectory", "fit_value", "trajectory_of", "whole_returns"]

LEARNING_RATE, EPOCHS, PATIENCE = 1e-3, 30, 8
"""Of the fit: Adam's rate, falling to zero over the epochs, and the epochs without a better error that end it."""

MINIBATCH, LEAST_UPDATES = 512, 256
"""Pairs of a minibatch, fewer where an epoch would have fewer updates than this."""


class Trajectory(NamedTuple):
    """Consecutive rollouts as one, axes (T, B), cut at clocks and at the very end only.

    Attributes:
        obs: scaled.
        reward, discount, going_on: arguments of `lambda_returns`.
        value, next_value: by the agent; the second counts at cuts only.
        cut: where a return is completed.
        cut_obs: the successor's observation there, scaled, (C, D).
    """

    obs: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    going_on: np.ndarray
    value: np.ndarray
    next_value: np.ndarray
    cut: np.ndarray
    cut_obs: np.ndarray


@jax.jit
def _read(
    algorithm: PolicyGradient, state: GradientState, rollout: Rollout
) -> tuple[Batch, Float[Array, "T B"], Float[Array, "T B"]]:
    """Return a rollout ready to learn from; 1 where the episode goes on, else 0; the agent's values of successors."""
    batch, _, _ = algorithm.batch(state, rollout)
    going_on = 1.0 - (rollout.terminated | rollout.truncated).astype(jnp.float32)
    return batch, going_on, algorithm.values(state.params, batch.transition.next_obs)


def trajectory_of(algorithm: PolicyGradient, state: GradientState, rollouts: Iterator[Rollout]) -> Trajectory:
    """Join rollouts, each of which goes on from the one before."""
    pieces, last_obs = [], np.zeros(0)
    for rollout in rollouts:
        batch, going_on, next_value = _read(algorithm, state, rollout)
        then = batch.transition
        cut = (np.asarray(going_on) == 0) & (np.asarray(then.discount) > 0)
        kept = (batch.obs, then.reward, then.discount, going_on, batch.value, next_value)
        next_obs = np.asarray(then.next_obs)
        pieces.append((*map(np.asarray, kept), cut, next_obs[cut]))
        last_obs = next_obs[-1]
    found = Trajectory(*(np.concatenate(column) for column in zip(*pieces, strict=True)))
    last_cut = found.cut[-1].copy()
    open_end = ~last_cut & (found.discount[-1] > 0)  # the slots whose episode goes on after the last rollout
    found.going_on[-1], found.cut[-1] = 0.0, last_cut | open_end
    before = len(found.cut_obs) - last_cut.sum()  # rows are in the order of time, then of slots
    return found._replace(cut_obs=np.concatenate([found.cut_obs[:before], last_obs[found.cut[-1]]]))


_returns = jax.jit(jax.vmap(lambda_returns, in_axes=1, out_axes=1))


def whole_returns(trajectory: Trajectory, next_value: np.ndarray) -> np.ndarray:
    """Return the discounted rewards to the end of each step's episode, completed where it was cut, (T, B)."""
    return np.asarray(_returns(trajectory.reward, trajectory.discount, next_value, trajectory.going_on))


class Fitted(NamedTuple):
    """V* and the numbers of its fit.

    Attributes:
        value: the network.
        pairs: states and returns it was fitted to.
        epochs: passes over them.
    """

    value: MLP
    pairs: int
    epochs: int


def fit_value(
    algorithm: PolicyGradient, state: GradientState, stream: Iterator[Rollout], fitted: int, judging: int, key: Key
) -> Fitted:
    """Fit a fresh value network, of the run's architecture and scaled observations, to returns of the frozen policy.

    Minimises the squared error on minibatches by Adam, and keeps the epoch with the least error on later rollouts. Done
    twice: returns that a clock or the last rollout cut off are completed by the agent's value the first time, and by
    the first fit the second time, which starts from there, so that little of the agent's value is left in V*.

    Args:
        algorithm, state: of the run, its rewards on a fixed scale.
        stream: rollouts of its policy.
        fitted, judging: rollouts to fit, and rollouts to judge by.
        key: of the fresh network and of the minibatches.
    """
    learnt, judge = (
        trajectory_of(algorithm, state, (next(stream) for _ in range(count))) for count in (fitted, judging)
    )
    value = algorithm.init(draw(key, "init")).params.value
    assert isinstance(value, MLP)
    epochs, completed = 0, [part.next_value for part in (learnt, judge)]
    for round_number in range(2):
        pairs = [
            (jnp.asarray(part.obs.reshape(-1, part.obs.shape[-1])), jnp.asarray(whole_returns(part, after).ravel()))
            for part, after in zip((learnt, judge), completed, strict=True)
        ]
        value, count = _fitted(value, pairs[0], pairs[1], draw(key, "update", round_number), is_fresh=round_number == 0)
        epochs += int(count)
        completed = [_completed(algorithm, state, value, part) for part in (learnt, judge)]
    return Fitted(value, learnt.reward.size, epochs)


def _completed(algorithm: PolicyGradient, state: GradientState, value: MLP, trajectory: Trajectory) -> np.ndarray:
    """Return the successors' values at the cuts by another network, (T, B); 0 elsewhere, where they do not count."""
    found = np.zeros_like(trajectory.next_value)
    found[trajectory.cut] = np.asarray(
        algorithm.values(state.params._replace(value=value), jnp.asarray(trajectory.cut_obs))
    )
    return found


class _Epochs(NamedTuple):
    """Progress of a fit."""

    value: MLP
    optimiser: optax.OptState
    best: MLP
    best_error: Float[Array, ""]
    best_epoch: Int[Array, ""]
    epoch: Int[Array, ""]


ReturnPairs = tuple[Float[Array, "N D"], Float[Array, "N"]]
"""Scaled observations, and returns from them."""


@jax.jit
def _fitted(
    value: MLP, pairs: ReturnPairs, judging: ReturnPairs, key: Key, is_fresh: bool
) -> tuple[MLP, Int[Array, ""]]:
    """Return the network that fits best, and the passes made, as one program.

    The fit is in units of the targets, and a fresh network is taken to be in them already.
    """
    (obs, target), (judged_obs, judged_target) = pairs, judging
    mean, spread = target.mean(), target.std()
    spread = jnp.where(spread > 0, spread, 1.0)
    value = _affine(value, jnp.where(is_fresh, 1.0, 1.0 / spread), jnp.where(is_fresh, 0.0, -mean / spread))
    target, judged_target = (target - mean) / spread, (judged_target - mean) / spread
    size = min(max(len(target) // LEAST_UPDATES, 1), MINIBATCH)
    updates = len(target) // size
    optimiser = optax.adam(optax.linear_schedule(LEARNING_RATE, 0.0, EPOCHS * updates))

    def error(value: MLP, obs: Float[Array, "N D"], target: Float[Array, "N"]) -> Float[Array, ""]:
        return jnp.square(jax.vmap(value)(obs)[:, 0] - target).mean()

    def minibatch(carry: tuple[MLP, optax.OptState], rows: Int[Array, "N"]) -> tuple[tuple[MLP, optax.OptState], None]:
        network: Any = carry[0]  # optax's types know no modules
        gradient: Any = jax.grad(error)(network, obs[rows], target[rows])
        step, memory = optimiser.update(gradient, carry[1])
        moved: Any = optax.apply_updates(network, step)
        return (moved, memory), None

    def epoch(state: _Epochs) -> _Epochs:
        order = permutation(jax.random.fold_in(key, state.epoch), len(target))
        rows = order[: updates * size].reshape(updates, size)
        (value, memory), _ = jax.lax.scan(minibatch, (state.value, state.optimiser), rows)
        found, number = error(value, judged_obs, judged_target), state.epoch + 1
        is_better = found < state.best_error
        best = jax.tree.map(lambda new, old: jnp.where(is_better, new, old), value, state.best)
        return _Epochs(
            value,
            memory,
            best,
            jnp.where(is_better, found, state.best_error),
            jnp.where(is_better, number, state.best_epoch),
            number,
        )

    def goes_on(state: _Epochs) -> Array:
        return (state.epoch < EPOCHS) & (state.epoch - state.best_epoch < PATIENCE)

    zero = jnp.zeros((), jnp.int32)
    first = error(value, judged_obs, judged_target)
    as_tree: Any = value
    last = jax.lax.while_loop(goes_on, epoch, _Epochs(value, optimiser.init(as_tree), value, first, zero, zero))
    return _affine(last.best, spread, mean), last.epoch


def _affine(value: MLP, scale: Float[Array, ""], offset: Float[Array, ""]) -> MLP:
    """Return the network whose output is multiplied and moved."""
    return dataclasses.replace(
        value,
        weights=(*value.weights[:-1], value.weights[-1] * scale),
        biases=(*value.biases[:-1], value.biases[-1] * scale + offset),
    )
