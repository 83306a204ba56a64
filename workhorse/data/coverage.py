"""How much of the observations and actions a log visits."""

from __future__ import annotations

from typing import Any

import numpy as np

from workhorse.core.spec import Box, Discrete
from workhorse.data.dataset import Dataset

__all__ = ["ACTION_BINS", "coverage_of"]

ACTION_BINS = 20
AT_BOUND = 1e-3
"""Distance from a bound, as a share of the range, within which an action counts as at it."""


def coverage_of(dataset: Dataset) -> dict[str, Any]:
    """Return what a card says of a log's coverage, plain JSON.

    Returns:
        `observation_mean`, `observation_std`, `observation_least`, `observation_most`, a number a component;
        for choices `action_counts`; for a `Box` with bounds `action_bins`, the share of 20 equal bins of each component
        that hold an action, and `actions_at_bounds`, the share of actions that lie at a bound in some component.

    Example:
        >>> log = Dataset.of(
        ...     "three", Box.unbounded(1), Discrete(2), obs=np.arange(3.0)[:, None], action=np.array([0, 1, 1]),
        ...     reward=np.ones(3), terminated=np.array([False, False, True]), truncated=np.zeros(3, bool),
        ...     final_obs=np.ones((1, 1)), begins=np.array([0]),
        ... )
        >>> found = coverage_of(log)
        >>> found["action_counts"], found["observation_mean"], found["observation_most"]
        ([1, 2], [1.0], [2.0])
    """
    return {**_of_observations(dataset), **_of_actions(dataset)}


def _of_observations(dataset: Dataset) -> dict[str, Any]:
    size = dataset.observation.size
    total, squares = np.zeros(size), np.zeros(size)
    least, most = np.full(size, np.inf), np.full(size, -np.inf)
    around = np.asarray(dataset.obs[0], np.float64).ravel()  # sums of squares of large numbers lose digits
    for some in dataset.chunks():
        rows = np.asarray(dataset.obs[some], np.float64).reshape(len(some), size)
        least, most = np.minimum(least, rows.min(0)), np.maximum(most, rows.max(0))
        total, squares = total + (rows - around).sum(0), squares + np.square(rows - around).sum(0)
    mean = total / dataset.num_steps
    spread = np.sqrt(np.maximum(squares / dataset.num_steps - np.square(mean), 0))
    names = ("observation_mean", "observation_std", "observation_least", "observation_most")
    return {name: found.tolist() for name, found in zip(names, (mean + around, spread, least, most), strict=True)}


def _of_actions(dataset: Dataset) -> dict[str, Any]:
    space = dataset.action_space
    if isinstance(space, Discrete):
        return {"action_counts": np.bincount(np.asarray(dataset.action, np.int64), minlength=space.count).tolist()}
    if not isinstance(space, Box):
        return {"action_mean": np.asarray(dataset.action, np.float64).reshape(dataset.num_steps, -1).mean(0).tolist()}
    low, width = np.array(space.low), np.subtract(space.high, space.low)
    if not (np.isfinite(width).all() and (width > 0).all()):
        return {}
    counts, at_bound = np.zeros((space.size, ACTION_BINS), np.int64), 0
    for some in dataset.chunks():
        place = (np.asarray(dataset.action[some], np.float64).reshape(len(some), -1) - low) / width
        at_bound += int((np.abs(place - 0.5) >= 0.5 - AT_BOUND).any(1).sum())
        bins = np.clip((place * ACTION_BINS).astype(np.int64), 0, ACTION_BINS - 1)
        for component in range(space.size):
            counts[component] += np.bincount(bins[:, component], minlength=ACTION_BINS)
    return {"action_bins": (counts > 0).mean(1).tolist(), "actions_at_bounds": at_bound / dataset.num_steps}
