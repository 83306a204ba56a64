"""Score the checker of logs: `python bench/log_checker.py [tune] [--runs FOLDER ...] [--logs FOLDER]`.

Fifteen healthy logs of several tasks, kinds and sizes, and fifteen logs in each of which one fault is planted. A fault
is caught where a fault of its topic is found; any fault found in a healthy log is a false alarm. `tune` does the same
with logs of other seeds, and other tasks for the faults: thresholds were chosen on those. Runs are looked for by name
in the folders, and trained in the last one where they are missing. The result goes to bench/results/log-checker.json.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from record import head

from workhorse.api.datasets import check, make
from workhorse.data.dataset import Dataset
from workhorse.data.log_check import check_log
from workhorse.data.log_folder import read_log_folder
from workhorse.data.opening import open_dataset
from workhorse.data.table_columns import Columns

RESULTS = Path(__file__).parent / "results"
RUNS = {
    "Pendulum-v1": ("pendulum-sac", "--algorithm sac --env-steps 20000 --seed 101"),
    "Hopper-v5": ("hopper-sac-n", "--algorithm sac-n --env-steps 100000 --seed 101"),
    "HalfCheetah-v5": ("halfcheetah-sac-n", "--algorithm sac-n --env-steps 100000 --seed 101"),
    "Walker2d-v5": ("walker2d-sac-n", "--algorithm sac-n --env-steps 100000 --seed 101"),
    "CartPole-v1": ("cartpole-dqn", "--algorithm dqn --seed 101"),
    "MountainCar-v0": ("mountaincar-dqn", "--algorithm dqn --seed 101"),
}
"""The run that each task's logs are made from, and how it is trained."""


class Log(NamedTuple):
    """A healthy log."""

    task: str
    kind: str
    steps: int | None
    explore: bool = True

    @property
    def name(self) -> str:
        return f"{self.task}-{self.kind}-{self.steps or 'all'}{'' if self.explore else '-exact'}"


HEALTHY = (
    Log("CartPole-v1", "random", 10_000),
    Log("CartPole-v1", "expert", 20_000),
    Log("MountainCar-v0", "random", 20_000),
    Log("MountainCar-v0", "expert", 20_000),
    Log("Acrobot-v1", "random", 15_000),
    Log("Pendulum-v1", "medium-replay", None),
    Log("Pendulum-v1", "expert", 1_000),
    Log("Pendulum-v1", "medium", 20_000, False),
    Log("Hopper-v5", "random", 20_000),
    Log("Hopper-v5", "medium-expert", 50_000),
    Log("Hopper-v5", "expert", 30_000, False),
    Log("HalfCheetah-v5", "medium", 50_000),
    Log("Walker2d-v5", "medium-replay", None),
    Log("Ant-v5", "random", 10_000),
    Log("Reacher-v5", "random", 5_000),
)
"""Legal, and some of them nasty: no terminations, components that never change, no noise, five episodes."""

Plant = Callable[[Dataset, np.random.Generator], Dataset]


class Fault(NamedTuple):
    """A fault, and the topics under which it may be found."""

    name: str
    topics: tuple[str, ...]
    plant: Plant
    log: Log
    tuned_on: Log


def with_column(dataset: Dataset, **columns: Any) -> Dataset:
    """Return a copy with other columns, and a card that belongs to them."""
    return replace(dataset, **columns)


def moved(column: np.ndarray, dataset: Dataset, by: int) -> np.ndarray:
    """Return a column whose rows are moved down within each episode."""
    found = np.array(column)
    for begin, end in zip(dataset.begins, dataset.ends, strict=True):
        found[begin:end] = np.roll(found[begin:end], by, axis=0)
    return found


