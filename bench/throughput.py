"""How close training comes to the simulator: `python bench/throughput.py`.

Both sides run alternately in this process, from equal states, with the same number of slots and threads: training is
whole chunks of the evolve loop (act, step, reward, termination, observation moments, resets, update), raw is
`mujoco.batch.Batch.step` of the unchanged model with the actions the policy took in the training chunk just before,
so that both simulate the same motion. The ratio is the median over the repetitions.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from mujoco.batch import Batch
from record import head
from workhorse.training.gather import HostGather, Lanes, num_lanes
from workhorse.training.learning import Learning

from workhorse.algorithms import registry as algorithms
from workhorse.environments import registry as environments
from workhorse.training.evolve import Evolve
from workhorse.training.workforce import Local

TASKS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5")
WARM_UP = 10
"""Iterations trained before measuring: the very first policies fall at once, and a run spends little time on them."""
POLICIES = {"linear": {"policy": "linear"}, "mlp-64-64": {"policy": "mlp", "hidden": (64, 64)}}


class Recorder:
    """A host environment that also keeps the actions, the slots they went to and where they started, untimed."""

    def __init__(self, env):
        self._env = env
        self.calls = []
        self.start = np.empty(0)

    def reset(self, keys, slots=None):
        obs = self._env.reset(keys, slots)
        self.start = self._env.snapshot()["state"]
        return obs

    def __getattr__(self, name):
        return getattr(self._env, name)

    def step(self, actions, slots=None, reset_keys=None):
        self.calls.append((np.array(actions), slots))
        return self._env.step(actions, slots, reset_keys)


def measure(task: str, policy: str, slots: int, threads: int, repetitions: int) -> dict:
    """Alternate training iterations with raw replays of the same motion.

    Raw stepping has all of the population in one batch of `slots` on `threads` threads, each call stepping the slots
    that were alive then; training has its two lanes of half as many slots on the same threads together.
    """
    half, lanes_count = slots // 2, num_lanes(threads, 2)
    envs = [environments.make(task, half, threads // lanes_count) for _ in range(lanes_count)]
    algorithm = algorithms.make("openai-es", envs[0].spec, {"num_pairs": half, **POLICIES[policy]})
    lanes = Lanes([HostGather(algorithm, env, 0) for env in envs])
    learning = Learning(algorithm, 0)
    loop = Evolve(learning, Local(learning, lanes))
    recorder = Recorder(environments.make(task, slots, threads))
    recording = Evolve(learning, Local(learning, Lanes([HostGather(algorithm, recorder, 0)])))
    raw = Batch(envs[0].model, slots, threads)
    ctrl, frame_skip = raw.bind("ctrl"), envs[0].options.frame_skip
    progress = loop.start()
    for _ in range(WARM_UP):
        progress, _, _ = loop.iterate(progress)
    recording.iterate(progress)
    rows = []
    for _ in range(repetitions):
        recorder.calls.clear()
        recording.iterate(progress)
        calls = [(action, None if ids is None else np.array(ids, np.int32)) for action, ids in recorder.calls]
        steps = sum(len(action) for action, _ in calls)

        begun = time.perf_counter()
        after, metrics, _ = loop.iterate(progress)
        training_s = time.perf_counter() - begun

        raw.state[:] = recorder.start
        begun = time.perf_counter()
        for action, ids in calls:
            if ids is None:
                ctrl[:] = action
                raw.step(nstep=frame_skip)
            else:
                ctrl[ids] = action
                raw.step(ids, nstep=frame_skip)
        raw_s = time.perf_counter() - begun
        rows.append({"training_per_s": metrics["steps"] / training_s, "raw_per_s": steps / raw_s})
        progress = after
    lanes.close()
    recorder.close()
    ratios = [row["training_per_s"] / row["raw_per_s"] for row in rows]
    return {
        "task": task,
        "policy": policy,
        "slots": slots,
        "threads": threads,
        "training_per_s": float(np.median([row["training_per_s"] for row in rows])),
        "raw_per_s": float(np.median([row["raw_per_s"] for row in rows])),
        "ratio": float(np.median(ratios)),
        "ratio_range": [float(min(ratios)), float(max(ratios))],
        "repetitions": repetitions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    rows = []
    for policy in POLICIES:
        for task in arguments.tasks:
            rows.append(measure(task, policy, arguments.slots, arguments.threads, arguments.repetitions))
            row = rows[-1]
            low, high = row["ratio_range"]
            print(
                f"{task:<15} {policy:<10} training {row['training_per_s']:>8,.0f}/s  raw {row['raw_per_s']:>8,.0f}/s  "
                f"ratio {row['ratio']:.2f} [{low:.2f}, {high:.2f}]",
                flush=True,
            )
    target = Path(__file__).parent / "results" / "throughput.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(
        json.dumps(
            {
                **head(
                    f"python bench/throughput.py --slots {arguments.slots} --threads {arguments.threads} "
                    f"--repetitions {arguments.repetitions}"
                ),
                "rows": rows,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
