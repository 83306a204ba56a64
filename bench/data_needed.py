"""Data that evolution strategies need beside TRPO: `python bench/data_needed.py [--seeds 6] [TASK ...]`.

Salimans et al. 2017 (table 1): the ratio of environment steps, evolution strategies over TRPO, at 25, 50, 75 and 100 %
of the score that TRPO has after its budget; "3x to 10x". Here our `trpo` and our `openai-es` with 64-64 networks as
there, each seed an ordinary run in a process of its own; runs that were stopped go on. The score 0 % is that of the
first evaluation. A share that a run never reached within its budget is censored at it, and marked. The results go to
bench/results/data-needed.json.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
from learning import RESULTS, SUITES, result_of, run_seed
from record import head

ES_STEPS = {
    "InvertedDoublePendulum-v5": "2e6",
    "Swimmer-v5": "5e6",
    "HalfCheetah-v5": "5e6",
    "Hopper-v5": "10e6",
    "Walker2d-v5": "10e6",
}
"""Budget of evolution strategies on each task."""
SHARES = (0.25, 0.5, 0.75, 1.0)
OPTIONS = {"trpo": [], "openai-es": ["--policy", "mlp", "--num-pairs", "32", "--learning-rate", "0.02"]}


def suite_of(algorithm: str, task: str) -> str:
    name = f"data-{algorithm}-{task}"
    steps = "1e6" if algorithm == "trpo" else ES_STEPS[task]
    SUITES[name] = [task, "--algorithm", algorithm, "--env-steps", steps, *OPTIONS[algorithm]]
    SUITES[name] += ["--evaluate-every", "50_000", "--evaluation-episodes", "8", "--final-episodes", "10"]
    return name


def steps_to(curve: list[list[float]], level: float) -> float:
    """Environment steps at which a curve of evaluations first is at a level; inf where it never is."""
    return next((float(steps) for steps, score in curve if score >= level), math.inf)


def row_of(task: str, curves: dict[str, list[list[list[float]]]]) -> dict:
    """Return the ratios of median steps at each share of TRPO's score."""
    begin = float(np.mean([curve[0][1] for curve in curves["trpo"]]))
    end = float(np.mean([max(score for _, score in curve) for curve in curves["trpo"]]))
    cells = []
    for share in SHARES:
        level = begin + share * (end - begin)
        steps = {name: [steps_to(curve, level) for curve in found] for name, found in curves.items()}
        medians = {name: float(np.median(values)) for name, values in steps.items()}
        ratio = medians["openai-es"] / medians["trpo"] if math.isfinite(medians["trpo"]) else math.nan
        cells.append({"share": share, "level": level, "steps": steps, "ratio": ratio})
    return {"task": task, "begin": begin, "end": end, "cells": cells}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(ES_STEPS))
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    target = RESULTS / "data-needed.json"
    rows = {row["task"]: row for row in json.loads(target.read_text())["rows"]} if target.exists() else {}
    for task in options.tasks:
        curves = {
            name: [
                result_of(run_seed(suite_of(name, task), seed, options.runs, 1))["curve"]
                for seed in range(options.seeds)
            ]
            for name in OPTIONS
        }
        rows[task] = row_of(task, curves)
        print(task, [(cell["share"], cell["ratio"]) for cell in rows[task]["cells"]], flush=True)
        command = f"python bench/data_needed.py --seeds {options.seeds}"
        target.write_text(json.dumps({**head(command), "rows": list(rows.values())}, indent=1) + "\n")


if __name__ == "__main__":
    main()