def resets_as_successors(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    first = np.asarray(dataset.obs)[dataset.begins]
    return with_column(dataset, final_obs=np.concatenate([first[1:], first[:1]]))


def no_successors(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    return with_column(dataset, final_obs=np.asarray(dataset.obs)[dataset.ends - 1])


def all_terminated(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    either = np.asarray(dataset.terminated) | np.asarray(dataset.truncated)
    return with_column(dataset, terminated=either, truncated=np.zeros_like(either))


def all_truncated(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    either = np.asarray(dataset.terminated) | np.asarray(dataset.truncated)
    return with_column(dataset, truncated=either, terminated=np.zeros_like(either))


def dead_column(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    obs, final = np.array(dataset.obs), np.array(dataset.final_obs)
    at = int(rng.integers(obs.shape[1]))
    obs[:, at], final[:, at] = 0.0, 0.0
    return with_column(dataset, obs=obs, final_obs=final)


def stuck_sensor(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    obs, at = np.array(dataset.obs), int(rng.integers(dataset.obs.shape[1]))
    long = np.flatnonzero(dataset.lengths >= 200)
    for episode in rng.choice(long, max(len(long) // 10, 1), replace=False):
        begin = int(dataset.begins[episode] + rng.integers(20, dataset.lengths[episode] - 150))
        obs[begin : begin + 120, at] = obs[begin, at]
    return with_column(dataset, obs=obs)


def unclipped(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    action = np.array(dataset.action)
    return with_column(dataset, action=action + rng.normal(0, 0.1, action.shape).astype(np.float32))


def normalised_actions(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    middle, half = dataset.action_space.middle_and_half()  # type: ignore[union-attr]
    return with_column(dataset, action=(np.asarray(dataset.action) - middle) / half)


def copies(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    count = dataset.num_episodes
    return dataset.of_episodes(np.append(np.arange(count), rng.integers(count, size=max(count // 20, 1))))


def late_rewards(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    return with_column(dataset, reward=moved(dataset.reward, dataset, 1))


def early_actions(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    return with_column(dataset, action=moved(dataset.action, dataset, -1))


def gaps(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    """Leave out 30 steps of a tenth of the longer episodes."""
    keep = np.ones(dataset.num_steps, bool)
    long = np.flatnonzero(dataset.lengths >= 80)
    for episode in rng.choice(long, max(len(long) // 10, 1), replace=False):
        begin = int(dataset.begins[episode] + rng.integers(20, dataset.lengths[episode] - 40))
        keep[begin : begin + 30] = False
    episode = dataset.episode_of(np.arange(dataset.num_steps))[keep]
    columns = {name: np.asarray(getattr(dataset, name))[keep] for name in
               ("obs", "action", "reward", "terminated", "truncated")}  # fmt: skip
    return replace(dataset, **columns, begins=np.flatnonzero(np.diff(episode, prepend=-1)), log_prob=None)


def lost_ends(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    """Forget where a fifth of the episodes end."""
    lost = np.flatnonzero(rng.random(dataset.num_episodes - 1) < 0.2)
    flags = {name: np.array(getattr(dataset, name)) for name in ("terminated", "truncated")}
    for flag in flags.values():
        flag[dataset.ends[lost] - 1] = False
    kept = np.setdiff1d(np.arange(dataset.num_episodes), lost + 1)
    final = np.asarray(dataset.final_obs)[np.append(kept[1:] - 1, dataset.num_episodes - 1)]
    return replace(dataset, **flags, begins=dataset.begins[kept], final_obs=final)


def degrees(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    obs, final = np.array(dataset.obs), np.array(dataset.final_obs)
    obs[:, 1], final[:, 1] = np.degrees(obs[:, 1]), np.degrees(final[:, 1])
    return with_column(dataset, obs=obs, final_obs=final)


def gaps_in_time(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    """Write a CSV whose times lack some rows, and read it."""
    place = Path(f"/tmp/log-checker-{rng.integers(10**9)}.csv")
    episode = dataset.episode_of(np.arange(dataset.num_steps))
    size = dataset.obs.shape[1]
    with place.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"obs_{n}" for n in range(size)), "action_0", "reward", "terminated", "truncated", "episode",
                         "t", *(f"next_obs_{n}" for n in range(size))])  # fmt: skip
        for row, following in enumerate(dataset.next_obs(np.arange(dataset.num_steps))):
            time = row - dataset.begins[episode[row]]
            if time == 77:
                continue
            flags = int(dataset.terminated[row]), int(dataset.truncated[row])
            writer.writerow([*dataset.obs[row], float(np.ravel(dataset.action[row])[0]), dataset.reward[row], *flags,
                             episode[row], 0.05 * time, *following])  # fmt: skip
    try:
        found = open_dataset(place, Columns(time="t", action_low=(-2.0,), action_high=(2.0,)))
    finally:
        place.unlink()
    return replace(found, card=replace(found.card, task=dataset.card.task))


FAULTS = (
    Fault("resets in the place of successors", ("successors",), resets_as_successors,
          Log("Hopper-v5", "medium", 20_000), Log("Pendulum-v1", "expert", 10_000)),
    Fault("no successors", ("successors",), no_successors,
          Log("MountainCar-v0", "expert", 20_000), Log("Hopper-v5", "random", 8_000)),
    Fault("clocks merged into terminations", ("ends",), all_terminated,
          Log("CartPole-v1", "expert", 20_000), Log("Pendulum-v1", "medium", 10_000)),
    Fault("terminations merged into clocks", ("ends",), all_truncated,
          Log("Walker2d-v5", "medium", 20_000), Log("Hopper-v5", "medium", 10_000)),
    Fault("dead column", ("observations",), dead_column,
          Log("Swimmer-v5", "random", 10_000), Log("Pendulum-v1", "random", 5_000)),
    Fault("stuck sensor", ("observations",), stuck_sensor,
          Log("HalfCheetah-v5", "expert", 20_000), Log("Hopper-v5", "expert", 10_000)),
    Fault("actions outside the box", ("actions",), unclipped,
          Log("InvertedPendulum-v5", "random", 5_000), Log("Reacher-v5", "random", 5_000)),
    Fault("normalised actions", ("actions",), normalised_actions,
          Log("Pendulum-v1", "medium-expert", 20_000), Log("InvertedPendulum-v5", "random", 6_000)),
    Fault("episodes twice", ("episodes",), copies,
          Log("Acrobot-v1", "random", 15_000), Log("Hopper-v5", "random", 8_000)),
    Fault("rewards a row late", ("alignment",), late_rewards,
          Log("HalfCheetah-v5", "medium-replay", None), Log("Hopper-v5", "expert", 10_000)),
    Fault("actions a row early", ("alignment",), early_actions,
          Log("Walker2d-v5", "expert", 20_000), Log("Hopper-v5", "medium-replay", None)),
    Fault("rows missing", ("order",), gaps,
          Log("Walker2d-v5", "medium-replay", None), Log("Hopper-v5", "medium", 20_000)),
    Fault("ends lost", ("order", "ends"), lost_ends,
          Log("CartPole-v1", "medium", 20_000), Log("MountainCar-v0", "random", 10_000)),
    Fault("degrees", ("observations",), degrees,
          Log("Hopper-v5", "medium-expert", 20_000), Log("InvertedPendulum-v5", "random", 5_000)),
    Fault("gaps in time", ("time",), gaps_in_time,
          Log("Pendulum-v1", "random", 6_000), Log("Pendulum-v1", "random", 5_000)),
)  # fmt: skip


def log_of(log: Log, seed: int, runs: list[Path], logs: Path) -> Dataset:
    """Return a healthy log, made where it is missing."""
    place = logs / f"{log.name}-seed{seed}"
    if not place.exists():
        run = None
        if log.kind != "random":
            name, words = RUNS[log.task]
            run = next((folder / name for folder in runs if (folder / name).exists()), runs[-1] / name)
            if not run.exists():
                command = ["train", log.task, *words.split(), "--threads", "1", "--runs", str(runs[-1]), "--id", name]
                subprocess.run([sys.executable, "-m", "workhorse", *command], check=True)
        make(log.task, log.kind, place, steps=log.steps, seed=seed, explore=log.explore, from_run=run, threads=1)  # type: ignore[arg-type]
    return read_log_folder(place)


def found_in(dataset: Dataset, with_task: bool) -> dict[str, str]:
    """Return the faults found, by topic."""
    findings = check(dataset, threads=1) if with_task else check_log(dataset)
    found: dict[str, str] = {}
    for finding in findings:
        if finding.verdict == "stop":
            found[finding.topic] = f"{found.get(finding.topic, '')} {finding.text}".strip()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", default="score", choices=["score", "tune"])
    parser.add_argument("--runs", nargs="+", type=Path, default=[Path("runs")])
    parser.add_argument("--logs", type=Path, default=Path("runs/checked-logs"))
    arguments = parser.parse_args()
    scores, seed = arguments.what == "score", 411 if arguments.what == "score" else 11
    rows: list[dict[str, Any]] = []
    for log in HEALTHY:
        dataset = log_of(log, seed, arguments.runs, arguments.logs)
        row: dict[str, Any] = {"log": log.name, "fault": None}
        for name, with_task in (("with_task", True), ("without_task", False)):
            row[name] = found_in(dataset, with_task)
        rows.append(row)
        print(f"healthy  {log.name:40} {row['with_task'] or 'ok'}", flush=True)
    for number, fault in enumerate(FAULTS):
        log = fault.log if scores else fault.tuned_on
        rng = np.random.default_rng([seed, number])
        dataset = fault.plant(log_of(log, seed, arguments.runs, arguments.logs), rng)
        row = {"log": log.name, "fault": fault.name}
        for name, with_task in (("with_task", True), ("without_task", False)):
            row[name] = found_in(dataset, with_task)
            row[f"caught_{name}"] = bool(set(fault.topics) & row[name].keys())
        rows.append(row)
        mark = "caught" if row["caught_with_task"] else "MISSED"
        alone = "" if row["caught_without_task"] else "(missed without the task)"
        print(f"{mark}   {fault.name:34} {log.name:34} {row['with_task']} {alone}", flush=True)
    summary = {"healthy": len(HEALTHY), "faults": len(FAULTS)}
    for name in ("with_task", "without_task"):
        summary[f"caught_{name}"] = sum(row.get(f"caught_{name}", False) for row in rows)
        summary[f"false_alarms_{name}"] = sum(bool(row[name]) for row in rows if row["fault"] is None)
    print(summary)
    if scores:
        table = {**head("log_checker.py"), "seed": seed, **summary, "rows": rows}
        (RESULTS / "log-checker.json").write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
