"""Are deep policy gradients policy gradients? `python bench/gradients.py [--runs FOLDER]`.

PPO and TRPO on three tasks, a million steps in iterations of 2,048, and then `diagnose` at iterations 0, 150, 300 and
450 of each run: how far gradient estimates agree, what the value function is worth, what the trust region was. A run
that is there is not trained again, and what was diagnosed is not diagnosed again, so the script may be interrupted.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from workhorse.cli.main import main as workhorse
from workhorse.core.machine import describe_hardware, installed_versions
from workhorse.diagnostics.trust_region import trust_region
from workhorse.runs import checkpoint
from workhorse.runs.folder import RunFolder
from workhorse.runs.history import kept_iterations, opened

TASKS = ("Hopper-v5", "Walker2d-v5", "Humanoid-v5")
ALGORITHMS = {"ppo": [], "trpo+": ["--rollout-steps", "64", "--minibatch-size", "2048"]}
ITERATIONS = (0, 150, 300, 450)
HERE = Path(__file__).parent


def trained(task: str, algorithm: str, seed: int, root: Path) -> Path:
    """A finished run, trained on one thread or gone on with."""
    folder = root / f"{algorithm}-{task.split('-')[0].lower()}-s{seed}"
    status = RunFolder(folder).status()
    if status is not None and status.state == "finished":
        return folder
    if (folder / "manifest.json").exists():
        words = ["resume", str(folder)]
    else:
        words = ["train", task, "--algorithm", algorithm, "--env-steps", "1e6", "--seed", str(seed)]
        words += [*ALGORITHMS[algorithm], "--runs", str(root), "--id", folder.name]
    subprocess.run([sys.executable, "-m", "workhorse.cli.main", *words, "--threads", "1", "--quiet"], check=True)
    return folder


def keep(folder: Path) -> None:
    """Compute the states of the iterations again that the run did not keep, each proved by its digest."""
    with opened(folder) as history:
        for iteration in ITERATIONS:
            if iteration not in kept_iterations(history.folder):
                checkpoint.save(history.folder, iteration, history.at(iteration), {}, "milestones")


def diagnosed(folder: Path, budget: int) -> dict[str, Any]:
    """What `diagnose` finds."""
    keep(folder)
    at = [str(iteration) for iteration in ITERATIONS]
    parts = ["gradients", "values", "baselines"]
    if workhorse(["diagnose", str(folder), "--at", *at, "--only", *parts, "--budget", str(budget)]):
        raise SystemExit(f"{folder} could not be diagnosed.")
    found: dict[str, Any] = {
        part: [json.loads((folder / "diagnostics" / f"{part}-{number}.json").read_bytes()) for number in ITERATIONS]
        for part in parts
    }
    found["trust_region"] = [promise._asdict() for promise in trust_region(RunFolder.open(folder))]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--budget", type=int, default=1_000_000, help="steps of each part at each iteration")
    parser.add_argument("--runs", type=Path, default=Path("runs/gradients"))
    arguments = parser.parse_args()
    jobs = [
        (task, algorithm, seed)
        for task in arguments.tasks
        for algorithm in ALGORITHMS
        for seed in range(arguments.seeds)
    ]
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda job: trained(*job, arguments.runs), jobs))
    rows = []
    for (task, algorithm, seed), folder in zip(jobs, folders, strict=True):
        found = diagnosed(folder, arguments.budget)
        rows.append({"task": task, "algorithm": algorithm, "seed": seed, **found})
    hardware = describe_hardware()
    found = {
        "made_by": f"python bench/gradients.py --seeds {arguments.seeds} --budget {arguments.budget}",
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cpu": hardware.cpu, "cores": hardware.cores},
        "versions": installed_versions(),
        "rows": rows,
    }
    (HERE / "results" / "gradients.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
