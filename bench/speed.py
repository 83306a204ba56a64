"""Training speed of two checkouts in turn: `python bench/speed.py OLD NEW [--rounds 5]`.

Each round trains every pair of algorithm and task once by the old checkout and once by the new one, with its recipe,
one seed, and a thread a core, so that what else the machine does falls on both alike. A run's speed is the median over
its iterations of the environment steps per second that its metrics tell; the first three iterations, in which programs
are compiled, are left out, and so are evaluations and checkpoints. Where checkouts compute the same bits, their
iterations are the same work. The ratio new / old is taken round by round, its interval is Student's over the rounds.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import polars
from parity import workhorse
from record import head

from workhorse.statistics.intervals import mean_interval

BUDGETS = {
    ("openai-es", "HalfCheetah-v5"): 600_000,
    ("openai-es", "CartPole-v1"): 10_000_000,
    ("ppo", "HalfCheetah-v5"): 150_000,
    ("ppo", "CartPole-v1"): 600_000,
}
"""Environment steps of a run: 30 iterations or more."""

COMPILING = 3
"""Iterations at the beginning that are left out."""

RESULT = Path(__file__).parent / "results" / "speed.json"


def timed(checkout: Path, algorithm: str, task: str, env_steps: int) -> dict[str, float]:
    """Train once; return the median steps per second, the iterations it is of, and the seconds of the whole process."""
    with tempfile.TemporaryDirectory() as runs:
        begun = time.perf_counter()
        workhorse(
            checkout,
            *("train", task, "--algorithm", algorithm, "--env-steps", str(env_steps), "--quiet"),
            *("--evaluate-every", "0", "--final-episodes", "1", "--runs", runs, "--id", "timed"),
        )
        seconds = time.perf_counter() - begun
        speeds = polars.read_parquet(Path(runs) / "timed" / "metrics.parquet")["steps_per_second"][COMPILING:]
    if speeds.is_empty():
        raise SystemExit(f"{algorithm} on {task} did no more than {COMPILING} iterations: raise --share.")
    return {"steps_per_second": float(np.median(speeds)), "iterations": len(speeds), "process_s": seconds}


def commit(checkout: Path) -> str:
    """Return the commit of a checkout, for the record."""
    words = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def compared(rounds: list[dict[str, dict[str, float]]]) -> dict[str, float]:
    """Return the mean of new / old over rounds, with its interval."""
    found = mean_interval(np.array([row["new"]["steps_per_second"] / row["old"]["steps_per_second"] for row in rounds]))
    return {"value": found.value, "low": found.low, "high": found.high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="at least 3, for an interval")
    parser.add_argument("--share", type=float, default=1.0, help="of the environment steps of every run")
    parser.add_argument("--into", type=Path, default=RESULT)
    given = parser.parse_args()
    checkouts = {"old": given.old.resolve(), "new": given.new.resolve()}
    rounds: dict[tuple[str, str], list[dict[str, dict[str, float]]]] = {pair: [] for pair in BUDGETS}
    for number in range(given.rounds):
        for pair, env_steps in BUDGETS.items():
            row = {name: timed(place, *pair, round(given.share * env_steps)) for name, place in checkouts.items()}
            rounds[pair].append(row)
            said = ", ".join(f"{name} {run['steps_per_second']:,.0f}" for name, run in row.items())
            print(f"round {number + 1}, {' on '.join(pair)}: {said} steps/s", flush=True)
    rows = [
        {"algorithm": algorithm, "task": task, "ratio": compared(found), "rounds": found}
        for (algorithm, task), found in rounds.items()
    ]
    print(f"\n{'algorithm':<10} {'task':<15} {'old':>10} {'new':>10}  new / old [95 %]")
    for row in rows:
        old, new = (np.median([run[name]["steps_per_second"] for run in row["rounds"]]) for name in checkouts)
        ratio = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**row["ratio"])
        print(f"{row['algorithm']:<10} {row['task']:<15} {old:>10,.0f} {new:>10,.0f}  {ratio}")
    record = head(f"python bench/speed.py OLD NEW --rounds {given.rounds} --share {given.share:g}")
    commits = {name: commit(place) for name, place in checkouts.items()}
    given.into.write_text(json.dumps({**record, "commits": commits, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
