"""Price of a checkpoint of a full replay after 1,000 new steps: `python bench/replay_checkpoint.py`.

The replay is Humanoid-v5's: a million steps of 348 observations and 17 actions, full, written by a program that learns
nothing. Then 1,000 steps are added and saved, several times; measured are the bytes that are new on disk and the
seconds that saving takes, in the least and the middle case. Beside it: the seconds that the same 1,000 steps take in a
run of `sac` on Humanoid-v5, with one update each, after which they are a share.
"""

import argparse
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
from record import head

from workhorse.core.spec import Box
from workhorse.core.types import Rollout
from workhorse.data import replay
from workhorse.runs.folder import RunFolder
from workhorse.runs.segments import load_progress, save_progress
from workhorse.training.loop import make_loop
from workhorse.training.off_policy import OffPolicyLoop
from workhorse.training.plan import Plan

NEW_STEPS = 1_000
SETTINGS = {"rollout_steps": NEW_STEPS, "learn_every": 20, "replay_capacity": 1_000_000}
EPISODE = 250
"""Steps of an episode in the steps that are made up."""


def made_up(loop: OffPolicyLoop, begin: int) -> Rollout:
    """Steps of one slot, whose numbers are noise."""
    rng = np.random.default_rng(begin)
    spec, count = loop.algorithm.spec, loop.size.spare
    assert isinstance(spec.action, Box)
    obs = rng.normal(size=(count, 1, spec.observation.size)).astype(np.float32)
    action = rng.uniform(-1, 1, (count, 1, spec.action.size)).astype(np.float32)
    ended = ((begin + np.arange(count)) % EPISODE == EPISODE - 1)[:, None]
    return Rollout(obs, action, rng.normal(size=(count, 1)), ended, np.zeros_like(ended), obs, ())


def grow(loop: OffPolicyLoop, progress, steps: int):
    """Return the progress with more steps in the replay."""
    write = jax.jit(partial(_written, loop.size), donate_argnums=0)
    cursor = progress.data.cursor
    for begin in range(int(cursor.count), int(cursor.count) + steps, loop.size.spare):
        rollout = made_up(loop, begin)
        cursor = loop.arrays.given_to(write, cursor, rollout, rollout.obs[-1])
    cursor = jax.tree.map(np.asarray, cursor)
    loop.arrays.hold(int(cursor.count), int(cursor.finals))
    iteration, taken = progress.iteration + steps // loop.size.spare, progress.env_steps + steps
    return progress._replace(iteration=iteration, env_steps=taken, data=progress.data._replace(cursor=cursor))


def _written(size, rows, cursor, steps, newest):
    rows, cursor, _ = replay.written(size, rows, cursor, None, steps, newest)
    return rows, cursor


def on_disk(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def run_seconds(iterations: int) -> float:
    """Seconds of 1,000 steps of a run with one update each, evaluations apart."""
    plan = Plan("Humanoid-v5", {}, "sac", {**SETTINGS, "replay_capacity": 50_000, "warmup_env_steps": 1_000}, 0)
    loop = make_loop(plan, plan.spec(), 1)
    progress, seconds = loop.start(), []
    for _ in range(iterations + 2):  # the warm-up, and one that compiles
        begun = time.perf_counter()
        progress, _, _ = loop.iterate(progress)
        jax.block_until_ready(progress.state)
        seconds.append(time.perf_counter() - begun)
    loop.close()
    return statistics.median(seconds[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=5, help="of the run that the price is a share of")
    arguments = parser.parse_args()
    training_s = run_seconds(arguments.iterations)
    plan = Plan("Humanoid-v5", {}, "sac", SETTINGS, 0)
    loop = make_loop(plan, plan.spec(), 1)
    assert isinstance(loop, OffPolicyLoop)
    progress = grow(loop, loop.start(), loop.size.capacity)
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder.create(name, "run", task="Humanoid-v5", algorithm="sac", seed=0)
        begun = time.perf_counter()
        save_progress(folder, loop, progress, {})
        first_s, first_bytes = time.perf_counter() - begun, sum(on_disk(folder.path).values())
        seconds, sizes = [], []
        for _ in range(arguments.saves):
            progress = grow(loop, progress, NEW_STEPS)
            before, begun = on_disk(folder.path), time.perf_counter()
            save_progress(folder, loop, progress, {})
            seconds.append(time.perf_counter() - begun)
            sizes.append(sum(size for path, size in on_disk(folder.path).items() if path not in before))
        other = make_loop(plan, plan.spec(), 1)
        begun = time.perf_counter()
        load_progress(folder, other)
        load_s = time.perf_counter() - begun
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(progress.state))
    found = {
        **head("python bench/replay_checkpoint.py"),
        "replay_rows": loop.size.capacity,
        "replay_bytes": replay.bytes_needed(loop.size, loop.algorithm.spec.observation, loop.algorithm.spec.action),
        "state_bytes": state,
        "new_steps": NEW_STEPS,
        "first_save_s": first_s,
        "first_save_bytes": first_bytes,
        "save_s": {"median": statistics.median(seconds), "most": max(seconds)},
        "save_bytes": {"median": statistics.median(sizes), "most": max(sizes)},
        "training_s": training_s,
        "share_of_the_run": statistics.median(seconds) / training_s,
        "load_s": load_s,
    }
    print(json.dumps(found, indent=1))
    (Path(__file__).parent / "results" / "replay-checkpoint.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
