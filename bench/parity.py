"""Compare the bits of two checkouts: the same runs of every algorithm in both, digest by digest.

    python bench/parity.py OLD NEW [--only NAME] [--jobs 2] [--keep FOLDER]

Each checkout trains the same short runs in processes of its own, through its own command line, with the Python that
runs this script. The metrics of a run hold the digest of the algorithm's state after every iteration; those of
iterations 1, 5 and 20 are compared. Exits with 1 where one differs. Actions are not rescaled to [-1, 1], which older
checkouts could not do.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
"""Settings that make twenty iterations short."""

SEEDS = (0, 1)

Row = tuple[str, str, int]
"""A run: its algorithm, task and seed."""


def workhorse(checkout: Path, *words: str) -> None:
    """Run a command of a checkout.

    Raises:
        RuntimeError: it failed, with the end of what it said.
    """
    surroundings = {**os.environ, "PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "workhorse", *words]
    with tempfile.TemporaryDirectory() as elsewhere:  # `-m` would take the package of the folder it is started in
        found = subprocess.run(command, cwd=elsewhere, env=surroundings, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"`workhorse {' '.join(words)}` of {checkout} failed:\n{found.stderr[-2000:]}")


def digests(checkout: Path, row: Row) -> list[str]:
    """Train one run and return the digest of its state after each iteration of `ITERATIONS`."""
    algorithm, task, seed = row
    with tempfile.TemporaryDirectory() as runs:
        folder, env_steps = Path(runs) / "run", 4_000
        words = ["train", task, "--algorithm", algorithm, *ALGORITHMS[algorithm], "--seed", str(seed)]
        words += ["--evaluate-every", "0", "--final-episodes", "1", "--runs", runs, "--id", folder.name]
        if "rescale_actions" in (checkout / "workhorse" / "core" / "algorithm.py").read_text():
            words.append("--no-rescale-actions")
        while True:  # nobody knows how many steps twenty iterations take: go on until they are there
            workhorse(checkout, *words, "--env-steps", str(env_steps), "--threads", "1", "--quiet")
            metrics = polars.read_parquet(folder / "metrics.parquet")
            found = dict(zip(metrics["iteration"], metrics["digest"], strict=True))
            if found.keys() >= set(ITERATIONS):
                return [found[iteration] for iteration in ITERATIONS]
            env_steps *= 4
            words = ["resume", str(folder)]


def both(old: Path, new: Path, kept: Path | None, row: Row) -> tuple[list[str], list[str]]:
    """Return a run's digests by both checkouts; the old one's from the folder `kept`, where they are there."""
    file = kept / f"{'-'.join(map(str, row))}.txt" if kept else None
    if file is not None and file.exists():
        return file.read_text().split(), digests(new, row)
    found = digests(old, row)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(" ".join(found))
    return found, digests(new, row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", default="", help="runs whose algorithm/task/seed contains this")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--keep", type=Path, help="folder where the old checkout's digests are kept for the next time")
    given = parser.parse_args()
    rows = [row for row in itertools.product(ALGORITHMS, TASKS, SEEDS) if given.only in "/".join(map(str, row))]
    different = 0
    with ThreadPoolExecutor(given.jobs) as pool:
        compare = partial(both, given.old.resolve(), given.new.resolve(), given.keep)
        for row, (old, new) in zip(rows, pool.map(compare, rows), strict=True):
            different += old != new
            shown = " ".join(new) if old == new else f"{' '.join(old)} -> {' '.join(new)}"
            word = "equal" if old == new else "DIFFERENT"
            print(f"{word:<9} {row[0]:<18} {row[1]:<20} seed {row[2]}  {shown}", flush=True)
    print(f"{len(rows) - different} of {len(rows)} runs equal at iterations {', '.join(map(str, ITERATIONS))}")
    raise SystemExit(bool(different))


if __name__ == "__main__":
    main()
