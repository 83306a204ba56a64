"""Success over seeds against the steps of an iteration, at equal total steps: `python bench/batch_size.py`.

PPO in rollouts of 64 steps of N / 64 slots, with minibatches of a quarter of them and four epochs: a run of N steps an
iteration makes total / N sets of 16 updates. Totals differ by less than one iteration of the largest size. Beside each
size is what the gradient meter measured in those runs: the noise scale B, added up over iterations and seeds, and the
mean cosine 1 / (1 + B / N) it means; and what the B of one size, 2,048, predicts for all. One step size for all, and
one that grows with the square root of the batch.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from record import head

HERE = Path(__file__).parent
SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384)
ROLLOUT_STEPS = 64
TASKS = {
    "CartPole-v1": (475.0, 100_000, {"hidden": (32, 32), "learning_rate": 2e-3}),
    "Pendulum-v1": (
        -200.0,
        200_000,
        {"learning_rate": 1e-3, "discount": 0.95, "log_std": 0.5, "rescale_actions": False},
    ),
    "Acrobot-v1": (-100.0, 150_000, {"learning_rate": 1e-3, "trace": 0.94}),
}
"""Thresholds as in `classic.py`; half of the recipes' steps or a little more, so that not every seed makes it."""

CHILD = """
import json, sys
from dataclasses import replace
from workhorse.core.machine import available_cores
from workhorse.runs import train
from workhorse.runs.metrics import read_metrics
from workhorse.training.groups import RunGroup, together
from workhorse.training.plan import Plan

task, settings, env_steps, count, root = json.loads(sys.argv[1])
plan = Plan(task, {}, "ppo", settings, 0).with_budget(env_steps)
group = RunGroup({seed: replace(plan, seed=seed) for seed in range(count)}, threads=available_cores())

def one(seed, make):
    folder, summary = train.start(
        task=task, algorithm="ppo", settings=settings, env_steps=env_steps, seed=seed, threads=1, root=root,
        id=f"s{seed}", make=make, schedule=train.Schedule(milestones=0),
    )
    metrics = read_metrics(folder)
    return summary.episode_return.value, metrics["gradient_signal"].mean(), metrics["gradient_noise"].mean()

found = together(group, one)
for outcome in found.values():
    if isinstance(outcome, BaseException):
        raise outcome
print(json.dumps([found[seed] for seed in range(count)]))
"""


def measured(task: str, size: int, scaled: bool, seeds: int) -> dict:
    """The seeds of one task and size."""
    _, env_steps, usual = TASKS[task]
    env_steps -= env_steps % size  # whole iterations
    rollout = {"num_envs": size // ROLLOUT_STEPS, "rollout_steps": ROLLOUT_STEPS}
    settings = {**usual, **rollout, "minibatch_size": size // 4, "num_epochs": 4}
    if scaled:
        settings["learning_rate"] *= (size / 1024) ** 0.5
    with tempfile.TemporaryDirectory() as root:
        asked = json.dumps([task, settings, env_steps, seeds, root])
        done = subprocess.run([sys.executable, "-c", CHILD, asked], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    means, signals, noises = zip(*json.loads(done.stdout.strip().splitlines()[-1]), strict=True)
    return {"task": task, "size": size, "scaled": scaled, "means": means, "signals": signals, "noises": noises}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    arguments = parser.parse_args()
    rows = []
    for task in arguments.tasks:
        for scaled in (False, True):
            for size in SIZES:
                rows.append(measured(task, size, scaled, arguments.seeds))
                good = sum(mean >= TASKS[task][0] for mean in rows[-1]["means"])
                print(task, size, "scaled" if scaled else "same", f"{good} of {arguments.seeds}", flush=True)

    found = {
        **head(f"python bench/batch_size.py --seeds {arguments.seeds}"),
        "tasks": {task: {"solved": TASKS[task][0], "env_steps": TASKS[task][1]} for task in arguments.tasks},
        "rows": rows,
    }
    (HERE / "results" / "batch_size.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
