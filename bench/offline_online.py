"""From a log into the task: `python bench/offline_online.py [--logs runs/logs] [--hours 1]`.

Two questions. Does a policy from a log get worse when it goes on in the task? Each run learns from the log alone, then
takes `ONLINE` steps in the task and is evaluated every 1,000: a dip is an evaluation that is worse than that at the
start by more than 10 % of what the start is above random actions. How many steps does `rlpd`, which begins with
nothing but has the log beside it, take to a return, beside `sac`? Settings are the defaults but for the sizes of
networks. The results go to bench/results/offline-online.json.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from offline import PROGRAM, RESULTS, TASKS, Cell, make_log
from record import head

from workhorse.core.files import is_there
from workhorse.data.log_folder import read_log_folder
from workhorse.runs.folder import RunFolder
from workhorse.runs.metrics import read_metrics

UPDATES, ONLINE = 20_000, 6_000
SMALL = ("--hidden", "64", "64")
GOING_ON = [Cell("pendulum", "medium", 100_000, name, SMALL) for name in ("iql", "cal-ql", "td3+bc", "sac")]
FROM_NOTHING = ("rlpd", "sac")
THRESHOLD = -200.0
DIP = 0.1


def run(words: list[str], folder: Path) -> RunFolder:
    """Run a command that makes a run folder, unless it is there and finished."""
    status = RunFolder(folder).status()
    if status is None or status.state != "finished":
        words = ["resume", str(folder)] if is_there(folder / "manifest.json") else [*words, "--id", folder.name]
        where = [] if words[0] == "resume" else ["--runs", str(folder.parent)]
        subprocess.run([*PROGRAM, *words, *where, "--threads", "1", "--quiet"], check=True)
    return RunFolder.open(folder)


def last_return(found: RunFolder) -> float:
    """Return the mean of a run's last evaluation."""
    newest = max(found.evaluations.glob("*.json"), key=lambda file: file.stat().st_mtime)
    return json.loads(newest.read_text())["mean"]


def curve(folder: Path) -> list[list[float]]:
    """Return (steps, mean return) of a run's evaluations."""
    metrics = read_metrics(folder)
    seen = metrics.filter(metrics["evaluation_return"].is_not_null())
    return [
        [int(steps), float(value)] for steps, value in zip(seen["env_steps"], seen["evaluation_return"], strict=True)
    ]


def gone_on(cell: Cell, seed: int, arguments: argparse.Namespace) -> dict:
    """Learn from the log, go on in the task, and return both."""
    name = f"{cell.log}-{cell.algorithm}-s{seed}"
    short = cell._replace(updates=UPDATES, every=UPDATES, episodes=20, final=100)
    first = run(short.words(arguments.logs, seed), arguments.runs / f"{name}-first")
    words = ["train", TASKS[cell.task], "--algorithm", cell.algorithm, *cell.options, "--seed", str(seed)]
    words += ["--log", str(arguments.logs / cell.log), "--begin-from", str(first.path), "--warmup-env-steps", "1000"]
    words += ["--env-steps", str(ONLINE), "--evaluate-every", "1000", "--evaluation-episodes", "50"]
    second = run([*words, "--final-episodes", "100"], arguments.runs / f"{name}-second")
    random, begin = read_log_folder(arguments.logs / cell.log).card.references["random"], last_return(first)
    points = curve(second.path)
    worst = min(value for _, value in points)
    return {
        "seed": seed, "begin": begin, "worst": worst, "end": last_return(second), "curve": points,
        "dips": bool(worst < begin - DIP * abs(begin - random)),
    }  # fmt: skip


def from_nothing(algorithm: str, seed: int, arguments: argparse.Namespace) -> dict:
    """Train from nothing, with the log beside it for rlpd, and return the steps to the threshold."""
    words = ["train", "Pendulum-v1", "--algorithm", algorithm, *SMALL, "--seed", str(seed), "--env-steps", "8000"]
    words += ["--warmup-env-steps", "500", "--rollout-steps", "128", "--evaluate-every", "250"]
    words += ["--evaluation-episodes", "20", "--final-episodes", "20", "--stop-at-return", str(THRESHOLD)]
    log = ["--log", str(arguments.logs / "pendulum-medium")] if algorithm == "rlpd" else []
    found = run([*words, *log], arguments.runs / f"{algorithm}-from-nothing-s{seed}")
    points = curve(found.path)
    reached = [steps for steps, value in points if value >= THRESHOLD]
    return {"seed": seed, "steps": reached[0] if reached else None, "curve": points}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=Path, default=Path("runs/logs"))
    parser.add_argument("--runs", type=Path, default=Path("runs/bench-online"))
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    until, make_log_of = time.time() + 3600 * arguments.hours, Cell("pendulum", "medium", 100_000, "iql")
    make_log(make_log_of, arguments.logs, arguments.runs)
    found: dict[str, list[dict]] = {}
    for algorithm in FROM_NOTHING:
        found[f"from nothing, {algorithm}"] = [
            from_nothing(algorithm, seed, arguments) for seed in range(arguments.seeds) if time.time() < until
        ]
    for cell in GOING_ON:
        found[cell.algorithm] = [
            gone_on(cell, seed, arguments) for seed in range(arguments.seeds) if time.time() < until
        ]
    record = {**head("python bench/offline_online.py"), "threshold": THRESHOLD, "dip": DIP, "found": found}
    (RESULTS / "offline-online.json").write_text(json.dumps(record, indent=1) + "\n")
    for name, rows in found.items():
        if name.startswith("from"):
            print(name, [row["steps"] for row in rows])
        else:
            print(
                name, "dips:", sum(row["dips"] for row in rows), "of", len(rows), np.round([r["begin"] for r in rows])
            )


if __name__ == "__main__":
    sys.exit(main())
