"""Every evolution strategy on CartPole: `python bench/evolution_classic.py [--first-seed 1000] [--many] [NAME ...]`.

Each is trained with its recipe for the task, or its defaults where there is none, for 100,000 steps on ten seeds that
no setting was chosen on: those from 1000; from 2000 where settings were chosen again after that, and from 3000 where
they were chosen a third time, and from 4000 a fourth. Then the policy is judged by 100 episodes. The results go to
bench/results/evolution-classic.json; the algorithms named are measured anew, the others kept. Ten of ten may be luck:
with `--many` it is 100 seeds from 5000, and bench/results/evolution-classic-many.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from record import head

from workhorse.algorithms import registry
from workhorse.algorithms.recipes import recipe
from workhorse.statistics.intervals import mean_interval
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan

TASK, STEPS, SOLVED = "CartPole-v1", 100_000, 500.0
RESULT = Path(__file__).with_name("results") / "evolution-classic.json"
MANY = RESULT.with_stem("evolution-classic-many")
LEFT_OUT = {"nres": "a window of rewards that are all 1 tells nothing", "ns-es": "the return is not looked at"}


def names() -> list[str]:
    """Algorithms of the folder of evolution strategies and their presets."""
    found = [name for name in registry.entries() if ".evolution." in registry.algorithm_class(name).__module__]
    return [name for name in found if name not in LEFT_OUT]


def train(name: str, seed: int) -> tuple[float, int]:
    """Return the mean return of 100 episodes after training, and the training steps."""
    known = recipe(TASK, name)
    plan = Plan(TASK, {}, name, known.settings if known else {}, seed)
    loop = make_loop(plan, plan.spec(), 1)
    progress = loop.start()
    while True:
        after, *_ = loop.iterate(progress)
        if int(after.env_steps) > STEPS:  # the iteration that would go beyond the budget does not count
            break
        progress = after
    score = loop.evaluate(progress, 100).returns.mean()
    loop.close()
    return float(score), int(progress.env_steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--many", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    target = MANY if options.many else RESULT
    if options.many:
        options.seeds, options.first_seed = 100, 5000
    rows = json.loads(target.read_text())["rows"] if target.exists() and options.names else {}
    for name in options.names or names():
        found = [train(name, seed) for seed in range(options.first_seed, options.first_seed + options.seeds)]
        scores = np.array([score for score, _ in found])
        interval = mean_interval(scores)
        rows[name] = {
            "first_seed": options.first_seed,
            "returns": scores.tolist(),
            "mean": [float(scores.mean()), float(interval.low), float(interval.high)],
            "solved": int((scores >= SOLVED).sum()),
            "env_steps": [steps for _, steps in found],
        }
        print(
            name, [round(score, 1) for score in scores.tolist()], f"{rows[name]['solved']} of {len(found)}", flush=True
        )
        command = f"python bench/evolution_classic.py {'--many' if options.many else f'--seeds {options.seeds}'}"
        target.write_text(json.dumps({**head(command), "left_out": LEFT_OUT, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
