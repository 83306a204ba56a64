"""Measure what each approach earns on each variant: `python bench/labels.py [--approach ppo] [--rivals]`.

Five seeds a variant, with the recipe of the task and the algorithm where there is one; the seeds of one variant share
their compiled programs. What was measured before is not measured again. One file an approach goes to
bench/results/labels/; `python bench/labels.py --gather` makes workhorse/advice/labels.json of them.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np
from record import head

from workhorse.advice.rivals import contenders, run_contender
from workhorse.advice.variants import TaskVariant, task_variants
from workhorse.algorithms.recipes import recipe
from workhorse.environments import registry as environments
from workhorse.environments.protocol import HostEnv
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan

RESULTS = Path(__file__).parent / "results" / "labels"
SEEDS = 5
EPISODES = 50
PLANNERS = ("mppi", "categorical-cem")
"""The planner of each kind of action; two seeds, which are not that of the cards."""
PLAN_SECONDS = 8.0
"""Core-seconds of a seed of a planner, after which it plays no further episode."""
BUDGETS = {"ppo": 300_000, "openai-es": 300_000, "dqn": 50_000, "sac": 20_000}
"""Environment steps where there is no recipe."""


def budget_of(variant: TaskVariant, approach: str) -> tuple[int, dict]:
    """Return the steps and the settings of an approach on a variant, those of the plain task's recipe."""
    known = recipe(variant.task, approach)
    if known is None or known.env_steps is None:
        return BUDGETS[approach], {}
    return min(int(known.env_steps), 1_000_000), dict(known.settings)


def measure(variant: TaskVariant, approach: str) -> dict:
    """Train five seeds and evaluate each at the end."""
    steps, settings = budget_of(variant, approach)
    begun, used, returns, lengths = time.process_time(), [], [], []
    for seed in range(SEEDS):
        plan = Plan(variant.task, variant.options, approach, settings, seed).with_budget(steps)
        env = environments.make(variant.task, 1, 1, **variant.options)
        if isinstance(env, HostEnv):
            env.close()
        loop = make_loop(plan, env.spec, 1)
        try:
            progress = loop.start()
            while int(progress.env_steps) < steps:
                progress, _, _ = loop.iterate(progress)
            found = loop.evaluate(progress, EPISODES)
        finally:
            loop.close()
        used.append(int(progress.env_steps))
        returns.append(float(found.returns.mean()))
        lengths.append(float(found.lengths.mean()))
    return {
        "env_steps": used,
        "returns": returns,
        "lengths": lengths,
        "core_seconds": time.process_time() - begun,
        "settings": settings,
    }


def measure_rivals(variant: TaskVariant, kinds: tuple[str, ...], known: dict) -> dict:
    """Run the rivals of some kinds that were not run before: 5 seeds of searches, 2 of a planner, 1 of others."""
    env = environments.make(variant.task, 1, 1, **variant.options)
    if isinstance(env, HostEnv):
        env.close()
    found = dict(known)
    for contender in contenders(env.spec):
        if contender.kind not in kinds or contender.algorithm in found:
            continue
        if contender.kind == "plan" and contender.algorithm not in PLANNERS:
            continue
        begun, outcomes = time.process_time(), []
        numbers = {"search": range(SEEDS), "plan": range(1, 3)}.get(contender.kind, range(1))
        budget = PLAN_SECONDS if contender.kind == "plan" else float("inf")
        for seed in numbers:
            outcomes.append(
                run_contender(
                    variant.task, variant.options, contender, episodes=20, budget_s=budget, threads=1, seed=seed
                )
            )
            if outcomes[-1].failure and not outcomes[-1].returns:
                break
        returns = [one.interval.value for one in outcomes if one.returns]
        found[contender.algorithm] = {
            "returns": returns if len(returns) == len(numbers) else [],
            "env_steps": [one.steps_before for one in outcomes],
            "planning_steps": [one.steps_per_episode for one in outcomes],
            "core_seconds": time.process_time() - begun,
            "failure": next((one.failure for one in outcomes if one.failure), ""),
        }
    return found


def rivals(variants: list[TaskVariant], kinds: tuple[str, ...]) -> None:
    """Run the rivals of some kinds on every variant."""
    file = RESULTS / f"rivals-{'-'.join(kinds)}.json"
    for variant in variants:
        table = json.loads(file.read_text()) if file.exists() else {**head("labels.py --rivals"), "variants": {}}
        known = table["variants"].get(variant.name, {})
        table["variants"][variant.name] = row = measure_rivals(variant, kinds, known)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(table, indent=1))
        jax.clear_caches()  # Linux gives a process 65,530 mappings, and each program takes some
        told = {name: np.round(np.mean(one["returns"]), 1) if one["returns"] else "-" for name, one in row.items()}
        print(variant.name, told, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rivals", nargs="*", help="kinds of rivals to run instead of learners")
    parser.add_argument("--approach", action="append")
    parser.add_argument("--family", action="append")
    arguments = parser.parse_args()
    wanted = [one for one in task_variants() if not arguments.family or one.family in arguments.family]
    families = list(dict.fromkeys(one.family for one in wanted))
    ranks = {
        name: rank for family in families for rank, name in enumerate(v.name for v in wanted if v.family == family)
    }
    if arguments.rivals is not None:
        rivals(wanted, tuple(arguments.rivals) or ("floor", "linear", "rule", "search"))
        return
    for variant in sorted(wanted, key=lambda one: ranks[one.name]):  # every family gets a share, wherever it is stopped
        for approach in arguments.approach or ["ppo", "openai-es"]:
            file = RESULTS / f"{approach}.json"
            table = json.loads(file.read_text()) if file.exists() else {**head("labels.py"), "variants": {}}
            if variant.name in table["variants"]:
                continue
            table["variants"][variant.name] = row = measure(variant, approach)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(table, indent=1))
            jax.clear_caches()
            print(variant.name, approach, np.round(row["returns"], 1), f"{row['core_seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
