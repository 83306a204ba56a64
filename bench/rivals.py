"""Rivals of every shipped task: `python bench/rivals.py [--task Hopper-v5] [--budget 60 --mujoco-budget 120]`.

Runs what `workhorse rivals TASK` runs, one task after another, and keeps the outcomes as workhorse/advice/rivals.json,
from which the line under each result is read. A task that is there is measured again only if it is named.
"""

import argparse
import json
import time

import numpy as np
from record import head

from workhorse.advice.rivals import run_rivals
from workhorse.advice.store import SHIPPED, TaskRivals
from workhorse.core.machine import describe_hardware
from workhorse.environments.registry import TASKS


def measure(task: str, budget_s: float) -> TaskRivals:
    """Run the rivals of a task on one thread."""
    outcomes = run_rivals(task, {}, budget_s=budget_s, threads=1)
    for one in outcomes:
        print(
            f"  {one.contender.algorithm:<20}", f"{one.interval.value:,.1f}" if one.returns else one.failure, flush=True
        )
    floors = [one.interval.value for one in outcomes if one.contender.kind == "floor" and one.returns]
    hardware = describe_hardware()
    return TaskRivals(
        task,
        {},
        budget_s,
        float(np.max(floors)),
        tuple(outcomes),
        f"workhorse rivals {task} --budget {budget_s:g} --threads 1",
        time.strftime("%Y-%m-%d"),
        f"{hardware.cores} cores of {hardware.cpu}",
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", action="append")
    parser.add_argument("--budget", type=float, default=60.0)
    parser.add_argument("--mujoco-budget", type=float, default=200.0)
    arguments = parser.parse_args()
    for task in arguments.task or TASKS:
        table = json.loads(SHIPPED.read_text()) if SHIPPED.exists() else {**head("rivals.py"), "tasks": []}
        known = {row["task"]: row for row in table["tasks"]}
        if task in known and not arguments.task:
            continue
        print(task, flush=True)
        is_mujoco = TASKS[task].kind == "mujoco"
        known[task] = measure(task, arguments.mujoco_budget if is_mujoco else arguments.budget).record()
        table["tasks"] = [known[name] for name in TASKS if name in known]
        SHIPPED.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
