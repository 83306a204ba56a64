"""Speed of training as a share of the simulator's: `python bench/throughput.py`.

Both sides run alternately in this process, from equal states, with the same number of slots and threads: training is
whole chunks of the evolve loop (act, step, reward, termination, observation moments, resets, update), raw is
`mujoco.batch.Batch.step` of the unchanged model with the actions the policy took in the training chunk just before,
so that both simulate the same motion. The ratio is the median over the repetitions. Rows that are not measured anew are
kept in bench/results/throughput-SLOTS.json.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
from mujoco.batch import Batch
from record import head

from workhorse.core.algorithm import Population
from workhorse.core.types import Step
from workhorse.environments import registry as environments
from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.protocol import HostEnv
from workhorse.training.episodes import make_player
from workhorse.training.evolve import Evolve
from workhorse.training.lanes import Lanes
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.population import PopulationPrograms
from workhorse.training.workforce import Local

TASKS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5")
WARM_UP = 10
"""Iterations trained before measuring: the very first policies fall at once, and a run spends little time on them."""
POLICIES = {"linear": {"policy": "linear"}, "mlp-64-64": {"policy": "mlp", "hidden": (64, 64)}}


class Recorder:
    """A host environment that also keeps the actions, the slots they went to and where they started, untimed."""

    def __init__(self, env: BatchTask) -> None:
        self._env = env
        self.calls: list[tuple[np.ndarray, np.ndarray | None]] = []
        self.start = np.empty(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, keys: np.ndarray, slots: np.ndarray | None = None) -> np.ndarray:
        obs = self._env.reset(keys, slots)
        self.start = self._env.snapshot()["state"]
        return obs

    def step(self, actions: np.ndarray, slots: np.ndarray | None = None, reset_keys: np.ndarray | None = None) -> Step:
        self.calls.append((np.array(actions), slots))
        return self._env.step(actions, slots, reset_keys)


def measure(task: str, policy: str, slots: int, threads: int, repetitions: int) -> dict:
    """Alternate training iterations with raw replays of the same motion.

    Raw stepping has all of the population in one batch of `slots` on `threads` threads, each call stepping the slots
    that were alive then; training has its two lanes of half as many slots on the same threads together.
    """
    plan = Plan(task, {}, "openai-es", {"num_pairs": slots // 2, **POLICIES[policy]}, 0, slots // 2)
    loop = make_loop(plan, plan.spec(), threads)
    env = environments.make(task, slots, threads)
    assert isinstance(loop.algorithm, Population) and isinstance(env, BatchTask)
    recorder, programs = Recorder(env), PopulationPrograms(loop.algorithm, plan.seed)
    player = make_player(loop.algorithm, cast(HostEnv, recorder), slots, plan.seed)
    recording = Evolve(programs, Local(programs, Lanes([player])))
    raw = Batch(env.model, slots, threads)
    ctrl, frame_skip = raw.bind("ctrl"), env.options.frame_skip
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
    loop.close()
    recording.close()
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
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=POLICIES)
    parser.add_argument("--slots", type=int, default=64, help="members of the population")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    target = Path(__file__).parent / "results" / f"throughput-{arguments.slots}.json"
    target.parent.mkdir(exist_ok=True)
    known = json.loads(target.read_text())["rows"] if target.exists() else []
    rows = {(row["policy"], row["task"]): row for row in known}
    for policy in arguments.policies:
        for task in arguments.tasks:
            rows[policy, task] = row = measure(task, policy, arguments.slots, arguments.threads, arguments.repetitions)
            low, high = row["ratio_range"]
            print(
                f"{task:<15} {policy:<10} training {row['training_per_s']:>8,.0f}/s  raw {row['raw_per_s']:>8,.0f}/s  "
                f"ratio {row['ratio']:.2f} [{low:.2f}, {high:.2f}]",
                flush=True,
            )
            command = f"python bench/throughput.py --slots {arguments.slots} --threads {arguments.threads}"
            if arguments.policies != list(POLICIES):
                command += f" --policies {' '.join(arguments.policies)}"
            made = head(f"{command} --repetitions {arguments.repetitions}")
            target.write_text(json.dumps({**made, "rows": list(rows.values())}, indent=1) + "\n")


if __name__ == "__main__":
    main()
