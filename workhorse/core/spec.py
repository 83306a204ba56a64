"""What a task looks like from outside: its observation, its actions, its clock, what its snapshots promise."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

__all__ = ["Box", "Discrete", "EnvSpec", "idle_actions"]


@dataclass(frozen=True)
class Box:
    """Real vectors with bounds, one entry of `low` and `high` a component (infinite where unbounded)."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        return len(self.low)

    @staticmethod
    def unbounded(size: int) -> "Box":
        return Box((-float("inf"),) * size, (float("inf"),) * size)

    @staticmethod
    def of(low: np.ndarray, high: np.ndarray) -> "Box":
        return Box(tuple(map(float, np.ravel(low))), tuple(map(float, np.ravel(high))))


@dataclass(frozen=True)
class Discrete:
    """One of `count` choices, numbered from zero."""

    count: int


def idle_actions(space: Box | Discrete, count: int) -> np.ndarray:
    """The action that does as good as nothing, `count` times: zero moved into the bounds, float32; or the first.

    Example:
        >>> idle_actions(Box((-1.0, 0.5), (1.0, 1.0)), 1).tolist()
        [[0.0, 0.5]]
    """
    if isinstance(space, Discrete):
        return np.zeros(count, np.int64)
    return np.tile(np.clip(np.zeros(space.size), space.low, space.high).astype(np.float32), (count, 1))


@dataclass(frozen=True)
class EnvSpec:
    """A task, hashable, so that an algorithm may hold it as a static field.

    Attributes:
        task: the id it is made by, "HalfCheetah-v5".
        observation: a flat vector of reals; adapters flatten what is not one.
        action: `Box` or `Discrete`.
        max_episode_steps: after so many steps `truncated` is true; None where the task has no clock.
        step_seconds: simulated seconds a step; None where the task has no such time.
        alive_bonus: the reward a step that is paid for not having failed alone; 0 where there is none.
        resume: what a snapshot promises. `exact`: the same bits go on. `journal`: the actions since the reset are
            replayed. `episode`: the episode starts again.
        options: the non-default options it was made with, as (name, value) pairs sorted by name.
    """

    task: str
    observation: Box
    action: Box | Discrete
    max_episode_steps: int | None
    step_seconds: float | None = None
    alive_bonus: float = 0.0
    resume: Literal["exact", "journal", "episode"] = "exact"
    options: tuple[tuple[str, object], ...] = field(default=())
