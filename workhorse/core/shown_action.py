"""The previous action as numbers at the end of an observation: what it looks like, wherever it is appended."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.spec import ActionSpace, Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete

__all__ = ["OPTION", "Shown", "action_bounds", "action_numbers", "shown_spec"]

OPTION = "previous_action"
"""Name of the option that any task takes."""

Shown = Literal[True, "random"]
"""What is shown: the previous action, or in its place a random one, which tells nothing."""


def action_numbers(space: ActionSpace, action: np.ndarray) -> np.ndarray:
    """Return actions (n, ...) as rows of numbers (n, A): each choice a row of zeros with a one, all else as it is.

    Example:
        >>> action_numbers(Discrete(3), np.array([2, 0])).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
        >>> action_numbers(MultiDiscrete((2, 3)), np.array([[1, 0]])).tolist()
        [[0.0, 1.0, 1.0, 0.0, 0.0]]
    """
    action = np.asarray(action)
    match space:
        case Discrete(count):
            return np.eye(count)[action.reshape(-1)]
        case MultiDiscrete(counts):
            columns = action.reshape(-1, len(counts)).T
            return np.hstack([np.eye(count)[column] for count, column in zip(counts, columns, strict=True)])
    return action.reshape(len(action), -1).astype(np.float64)


def action_bounds(space: ActionSpace) -> Box:
    """Return the space of the rows of `action_numbers`, widened to hold the zeros of an episode's start.

    Example:
        >>> action_bounds(Box((0.5,), (2.0,))), action_bounds(Discrete(2))
        (Box(low=(0.0,), high=(2.0,), shape=(1,)), Box(low=(0.0, 0.0), high=(1.0, 1.0), shape=(2,)))
    """
    match space:
        case Box(low, high):
            return Box(tuple(min(0.0, one) for one in low), tuple(max(0.0, one) for one in high))
        case Discrete(count):
            size = count
        case MultiDiscrete(counts):
            size = sum(counts)
        case MultiBinary(size):
            pass
    return Box((0.0,) * size, (1.0,) * size)


def shown_spec(spec: EnvSpec, kind: Shown) -> EnvSpec:
    """Return the spec of a task whose observations end with the previous action.

    Raises:
        UsageError: its observations are no vectors.
    """
    if len(spec.observation.shape) > 1:
        raise UsageError(
            f"{spec.task}: {OPTION} appends numbers to a vector, but observations have the shape "
            f"{spec.observation.shape}: make the task by Gymnasium, where it is drawn on the image."
        )
    more = action_bounds(spec.task_action)
    seen = Box(spec.observation.low + more.low, spec.observation.high + more.high)
    return replace(spec, observation=seen, options=tuple(sorted((*spec.options, (OPTION, kind)))))
