"""Pong as seven numbers that its console keeps, for `python bench/confusion.py pong`; needs the package ale-py.

Named on the command line as the wrapper pong_ram:RamFeatures around ALE/Pong-v5 with obs_type "ram".
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

__all__ = ["RamFeatures", "tracker"]

BALL_X, BALL_Y, PADDLE, ENEMY = 49, 54, 51, 50
"""Places in the 128 bytes of the console's memory; 0 where there is no ball."""

UP, DOWN, STAY = 2, 3, 0

AIM, NEAR = 4, 5
"""Lines that the tracker keeps above the ball, and within which it rests: the best of a few that were tried."""


class RamFeatures(gymnasium.ObservationWrapper):
    """Ball (x, y), its velocity a step, own paddle, enemy's paddle: float32 (6,), in the screen's lines."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(-255.0, 255.0, (6,), np.float32)
        self._ball = np.zeros(2)

    def reset(self, **options: Any) -> Any:
        """Start an episode; the ball rests."""
        self._ball = np.zeros(2)
        return super().reset(**options)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Return the features of one memory."""
        ball = np.array([observation[BALL_X], observation[BALL_Y]], np.float64)
        speed = ball - self._ball if ball.all() and self._ball.all() else np.zeros(2)
        self._ball = ball
        return np.array([*ball, *speed, observation[PADDLE], observation[ENEMY]], np.float32)


def tracker(obs: np.ndarray) -> np.ndarray:
    """Return the actions of an expert that keeps its paddle at the ball's height, from features (n, 6)."""
    gap = obs[:, 1] - obs[:, 4] - AIM
    return np.where(obs[:, 1] == 0, STAY, np.where(gap < -NEAR, UP, np.where(gap > NEAR, DOWN, STAY)))
