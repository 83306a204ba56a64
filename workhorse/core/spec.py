"""Description of a task from outside: its observation, its actions, its clock, what its snapshots promise."""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np

from workhorse.core.observations import ObservationFormat

__all__ = [
    "ActionFormat",
    "ActionSpace",
    "Box",
    "Discrete",
    "EnvSpec",
    "Goal",
    "MultiBinary",
    "MultiDiscrete",
    "changed_options",
    "has_elements",
    "idle_action",
    "rescaled",
]

WIDEST = 1e9
"""A bound further out stands for none: spaces of integers have no infinity, and give the ends of their type instead."""


@dataclass(frozen=True)
class Box:
    """Real arrays with bounds: a vector, a matrix or an image.

    Attributes:
        low, high: one bound a component, in row-major order; infinite where unbounded.
        shape: of one observation or action; a vector of `len(low)` where left out.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.shape:
            object.__setattr__(self, "shape", (len(self.low),))
        # JAX hashes a spec at every call of a compiled function, and an image has 28,224 bounds: 0.6 ms each time
        object.__setattr__(self, "_hash", hash((self.low, self.high, self.shape)))
        if math.prod(self.shape) != len(self.low) or len(self.low) != len(self.high):
            raise ValueError(
                f"A Box of shape {self.shape} needs {math.prod(self.shape)} bounds of each kind: got {len(self.low)} "
                f"and {len(self.high)}."
            )

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined]

    @property
    def size(self) -> int:
        """Number of components."""
        return len(self.low)

    def middle_and_half(self) -> tuple[np.ndarray, np.ndarray]:
        """Return m and h, float32 of the box's shape, such that m + h * y is in the box for y in [-1, 1].

        In a component that is not rescaled, because it lacks a bound, m = 0 and h = 1.

        Example:
            >>> [part.tolist() for part in Box((5.0, 0.0), (35.0, float("inf"))).middle_and_half()]
            [[20.0, 0.0], [15.0, 1.0]]
        """
        low, high = (np.reshape(bound, self.shape) for bound in (self.low, self.high))
        bounded = (np.abs(low) <= WIDEST) & (np.abs(high) <= WIDEST)
        with np.errstate(invalid="ignore"):
            middle, half = np.where(bounded, low / 2 + high / 2, 0.0), np.where(bounded, high / 2 - low / 2, 1.0)
        return middle.astype(np.float32), half.astype(np.float32)

    @staticmethod
    def unbounded(size: int) -> "Box":
        """Return the space of vectors of `size` components without bounds."""
        return Box((-float("inf"),) * size, (float("inf"),) * size)

    @staticmethod
    def of(low: np.ndarray, high: np.ndarray) -> "Box":
        """Return the box whose bounds are two arrays of one shape."""
        return Box(tuple(map(float, np.ravel(low))), tuple(map(float, np.ravel(high))), np.shape(low))


@dataclass(frozen=True)
class Goal(Box):
    """Observations of a goal environment as one vector: observation, achieved goal, desired goal, in this order.

    Attributes:
        goal_size: components of a goal.

    Example:
        >>> space = Goal.of_parts(Box.unbounded(3), Box.unbounded(2))
        >>> [part.tolist() for part in space.parts(np.arange(7.0))]
        [[0.0, 1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    """

    goal_size: int = 0

    __hash__ = Box.__hash__  # a dataclass would make a new one

    @staticmethod
    def of_parts(observation: Box, goal: Box) -> "Goal":
        """Return the space of an observation, an achieved and a desired goal."""
        low, high = observation.low + 2 * goal.low, observation.high + 2 * goal.high
        return Goal(low, high, goal_size=goal.size)

    def parts(self, obs: Any) -> tuple[Any, Any, Any]:
        """Split an array (..., D) into (observation, achieved, desired)."""
        first, second = self.size - 2 * self.goal_size, self.size - self.goal_size
        return obs[..., :first], obs[..., first:second], obs[..., second:]


@dataclass(frozen=True)
class Discrete:
    """One of `count` choices, numbered from zero. The adapter adds an offset where a task numbers them otherwise."""

    count: int


@dataclass(frozen=True)
class MultiDiscrete:
    """Several choices at once, one of `counts[i]` in component i, each numbered from zero; int64 (A,)."""

    counts: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of components."""
        return len(self.counts)


@dataclass(frozen=True)
class MultiBinary:
    """`size` switches at once, each 0 or 1; int8 (A,)."""

    size: int


ActionSpace = Box | Discrete | MultiDiscrete | MultiBinary
"""The kinds of actions a task may take."""


def has_elements(space: ActionSpace) -> bool:
    """Tell whether a space has a component or a choice, and no lower bound above its upper one."""
    match space:
        case Box(low, high):
            return len(low) > 0 and all(least <= most for least, most in zip(low, high, strict=True))
        case Discrete(count):
            return count > 0
        case MultiDiscrete(counts):
            return len(counts) > 0 and min(counts) > 0
        case MultiBinary(size):
            return size > 0


def idle_action(space: ActionSpace) -> np.ndarray:
    """Return the action that does as good as nothing.

    Zero moved into the bounds for a `Box` (float32), the first choice of a `Discrete` or `MultiDiscrete` (int64), every
    switch off of a `MultiBinary` (int8).

    Example:
        >>> idle_action(Box((-1.0, 0.5), (1.0, 1.0))).tolist()
        [0.0, 0.5]
    """
    match space:
        case Discrete():
            return np.zeros((), np.int64)
        case MultiDiscrete():
            return np.zeros(space.size, np.int64)
        case MultiBinary():
            return np.zeros(space.size, np.int8)
    return np.clip(np.zeros(space.size), space.low, space.high).astype(np.float32).reshape(space.shape)


def rescaled(space: ActionSpace) -> ActionSpace:
    """Return the space with [-1, 1] for the bounds of each component of a `Box` that has both; others stay.

    Example:
        >>> box = rescaled(Box((5.0, 0.0), (35.0, float("inf"))))
        >>> box.low, box.high
        ((-1.0, 0.0), (1.0, inf))
    """
    if not isinstance(space, Box):
        return space
    is_rescaled = [max(abs(low), abs(high)) <= WIDEST for low, high in zip(space.low, space.high, strict=True)]
    low = tuple(-1.0 if inside else bound for bound, inside in zip(space.low, is_rescaled, strict=True))
    high = tuple(1.0 if inside else bound for bound, inside in zip(space.high, is_rescaled, strict=True))
    return space if (low, high) == (space.low, space.high) else Box(low, high, space.shape)


@dataclass(frozen=True)
class ActionFormat:
    """Form in which a task's own code wants an action, where Workhorse counts from zero and writes vectors.

    Attributes:
        dtype: NumPy's name of the space's dtype.
        shape: of one action there; () for a number.
        start: of each choice, in row-major order: what its first value is called; empty where that is zero.

    Example:
        >>> ActionFormat("int64", (), (10,)).write(Discrete(2), np.array(1))
        np.int64(11)
        >>> ActionFormat("int64", (), (10,)).write(Discrete(2), np.array([1, 0])).tolist()
        [11, 10]
        >>> ActionFormat("int16", (2,)).write(Box((-3.0, -3.0), (3.0, 3.0)), np.array([1.6, -9.0])).tolist()
        [2, -3]
    """

    dtype: str
    shape: tuple[int, ...]
    start: tuple[int, ...] = ()

    def write(self, space: ActionSpace, action: np.ndarray) -> Any:
        """Return an action of `space`, or a batch, as the task takes it: clipped to a Box, rounded to its integers."""
        dtype, action = np.dtype(self.dtype), np.asarray(action)
        axes = {Discrete: 0, Box: len(getattr(space, "shape", ()))}.get(type(space), 1)
        rows = action.shape[: action.ndim - axes]
        if isinstance(space, Box):
            if dtype.kind in "iu":
                action = np.rint(action)
            action = np.clip(action, *(np.reshape(bound, space.shape) for bound in (space.low, space.high)))
            if dtype.kind in "iu" and dtype.itemsize == 8:  # the ends of 64 bits are no float64
                action = np.minimum(action, np.nextafter(float(np.iinfo(dtype).max), 0.0))
        elif self.start:
            action = action.astype(np.int64) + np.reshape(self.start, action.shape[len(rows) :])
        written = action.reshape((*rows, *self.shape)).astype(dtype)
        return written[()] if isinstance(space, Discrete) else written


@dataclass(frozen=True)
class EnvSpec:
    """A task, hashable, so that an algorithm may hold it as a static field.

    Attributes:
        task: the id it is made by, "HalfCheetah-v5".
        observation: a `Box`; a `Goal` where the task has goals.
        action: what it may be told to do, or, where `unscaled` is given, what an algorithm may say.
        max_episode_steps: steps after which `truncated` is true; None where the task has no clock.
        step_seconds: simulated seconds of a step; None where the task has no such time.
        alive_bonus: the reward a step that is paid for not having failed alone; 0 where there is none.
        resume: what a snapshot promises. `exact`: the same bits go on. `journal`: the actions since the reset are
            replayed. `episode`: the episode starts again.
        options: the non-default options it was made with, as (name, value) pairs sorted by name.
        action_format: how a task from outside wants its actions; None where it takes them as `action` says.
        observation_format: how a task from outside gives its observations; None where they are arrays of `observation`.
        unscaled: the task's own box, where `action` is that box rescaled to [-1, 1]; None where `action` is the task's.
        physics_size: coordinates of the task's motion, where a loop has asked its simulator for them; else 0.
    """

    task: str
    observation: Box
    action: ActionSpace
    max_episode_steps: int | None
    step_seconds: float | None = None
    alive_bonus: float = 0.0
    resume: Literal["exact", "journal", "episode"] = "exact"
    options: tuple[tuple[str, object], ...] = field(default=())
    action_format: ActionFormat | None = None
    observation_format: ObservationFormat | None = None
    unscaled: Box | None = None
    physics_size: int = 0

    @property
    def task_action(self) -> ActionSpace:
        """Space of the task's own actions."""
        return self.unscaled or self.action

    def rescaled(self) -> "EnvSpec":
        """Return the spec that an algorithm sees whose actions are rescaled to [-1, 1]; this one where they fit."""
        seen = rescaled(self.task_action)
        if not isinstance(self.task_action, Box) or seen == self.action:
            return self
        return replace(self, action=seen, unscaled=self.task_action)


def changed_options(options: Any) -> tuple[tuple[str, object], ...]:
    """Return the (name, value) pairs in which a dataclass of options differs from its defaults, sorted by name."""
    pairs = ((each.name, getattr(options, each.name), each.default) for each in fields(options))
    return tuple(sorted((name, value) for name, value, default in pairs if value != default))
