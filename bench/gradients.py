"""Are deep policy gradients policy gradients? `python bench/gradients.py [--runs FOLDER]`.

PPO and TRPO on three tasks, a million steps in iterations of 2,048, and then `diagnose` at iterations 0, 150, 300 and
450 of each run: how far gradient estimates agree, what the value function is worth, what the trust region was. A run
that is there is not trained again, and what was diagnosed is not diagnosed again, so the script may be interrupted.
The page docs/gradients.md and its figure are made of the results by `python bench/gradients.py --page`.
"""

import argparse
import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gradients_page import write_page
from record import head

from workhorse.cli.main import main as workhorse
from workhorse.diagnostics.trust_region import trust_region
from workhorse.runs import checkpoint
from workhorse.runs.folder import RunFolder
from workhorse.runs.history import kept_iterations, opened

TASKS = ("Hopper-v5", "Walker2d-v5", "Humanoid-v5")
ALGORITHMS = {"ppo": [], "trpo+": ["--rollout-steps", "64", "--minibatch-size", "2048"]}
ITERATIONS = (0, 150, 300, 450)
BUDGETS = {
    "else": {
        "gradients": ["--budget", "1_000_000"],
        "values": ["--budget", "1_000_000"],
        "baselines": ["--budget", "600_000"],
        "landscape": ["--grid", "5", "--pairs", "20_000"],
    },
    "Humanoid-v5": {"gradients": ["--budget", "400_000"]},
}
"""Steps at an iteration for each part. Where the simulator is slow, fewer, and the gradients alone."""

MOST_SEEDS = {"Humanoid-v5": 1}
HERE = Path(__file__).parent
RESULT = HERE / "results" / "gradients.json"


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
                checkpoint.save(history.folder, iteration, history.at(iteration), {}, "milestones", later="kept")


def diagnose(folder: Path) -> None:
    """Every part at every iteration; what was diagnosed is not diagnosed again."""
    keep(folder)
    budgets = BUDGETS.get(RunFolder.open(folder).manifest().task, BUDGETS["else"])
    at = ["--at", *map(str, ITERATIONS), "--threads", "1"]
    for part, words in budgets.items():
        if workhorse(["diagnose", str(folder), *at, "--only", part, *words]):
            raise SystemExit(f"{folder} could not be diagnosed.")


def measured(task: str, algorithm: str, seed: int, root: Path) -> dict[str, Any]:
    """A run and what was found of it, in a process of its own."""
    folder = trained(task, algorithm, seed, root)
    done = subprocess.run([sys.executable, __file__, "--run", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{folder}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    found: dict[str, Any] = {"task": task, "algorithm": algorithm, "seed": seed}
    for part in BUDGETS.get(task, BUDGETS["else"]):
        files = [folder / "diagnostics" / f"{part}-{number}.json" for number in ITERATIONS]
        found[part] = [json.loads(file.read_bytes()) for file in files]
    found["trust_region"] = [promise._asdict() for promise in trust_region(RunFolder.open(folder))]
    print(folder.name, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/gradients"))
    parser.add_argument("--page", action="store_true", help="only write the page of what was measured")
    parser.add_argument("--run", type=Path, help="only diagnose this run")
    arguments = parser.parse_args()
    if arguments.run:
        diagnose(arguments.run)
        return
    if not arguments.page:
        jobs = [
            (task, algorithm, seed)
            for seed in range(arguments.seeds)
            for task in TASKS
            for algorithm in ALGORITHMS
            if seed < MOST_SEEDS.get(task, seed + 1)
        ]
        with ThreadPoolExecutor(2) as pool:
            try:
                rows = list(pool.map(measured, *zip(*jobs, strict=True), itertools.repeat(arguments.runs)))
            except SystemExit:
                pool.shutdown(cancel_futures=True)
                raise
        order = [(task, algorithm) for task in TASKS for algorithm in ALGORITHMS]
        rows.sort(key=lambda row: order.index((row["task"], row["algorithm"])))
        found = {**head(f"python bench/gradients.py --seeds {arguments.seeds}"), "rows": rows}
        RESULT.write_text(json.dumps(found, separators=(",", ":")))
    write_page(json.loads(RESULT.read_text()))


if __name__ == "__main__":
    main()
