"""Learning from logs over seeds: `python bench/offline.py SUITE [--logs runs/logs] [--processes 2] [--hours 3]`.

A suite is a list of cells, each a log, an algorithm and its options; every seed of a cell is an ordinary run in its own
single-threaded process (`workhorse offline ...`). Cells are done in their order until the hours are spent; a seed that
has finished is not run again, so that the script may be interrupted and begun anew. What was not measured is printed
with the command. Logs that are missing are made by `workhorse dataset make` from the runs of `RUNS`. The results go to
bench/results/offline-SUITE.json.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from record import head

from workhorse.core.files import is_there
from workhorse.data.log_folder import read_log_folder
from workhorse.runs.folder import RunFolder
from workhorse.runs.metrics import read_metrics

RESULTS = Path(__file__).parent / "results"
PROGRAM = [sys.executable, "-m", "workhorse"]
TASKS = {"pendulum": "Pendulum-v1", "hopper": "Hopper-v5", "halfcheetah": "HalfCheetah-v5", "walker2d": "Walker2d-v5"}
RUNS = {
    "pendulum": "Pendulum-v1 --algorithm sac --env-steps 20000 --seed 101",
    "hopper": "Hopper-v5 --algorithm sac-n --env-steps 100000 --seed 101",
    "halfcheetah": "HalfCheetah-v5 --algorithm sac-n --env-steps 100000 --seed 101",
    "walker2d": "Walker2d-v5 --algorithm sac-n --env-steps 100000 --seed 101",
}
"""The run that each task's logs are made from."""

KINDS = ("medium", "medium-replay", "medium-expert")
ALGORITHMS = ("bc", "td3+bc", "iql", "rebrac", "cql", "bcq", "bear")
MEASURES = (
    "data_value", "policy_value", "action_gap", "return_gap", "above_bound", "value_bound", "outside_support",
    "held_out_error", "trained_error",
)  # fmt: skip


class Cell(NamedTuple):
    """A log by task, kind and steps; an algorithm, its options, and how long."""

    task: str
    kind: str
    steps: int
    algorithm: str
    options: tuple[str, ...] = ()
    updates: int = 100_000
    every: int = 10_000
    episodes: int = 10
    final: int = 20

    @property
    def log(self) -> str:
        return f"{self.task}-{self.kind}" + ("" if self.steps == 100_000 else f"-{self.steps}")

    def words(self, logs: Path, seed: int) -> list[str]:
        return [
            "offline", str(logs / self.log), "--algorithm", self.algorithm, *self.options, "--evaluate-on",
            TASKS[self.task], "--updates", str(self.updates), "--evaluate-every", str(self.every),
            "--evaluation-episodes", str(self.episodes), "--final-episodes", str(self.final), "--seed", str(seed),
        ]  # fmt: skip


NAIVE = ("--hidden", "64", "64", "--learning-rate", "1e-3")
SMALL = ("--hidden", "64", "64")
PHENOMENON = [
    Cell("pendulum", "expert", steps, "ddpg", NAIVE, updates=30_000, every=1_000, episodes=20, final=20)
    for steps in (100_000, 1_000_000)
]
SUITES: dict[str, tuple[list[Cell], range]] = {
    "phenomenon": (PHENOMENON, range(1, 11)),
    "phenomenon-cured": ([cell._replace(algorithm="td3+bc") for cell in PHENOMENON[:1]], range(3)),
    **{
        f"{task}-{kind}": ([Cell(task, kind, 100_000, name, SMALL) for name in ALGORITHMS], range(3))
        for task in ("hopper", "halfcheetah", "walker2d")
        for kind in KINDS
    },
}
"""Cells, and the seeds. Settings of `phenomenon` were looked at on seed 0, which is not shown. The others are defaults
but for the size of the networks, so that a core is enough."""


def make_log(cell: Cell, logs: Path, root: Path) -> None:
    """Make a cell's log where it is missing, and the run that it is made from."""
    if is_there(logs / cell.log):
        return
    run = root / f"{cell.task}-source"
    if not is_there(run):
        subprocess.run(
            [*PROGRAM, "train", *RUNS[cell.task].split(), "--threads", "1", "--runs", str(root), "--id", run.name],
            check=True,
        )
    words = [
        "dataset",
        "make",
        TASKS[cell.task],
        "--kind",
        cell.kind,
        "--from-run",
        str(run),
        "--steps",
        str(cell.steps),
    ]
    subprocess.run([*PROGRAM, *words, "--medium", "0.25", "--threads", "1", "--out", str(logs / cell.log)], check=True)


def folder_of(cell: Cell, seed: int, root: Path) -> Path:
    return root / f"{cell.log}-{cell.algorithm}-s{seed}"


