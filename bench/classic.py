"""PPO on the classic tasks, ten seeds of each in one process: `python bench/classic.py [--seeds 10]`.

The seeds are ordinary runs, in a thread each, that share one compiled program. The time is that of the whole process,
from its start to the last evaluation: imports, compilation, training, checkpoints, and 100 episodes of each policy.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import head

SOLVED = {
    "CartPole-v1": 475.0,
    "Pendulum-v1": -200.0,
    "Acrobot-v1": -100.0,
    "MountainCar-v0": -110.0,
    "MountainCarContinuous-v0": 90.0,
}
"""Thresholds of Gymnasium's registry; Pendulum-v1 has none there, and gets one here."""

CHILD = """
import json, sys
from dataclasses import replace
from workhorse.algorithms.recipes import recipe
from workhorse.core.machine import available_cores
from workhorse.runs import train
from workhorse.training.groups import RunGroup, together
from workhorse.training.plan import Plan

task, count, root = sys.argv[1], int(sys.argv[2]), sys.argv[3]
known = recipe(task, "ppo")
plan = Plan(task, {}, "ppo", known.settings, 0).with_budget(known.env_steps)
group = RunGroup({seed: replace(plan, seed=seed) for seed in range(count)}, threads=available_cores())

def one(seed, make):
    _, summary = train.start(
        task=task, algorithm="ppo", settings=known.settings, env_steps=known.env_steps, seed=seed, threads=1,
        root=root, id=f"{task}-s{seed}", recipe=known, make=make,
    )
    return summary.episode_return.value

found = together(group, one)
for outcome in found.values():
    if isinstance(outcome, BaseException):
        raise outcome
print(json.dumps({"env_steps": known.env_steps, "means": [found[seed] for seed in range(count)]}))
"""


def once(task: str, seeds: int) -> tuple[float, dict[str, object]]:
    """Seconds of a process that trains every seed, and what came of them."""
    with tempfile.TemporaryDirectory() as root:
        begun = time.perf_counter()
        command = [sys.executable, "-c", CHILD, task, str(seeds), root]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return seconds, json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5, help="times that CartPole-v1, which has a target, is timed")
    arguments = parser.parse_args()
    rows = []
    for task, solved in SOLVED.items():
        rounds = [once(task, arguments.seeds) for _ in range(arguments.rounds if task == "CartPole-v1" else 1)]
        (found,) = {json.dumps(found) for _, found in rounds}  # the same bits in every round
        row = {"task": task, "solved": solved, "seconds": [seconds for seconds, _ in rounds], **json.loads(found)}
        rows.append(row)
        print(task, [round(seconds, 1) for seconds in row["seconds"]], [round(mean, 1) for mean in row["means"]])

    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "classic.json").write_text(
        json.dumps(
            {
                **head(f"python bench/classic.py --seeds {arguments.seeds} --rounds {arguments.rounds}"),
                "rows": rows,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
