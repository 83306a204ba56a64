"""Environments that tests of the Python interface give as objects."""

import gymnasium
import numpy as np


class Tank(gymnasium.Env):
    """A point in a box of the given size, pushed by the action, that is paid for being in the middle."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, push: float = 0.1) -> None:
        self._push = push
        self._at = np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._at = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self._at, {}

    def step(self, action):
        self._at = np.clip(self._at + self._push * action[0], -1, 1).astype(np.float32)
        return self._at, -float(np.abs(self._at).sum()), False, False, {}


def short_tank(push: float = 0.1) -> gymnasium.Env:
    return gymnasium.wrappers.TimeLimit(Tank(push), 10)


class Twice(gymnasium.Wrapper):
    """Wrapper without arguments that does not record them."""

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, 2 * reward, terminated, truncated, info
