"""Rules and floors of all shipped tasks: `python bench/rules.py [--processes 2] [--tasks Ant-v5 ...] [--into FILE]`.

For each task: random actions, the action zero, the best constant action, the best of a searched family of signed rules,
and the best of searched PID loops where there are at most three. Whatever is chosen is chosen on the initial states of
training episodes and shown on those of evaluations, with Student's 95 % interval over these episodes; the episodes and
steps of the choice are counted and printed beside it. One process a core, each with one thread; the table is meant to
take no more than a minute.
"""

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from record import head

from workhorse.environments.registry import TASKS
from workhorse.robustness.floors import measure_floor
from workhorse.statistics.intervals import mean_interval
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan

RESULT = Path(__file__).parent / "results" / "rules.json"
SEARCHES = ("signed-rules", "pid")
MOST_LOOPS = 3
"""Loops beyond which guessing all of their observations and gains at once is hopeless."""
COSTLY = {"Ant-v5": 16, "HumanoidStandup-v5": 16, "HalfCheetah-v5": 32, "Swimmer-v5": 48}
"""Members of a population on tasks whose first episodes are 1,000 long steps; 96 elsewhere."""
EPISODES = {16: 8, 32: 12, 48: 20, 96: 100}
"""Episodes that are shown, by the members of a population."""
ITERATIONS, LEAST_STEPS = 2, {"classic": 100_000, "mujoco": 20_000}
"""Iterations of each search at least, and steps up to which it goes on, by the kind of task."""


def row(returns: Any, choice: str, trial_episodes: int, trial_steps: int) -> dict[str, Any]:
    """Return the mean and its interval beside what choosing the policy took."""
    found = mean_interval(np.asarray(returns))
    return {
        "mean": found.value,
        "interval": [found.low, found.high],
        "worst": float(np.min(returns)),
        "episodes": len(returns),
        "choice": choice,
        "trial_episodes": trial_episodes,
        "trial_steps": trial_steps,
    }


def searched(task: str, name: str, members: int, episodes: int, seed: int) -> dict[str, Any]:
    """Search with one algorithm, then evaluate what it chose."""
    finalists = members // 4
    sizes = {"num_candidates": members - finalists, "num_finalists": finalists}
    plan = Plan(task, {}, name, sizes, seed)
    loop = make_loop(plan, plan.spec(), 1)
    try:
        progress = loop.start()
        while int(progress.iteration) < ITERATIONS or int(progress.env_steps) < LEAST_STEPS[TASKS[task].kind]:
            progress, _, _ = loop.iterate(progress)
        returns = loop.evaluate(progress, episodes).returns
        words = loop.algorithm.in_words(progress.state)  # type: ignore[attr-defined]
    finally:
        loop.close()
    return row(returns, words, int(progress.iteration) * members, int(progress.env_steps))


def measured(task: str, seed: int) -> dict[str, Any]:
    """Measure one task."""
    begun = time.process_time()
    members = COSTLY.get(task, 96)
    episodes = EPISODES[members]
    floor = measure_floor(task, {}, episodes, seed, threads=1)
    action = ", ".join(f"{value:.3g}" for value in floor.action)
    found = {
        "random": row(floor.random, "", 0, 0),
        "zero": row(floor.nothing, "", 0, 0),
        "constant": row(floor.constant, f"({action})", floor.trial_episodes, floor.trial_steps),
    }
    for name in SEARCHES:
        if name != "pid" or len(floor.action) <= MOST_LOOPS:
            found[name] = searched(task, name, members, episodes, seed)
    return {"task": task, "floor": list(floor.greatest), "core_s": time.process_time() - begun, "rows": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--into", type=Path, default=RESULT)
    arguments = parser.parse_args()
    begun = time.monotonic()
    longest_first = sorted(arguments.tasks, key=lambda task: (task not in COSTLY, task))
    with ProcessPoolExecutor(arguments.processes, multiprocessing.get_context("spawn")) as pool:
        jobs = {task: pool.submit(measured, task, arguments.seed) for task in longest_first}
        tasks = [jobs[task].result() for task in arguments.tasks]
    core_s = sum(task["core_s"] for task in tasks)
    seconds = time.monotonic() - begun
    for task in tasks:
        print(f"{task['task']}, {task['core_s']:.1f} core-seconds, floor: {task['floor'][0]} {task['floor'][1]:.1f}")
        for name, one in task["rows"].items():
            low, high = one["interval"]
            price = f"{one['trial_steps']:,} steps" if one["trial_steps"] else "no trial"
            print(f"  {name:13} {one['mean']:9.1f} [{low:.1f}, {high:.1f}]  {price:>15}  {one['choice']}")
    print(f"{seconds:.0f} s and {core_s:.0f} core-seconds in all")
    record = {
        **head(f"python bench/rules.py --processes {arguments.processes}"),
        "seed": arguments.seed,
        "seconds": seconds,
        "core_s": core_s,
        "tasks": tasks,
    }
    arguments.into.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
