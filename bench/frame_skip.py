"""Steps to a threshold against the frame-skip: `python bench/frame_skip.py [--seeds 5] [--processes 2]`.

Salimans et al. 2017 say that evolution strategies do not care how often a policy acts, and policy gradients do, whose
horizon is counted in steps. Here both balance a pole, and two, with networks of two 64-unit layers that act on every
1st to 4th step of the physics; an episode lasts the same simulated time whatever the skip. Settings are the same at
every skip. The measure is the simulated time, the sum over all slots, until an evaluation of 16 episodes, one after
every iteration, first reaches 95 % of the most there is.

Every run is an ordinary one, `workhorse train ... --stop-at-return ... --threads 1`; finished ones are not run again.
"""

import argparse
import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from record import head

from workhorse.runs.folder import RunFolder
from workhorse.runs.metrics import read_metrics

RESULTS = Path(__file__).parent / "results"


class Task(NamedTuple):
    """A balancing task: physics steps of an episode and of the budgets; reward a step; seconds of a physics step."""

    id: str
    episode: int
    budget: dict[str, int]
    reward: float
    physics_seconds: float


TASKS = (
    Task("InvertedPendulum-v5", 2_000, {"openai-es": 1_200_000, "ppo": 1_200_000}, 1.0, 0.02),
    Task("InvertedDoublePendulum-v5", 4_000, {"openai-es": 4_800_000, "ppo": 2_400_000}, 9.3, 0.01),
)
ALGORITHMS = {
    "openai-es": ["--policy", "mlp", "--num-pairs", "16", "--noise-std", "0.1", "--learning-rate", "0.05"],
    "ppo": [],
}
SKIPS = (1, 2, 3, 4)


def threshold(task: Task, skip: int) -> float:
    """The return that counts as balancing."""
    return 0.95 * task.reward * (task.episode // skip)


def train(task: Task, algorithm: str, skip: int, seed: int, root: Path) -> Path:
    """Train or resume one run to the threshold, or to the end of its budget."""
    folder = root / f"skip{skip}-{task.id}-{algorithm}-s{seed}"
    status = RunFolder(folder).status()
    if status is not None and status.state == "finished":
        return folder
    program = [sys.executable, "-m", "workhorse.cli.main"]
    if (folder / "manifest.json").exists():
        words = ["resume", str(folder)]
    else:
        words = ["train", task.id, "--algorithm", algorithm, *ALGORITHMS[algorithm], "--seed", str(seed)]
        words += ["--task-option", f"frame_skip={skip}", "--task-option", f"max_episode_steps={task.episode // skip}"]
        words += ["--env-steps", str(task.budget[algorithm] // skip), "--evaluate-every", "1"]
        words += ["--stop-at-return", str(threshold(task, skip)), "--final-episodes", "1"]
        words += ["--runs", str(root), "--id", folder.name]
    subprocess.run([*program, *words, "--threads", "1", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return folder


def steps_to(goal: float, folder: Path) -> int | None:
    """Training steps at the first evaluation that reaches the goal; None where none does."""
    metrics = read_metrics(folder)
    reached = metrics.filter(metrics["evaluation_return"] >= goal)
    return int(reached["env_steps"][0]) if len(reached) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    arguments = parser.parse_args()
    cells = list(itertools.product(TASKS, ALGORITHMS, SKIPS))
    rows = []
    with ThreadPoolExecutor(arguments.processes) as pool:
        under_way = [
            [pool.submit(train, *cell, seed, arguments.runs) for seed in range(arguments.seeds)] for cell in cells
        ]
        for (task, algorithm, skip), runs in zip(cells, under_way, strict=True):
            found = [steps_to(threshold(task, skip), run.result()) for run in runs]
            seconds = [None if steps is None else steps * skip * task.physics_seconds for steps in found]
            cell = {"task": task.id, "algorithm": algorithm, "skip": skip}
            rows.append(cell | {"simulated_s": seconds, "steps": found})
            print(task.id, algorithm, skip, [None if s is None else round(s) for s in seconds], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "frame-skip.json").write_text(
        json.dumps(
            {
                **head(f"python bench/frame_skip.py --seeds {arguments.seeds}"),
                "settings": ALGORITHMS,
                "tasks": [task._asdict() for task in TASKS],
                "rows": rows,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
