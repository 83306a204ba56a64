"""Environments whose seeds end in every way a seed can end."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Line(gymnasium.Env):
    """Reward for pushing right; an environment whose reset drew a start below -0.9 raises at its fifth step."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    raises_below = -2.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start = float(self.np_random.uniform(-1, 1))
        self.x, self.count = self.start, 0
        return np.array([self.x]), {}

    def step(self, action):
        self.count += 1
        if self.count == 5 and self.start < self.raises_below:
            raise RuntimeError("the motor came off")
        self.x += 0.1 * float(action[0])
        return np.array([self.x]), float(action[0]), False, False, {}


class Fragile(Line):
    """Raises for one start in forty."""

    raises_below = -0.95


for name, cls in (("Line", Line), ("Fragile", Fragile)):
    if f"broken/{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"broken/{name}-v0", entry_point=cls, max_episode_steps=10)
