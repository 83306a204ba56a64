"""Columns of a table of steps: those that the user names, and the names that are looked for by default."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workhorse.core.errors import UsageError, nearest
from workhorse.core.spec import ActionSpace, Box, Discrete

__all__ = ["Columns", "found_columns", "names_of"]


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table, and what a table does not tell of its actions.

    Attributes:
        obs: components of the observation, in order; by default obs_0, obs_1, ...
        action: components of the action, in order; by default action_0, ...
        reward, terminated: one column each.
        truncated: 1 where a clock or the recording ended an episode; by default `truncated`, where it is there.
        episode: a value that changes from one episode to the next; by default `episode`, where it is there.
        time: when a row was recorded, which rises within an episode; where there is no `episode`, one begins where it
            falls.
        next_obs: components of the observation after the step; by default next_obs_0, ..., where they are there.
        log_prob: log density of the action; by default `log_prob`, where it is there.
        action_low, action_high: bounds of the actions, one, or one a component; by default those of the log.
        action_count: number of choices, for actions that are choices counted from 0.
        task: id of the task that the log was recorded on.
    """

    obs: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    reward: str = "reward"
    terminated: str = "terminated"
    truncated: str = ""
    episode: str = ""
    time: str = ""
    next_obs: tuple[str, ...] = ()
    log_prob: str = ""
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    action_count: int | None = None
    task: str = ""

    @property
    def names_columns(self) -> bool:
        """True where a column is named."""
        given, plain = replace(self, action_low=(), action_high=(), action_count=None, task=""), Columns()
        return given != plain

    def action_space(self, size: int) -> ActionSpace | None:
        """Return the space that the options give to actions of `size` components; None where they give none.

        Raises:
            UsageError: they contradict each other, or do not fit the actions.

        Example:
            >>> Columns(action_low=(-2.0,), action_high=(2.0,)).action_space(2)
            Box(low=(-2.0, -2.0), high=(2.0, 2.0), shape=(2,))
        """
        low, high = self.action_low, self.action_high
        if self.action_count is not None:
            if low or high or self.action_count < 1:
                raise UsageError("Give --action-count, at least 1, for choices, or --action-low and --action-high.")
            return Discrete(self.action_count)
        if not low and not high:
            return None
        if not all(len(bound) in (1, size) for bound in (low, high)):
            raise UsageError(
                f"Expected 1 or {size} numbers each for --action-low and --action-high, got {len(low)} and {len(high)}."
            )
        low, high = (bound * size if len(bound) == 1 else bound for bound in (low, high))
        if not all(least < most for least, most in zip(low, high, strict=True)):
            raise UsageError("Expected --action-low below --action-high in every component: correct the bounds.")
        return Box(low, high)


def found_columns(columns: Columns, there: list[str], path: Path) -> Columns:
    """Return the columns with the default names in the place of those that were not given.

    Raises:
        UsageError: one is missing, named twice, or out of order.
    """
    found = replace(
        columns,
        obs=columns.obs or _numbered("obs", there, path),
        action=columns.action or _numbered("action", there, path),
        next_obs=columns.next_obs or (() if columns.obs else _numbered("next_obs", there, path)),
        **{name: getattr(columns, name) or (name if name in there else "") for name in ("truncated", "log_prob")},
        episode=columns.episode or ("episode" if "episode" in there else ""),
    )
    for option, given in (("obs", found.obs), ("action", found.action)):
        if not given:
            raise UsageError(
                f"Expected the columns of the {option} in {path}, named {option}_0, {option}_1 and so on, got "
                f"{_listed(there)}: name them by --{option}, with `workhorse dataset convert {path} FOLDER --to "
                "workhorse`."
            )
        _check_order(given, option, path)
    if found.terminated not in there:
        raise UsageError(
            f"Expected a column `{found.terminated}` in {path}, got a log without terminations (its columns are "
            f"{_listed(there)}), in which values cannot be told from those of a task that goes on for ever: name it by "
            "--terminated, or write it, 1 where the task ended an episode."
        )
    for name in names_of(found):
        if name not in there:
            close = nearest(name, there)
            meant = f" Did you mean {' or '.join(close)}?" if close else ""
            raise UsageError(f"Expected a column `{name}` in {path}, got {_listed(there)}: correct its name.{meant}")
    if found.next_obs and len(found.next_obs) != len(found.obs):
        raise UsageError(
            f"Expected as many columns for --next-obs as for --obs in {path}, got {len(found.next_obs)} and "
            f"{len(found.obs)}: name them in the same order."
        )
    return found


def _numbered(name: str, there: Sequence[str], path: Path) -> tuple[str, ...]:
    """Return the columns name_0, name_1, ... in this order."""
    numbers = sorted(int(match[1]) for one in there if (match := re.fullmatch(rf"{name}_(\d{{1,6}})", one)))
    if numbers != list(range(len(numbers))):
        missing = next(number for number in range(len(numbers)) if number not in numbers)
        raise UsageError(
            f"Expected the columns {name}_0 to {name}_{numbers[-1]} in {path}, but {name}_{missing} is missing: "
            f"write it again, or name the columns by --{name.replace('_', '-')}."
        )
    return tuple(f"{name}_{number}" for number in numbers)


def _check_order(names: Sequence[str], option: str, path: Path) -> None:
    """Raise a `UsageError` where columns are named twice, or their numbers do not ascend."""
    if len(set(names)) < len(names):
        raise UsageError(f"Expected each column once in --{option} for {path}, got {_listed(names)}: leave one out.")
    split = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    if len(split) > 1 and all(split) and len({one[1] for one in split if one}) == 1:
        numbers = [int(one[2]) for one in split if one]
        if numbers != sorted(numbers):
            raise UsageError(
                f"Expected the columns of --{option} for {path} in the order of their numbers, got {_listed(names)}: a "
                "policy reads them in this order, so put them in order, or rename them."
            )


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def names_of(found: Columns) -> list[str]:
    """Return all columns that are read."""
    single = (found.reward, found.terminated, found.truncated, found.episode, found.time, found.log_prob)
    return [*found.obs, *found.action, *found.next_obs, *(name for name in single if name)]
