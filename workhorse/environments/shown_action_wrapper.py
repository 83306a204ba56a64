"""The previous action as part of the observation, for environments of Gymnasium: appended, or drawn on an image.

The option `previous_action` of any task puts this wrapper on; it can also be named by itself:

    workhorse train ALE/Pong-v5 --wrapper workhorse.environments.shown_action_wrapper:ShowsAction
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from workhorse.core.errors import UsageError
from workhorse.core.shown_action import Shown, action_bounds, action_numbers
from workhorse.environments.actions import random_actions
from workhorse.environments.gymnasium_spaces import action_space

__all__ = ["ShowsAction", "drawn_number"]

_DIGITS = (
    "111101101101111", "010110010010111", "111001111100111", "111001111001111", "101101111001001",
    "111100111001111", "111100111101111", "111001001001001", "111101111101111", "111101111001111",
)  # fmt: skip
"""Digits 0 to 9 in 3 x 5 pixels, row by row."""

SMALLEST = 16
"""Fewest pixels of an image's side that a digit is drawn on."""


def drawn_number(image: np.ndarray, number: int, corner: tuple[int, int], scale: int) -> np.ndarray:
    """Return an image with a number drawn on it, in white on black, the upper left corner at `corner`.

    Args:
        image: bytes (height, width) or (height, width, channels).
        number: 0 to 99.
        corner: row and column.
        scale: pixels of the image a pixel of a digit.

    Example:
        >>> drawn_number(np.full((7, 7), 9, np.uint8), 1, (1, 1), 1)[1:6, 1:4].tolist()
        [[0, 255, 0], [255, 255, 0], [0, 255, 0], [0, 255, 0], [255, 255, 255]]
    """
    found = image.copy()
    for place, digit in enumerate(str(number)):
        pixels = np.array(list(_DIGITS[int(digit)]), np.uint8).reshape(5, 3) * np.uint8(255)
        pixels = np.kron(pixels, np.ones((scale, scale), np.uint8))
        row, column = corner[0], corner[1] + place * 4 * scale
        target = found[row : row + 5 * scale, column : column + 3 * scale]
        part = pixels[: target.shape[0], : target.shape[1]]
        target[...] = part if image.ndim == 2 else part[..., None]
    return found


class ShowsAction(gymnasium.Wrapper):
    """Observations that show the action of the step before, and nothing at the start of an episode.

    Appended to a vector, as `workhorse.environments.shown_action.ShownAction` does. On an image of bytes, of a task
    with one discrete choice, the action's number is drawn in its lower left corner. Any other observation is laid out
    flat first, by `gymnasium.spaces.flatten`.

    Args:
        env: the environment.
        kind: True; or "random" for a random action of the space instead, drawn from the episode's seed.

    Raises:
        UsageError: the action cannot be drawn on these images.
    """

    def __init__(self, env: gymnasium.Env, kind: Shown = True) -> None:
        super().__init__(env)
        name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        self._kind, space = kind, env.observation_space
        self._space, self._format = action_space(name, env.action_space)
        self._image = isinstance(space, spaces.Box) and len(space.shape) in (2, 3) and space.dtype == np.uint8
        if self._image:
            _check_drawable(name, space, env.action_space)
            self.observation_space = space
        else:
            flat: Any = spaces.flatten_space(space)
            kept = flat.dtype if flat.dtype.kind == "f" else np.dtype(np.float32)
            more = action_bounds(self._space)
            self.observation_space = spaces.Box(
                np.concatenate([flat.low, more.low]).astype(kept), np.concatenate([flat.high, more.high]).astype(kept)
            )
        self._rng = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, with no action shown."""
        obs, info = self.env.reset(seed=seed, options=options)
        self._rng = np.random.default_rng(None if seed is None else [seed, 0x5AC7])
        return self._shown(obs, None), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step, and show its action."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        told = self._counted(action) if self._kind is True else random_actions(self._space, (), self._rng)
        return self._shown(obs, told), reward, terminated, truncated, info

    def _counted(self, action: Any) -> np.ndarray:
        """Return an action of the environment as Workhorse counts it."""
        start = self._format.start
        return np.asarray(action) - (np.reshape(start, self._format.shape) if start else 0)

    def _shown(self, obs: Any, action: np.ndarray | None) -> Any:
        if self._image:
            if action is None:
                return obs
            scale = max(1, min(obs.shape[:2]) // 40)
            return drawn_number(obs, int(action), (obs.shape[0] - 6 * scale, scale), scale)
        flat = np.asarray(spaces.flatten(self.env.observation_space, obs))
        size = self.observation_space.shape[0] - len(flat)  # type: ignore[index]
        numbers = np.zeros(size) if action is None else action_numbers(self._space, np.asarray(action)[None])[0]
        return np.concatenate([flat, numbers]).astype(self.observation_space.dtype)


def _check_drawable(name: str, space: Any, actions: Any) -> None:
    if not isinstance(actions, spaces.Discrete) or actions.n > 100 or min(space.shape[:2]) < SMALLEST:
        raise UsageError(
            f"{name}: the number of an action can be drawn on images of at least {SMALLEST} x {SMALLEST} pixels, of "
            f"a task with one of up to 100 choices: got images {space.shape} and the actions {actions}."
        )
