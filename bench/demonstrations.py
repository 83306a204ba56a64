"""Return against demonstrations: `python bench/demonstrations.py SUITE [--seeds 3] [--hours 1] [--price 2.5]`.

Learned from 1, 5, 25 and 100 episodes of an expert (bc, dagger, gail, and sac that draws a share of each batch from
them), from 1, 2 and 4 different experts, and from experts with noise on their actions or half of whose episodes are
those of a policy that had hardly learnt; beside sac from nothing. The price is that of the demonstrations and of the
core-time. Experts are trained first where they are missing. Everything runs in one process, one run at a time; what is
finished is not run again, and what was not measured is printed with its command. The results go to
bench/results/demonstrations-SUITE.json.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from record import head

import workhorse
from workhorse.api.imitate import shown_log
from workhorse.core.files import is_there
from workhorse.data.dataset import Dataset
from workhorse.data.log_folder import read_log_folder, write_log_folder
from workhorse.runs.cost import Ledger, PriceBook, price
from workhorse.runs.demonstration_price import DemonstrationPrice, demonstrations_of
from workhorse.runs.folder import RunFolder
from workhorse.statistics.intervals import mean_interval

RESULTS = Path(__file__).parent / "results"


class Suite(NamedTuple):
    """A task: how its experts are trained, and how long its learners learn; short runs warm up for fewer steps."""

    task: str
    expert: str
    expert_steps: int
    bad_steps: int
    episode: int
    gail_steps: int
    rl_steps: tuple[int, ...]
    warmup: int


SUITES = {
    "pendulum": Suite("Pendulum-v1", "sac", 20_000, 3_000, 200, 100_000, (3_000, 5_000, 10_000), 1_000),
    "hopper": Suite("Hopper-v5", "sac-n", 100_000, 15_000, 1000, 300_000, (20_000, 50_000), 5_000),
}
COUNTS = (1, 5, 25, 100)
EPISODES = 30


class Cell(NamedTuple):
    """Demonstrations, the experts that gave them, and the learner.

    Attributes:
        learner: bc, filtered-bc, dagger, gail, or the expert's own algorithm, with demonstrations or from nothing.
        count: episodes learnt from; 0 for none.
        experts: different policies that show them.
        noise: on their actions.
        bad: share of the episodes that a policy shows that had hardly learnt.
        steps: environment steps of reinforcement learning.
    """

    learner: str
    count: int = 25
    experts: int = 1
    noise: float = 0.0
    bad: float = 0.0
    steps: int = 0

    @property
    def name(self) -> str:
        parts = [self.learner, f"n{self.count}", f"e{self.experts}", f"noise{self.noise:g}", f"bad{self.bad:g}"]
        return "-".join([*parts, *([f"{self.steps}"] if self.steps else [])])


def cells_of(suite: Suite) -> list[Cell]:
    first, own = suite.rl_steps[0], suite.expert
    return [
        *(Cell("bc", count) for count in COUNTS),
        *(Cell("dagger", count) for count in COUNTS),
        *(Cell(own, 0, steps=steps) for steps in suite.rl_steps),
        *(Cell(own, count, steps=first) for count in COUNTS),
        *(Cell("bc", 24, experts) for experts in (1, 2, 4)),
        *(Cell(learner, noise=0.3) for learner in ("bc", "filtered-bc")),
        *(Cell(learner, bad=0.5) for learner in ("bc", "filtered-bc")),
        Cell(own, noise=0.3, steps=first),
        Cell(own, bad=0.5, steps=first),
        *(Cell("gail", count) for count in COUNTS),
    ]


def expert_of(suite: Suite, number: int, runs: Path, steps: int = 0) -> str:
    """Return the folder of an expert, trained now where it is missing."""
    steps = steps or suite.expert_steps
    folder = runs / f"{suite.task}-expert{number}-{steps}"
    if not is_there(folder / "policy"):
        short: dict[str, Any] = {"warmup_env_steps": suite.warmup} if steps < suite.expert_steps else {}
        workhorse.train(
            suite.task, suite.expert, env_steps=steps, seed=100 + number, runs=runs, id=folder.name, progress=False,
            **short,
        )  # fmt: skip
    return str(folder)


def log_of(suite: Suite, cell: Cell, seed: int, arguments: argparse.Namespace) -> Path:
    """Return the log of a cell's demonstrations; of those that hold episodes out, as many more as are held out."""
    held_out = 0
    if cell.learner in ("bc", "filtered-bc"):
        held_out = max(round(cell.count / 19), 1)
    whole = cell.count + held_out
    shares = [(expert_of(suite, number, arguments.runs), cell.noise) for number in range(cell.experts)]
    sizes = [whole // cell.experts + (number < whole % cell.experts) for number in range(cell.experts)]
    if cell.bad:
        shares.append((expert_of(suite, 0, arguments.runs, suite.bad_steps), cell.noise))
        sizes = [whole - round(whole * cell.bad), round(whole * cell.bad)]
    logs = arguments.runs / "logs"
    parts = [
        shown_log(suite.task, expert, size, noise, logs, {}, 1000 + seed, 1)
        for (expert, noise), size in zip(shares, sizes, strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    folder = logs / f"{suite.task}-{cell.name}-seed{seed}"
    if not is_there(folder):
        write_log_folder(joined(folder.name, [read_log_folder(part) for part in parts], seed), folder)
    return folder


def joined(name: str, logs: list[Dataset], seed: int) -> Dataset:
    """Return the episodes of several logs of one task as one, shuffled, so that the held-out ones are of all."""
    offsets = np.cumsum([0, *(log.num_steps for log in logs)])
    first, begins = logs[0], [log.begins + offset for log, offset in zip(logs, offsets, strict=False)]

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(log, name) for log in logs])

    whole = Dataset.of(
        name, first.observation, first.action_space, task=first.card.task,
        max_episode_steps=first.card.max_episode_steps, obs=column("obs"), action=column("action"),
        reward=column("reward"), terminated=column("terminated"), truncated=column("truncated"),
        final_obs=column("final_obs"), begins=np.concatenate(begins),
    )  # fmt: skip
    return whole.of_episodes(np.random.default_rng(seed).permutation(whole.num_episodes))


def run_cell(suite: Suite, cell: Cell, seed: int, arguments: argparse.Namespace, until: float) -> RunFolder | None:
    """Do a run, go on with it, or find it finished; None where the hours are spent."""
    folder = arguments.runs / f"{suite.task}-{cell.name}-s{seed}"
    status = RunFolder(folder).status() if is_there(folder / "status.json") else None
    if status is not None and status.state == "finished":
        return RunFolder.open(folder)
    if time.time() > until:
        return None
    if status is not None:
        return RunFolder.open(workhorse.Run.open(folder).resume(progress=False).path)
    given: dict[str, Any] = {
        "seed": seed, "runs": arguments.runs, "id": folder.name, "progress": False, "evaluate_every": 0,
        "final_episodes": EPISODES, "threads": 1,
    }  # fmt: skip
    return RunFolder.open(_done(suite, cell, seed, arguments, given).path)


def _done(suite: Suite, cell: Cell, seed: int, arguments: argparse.Namespace, given: dict[str, Any]) -> workhorse.Run:
    if cell.learner == "dagger":
        slots = max(cell.count // 5, 1)
        steps = (cell.count - slots) * suite.episode + 1  # the last iteration begins below this
        expert = expert_of(suite, 0, arguments.runs)
        return workhorse.imitate(suite.task, expert, "dagger", env_steps=steps, num_envs=slots, **given)
    short = {"warmup_env_steps": suite.warmup, **given}
    if not cell.count:
        return workhorse.train(suite.task, cell.learner, env_steps=cell.steps, **short)
    log = log_of(suite, cell, seed, arguments)
    if cell.steps:
        return workhorse.train(suite.task, cell.learner, env_steps=cell.steps, log=log, **short)
    if cell.learner == "gail":
        return workhorse.imitate(suite.task, log=log, algorithm="gail", env_steps=suite.gail_steps, **given)
    # one episode has fewer steps than the default batch
    return workhorse.imitate(suite.task, log=log, algorithm=cell.learner, env_steps=10_000, batch_size=128, **given)


def cell_result(suite: Suite, cell: Cell, folders: list[RunFolder], each: float) -> dict:
    """Return the returns of a cell's seeds, their mean with its interval, and the mean price."""
    book, finals, money, shown = PriceBook.find(), [], [], []
    for folder in folders:
        final = max(folder.evaluations.glob("*.json"), key=lambda file: file.stat().st_mtime)
        finals.append(json.loads(final.read_text())["mean"])
        shown.append(demonstrations_of(folder) or 0)
        computing = price(Ledger.of(folder), book)
        money.append(DemonstrationPrice(shown[-1], each, computing.total, computing.currency).total)
    interval = mean_interval(finals)
    return {
        **cell._asdict(), "task": suite.task, "finals": finals, "mean": interval.value,
        "interval": [interval.low, interval.high] if len(finals) > 1 else None, "paid_demonstrations": shown,
        "price": float(np.mean(money)), "command": command_of(suite, cell),
    }  # fmt: skip


def command_of(suite: Suite, cell: Cell) -> str:
    name = next(name for name, one in SUITES.items() if one == suite)
    return f"python bench/demonstrations.py {name} --learners {cell.learner}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--price", type=float, default=2.5, help="of a demonstration")
    parser.add_argument("--learners", nargs="+", help="only these")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    arguments = parser.parse_args()
    suite, until = SUITES[arguments.suite], time.time() + 3600 * arguments.hours
    rows, missing = [], dict[str, str]()
    for cell in cells_of(suite):
        folders = []
        if not arguments.learners or cell.learner in arguments.learners:
            folders = [run_cell(suite, cell, seed, arguments, until) for seed in range(arguments.seeds)]
        found = [folder for folder in folders if folder is not None]
        if len(found) < arguments.seeds:
            missing[cell.name] = command_of(suite, cell)
            continue
        rows.append(cell_result(suite, cell, found, arguments.price))
        print(f"{cell.name:40} {rows[-1]['mean']:10.1f} {rows[-1]['interval']}  {rows[-1]['price']:.2f}", flush=True)
    record = {
        **head(f"python bench/demonstrations.py {arguments.suite} --seeds {arguments.seeds}"),
        "price_per_demonstration": arguments.price, "suite": suite._asdict(), "cells": rows, "not_measured": missing,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"demonstrations-{arguments.suite}.json").write_text(json.dumps(record, indent=1) + "\n")
    for name, command in missing.items():
        print(f"not measured: {name}: {command}")


if __name__ == "__main__":
    main()
