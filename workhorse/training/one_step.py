"""The task's own step as a function: its states of rest, and its derivatives, by differences.

A simulator's derivatives are those of the task only if frame-skip, clipping and integrator are the task's own, so no
model is differentiated: copies of the task take one step each from slightly different states (`Simulator.rollout`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from workhorse.algorithms.planning.lqr import num_components
from workhorse.core.spec import Box, Discrete, EnvSpec, MultiDiscrete
from workhorse.core.types import Linearisation
from workhorse.environments.protocol import Simulator

__all__ = ["OneStep", "Rest", "Stepped", "find_rest", "linearised"]

WIDER = 1e-3
"""Distance at which observations are differenced: those of many tasks are float32, 1e-5 apart in nothing but noise."""
SMOOTH = 0.05
"""Part of an observation's derivative that may depend on the distance, or on what is no physics; else it is ignored."""
ROUNDS = 20
"""Most steps of Levenberg and Marquardt from a candidate to a state of rest."""


class Stepped(NamedTuple):
    """What became of N one-step trials: physics (N, X), reward (N,), terminated (N,), observation after it (N, D)."""

    physics: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    obs: np.ndarray


class OneStep:
    """The task's own step as a function of physics (N, X) and actions (N, U) of the algorithm's own numbers.

    An action that is a choice is laid on [-1, 1]: the step is interpolated between those of the first and the last
    choice, component by component, *which is exact where forces are proportional to actions*. Every trial is counted.

    Attributes:
        count: steps of the simulator so far.
    """

    def __init__(self, env: Simulator, spec: EnvSpec, row: np.ndarray) -> None:
        self._env, self._spec, self._row = env, spec, row
        self.size, self.num_actions = env.physics(row).shape[1], num_components(spec.action)
        self.count = 0

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest action, (U,) each."""
        space = self._spec.action
        if isinstance(space, Box):
            return np.array(space.low), np.array(space.high)
        return -np.ones(self.num_actions), np.ones(self.num_actions)

    def __call__(self, physics: np.ndarray, actions: np.ndarray) -> Stepped:
        space, (count, size) = self._spec.action, actions.shape
        if isinstance(space, Box):
            middle, half = (np.float64(part) for part in space.middle_and_half())
            if self._spec.unscaled is not None:
                middle, half = (np.ravel(part).astype(np.float64) for part in self._spec.unscaled.middle_and_half())
                return self._tried(physics, middle + half * actions)
            return self._tried(physics, actions)
        # all at the first choice, all at the last, and each alone at the last
        corners = np.vstack([np.zeros((1, size)), np.ones((1, size)), np.eye(size)[: size if size > 1 else 0]])
        found = self._tried(np.tile(physics, (len(corners), 1)), np.repeat(corners, count, axis=0))
        weights = np.zeros((len(corners), count))
        weights[:2] = 0.5
        if size == 1:
            weights[0], weights[1] = (1 - actions[:, 0]) / 2, (1 + actions[:, 0]) / 2
        else:  # middle + sum of u_j (step with j at its last choice - step with all at their first) / 2
            weights[0] -= actions.sum(axis=1) / 2
            weights[2:] = actions.T / 2
        return Stepped(*(_mixed(weights, leaf) for leaf in found))

    def _tried(self, physics: np.ndarray, actions: np.ndarray) -> Stepped:
        """Try actions (N, U): a box's own numbers, or 0 and 1 for the first and the last choice of each component."""
        space, count = self._spec.task_action, len(physics)
        if isinstance(space, Box):
            plans = actions.reshape(count, 1, *space.shape)
        elif isinstance(space, MultiDiscrete):
            plans = (actions * (np.array(space.counts) - 1)).astype(np.int64)[:, None]
        elif isinstance(space, Discrete):
            plans = (actions * (space.count - 1)).astype(np.int64)
        else:
            plans = actions.astype(np.int8)[:, None]
        tried = self._env.rollout(self._env.with_physics(self._row, physics), plans, observed=True)
        self.count += count
        obs, after = np.asarray(tried.next_obs, np.float64).reshape(count, -1), self._env.physics(tried.states)
        positions = self.size - self.size // 2
        # an angle that went round by itself, as Acrobot's do at pi, has not moved by a turn
        turns = np.round((after[:, :positions] - physics[:, :positions]) / (2 * np.pi))
        after[:, :positions] -= 2 * np.pi * turns
        return Stepped(after, tried.reward[:, 0], tried.terminated[:, 0], obs)


