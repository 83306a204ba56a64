"""Processor time to the first iteration, with and without kept programs: `python bench/compile_cache.py [--tasks ...]`.

Each algorithm is started in new processes, in turn with an empty folder of compiled programs and with the one that the
first of these filled. Counted is the processor time of the process, start-up of Python included, until its first
iteration is complete. The digest after it must be the same in all.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from record import head

ALGORITHMS = ("hill-climb", "finite-differences", "ars", "openai-es", "reinforce", "a2c", "ppo", "trpo")
RESULT = Path(__file__).parent / "results" / "compile_cache.json"
PROGRAM = """
import sys, time
from workhorse.algorithms.recipes import recipe
from workhorse.algorithms.settings import merged_settings
from workhorse.runs import train
task, algorithm, root = sys.argv[1:]
class First(train.Observer):
    def iterated(self, row):
        print(time.process_time(), row["digest"], flush=True)
        raise train.StopTraining
settings = merged_settings(algorithm, recipe(task, algorithm), {})
words = {"settings": settings, "env_steps": 10**6, "threads": 1, "root": root, "observer": First()}
try:
    train.start(task=task, algorithm=algorithm, **words)
except train.StopTraining:
    pass
"""


def start(task: str, algorithm: str, kept: Path, root: Path) -> tuple[float, str]:
    """Return the seconds of processor time to the first iteration, and its digest."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    surroundings["WORKHORSE_COMPILE_CACHE"] = str(kept)
    with tempfile.TemporaryDirectory(dir=root) as runs:
        command = [sys.executable, "-c", PROGRAM, task, algorithm, runs]
        done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True)
    seconds, digest = done.stdout.split()
    return float(seconds), digest


def measure(task: str, algorithm: str, rounds: int, root: Path) -> dict:
    """Measure one algorithm on one task."""
    first, second, digests = [], [], set()
    kept = root / f"{task}-{algorithm}"
    for number in range(rounds):
        empty, digest = start(task, algorithm, kept if number == 0 else root / f"{task}-{algorithm}-{number}", root)
        full, again = start(task, algorithm, kept, root)
        first.append(empty)
        second.append(full)
        digests |= {digest, again}
    size = sum(path.stat().st_size for path in kept.rglob("*-cache"))
    count = len(list(kept.rglob("*-cache")))
    found = {"task": task, "algorithm": algorithm, "first_s": first, "second_s": second, "same_bits": len(digests) == 1}
    print(json.dumps(found), flush=True)
    return {**found, "bytes": size, "programs": count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["CartPole-v1", "HalfCheetah-v5"])
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS))
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="workhorse-bench-") as folder:
        rows = [
            measure(task, algorithm, options.rounds, Path(folder))
            for task in options.tasks
            for algorithm in options.algorithms
        ]
    words = f"python bench/compile_cache.py --tasks {' '.join(options.tasks)} --rounds {options.rounds}"
    RESULT.write_text(json.dumps({**head(words), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