def run_seed(cell: Cell, seed: int, arguments: argparse.Namespace, until: float) -> Path | None:
    """Train or resume one seed to its end, and return its folder; None where the hours are spent."""
    folder = folder_of(cell, seed, arguments.runs)
    status = RunFolder(folder).status()
    if status is not None and status.state == "finished":
        return folder
    if time.time() > until:
        return None
    if is_there(folder / "manifest.json"):
        words = ["resume", str(folder)]
    else:
        words = [*cell.words(arguments.logs, seed), "--runs", str(arguments.runs), "--id", folder.name]
    subprocess.run([*PROGRAM, *words, "--threads", "1", "--quiet"], check=True)
    return folder


def result_of(folder: Path) -> dict:
    """Return the evaluations of a finished run, and its measures over training."""
    run, metrics = RunFolder.open(folder), read_metrics(folder)
    final = max(run.evaluations.glob("*.json"), key=lambda file: file.stat().st_mtime)
    record = json.loads(final.read_text())
    seen = metrics.filter(metrics["evaluation_return"].is_not_null())
    return {
        "seed": run.manifest().seed,
        "final": record["mean"],
        "best": float(seen["evaluation_return"].max()),  # type: ignore[arg-type]
        "curve": [[int(a), float(b)] for a, b in zip(seen["env_steps"], seen["evaluation_return"], strict=True)],
        "measures": {name: [float(value) for value in seen[name]] for name in MEASURES if name in seen.columns},
        "wall_s": float(metrics["wall_s"][-1]),
        "updates": int(metrics["env_steps"][-1]),
        "digest": metrics["digest"][-1],
    }


def cell_result(cell: Cell, seeds: range, folders: list[Path | None], logs: Path) -> dict:
    """Return what was found in a cell, with its log's references."""
    card = read_log_folder(logs / cell.log).card
    return {
        "log": cell.log, "digest": card.digest, "log_return": card.returns["mean"], "references": card.references,
        "algorithm": cell.algorithm, "task": TASKS[cell.task],
        "command": "workhorse " + " ".join(cell.words(Path("runs/logs"), seeds[0])),
        "runs": [result_of(folder) for folder in folders if folder is not None],
        "not_measured": [seed for seed, folder in zip(seeds, folders, strict=True) if folder is None],
    }  # fmt: skip


def fell(run: dict, floor: float) -> bool:
    """Tell whether a run's return came up and then fell: the last keeps less than .8 of the gain over the floor."""
    returns = np.array([value for _, value in run["curve"]])
    gain = returns.max() - floor
    return bool(gain > 0 and returns[-1] - floor < 0.8 * gain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--logs", type=Path, default=Path("runs/logs"))
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--algorithms", nargs="+", help="only these of the suite; the results of others are kept")
    arguments = parser.parse_args()
    cells, seeds = SUITES[arguments.suite]
    seeds = seeds if arguments.seeds is None else range(arguments.seeds)
    if arguments.algorithms:
        cells = [cell for cell in cells if cell.algorithm in arguments.algorithms]
    until = time.time() + 3600 * arguments.hours
    for cell in cells:
        make_log(cell, arguments.logs, arguments.runs)
    work = [(cell, seed) for cell in cells for seed in seeds]
    with ThreadPoolExecutor(arguments.processes) as pool:
        folders = list(pool.map(lambda one: run_seed(one[0], one[1], arguments, until), work))
    found = {
        (cell.log, cell.algorithm): [folder for (one, _), folder in zip(work, folders, strict=True) if one == cell]
        for cell in cells
    }
    rows = [cell_result(cell, seeds, found[cell.log, cell.algorithm], arguments.logs) for cell in cells]
    if arguments.suite.startswith("phenomenon"):
        for row in rows:
            row["fell"] = [fell(run, row["references"]["random"]) for run in row["runs"]]
    made_by = f"python bench/offline.py {arguments.suite}"
    record = {**head(made_by), "seeds": list(seeds), "cells": rows}
    RESULTS.mkdir(exist_ok=True)
    target, done = RESULTS / f"offline-{arguments.suite}.json", {(row["log"], row["algorithm"]) for row in rows}
    if arguments.algorithms and target.exists():
        before = json.loads(target.read_text())["cells"]
        record["cells"] = [row for row in before if (row["log"], row["algorithm"]) not in done] + rows
    target.write_text(json.dumps(record, indent=1) + "\n")
    for row in rows:
        finals = [run["final"] for run in row["runs"]]
        print(row["log"], row["algorithm"], [round(value, 1) for value in finals], "not measured:", row["not_measured"])
        if "fell" in row:
            print("  fell", sum(row["fell"]), "of", len(row["fell"]))


if __name__ == "__main__":
    main()
