"""Settings tried on Humanoid-v5, one seed each: `python bench/humanoid_arms.py [--env-steps 1.5e6] [--read]`.

Each arm changes what the recipe of `pgpe` sets, or the search itself, and runs on one thread; an arm that was stopped
goes on. What is told is the mean return of the population, the bonus for being alive included whatever the search was
given, over the iterations that end within 100,000 steps before a mark. One seed says where to look, not what is better.
`--read` trains nothing. The results go to bench/results/humanoid-arms.json.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from learning import RESULTS
from record import head

from workhorse.core.errors import UsageError
from workhorse.runs.metrics import read_metrics

MARKS = (200_000, 500_000, 1_000_000, 1_500_000, 2_500_000, 4_500_000, 17_000_000)
WINDOW = 100_000

PARTS = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
FEW = [word for part in PARTS for word in ("--task-option", f"include_{part}_in_observation=False")]
"""Positions and velocities alone: 45 of the 348 observations. The reward is the same."""
ALIVE, HALF_ALIVE = ["--alive-bonus", "0"], ["--alive-bonus", "2.5"]
SMALL = ["--num-pairs", "50", "--max-pairs", "200", "--steps-per-iteration", "15000"]
QUICK = [*SMALL, "--max-speed", "0.1", "--learning-rate", "0.075"]
WIDE = [*SMALL, "--max-speed", "0.2", "--learning-rate", "0.15", "--radius", "1.08"]
DIRECTIONS = ["--num-directions", "230", "--num-top-directions", "230"]
ARS = ["--algorithm", "ars", *DIRECTIONS, "--noise-std", "0.0075", "--learning-rate", "0.02"]
MA_ES = ["--algorithm", "ma-es", "--linear-bias", "--population-size", "150", "--noise-std", "0.03"]
FLOOR = ["--observation-floor", "0.1"]


class Arm(NamedTuple):
    """Settings that are tried: the name of their run, and their options beside those of the task's recipe."""

    name: str
    options: list[str]
    seed: int = 100


ARMS = {
    "`pgpe`, the recipe": Arm("recipe", [], 0),
    "the bonus for being alive kept": Arm("bonus", ALIVE),
    "half of the bonus kept": Arm("half-bonus", HALF_ALIVE),
    "15,000 steps an iteration, bonus kept": Arm("small-bonus", [*SMALL, *ALIVE]),
    "15,000 steps, speed 0.1": Arm("quick", QUICK),
    "45 observations, 15,000 steps, bonus kept": Arm("few-small-bonus", [*FEW, *SMALL, *ALIVE]),
    "45 observations, 15,000 steps, speed 0.1, bonus kept": Arm("few-quick-bonus", [*FEW, *QUICK, *ALIVE]),
    "45 observations, 15,000 steps, speed 0.1, half of the bonus": Arm("few-quick-half", [*FEW, *QUICK, *HALF_ALIVE]),
    "45 observations, 15,000 steps, speed 0.1": Arm("few-quick", [*FEW, *QUICK]),
    "45 observations, 15,000 steps, speed 0.2, twice the noise": Arm("few-wide", [*FEW, *WIDE]),
    "45 observations, `ma-es` with 150 members": Arm("few-ma-es", [*FEW, *MA_ES, *FLOOR, "--alive-bonus", "5"]),
    "`ars` as published": Arm("ars", [*ARS, *FLOOR, "--alive-bonus", "5"]),
    "`ars` as published, bonus kept": Arm("ars-bonus", [*ARS, *FLOOR, *ALIVE]),
}


def folder_of(arm: Arm, root: Path) -> Path:
    """Return the run of an arm: of the recipe that of `learning.py humanoid-pgpe`, where it is there."""
    long = root / "humanoid-pgpe-s0"
    return long if arm.name == "recipe" and long.exists() else root / arm.name


def train(arm: Arm, root: Path, env_steps: str) -> None:
    """Train an arm, or go on with it, until its budget, where it is not that far."""
    folder = folder_of(arm, root)
    if (folder / "metrics.parquet").exists() and read_metrics(folder)["env_steps"][-1] >= float(env_steps):
        return
    if (folder / "manifest.json").exists():
        words = ["resume", str(folder), "--threads", "1", "--quiet"]
    else:
        chosen = arm.options if "--algorithm" in arm.options else ["--algorithm", "pgpe", *arm.options]
        words = ["train", "Humanoid-v5", *chosen, "--seed", str(arm.seed), "--env-steps", env_steps, "--threads", "1"]
        words += ["--evaluate-every", "1e6", "--final-episodes", "10", "--quiet"]
        words += ["--runs", str(root), "--id", arm.name]
    subprocess.run([sys.executable, "-m", "workhorse.cli.main", *words], check=True)


def row_of(what: str, arm: Arm, root: Path) -> dict | None:
    """Return the population's mean return at each mark; None where the run, or the mark, is not there."""
    try:
        metrics = read_metrics(folder_of(arm, root))
    except UsageError:
        return None
    cells = []
    for mark in MARKS:
        near = metrics.filter((metrics["env_steps"] > mark - WINDOW) & (metrics["env_steps"] <= mark))
        beyond = int(metrics["env_steps"][-1]) >= mark
        cells.append(float(near["training_return"].mean()) if beyond and len(near) else None)  # type: ignore[arg-type]
    length = float(metrics["episode_length"][-1])
    steps = int(metrics["env_steps"][-1])
    return {"arm": what, "seed": arm.seed, "returns": cells, "steps": steps, "length": length}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-steps", default="1.5e6")
    parser.add_argument("--read", action="store_true", help="train nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    rows = []
    for what, arm in ARMS.items():
        if not options.read:
            train(arm, options.runs, options.env_steps)
        row = row_of(what, arm, options.runs)
        if row is not None:
            rows.append(row)
            print(row, flush=True)
    command = f"python bench/humanoid_arms.py --env-steps {options.env_steps}"
    record = {**head(command), "marks": MARKS, "rows": rows}
    (RESULTS / "humanoid-arms.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
