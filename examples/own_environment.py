"""Register an environment of your own with Gymnasium, and train on it with no change to it.

    python examples/own_environment.py

From the command line, where this folder is importable:

    PYTHONPATH=examples workhorse train own_environment:Parking-v0 --env-steps 2e5
"""

from typing import Any

import gymnasium
import numpy as np

import workhorse


class Parking(gymnasium.Env):
    """Bring a cart to rest at the origin. Observation: position and velocity; action: acceleration in [-1, 1]."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._state = self.np_random.uniform([-2.0, -0.5], [2.0, 0.5])
        return self._state.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        position, velocity = self._state
        velocity += 0.1 * float(np.clip(action[0], -1.0, 1.0))
        position += 0.1 * velocity
        self._state = np.array([position, velocity])
        reward = -float(position**2 + 0.1 * velocity**2)
        return self._state.copy(), reward, bool(abs(position) > 5.0), False, {}


if "Parking-v0" not in gymnasium.registry:  # a worker, or a program that is its own module, comes by here twice
    gymnasium.register(id="Parking-v0", entry_point="own_environment:Parking", max_episode_steps=100)


def main() -> None:
    run = workhorse.train(
        "own_environment:Parking-v0", "openai-es", num_pairs=8, noise_std=0.1, learning_rate=0.1, env_steps=100_000
    )
    print(run, run.evaluate())


if __name__ == "__main__":
    main()
