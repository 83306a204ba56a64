"""Two claims about NAF, measured: `python bench/naf.py pendulum|back [--seeds N] [--processes 2]`.

- `pendulum`: "of ten equal runs three work within 200k steps and most of the others by 800k", where a run works that
  returns -100 to -150. Each seed trains NAF on Pendulum-v1; a run works from the first evaluation on (100 episodes,
  every 5,000 steps) that returns at least the threshold, -150, and beside it -200; at -150 it ends, so that whether it
  would have stayed there is not measured. `--variant` changes one thing:
  `plain`, `scaled` (rewards times 0.1), `gaussian` and `precision` (other noise), `unit-norm` (unit-norm weights).
- `back`: "NAF on HalfCheetah ends running on its back". Each seed trains 300,000 steps of NAF, PPO, openai-es or SAC;
  the trained policy then plays 10 episodes in Gymnasium, and the share of steps with the torso more than a quarter turn
  from level is counted.

Seeds that have finished are not run again. Results go to bench/results/naf-PART.json.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium
import numpy as np
from learning import result_of
from record import head

from workhorse.runs.folder import RunFolder
from workhorse.runs.policy import Policy
from workhorse.statistics.intervals import proportion_interval

RESULTS = Path(__file__).parent / "results"
VARIANTS: dict[str, list[str]] = {
    "plain": [],
    "scaled": ["--reward-scale", "0.1"],
    "gaussian": ["--noise", "gaussian"],
    "precision": ["--noise", "precision"],
    "unit-norm": ["--unit-norm"],
}
THRESHOLDS = (-150.0, -200.0)
BACK = {"naf": [], "ppo": [], "openai-es": [], "sac": []}
EPISODES = 10


def trained(root: Path, name: str, words: list[str], seed: int) -> Path:
    """Train or resume one seed to its end; return its folder."""
    folder = root / f"{name}-s{seed}"
    status = RunFolder(folder).status()
    program = [sys.executable, "-m", "workhorse.cli.main"]
    if status is not None and status.state == "finished":
        return folder
    if (folder / "manifest.json").exists():
        words = ["resume", str(folder), "--threads", "1", "--quiet"]
    else:
        words = [
            "train",
            *words,
            "--seed",
            str(seed),
            "--threads",
            "1",
            "--quiet",
            "--runs",
            str(root),
            "--id",
            folder.name,
        ]
    subprocess.run([*program, *words], check=True)
    return folder


def pendulum(arguments: argparse.Namespace) -> dict:
    """Train the seeds of one variant and count those that work, by threshold and number of steps."""
    variant, steps = arguments.variant, arguments.env_steps
    words = ["Pendulum-v1", "--algorithm", "naf", "--env-steps", str(steps), *VARIANTS[variant]]
    words += ["--evaluate-every", "5_000", "--evaluation-episodes", "100", "--final-episodes", "100"]
    words += ["--stop-at-return", str(max(THRESHOLDS))]
    name = f"naf-pendulum-{variant}-{steps}"
    with ThreadPoolExecutor(arguments.processes) as pool:
        folders = list(pool.map(lambda seed: trained(arguments.runs, name, words, seed), range(arguments.seeds)))
    runs = [result_of(folder) for folder in folders]
    found = []
    for threshold in THRESHOLDS:
        first = [next((step for step, mean in run["curve"] if mean >= threshold), None) for run in runs]
        last = sum(run["mean"] >= threshold for run in runs)
        for within in (within for within in (20_000, 50_000, 100_000, 200_000, 400_000, 800_000) if within <= steps):
            worked = sum(step is not None and step <= within for step in first)
            interval = proportion_interval(worked, len(runs))
            found.append(
                {"threshold": threshold, "within": within, "worked": worked, "of": len(runs),
                 "interval": [interval.low, interval.high], "at_the_end": last, "first": first}
            )  # fmt: skip
            print(f"{variant}: {worked} of {len(runs)} reach {threshold:g} within {within:,}", flush=True)
    return {"variant": variant, "env_steps": steps, "counts": found, "runs": runs}


def upside_down(folder: Path, seed: int) -> tuple[float, float]:
    """Share of steps on the back, and mean return, of a trained policy in Gymnasium's own HalfCheetah-v5."""
    policy = Policy.load(RunFolder.open(folder).policy)
    env = gymnasium.make("HalfCheetah-v5")
    turned, steps, total = 0, 0, 0.0
    for episode in range(EPISODES):
        obs, _ = env.reset(seed=1000 * seed + episode)
        over = False
        while not over:
            angle = (obs[1] + np.pi) % (2 * np.pi) - np.pi
            turned, steps = turned + (abs(angle) > np.pi / 2), steps + 1
            obs, reward, terminated, truncated, _ = env.step(policy.predict(obs)[0])
            total, over = total + float(reward), terminated or truncated
    env.close()
    return turned / steps, total / EPISODES


def back(arguments: argparse.Namespace) -> dict:
    """Train the seeds of each algorithm and count steps on the back."""
    rows = []
    for algorithm, options in BACK.items():
        words = ["HalfCheetah-v5", "--algorithm", algorithm, "--env-steps", str(arguments.env_steps), *options]
        name = f"back-{algorithm}-{arguments.env_steps}"
        with ThreadPoolExecutor(arguments.processes) as pool:
            seeds = range(arguments.seeds)
            folders = list(pool.map(lambda seed: trained(arguments.runs, name, words, seed), seeds))  # noqa: B023
        for seed, folder in zip(seeds, folders, strict=True):
            share, mean = upside_down(folder, seed)
            rows.append({"algorithm": algorithm, "seed": seed, "share": share, "mean": mean})
            print(f"{algorithm} seed {seed}: {share:.0%} of steps on its back, return {mean:.0f}", flush=True)
    return {"env_steps": arguments.env_steps, "episodes": EPISODES, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("pendulum", "back"))
    parser.add_argument("--variant", choices=VARIANTS, default="plain")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--env-steps", type=int, default=200_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    arguments = parser.parse_args()
    options = f"{arguments.part} --seeds {arguments.seeds} --env-steps {arguments.env_steps}"
    if arguments.part == "pendulum":
        target = RESULTS / f"naf-pendulum-{arguments.variant}-{arguments.env_steps}.json"
        found = pendulum(arguments)
        options += f" --variant {arguments.variant}"
    else:
        target, found = RESULTS / "naf-back.json", back(arguments)
    target.write_text(json.dumps({**head(f"python bench/naf.py {options}"), **found}, indent=1))


if __name__ == "__main__":
    main()
