"""Spaces as Minari writes them in JSON, read and written without Gymnasium."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.records import parse, parse_json
from workhorse.core.spec import ActionSpace, Box, Discrete, Goal, MultiBinary, MultiDiscrete
from workhorse.data.dataset import MOST_COMPONENTS

__all__ = [
    "DAMAGED",
    "GOAL_PARTS",
    "METADATA",
    "SAVE_ANEW",
    "actions_of",
    "goal_parts",
    "is_image",
    "observations_of",
    "space_in",
    "written_space",
]

METADATA = "metadata.json"
GOAL_PARTS = ("observation", "achieved_goal", "desired_goal")
SAVE_ANEW = "Load it with the version of Minari that wrote it, and save it anew with Minari 0.5."
DAMAGED = "Restore the data set from a copy, or download it again."


def space_in(about: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    """Return a space as Minari writes it."""
    text = about.get(name)
    if not isinstance(text, str):
        raise UsageError(f"Expected `{name}` in {path / METADATA}, got none: it is of an older layout. {SAVE_ANEW}")
    return parse(parse_json, text, f"{path / METADATA}, {name}", "a space in JSON", DAMAGED)


def goal_parts(space: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Return the parts of the observations of a task with goals; none where they are arrays.

    Raises:
        UsageError: they are of another structure.
    """
    if space.get("type") == "Box":
        return ()
    parts = space.get("subspaces")
    is_goal = space.get("type") == "Dict" and isinstance(parts, dict) and set(parts) == set(GOAL_PARTS)
    if not is_goal or any(part.get("type") != "Box" for part in parts.values()):  # type: ignore[union-attr]
        names = f" of {', '.join(parts)}" if isinstance(parts, dict) else ""
        raise UsageError(
            f"Expected observations that are arrays, or a Dict of {', '.join(GOAL_PARTS)}, in {path}, got "
            f"{space.get('type')}{names}: flatten them (Gymnasium's FlattenObservation) and record the data set anew."
        )
    return GOAL_PARTS


def is_image(space: dict[str, Any]) -> bool:
    """Tell whether Minari keeps observations of this space as JPEG, unless it is told otherwise."""
    shape = space.get("shape")
    large = isinstance(shape, list) and len(shape) in (2, 3) and min(shape[:2]) >= 32
    if not large or space.get("dtype") != "uint8":
        return False
    return bool(np.all(np.asarray(space.get("low")) == 0) and np.all(np.asarray(space.get("high")) == 255))


def observations_of(space: dict[str, Any], parts: tuple[str, ...], path: Path) -> Box:
    """Return the space of the observations, those of a task with goals as one vector."""
    if not parts:
        return _box(space, path)
    boxes = [_box(space["subspaces"][part], path) for part in parts]
    return Goal.of_parts(Box.of(np.array(boxes[0].low), np.array(boxes[0].high)), boxes[1])


def actions_of(space: dict[str, Any], path: Path) -> tuple[ActionSpace, np.ndarray]:
    """Return the space of the actions, and what its first choices are called."""
    try:
        match space.get("type"):
            case "Box":
                return _box(space, path), np.zeros((), np.int64)
            case "Discrete":
                return Discrete(int(space["n"])), np.asarray(space["start"], np.int64)
            case "MultiDiscrete" if np.ndim(space["nvec"]) == 1:
                counts = tuple(int(count) for count in space["nvec"])
                return MultiDiscrete(counts), np.asarray(space.get("start", 0), np.int64)
            case "MultiBinary" if isinstance(space["n"], int):
                return MultiBinary(space["n"]), np.zeros((), np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"Expected an action space in {path / METADATA}, but {error!r}. {DAMAGED}") from error
    raise UsageError(
        f"Expected actions that are a Box, Discrete, MultiDiscrete or MultiBinary in {path}, got {space.get('type')}: "
        "record the data set with actions that are one array."
    )


def _box(space: dict[str, Any], path: Path) -> Box:
    try:
        shape = tuple(int(size) for size in space["shape"])
        if not 0 < math.prod(shape) <= MOST_COMPONENTS:
            raise ValueError(f"its shape has {math.prod(shape):,} components")
        low, high = (np.broadcast_to(np.asarray(space[name], np.float64), shape) for name in ("low", "high"))
        return Box.of(low, high)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"Expected a Box in {path / METADATA}, but {error}. {DAMAGED}") from error


def written_space(space: ActionSpace, dtype: np.dtype) -> dict[str, Any]:
    """Return a space as Minari writes it."""
    match space:
        case Discrete(count):
            return {"type": "Discrete", "dtype": "int64", "start": 0, "n": count}
        case MultiDiscrete(counts):
            return {
                "type": "MultiDiscrete", "dtype": str(dtype), "nvec": list(counts), "start": [0] * len(counts),
            }  # fmt: skip
        case MultiBinary(size):
            return {"type": "MultiBinary", "n": size}
    if dtype.kind in "iu":  # whole numbers have no infinity
        ends = np.iinfo(dtype)
        low, high = (np.clip(bound, float(ends.min), float(ends.max)) for bound in (space.low, space.high))
        return _written_box(space, str(dtype), low.astype(np.int64), high.astype(np.int64))
    return _written_box(space, str(dtype), np.array(space.low), np.array(space.high))


def _written_box(space: Box, dtype: str, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    shaped = {name: bound.reshape(space.shape).tolist() for name, bound in (("low", low), ("high", high))}
    return {"type": "Box", "dtype": dtype, "shape": list(space.shape), **shaped}
