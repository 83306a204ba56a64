"""Regressions that tell whether the columns of a log belong together: what comes next, what is done, what is earned.

Ridge regressions on random features, fitted on half of a sample of steps and judged on the other half. They need not be
good models: what is compared is the same model with columns that are shifted against each other.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.spec import Discrete, MultiDiscrete
from workhorse.data.dataset import Dataset

__all__ = ["SHIFTS", "LogFits", "unexplained"]

SAMPLE = 12_000
FEATURES = 128
RIDGE = 1e-4
SHIFTS = (-1, 0, 1)


class LogFits:
    """Regressions of one log, each done when it is asked for.

    Attributes:
        dataset: the log, finite.
        steps: numbers of the steps that are looked at: a step before and two after are of the same episode.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        episode = dataset.episode_of(np.arange(dataset.num_steps))
        inner = np.arange(1, dataset.num_steps - 2)
        inner = inner[(episode[inner - 1] == episode[inner]) & (episode[inner + 2] == episode[inner])]
        if len(inner) > SAMPLE:
            inner = np.sort(_generator(0).choice(inner, SAMPLE, replace=False))
        self.steps = inner

    def obs(self, shift: int = 0) -> np.ndarray:
        """Return observations, laid flat, float64 (K, D)."""
        return np.asarray(self.dataset.obs[self.steps + shift], np.float64).reshape(len(self.steps), -1)

    def action(self, shift: int = 0) -> np.ndarray:
        """Return actions as numbers, choices as one column each, float64 (K, A)."""
        return action_columns(self.dataset, self.steps + shift)

    def reward(self, shift: int = 0) -> np.ndarray:
        """Return rewards, float64 (K, 1)."""
        return np.asarray(self.dataset.reward[self.steps + shift], np.float64)[:, None]

    @cached_property
    def moves(self) -> np.ndarray:
        """Change of each component of the observation in a step, (K, D)."""
        return self.obs(1) - self.obs()

    @cached_property
    def next_without_action(self) -> np.ndarray:
        """Unexplained share of each component's change, where the action is not known, (D,)."""
        return unexplained([self.obs()], self.moves)

    @cached_property
    def next_by_shift(self) -> dict[int, np.ndarray]:
        """The same, with the action of the step itself and of its neighbours."""
        return {shift: unexplained([self.obs(), self.action(shift)], self.moves) for shift in SHIFTS}

    @cached_property
    def action_by_shift(self) -> dict[int, np.ndarray]:
        """Unexplained share of the action, by the observation of the same step and by those of its neighbours, (A,)."""
        return {shift: unexplained([self.obs(-shift)], self.action()) for shift in SHIFTS}

    @cached_property
    def reward_by_shift(self) -> dict[int, float]:
        """Unexplained share of the reward, by the steps before, at and after it."""
        return {
            shift: float(unexplained([self.obs(-shift), self.action(-shift), self.obs(1 - shift)], self.reward())[0])
            for shift in SHIFTS
        }


def action_columns(dataset: Dataset, index: np.ndarray) -> np.ndarray:
    """Return actions of steps as numbers, choices as one column each, float64 (K, A)."""
    taken, space = np.asarray(dataset.action[index]), dataset.action_space
    if isinstance(space, Discrete):
        return (taken.reshape(-1, 1) == np.arange(space.count)).astype(np.float64)
    if isinstance(space, MultiDiscrete):
        places = [taken[:, [at]] == np.arange(count) for at, count in enumerate(space.counts)]
        return np.concatenate(places, axis=1).astype(np.float64)
    return taken.astype(np.float64).reshape(len(index), -1)


class _Fit(NamedTuple):
    """Features of two halves of some rows."""

    train: np.ndarray
    test: np.ndarray


def unexplained(inputs: list[np.ndarray], targets: np.ndarray) -> np.ndarray:
    """Return the share of each target's variance that a regression on the inputs leaves on rows it was not fitted to.

    Args:
        inputs: columns, (K, D) each.
        targets: (K, C).

    Returns:
        (C,), about 1 where the inputs tell nothing and 0 where they tell all; 0 for a target that does not vary.

    Example:
        >>> x = np.linspace(-1, 1, 400)[:, None]
        >>> bool(unexplained([x], x**2)[0] < 0.01), unexplained([x], 0 * x).tolist()
        (True, [0.0])
    """
    halves = _features(np.concatenate(inputs, axis=1))
    order = np.arange(len(targets)) % 2 == 0
    train, test = targets[order], targets[~order]
    mean = train.mean(0)
    gram = halves.train.T @ halves.train
    gram[np.diag_indices_from(gram)] += RIDGE * len(train)
    weights = np.linalg.solve(gram, halves.train.T @ (train - mean))
    left = np.square(test - mean - halves.test @ weights).mean(0)
    there = np.square(test - mean).mean(0)
    return np.where(there > 0, left / np.where(there > 0, there, 1), 0.0)


def _features(columns: np.ndarray) -> _Fit:
    """Return a constant, the standardised columns and random smooth functions of them, of even and of odd rows."""
    spread = columns.std(0)
    scaled = np.clip((columns - columns.mean(0)) / np.where(spread > 0, spread, 1), -8, 8)
    drawn = _generator(1)
    size = columns.shape[1]
    weights = drawn.standard_normal((size, FEATURES)) / np.sqrt(size) * drawn.uniform(0.3, 2.0, FEATURES)
    waves = np.tanh(scaled @ weights + drawn.standard_normal(FEATURES))
    rows = np.concatenate([np.ones((len(columns), 1)), scaled, waves], axis=1)
    return _Fit(rows[::2], rows[1::2])


def _generator(number: int) -> np.random.Generator:
    return host_generator(host_keys(0, "held-out", number))
