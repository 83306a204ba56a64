"""Returns over seeds: `python bench/learning.py SUITE [--seeds 8] [--processes 2]`.

Every seed is an ordinary run in its own single-threaded process (`workhorse train ... --threads 1`), because two such
processes beat one with two threads. A seed that has finished is not run again and one that was stopped is resumed, so
the script may be interrupted at any time. The results go to bench/results/learning-SUITE.json.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from record import head

from workhorse.runs.folder import RunFolder
from workhorse.runs.metrics import read_metrics
from workhorse.statistics.intervals import mean_interval

SUITES: dict[str, list[str]] = {
    "half-cheetah-ars": [
        *("HalfCheetah-v5", "--algorithm", "ars", "--env-steps", "20e6", "--num-directions", "32"),
        *("--num-top-directions", "4", "--noise-std", "0.03", "--learning-rate", "0.02"),
    ],
    "walker2d-pgpe": ["Walker2d-v5", "--algorithm", "pgpe", "--env-steps", "20e6"],
    "humanoid-pgpe": ["Humanoid-v5", "--algorithm", "pgpe", "--env-steps", "93e6"],
    "half-cheetah-lag-1": ["HalfCheetah-v5", "--lag", "1"],
    "half-cheetah-default": ["HalfCheetah-v5"],
    "half-cheetah-openai-es": ["HalfCheetah-v5", "--algorithm", "openai-es"],
    "hopper": ["Hopper-v5", "--env-steps", "7e6"],
    "swimmer": ["Swimmer-v5"],
    "walker2d": ["Walker2d-v5", "--env-steps", "20e6"],
}
SUITES |= {
    f"{name}-{task.split('-')[0].lower()}": [task, "--algorithm", name, "--env-steps", "1e6"]
    for name in ("ppo", "trpo+", "ppo-m", "ppo-noclip", "trpo")
    for task in ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")
}
AS_RELEASED = [
    *("--normalise-observations", "--activation", "tanh", "--normalise-advantages", "minibatch"),
    *("--no-recompute-advantages", "--log-std", "0"),
]
"""Options of the PPO-M that Engstrom et al. 2020 trained; the preset is the one that their paper describes."""
SUITES |= {
    f"ppo-m-released-{task.split('-')[0].lower()}": [
        *(task, "--algorithm", "ppo-m", "--env-steps", "1e6", "--learning-rate", rate, *AS_RELEASED)
    ]
    for task, rate in (("Hopper-v5", "1.7e-4"), ("Walker2d-v5", "1e-4"))
}
OFF_POLICY = {
    "dqn": {"CartPole-v1": "50_000", "Acrobot-v1": "100_000", "MountainCar-v0": "120_000"},
    "ddpg": {"Pendulum-v1": "20_000"},
    "td3": {"Pendulum-v1": "20_000"},
    "sac": {"Pendulum-v1": "20_000", "HalfCheetah-v5": "100_000"},
    "sac-n": {"Pendulum-v1": "20_000", **dict.fromkeys(("Hopper-v5", "HalfCheetah-v5", "Ant-v5"), "100_000")},
}
SUITES |= {
    f"{name}-{task.split('-')[0].lower()}": [
        *(task, "--algorithm", name, "--env-steps", steps, "--final-episodes", "100")
    ]
    for name, budgets in OFF_POLICY.items()
    for task, steps in budgets.items()
}
SUITES["sac-n-hopper-300k"] = ["Hopper-v5", "--algorithm", "sac-n", "--env-steps", "300_000", "--final-episodes", "100"]
RESULTS = Path(__file__).parent / "results"
LAST_STEPS = 50_000


def command_of(suite: str, seed: int, threads: int) -> list[str]:
    return ["workhorse", "train", *SUITES[suite], "--seed", str(seed), "--threads", str(threads)]


def run_seed(suite: str, seed: int, root: Path, threads: int) -> Path:
    """Train or resume one seed to its end."""
    folder = root / f"{suite}-s{seed}"
    status = RunFolder(folder).status()
    program = [sys.executable, "-m", "workhorse.cli.main"]
    if status is not None and status.state == "finished":
        return folder
    if (folder / "manifest.json").exists():
        words = ["resume", str(folder), "--threads", str(threads), "--quiet"]
    else:
        words = [*command_of(suite, seed, threads)[1:], "--quiet", "--runs", str(root), "--id", folder.name]
    subprocess.run([*program, *words], check=True)
    return folder


def training_return(metrics: pl.DataFrame) -> float | None:
    """Mean raw return of a policy gradient's own episodes, noise and all, that ended in the last of its steps."""
    if "episodes" not in metrics.columns:
        return None
    last = metrics.filter((pl.col("env_steps") > pl.col("env_steps").max() - LAST_STEPS) & (pl.col("episodes") > 0))
    return float(np.average(last["training_return"], weights=last["episodes"]))


def result_of(folder: Path) -> dict:
    """Final evaluation and learning curve of a finished run."""
    run = RunFolder.open(folder)
    metrics = read_metrics(folder)
    final = max(run.evaluations.glob("*.json"), key=lambda file: file.stat().st_mtime)
    record = json.loads(final.read_text())
    curve = (
        metrics.filter(metrics["evaluation_return"].is_not_null()) if "evaluation_return" in metrics.columns else None
    )
    return {
        "seed": run.manifest().seed,
        "mean": record["mean"],
        "worst": min(record["returns"]),
        "episodes": len(record["returns"]),
        "training_return": training_return(metrics),
        "env_steps": int(metrics["env_steps"][-1]),
        "wall_s": float(metrics["wall_s"][-1]),
        "failed_episodes": int(metrics["failed_episodes"].sum()),
        "digest": metrics["digest"][-1],
        "curve": []
        if curve is None
        else [[int(s), float(r)] for s, r in zip(curve["env_steps"], curve["evaluation_return"], strict=True)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    with ThreadPoolExecutor(arguments.processes) as pool:
        folders = list(pool.map(lambda seed: run_seed(arguments.suite, seed, arguments.runs, arguments.threads), seeds))
    rows = [result_of(folder) for folder in folders]
    means = np.array([row["mean"] for row in rows])
    interval = mean_interval(means)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"learning-{arguments.suite}.json"
    manifest = RunFolder.open(folders[0]).manifest()
    first = f" --first-seed {arguments.first_seed}" if arguments.first_seed else ""
    target.write_text(
        json.dumps(
            {
                "command": " ".join(command_of(arguments.suite, seeds[0], arguments.threads)),
                **head(f"python bench/learning.py {arguments.suite} --seeds {arguments.seeds}{first}"),
                "configuration": manifest.settings,
                "mean_over_seeds": interval.value,
                "interval": [interval.low, interval.high],
                "runs": rows,
            },
            indent=1,
        )
    )
    print(
        f"{arguments.suite}: mean over {len(rows)} seeds {interval.value:.0f} [{interval.low:.0f}, {interval.high:.0f}]"
    )
    for row in rows:
        print(f"  seed {row['seed']}: {row['mean']:.0f} (worst of {row['episodes']} episodes {row['worst']:.0f})")


if __name__ == "__main__":
    main()
