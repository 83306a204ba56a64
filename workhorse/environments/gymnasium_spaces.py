"""Gymnasium's spaces as Workhorse's, both ways: observations become arrays, actions what the environment takes.

Nothing here imports JAX: worker processes use it.
"""

from typing import Any

import numpy as np
from gymnasium import spaces

from workhorse.core.errors import TaskError
from workhorse.core.observations import ObservationFormat
from workhorse.core.spec import ActionFormat, ActionSpace, Box, Discrete, Goal, MultiBinary, MultiDiscrete

__all__ = ["Observations", "action_space", "shown"]

GOAL_PARTS = ("observation", "achieved_goal", "desired_goal")


class Observations:
    """Turns observations of a Gymnasium space into arrays of a `Box`.

    A Box keeps its shape; () becomes (1,). A Dict of exactly observation, achieved_goal and desired_goal becomes a
    `Goal`. Any other space is flattened by `gymnasium.spaces.flatten`. Arrays are float64 where a part of the space
    is float64 and float32 otherwise: *images of bytes become float32 numbers from 0 to 255*, so that nothing
    downstream has to know of a third type.

    Attributes:
        box: the space of the arrays.
        dtype: their type.
        format: what observations look like before, for a policy outside; None where they have the shape of `box`.

    Raises:
        TaskError: the space has no vector of fixed size.
    """

    def __init__(self, task: str, space: Any) -> None:
        if not _is_flattenable(space) or not spaces.flatdim(space):
            raise TaskError(
                f"{task} has the observation space {space}, which has no flat vector of fixed size; "
                "wrap the environment so that it observes Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple."
            )
        self._task, self._space = task, space
        self.dtype = np.dtype(np.float64 if _has_float64(space) else np.float32)
        self.format = None if isinstance(space, spaces.Box) and space.shape else _format_of(space)
        if isinstance(space, spaces.Box):
            self.box = Box.of(space.low, space.high)
        elif _has_goals(space):
            self.box = Goal.of_parts(_flat_box(space["observation"]), _flat_box(space["desired_goal"]))
        else:
            self.box = _flat_box(space)

    def array(self, obs: Any, where: str) -> np.ndarray:
        """Return an observation as a new array of `box`.

        Values outside the bounds are let through: too many environments give some, and the bounds are only advice.

        Raises:
            TaskError: it does not fit its space, or holds NaN or infinity; `where` ends the sentence.
        """
        space = self._space
        if isinstance(space, spaces.Box):
            obs = _as_array(obs)
        wrong = _mismatch(space, obs)
        if wrong:
            raise TaskError(f"{self._task} returned an observation {wrong} {where}; mend the environment or its space.")
        if isinstance(space, spaces.Box):
            found = np.asarray(obs, space.dtype)
        elif isinstance(self.box, Goal):
            found = np.concatenate([np.asarray(spaces.flatten(space[name], obs[name])) for name in GOAL_PARTS])
        else:
            found = spaces.flatten(space, obs)
        array = np.array(found, self.dtype).reshape(self.box.shape)
        if not np.all(np.isfinite(array)):
            raise TaskError(f"{self._task} returned an observation with NaN or infinity {where}; mend the environment.")
        return array


def action_space(task: str, space: Any) -> tuple[ActionSpace, ActionFormat]:
    """Return a space of actions, and how the environment wants one written.

    Several axes of a MultiDiscrete or MultiBinary become one; choices are counted from zero.

    Raises:
        TaskError: the space is of another kind, or empty.
    """
    kind: ActionSpace | None = None
    start: tuple[int, ...] = ()
    match space:
        case spaces.Box() if space.dtype is not None and space.dtype.kind in "iuf":
            kind = Box.of(space.low, space.high)
        case spaces.Discrete():
            kind, start = Discrete(int(space.n)), (int(space.start),)
        case spaces.MultiDiscrete():
            kind = MultiDiscrete(tuple(map(int, np.ravel(space.nvec))))
            start = tuple(map(int, np.ravel(space.start)))
        case spaces.MultiBinary():
            kind = MultiBinary(int(np.prod(space.shape)))
    if kind is None or (not isinstance(kind, Discrete) and not kind.size):
        raise TaskError(
            f"{task} has the action space {space}, but Box, Discrete, MultiDiscrete and MultiBinary are the ones "
            "supported; wrap the environment so that it takes one of these."
        )
    return kind, ActionFormat(np.dtype(space.dtype).name, tuple(space.shape or ()), start if any(start) else ())


