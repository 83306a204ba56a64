"""Open a log by its path, whatever its format, and check it against a task."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, EnvSpec
from workhorse.data.dataset import Dataset
from workhorse.data.log_folder import is_log_folder, read_log_folder

__all__ = ["check_fits", "check_learnable", "open_dataset"]


def open_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Return the log at a path.

    Raises:
        UsageError: nothing is there, it is of no format that is read, or it is damaged.
    """
    place = Path(path)
    if not place.exists():
        raise UsageError(f"Expected a log in {place}, but nothing is there: `workhorse dataset make` makes one.")
    if is_log_folder(place):
        return read_log_folder(place)
    raise UsageError(f"Expected a log in {place}, but it is of no format that is read.")


def check_fits(dataset: Dataset, spec: EnvSpec) -> None:
    """Raise a `UsageError` where a log was not recorded on a task with these observations and actions."""
    seen, acted = dataset.observation, dataset.action_space
    if seen.shape != spec.observation.shape:
        raise UsageError(
            f"The log {dataset.card.name} has observations of shape {seen.shape}, but those of {spec.task} have "
            f"{spec.observation.shape}: evaluate on the task that it was recorded on."
        )
    wanted = spec.task_action
    same = acted == wanted
    if isinstance(acted, Box) and isinstance(wanted, Box):
        same = acted.shape == wanted.shape and bool(
            np.allclose(acted.low, wanted.low, rtol=1e-5) and np.allclose(acted.high, wanted.high, rtol=1e-5)
        )
    if not same:
        raise UsageError(
            f"The log {dataset.card.name} has the actions {acted}, but {spec.task} takes {wanted}: evaluate on the "
            "task that it was recorded on."
        )


def check_learnable(dataset: Dataset) -> None:
    """Raise a `UsageError` where nothing can be learnt from a log: numbers that are none, no ends, one episode."""
    name = dataset.card.name
    if dataset.num_episodes < 2:
        raise UsageError(
            f"The log {name} has {dataset.num_episodes} episode, and at least 2 are needed, one of which is only "
            "measured on: record more, or mark where episodes end."
        )
    if not (np.any(dataset.terminated) or np.any(dataset.truncated)):
        raise UsageError(
            f"The log {name} marks no step as terminated or truncated, so that values cannot be told from those of a "
            "task that goes on for ever: give the columns that say so."
        )
    for column in ("obs", "action", "reward", "final_obs"):
        values = getattr(dataset, column)
        for begin in range(0, len(values), 65_536):
            part = np.asarray(values[begin : begin + 65_536])
            if part.dtype.kind == "f" and not np.isfinite(part).all():
                row = begin + int(np.argwhere(~np.isfinite(part.reshape(len(part), -1)).all(1))[0, 0])
                raise UsageError(
                    f"The log {name} has a number that is not finite in `{column}`, row {row}: `workhorse dataset "
                    "check` lists all of them. Mend or leave out that episode."
                )
