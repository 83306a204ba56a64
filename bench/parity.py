"""Compare the bits of two checkouts: the same runs of every algorithm in both, digest by digest.

    python bench/parity.py OLD_CHECKOUT NEW_CHECKOUT [--only NAME] [--jobs 2] [--keep FOLDER]

Each checkout trains the same short runs in processes of its own, through its own command line, with the Python that
runs this script. The digest of an algorithm's state stands in a run's metrics for every iteration; those of iterations
1, 5 and 20 are compared. Exits with 1 where one differs.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars

ITERATIONS = (1, 5, 20)
TASKS = ("Pendulum-v1", "CartPole-v1", "InvertedPendulum-v5", "CartPole-v0")
"""Two JAX tasks (continuous and discrete actions), a MuJoCo task, and one that goes through the Gymnasium adapter."""

SMALL_POPULATION = ("--policy", "mlp", "--hidden", "8")
SMALL_ROLLOUT = ("--num-envs", "4", "--rollout-steps", "32", "--hidden", "16", "16")
ALGORITHMS = {
    "openai-es": ("--num-pairs", "6", *SMALL_POPULATION),
    "ars": ("--num-directions", "6", "--num-top-directions", "3"),
    "hill-climb": ("--episodes-per-member", "2", *SMALL_POPULATION),
    "finite-differences": ("--coordinates", "2"),
    "ppo": (*SMALL_ROLLOUT, "--num-epochs", "3", "--minibatch-size", "32"),
    "trpo": (*SMALL_ROLLOUT, "--value-epochs", "3", "--minibatch-size", "32"),
    "a2c": SMALL_ROLLOUT,
    "reinforce": (*SMALL_ROLLOUT, "--no-learned-baseline"),
}
"""Settings that make twenty iterations short; `--env-steps` is found by trying twice as many until they are there."""

SEEDS = (0, 1)


def digests(checkout: Path, folder: Path, algorithm: str, task: str, seed: int) -> dict[int, str]:
    """Train one run and return the digest of its state after each iteration of `ITERATIONS`."""
    place, env_steps = folder / f"{algorithm}-{task}-{seed}", 4_000
    command = [sys.executable, "-m", "workhorse", "train", task, "--algorithm", algorithm, *ALGORITHMS[algorithm]]
    command += ["--seed", str(seed), "--id", place.name, "--runs", str(folder), "--threads", "1", "--quiet"]
    command += ["--evaluate-every", "0", "--final-episodes", "1", "--env-steps", str(env_steps)]
    surroundings = {**os.environ, "PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
    while True:
        found = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True)
        if found.returncode:
            raise RuntimeError(f"{' '.join(command)} in {checkout} failed:\n{found.stderr[-2000:]}")
        metrics = polars.concat(
            [polars.read_parquet(part) for part in sorted(place.glob("**/*.parquet"))], how="diagonal"
        )
        rows = {int(n): f"{d}" for n, d in zip(metrics["iteration"], metrics["digest"], strict=True) if d is not None}
        if set(ITERATIONS) <= rows.keys():
            return {iteration: rows[iteration] for iteration in ITERATIONS}
        env_steps *= 4
        command = [sys.executable, "-m", "workhorse", "resume", str(place), "--threads", "1", "--quiet"]
        command += ["--env-steps", str(env_steps)]


def main() -> None:
    """Print a line for each run; exit with 1 where a digest differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", default="", help="runs whose name contains this")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--keep", type=Path, help="folder where the old checkout's digests are kept for the next time")
    given = parser.parse_args()
    rows = [row for row in itertools.product(ALGORITHMS, TASKS, SEEDS) if given.only in "/".join(map(str, row))]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.jobs) as pool:
        places = {name: Path(folder) / name for name in ("old", "new")}
        for place in places.values():
            place.mkdir()

        def one(row: tuple[str, str, int]) -> tuple[dict[int, str], dict[int, str]]:
            kept = given.keep / f"{'-'.join(map(str, row))}.txt" if given.keep else None
            if kept is not None and kept.exists():
                old = dict(zip(ITERATIONS, kept.read_text().split(), strict=True))
            else:
                old = digests(given.old.resolve(), places["old"], *row)
                if kept is not None:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_text(" ".join(old.values()))
            return old, digests(given.new.resolve(), places["new"], *row)

        different = 0
        for row, (old, new) in zip(rows, pool.map(one, rows), strict=True):
            same = old == new
            different += not same
            shown = " ".join(new.values()) if same else f"{' '.join(old.values())} -> {' '.join(new.values())}"
            print(f"{'equal    ' if same else 'DIFFERENT'} {row[0]:18} {row[1]:20} seed {row[2]}  {shown}", flush=True)
    print(f"{len(rows) - different} of {len(rows)} runs equal at iterations {', '.join(map(str, ITERATIONS))}")
    raise SystemExit(bool(different))


if __name__ == "__main__":
    main()
