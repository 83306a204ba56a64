"""Regressions that tell whether the columns of a log belong together: what comes next, what is done, what is earned.

Ridge regressions on random features, fitted on half of a sample of steps and judged on the other half. They need not be
good models: what is compared is the same model with columns that are shifted against each other.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.spec import Discrete, MultiDiscrete
from workhorse.data.dataset import Dataset

__all__ = ["SHIFTS", "LogFits", "action_columns", "surprises", "unexplained"]

SAMPLE = 12_000
"""Steps of a log that regressions are fitted to and judged on."""
FEATURES = 128
"""Random functions of the inputs, unless there are few rows."""
ROWS_PER_FEATURE = 20
RIDGE = 1e-4
SHIFTS = (-1, 0, 1)
MOST_JUDGED = 200_000
LEAST_MOVE = 0.01
"""Share of the spread of a component's changes below which an error of it is none."""


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
    columns = np.concatenate(inputs, axis=1)
    rows = Features(columns).of(columns)
    train, test = targets[::2], targets[1::2]
    weights, mean = _fitted(rows[::2], train)
    left = np.square(test - mean - rows[1::2] @ weights).mean(0)
    there = np.square(test - mean).mean(0)
    return np.where(there > 0, left / np.where(there > 0, there, 1), 0.0)


def _fitted(rows: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of a ridge regression, and the targets' mean, which it is added to."""
    mean, gram = targets.mean(0), rows.T @ rows
    gram[np.diag_indices_from(gram)] += RIDGE * len(rows)
    return np.linalg.solve(gram, rows.T @ (targets - mean)), mean


class Features:
    """A constant, standardised columns, and random smooth functions of them."""

    def __init__(self, columns: np.ndarray) -> None:
        spread = columns.std(0)
        self._mean, self._spread = columns.mean(0), np.where(spread > 0, spread, 1)
        drawn, size = _generator(1), columns.shape[1]
        count = min(FEATURES, len(columns) // ROWS_PER_FEATURE)
        self._weights = drawn.standard_normal((size, count)) / np.sqrt(size) * drawn.uniform(0.3, 2.0, count)
        self._shift = drawn.standard_normal(count)

    def of(self, columns: np.ndarray) -> np.ndarray:
        """Return the features of rows, (K, F)."""
        scaled = np.clip((columns - self._mean) / self._spread, -8, 8)
        return np.concatenate([np.ones((len(columns), 1)), scaled, np.tanh(scaled @ self._weights + self._shift)], 1)


def surprises(fits: LogFits) -> tuple[np.ndarray, np.ndarray]:
    """Return steps with a successor in their row's episode, and how unlike the others that is.

    Returns:
        index: numbers of steps, (K,), at most `MOST_JUDGED`, evenly over the log.
        unlike: of a quarter of the components, the least error of a regression of the change on observation and
            action, in units of the error that one step in twenty exceeds, (K,). *A single component may jump where
            something is hit*; where rows are missing most of them do.
    """
    dataset = fits.dataset
    inner = np.setdiff1d(np.arange(dataset.num_steps), dataset.ends - 1)
    inner = inner[:: -(-len(inner) // MOST_JUDGED)]
    known = np.concatenate([fits.obs(), fits.action()], axis=1)
    features = Features(known)
    rows = features.of(known)
    weights, mean = _fitted(rows, fits.moves)
    error = np.abs(fits.moves - mean - rows @ weights)
    worst = (error / np.maximum(np.percentile(error, 90, axis=0), 1e-12)).max(1)
    usual = worst <= np.percentile(worst, 90)  # what is looked for must not be fitted
    weights, mean = _fitted(rows[usual], fits.moves[usual])
    obs, after = (np.asarray(dataset.obs[at], np.float64).reshape(len(inner), -1) for at in (inner, inner + 1))
    rows = features.of(np.concatenate([obs, action_columns(dataset, inner)], axis=1))
    error = np.abs(after - obs - mean - rows @ weights)
    floor = 1e-9 + 1e-6 * np.abs(obs).max(0) + LEAST_MOVE * fits.moves.std(0)
    unlike = np.sort(error / np.maximum(np.percentile(error, 95, axis=0), floor), axis=1)
    return inner, unlike[:, unlike.shape[1] - 1 - unlike.shape[1] // 4]


def _generator(number: int) -> np.random.Generator:
    return host_generator(host_keys(0, "held-out", number))
