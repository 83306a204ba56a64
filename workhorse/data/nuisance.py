"""Append the previous action to the observations of a log, so that any demonstrations can be examined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.shown_action import OPTION, action_bounds, action_numbers, shown_spec
from workhorse.data.dataset import Dataset, space_record

__all__ = ["with_previous_action"]


def with_previous_action(log: Dataset, drawn: np.ndarray | None = None) -> Dataset:
    """Return the log as it would have been recorded with the task's option `previous_action`.

    Args:
        log: with vectors as observations.
        drawn: actions (N, ...) that are shown after each step in place of its own, as for the option's value "random";
            None for its own.

    Raises:
        UsageError: the log shows the previous action already, or its observations are no vectors.

    Example:
        >>> from workhorse.core.spec import Box, Discrete
        >>> log = Dataset.of(
        ...     "two-steps", Box.unbounded(1), Discrete(2), obs=np.zeros((3, 1)), action=np.array([0, 1, 1]),
        ...     reward=np.ones(3), terminated=np.array([False, True, False]), truncated=np.zeros(3, bool),
        ...     final_obs=np.ones((2, 1)), begins=np.array([0, 2]),
        ... )
        >>> found = with_previous_action(log)
        >>> found.obs.tolist(), found.final_obs.tolist()
        ([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], [[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    """
    if log.card.task_options.get(OPTION):
        raise UsageError(f"The log {log.card.name} shows the previous action already, in its last components.")
    kind = True if drawn is None else "random"
    spec = shown_spec(log.spec(), kind)
    space = log.action_space
    after = action_numbers(space, np.asarray(log.action if drawn is None else drawn))
    before = np.zeros((log.num_steps, action_bounds(space).size))
    before[1:] = after[:-1]
    before[log.begins] = 0.0
    card = replace(
        log.card,
        name=f"{log.card.name}+{'random' if kind == 'random' else 'previous'}-action",
        observation=space_record(spec.observation),
        task_options={**log.card.task_options, OPTION: kind},
    )
    made = replace(log, card=card, obs=_joined(log.obs, before), final_obs=_joined(log.final_obs, after[log.ends - 1]))
    return replace(made, card=replace(card, digest=made.digest()))


def _joined(obs: np.ndarray, shown: np.ndarray) -> np.ndarray:
    kept = obs.dtype if obs.dtype.kind == "f" else np.dtype(np.float32)
    return np.concatenate([np.asarray(obs), shown], axis=1).astype(kept)
