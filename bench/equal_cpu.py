"""What an equal price buys: `python bench/equal_cpu.py [--seconds 60 600] [--seeds 3] [--processes 2]`.

Every run is a process of one thread that trains until its CPU seconds, those of imports and compilation included, are
spent, and is then judged by 20 noiseless episodes, which are not counted. Algorithms: ppo and openai-es with the recipe
of the task (or their defaults), sac at its usual replay ratio of 256, and sac-n at replay ratios of 4, 16, 64 and 256,
with a constant learning rate, because the number of steps is not known beforehand. The slots of sac-n are few enough
that the policy changes at least every 64 steps.

A seed counts as failed where it returns less than half of what the best algorithm's median seed returns on that task
for that price. A cell that is in bench/results/equal_cpu.json already is not run again.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from record import head

TARGET = Path(__file__).parent / "results" / "equal_cpu.json"
TASKS = ("HalfCheetah-v5", "Hopper-v5")
FLAT = {"anneal_learning_rate": False}
ALGORITHMS: dict[str, tuple[str, dict]] = {
    "ppo": ("ppo", {}),
    "openai-es": ("openai-es", {}),
    "sac": ("sac", {}),
    **{f"sac-n, ratio {ratio}": ("sac-n", {"replay_ratio": float(ratio), **FLAT}) for ratio in (4, 16, 64, 256)},
}
EPISODES = 20

PROGRAM = """
import json, sys, time
from workhorse.algorithms.recipes import recipe
from workhorse.algorithms.settings import merged_settings
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan

task, algorithm, settings, seed, seconds = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4], sys.argv[5]
found = merged_settings(algorithm, recipe(task, algorithm), settings)
plan = Plan(task, {}, algorithm, found, int(seed))
if algorithm == "ppo":
    plan = plan.with_budget(10**6 if float(seconds) >= 60 else 10**5)
loop = make_loop(plan, plan.spec(), 1)
progress, iterations = loop.start(), 0
while time.process_time() < float(seconds):
    progress, _, _ = loop.iterate(progress)
spent = time.process_time()
found = loop.evaluate(progress, int(sys.argv[6]))
print(json.dumps({"env_steps": int(progress.env_steps), "cpu_s": spent, "returns": found.returns.tolist()}))
"""


def one(task: str, name: str, seed: int, seconds: float) -> dict:
    """Train and judge one seed."""
    algorithm, settings = ALGORITHMS[name]
    words = [sys.executable, "-c", PROGRAM, task, algorithm, json.dumps(settings), str(seed), str(seconds)]
    done = subprocess.run([*words, str(EPISODES)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{task}, {name}, seed {seed}:\n{done.stderr[-4000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    row = {"task": task, "algorithm": name, "seed": seed, "seconds": seconds, "mean": float(np.mean(found["returns"]))}
    print(f"{task} {name} seed {seed}, {seconds:g} s: {row['mean']:.0f} after {found['env_steps']:,}", flush=True)
    return row | {key: found[key] for key in ("env_steps", "cpu_s")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0, 600.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    rows = json.loads(TARGET.read_text())["rows"] if TARGET.exists() else []
    there = {(row["task"], row["algorithm"], row["seed"], row["seconds"]) for row in rows}
    wanted = [
        (task, name, seed, seconds)
        for seconds in arguments.seconds
        for seed in range(arguments.seeds)
        for task in TASKS
        for name in ALGORITHMS
        if (task, name, seed, seconds) not in there
    ]
    made_by = head("python bench/equal_cpu.py")
    with ThreadPoolExecutor(arguments.processes) as pool:
        for row in pool.map(lambda cell: one(*cell), wanted):
            rows.append(row)
            TARGET.write_text(json.dumps({**made_by, "episodes": EPISODES, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
