"""Steps to a threshold against the frame-skip: `python bench/frame_skip.py [--seeds 5] [--processes 2]`.

Salimans et al. 2017 say that evolution strategies do not care how often a policy acts, and policy gradients do, whose
horizon is counted in steps. Here both balance a pole, and two, acting on every 1st to 4th step of the physics; an
episode lasts the same simulated time whatever the skip. Settings are the same at every skip. The measure is the
simulated time, the sum over all slots, until an evaluation of 16 episodes first reaches 95 % of the most there is.

Every run is an ordinary one, `workhorse train ... --threads 1`; finished ones are not run again.
"""

import argparse
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
    """A balancing task: physics steps of an episode, of an evaluation's interval, of the budgets; reward a step."""

    id: str
    episode: int
    budget: dict[str, int]
    interval: int
    reward: float
    physics_seconds: float


TASKS = (
    Task("InvertedPendulum-v5", 2_000, {"openai-es": 6_000_000, "ppo": 1_200_000}, 20_000, 1.0, 0.02),
    Task("InvertedDoublePendulum-v5", 4_000, {"openai-es": 9_600_000, "ppo": 2_400_000}, 80_000, 9.3, 0.01),
)
ALGORITHMS = {
    "openai-es": ["--num-pairs", "16", "--noise-std", "0.1", "--learning-rate", "0.05"],
    "ppo": [],
}
SKIPS = (1, 2, 3, 4)


def train(task: Task, algorithm: str, skip: int, seed: int, root: Path) -> Path:
    """Train or resume one run to its end."""
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
        words += ["--env-steps", str(task.budget[algorithm] // skip), "--evaluate-every", str(task.interval // skip)]
        words += ["--final-episodes", "16", "--runs", str(root), "--id", folder.name]
    subprocess.run([*program, *words, "--threads", "1", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return folder


def physics_steps_to(threshold: float, folder: Path, skip: int) -> int | None:
    """Training steps times the skip at the first evaluation that reaches it; None where none does."""
    metrics = read_metrics(folder)
    if "evaluation_return" not in metrics.columns:
        return None
    reached = metrics.filter(metrics["evaluation_return"] >= threshold)
    return int(reached["env_steps"][0]) * skip if len(reached) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    arguments = parser.parse_args()
    rows = []
    with ThreadPoolExecutor(arguments.processes) as pool:
        for task in TASKS:
            for algorithm in ALGORITHMS:
                for skip in SKIPS:
                    runs = pool.map(
                        lambda seed, given=(task, algorithm, skip): train(*given, seed, arguments.runs),
                        range(arguments.seeds),
                    )
                    threshold = 0.95 * task.reward * (task.episode // skip)
                    found = [physics_steps_to(threshold, folder, skip) for folder in runs]
                    seconds = [None if steps is None else steps * task.physics_seconds for steps in found]
                    row = {"task": task.id, "algorithm": algorithm, "skip": skip, "simulated_s": seconds}
                    rows.append(row | {"steps": [None if steps is None else steps // skip for steps in found]})
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