def _is_flattenable(space: Any) -> bool:
    """Return whether `gymnasium.spaces.flatten` makes vectors of fixed size; a class of the user's own has none."""
    if isinstance(space, spaces.Dict):
        return len(space.spaces) > 0 and all(map(_is_flattenable, space.spaces.values()))
    if isinstance(space, spaces.Tuple | spaces.OneOf):
        return len(space.spaces) > 0 and all(map(_is_flattenable, space.spaces))
    if isinstance(space, spaces.Box):
        return space.dtype is not None and space.dtype.kind in "biuf"
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)


def _format_of(space: Any) -> ObservationFormat | None:
    """Return the structure of a space; None where it cannot be told, as that of `OneOf`."""
    match space:
        case spaces.Box() | spaces.MultiBinary():
            return ObservationFormat("numbers", tuple(space.shape or ()))
        case spaces.Discrete():
            return ObservationFormat("choices", (), (int(space.n),), (int(space.start),))
        case spaces.MultiDiscrete():
            counts, start = (tuple(map(int, np.ravel(part))) for part in (space.nvec, space.start))
            return ObservationFormat("choices", tuple(space.nvec.shape), counts, start)
        case spaces.Dict() if all(isinstance(name, str) for name in space.spaces):
            names = GOAL_PARTS if _has_goals(space) else tuple(space.spaces)
            parts = tuple(_format_of(space[name]) for name in names)
            return None if None in parts else ObservationFormat("dict", names=names, parts=parts)  # type: ignore[arg-type]
        case spaces.Tuple():
            parts = tuple(map(_format_of, space.spaces))
            return None if None in parts else ObservationFormat("tuple", parts=parts)  # type: ignore[arg-type]
    return None


def _flat_box(space: Any) -> Box:
    flat = spaces.flatten_space(space)
    assert isinstance(flat, spaces.Box)
    return Box.of(flat.low, flat.high)


def _has_goals(space: Any) -> bool:
    if not isinstance(space, spaces.Dict) or set(space.spaces) != set(GOAL_PARTS):
        return False
    return spaces.flatdim(space["achieved_goal"]) == spaces.flatdim(space["desired_goal"])


def _has_float64(space: Any) -> bool:
    """Return whether any part of a space is a Box of float64."""
    if isinstance(space, spaces.Dict):
        return any(map(_has_float64, space.values()))
    if isinstance(space, spaces.Tuple | spaces.OneOf):
        return any(map(_has_float64, space.spaces))
    return isinstance(space, spaces.Box) and space.dtype == np.float64


def _as_array(obs: Any) -> Any:
    """Return what gives an array as one, once: lazily stacked frames are stacked anew at every look."""
    try:
        return np.asarray(obs)
    except Exception:  # rows of unlike length, or an object whose own __array__ fails
        return obs


def _mismatch(space: spaces.Space, obs: Any, path: str = "") -> str | None:
    """Say how an observation differs from its space in kind, as the rest of "an observation ..."; None if it fits."""
    at = f" at {path}" if path else ""
    if isinstance(space, spaces.Box):
        numeric = _as_array(obs)
        if not isinstance(numeric, np.ndarray):
            return f"that is no array{at}"
        if numeric.shape != space.shape:
            return f"of shape {numeric.shape}{at}, where its space says {space.shape},"
        if numeric.dtype.kind not in "biuf":
            return f"of dtype {numeric.dtype}{at}, which is no number,"
        return None
    if isinstance(space, spaces.Dict):
        if not isinstance(obs, dict) or set(obs) != set(space.spaces):
            return f"{shown(obs)}{at}, where its space has the keys {sorted(map(str, space.spaces))},"
        return next(filter(None, (_mismatch(sub, obs[name], f"{path}[{name!r}]") for name, sub in space.items())), None)
    if isinstance(space, spaces.Tuple):
        if not isinstance(obs, tuple) or len(obs) != len(space.spaces):
            return f"{shown(obs)}{at}, where its space is a tuple of {len(space.spaces)},"
        pairs = enumerate(zip(space.spaces, obs, strict=True))
        return next(filter(None, (_mismatch(sub, part, f"{path}[{i}]") for i, (sub, part) in pairs)), None)
    return None if space.contains(obs) else f"{shown(obs)}{at}, which is not in {space},"


def shown(value: Any) -> str:
    """Return a short name for a value that came where another was expected."""
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
