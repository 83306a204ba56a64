"""The same task in a box far from zero and in [-1, 1]: `python bench/action_box.py [--seeds 3]`.

A thermostat is set ten times an episode, to a number between 5 and 35; the best one is 24.5, whatever is observed. Its
copy has the box [-1, 1], where the best one is .3. The score is the mean distance from the best action, in half-widths
of the box, of 20 noiseless episodes after `ENV_STEPS` steps. Each algorithm trains with `rescale_actions` and without.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from record import head

ENV_STEPS = 10_000
BEST = 0.3
"""Place of the best action, from -1 for the lower bound to 1 for the upper one."""

ALGORITHMS: dict[str, dict[str, Any]] = {
    "openai-es": {"policy": "mlp", "hidden": (16,), "num_pairs": 8},
    "ars": {"policy": "mlp", "hidden": (16,), "num_directions": 8, "num_top_directions": 8},
    "ppo": {"num_envs": 8, "held_out_envs": 0, "rollout_steps": 32, "hidden": (16,), "learning_rate": 3e-3},
}
BOXES = {"[-1, 1]": (-1.0, 1.0), "[5, 35]": (5.0, 35.0)}


class Thermostat(gym.Env):
    """One observation after the other says nothing; the reward is the distance of the action from the best one."""

    def __init__(self, low: float = 5.0, high: float = 35.0) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Box(low, high, (1,), np.float32)
        self.half = (high - low) / 2
        self.best = low + self.half * (1 + BEST)

    def _seen(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self._seen(), -abs(float(action[0]) - self.best) / self.half, False, False, {}


if "Thermostat-v0" not in gym.registry:
    gym.register("Thermostat-v0", entry_point="action_box:Thermostat", max_episode_steps=10)


def distances(algorithm: str, box: str, is_rescaled: bool, seeds: int) -> list[float]:
    """Train every seed and return the mean distance of its actions from the best one, in half-widths."""
    from workhorse.runs import train

    found = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as root:
            low, high = BOXES[box]
            _, summary = train.start(
                task="action_box:Thermostat-v0",
                task_options={"low": low, "high": high},
                algorithm=algorithm,
                settings={**ALGORITHMS[algorithm], "rescale_actions": is_rescaled},
                env_steps=ENV_STEPS,
                seed=seed,
                threads=1,
                root=root,
                schedule=train.Schedule(evaluate_every=0, final_episodes=20, milestones=0),
            )
        assert summary.episode_return is not None
        found.append(round(-summary.episode_return.value / 10, 3))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    rows = []
    for algorithm in ALGORITHMS:
        for box, is_rescaled in (("[-1, 1]", True), ("[5, 35]", True), ("[5, 35]", False)):
            found = distances(algorithm, box, is_rescaled, given.seeds)
            rows.append({"algorithm": algorithm, "box": box, "rescaled": is_rescaled, "distance": found})
            print(algorithm, box, is_rescaled, [f"{one:.3f}" for one in found], flush=True)
    record = {**head(f"python bench/action_box.py --seeds {given.seeds}"), "env_steps": ENV_STEPS, "rows": rows}
    (Path(__file__).parent / "results" / "action_box.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