def _mixed(weights: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    """Return the weighted sums over corners of what they led to; true where any was, for flags."""
    corners = leaf.reshape(*weights.shape, *leaf.shape[1:])
    if leaf.dtype == bool:
        return np.asarray(corners.any(axis=0))
    return (weights.reshape(*weights.shape, *[1] * (leaf.ndim - 1)) * corners).sum(axis=0)


def linearised(step: OneStep, physics: np.ndarray, action: np.ndarray, difference: float) -> Linearisation:
    """Return the derivatives of a task at a state and an action, by central differences of its own step.

    A and B are differenced at `difference`. An observation is seen only *after* a step, so its derivatives M with
    respect to (x, u) are C [A B], and C = M pinv([A B]), both differenced at `WIDER`. A component for which this does
    not hold, or whose derivative depends on the distance, is no smooth function of the physics: its row is 0.
    """
    size, both = step.size, step.size + step.num_actions
    offsets = np.vstack([distance * sign * np.eye(both) for distance in (difference, WIDER) for sign in (1, -1)])
    at = np.concatenate([physics, action]) + np.vstack([np.zeros(both), offsets])
    found = step(at[:, :size], at[:, size:])
    narrow, wide = (
        [(leaf[begin : begin + both] - leaf[begin + both : begin + 2 * both]).T / (2 * distance) for leaf in found[::3]]
        for begin, distance in ((1, difference), (1 + 2 * both, WIDER))
    )
    observation_matrix = wide[1] @ np.linalg.pinv(wide[0], rcond=1e-8)
    least = SMOOTH * (1.0 + np.abs(wide[1]).max(axis=1))
    # single precision is all that many tasks give: what the shorter distance makes of it is no jump
    rounding = np.abs(found.obs).max(axis=0) * np.finfo(np.float32).eps / difference
    is_smooth = (np.abs(wide[1] - narrow[1]).max(axis=1) <= least + rounding) & (
        np.abs(wide[1] - observation_matrix @ wide[0]).max(axis=1) <= least
    )
    return Linearisation(
        state_matrix=narrow[0][:, :size],
        action_matrix=narrow[0][:, size:],
        observation_matrix=np.where(is_smooth[:, None], observation_matrix, 0.0),
        physics=physics,
        obs=found.obs[0],
        action=action,
        drift=np.abs(found.physics[0] - physics).max(),
        reward=np.float64(found.reward[0]),
        env_steps=np.int64(step.count),
    )


class Rest(NamedTuple):
    """States that Levenberg and Marquardt came to, (N, X), the actions that hold them, (N, U), and the steps there."""

    physics: np.ndarray
    actions: np.ndarray
    stepped: Stepped

    @property
    def drift(self) -> np.ndarray:
        """The most that a coordinate of each moves in a step, (N,)."""
        return np.abs(self.stepped.physics - self.physics).max(axis=1)


def find_rest(step: OneStep, starts: np.ndarray, difference: float, *, moves: bool = True) -> Rest:
    """Return the states of rest that are found from `starts` (N, X), whose velocities are 0.

    Steps of Levenberg and Marquardt on |f(x, u) - x|^2, over the positions and the action within its bounds, the
    derivatives by differences of one step. A position is moved rather than an action: a pose that rests by itself is
    found where there is one nearby, and what is left is held.

    Args:
        step: the task's.
        starts: first states.
        difference: distance of the states that are compared.
        moves: positions may change; else only the action that holds a state is looked for.
    """
    count, size = starts.shape
    free = size - size // 2 if moves else 0
    scale = np.concatenate([np.ones(free), np.full(step.num_actions, 0.03)])
    low, high = (bound + sign * 2 * difference for bound, sign in zip(step.bounds(), (1, -1), strict=True))
    physics, actions = starts.copy(), np.clip(np.zeros((count, step.num_actions)), low, high)
    damping, best = np.full(count, 1e-8), np.full(count, np.inf)
    kept_physics, kept_actions = physics.copy(), actions.copy()
    slopes, residual = np.zeros((count, size, len(scale))), np.zeros((count, size))
    whole: Stepped | None = None
    for _ in range(ROUNDS):
        around = np.stack([np.concatenate([physics, actions], axis=1)] * (1 + len(scale)))
        places = np.r_[:free, size : size + step.num_actions]
        around[1 + np.arange(len(scale)), :, places] += difference
        flat = around.reshape(-1, size + step.num_actions)
        found = step(flat[:, :size], flat[:, size:])
        moved = (found.physics - flat[:, :size]).reshape(1 + len(scale), count, size)
        here = Stepped(*(leaf.reshape(1 + len(scale), count, *leaf.shape[1:])[0] for leaf in found))
        error = np.where(np.isfinite(moved[0]).all(axis=1), np.square(moved[0]).sum(axis=1), np.inf)
        is_better = error < best
        damping = np.where(is_better, damping / 10, damping * 30 + 1e-9)
        best = np.where(is_better, error, best)
        kept_physics = np.where(is_better[:, None], physics, kept_physics)
        kept_actions = np.where(is_better[:, None], actions, kept_actions)
        whole = (
            here
            if whole is None
            else Stepped(*(_newer(is_better, new, old) for new, old in zip(here, whole, strict=True)))
        )
        slopes[is_better] = np.moveaxis((moved[1:] - moved[0]) / difference, 0, 2)[is_better]
        residual[is_better] = moved[0][is_better]
        if (np.sqrt(best) < 1e-9).all():
            break
        change = -_least_change(slopes * scale, residual, damping) * scale
        physics, actions = kept_physics.copy(), kept_actions
        physics[:, :free] += np.clip(change[:, :free], -0.5, 0.5)
        actions = np.clip(actions + change[:, free:], low, high)
    assert whole is not None
    return Rest(kept_physics, kept_actions, whole)


def _newer(is_new: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    return np.where(is_new.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _least_change(slopes: np.ndarray, residual: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Return (J' J + damping |J|^2 I)^-1 J' r of every candidate, (N, Z): the shortest where several do as well."""
    left, values, right = np.linalg.svd(np.nan_to_num(slopes, posinf=0.0, neginf=0.0), full_matrices=False)
    damped = np.square(values) + damping[:, None] * (np.square(values[:, :1]) + 1e-300)
    along = (left.transpose(0, 2, 1) @ residual[..., None])[..., 0] * values / np.maximum(damped, 1e-300)
    return (right.transpose(0, 2, 1) @ along[..., None])[..., 0]
