"""Returns of planners: `python bench/planning.py [--only NAME ...] [--seeds 5] [--threads 0] [--into FILE]`.

Each row of `ROWS` is a planner with its settings on a task; whole episodes are planned one after the other, with all
cores for each, so that the real-time factor is that of one robot on this machine. A seed that is in the file already is
not played again, so the script may be interrupted at any time. Intervals are over seeds.

Of HalfCheetah the share of steps is shown in which the pitch is less than a quarter turn from upright: a planner with
the true model also runs on its back.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from record import head

from workhorse.statistics.intervals import mean_interval
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.plan_ahead import PlanAhead
from workhorse.training.rollouts import actor_of

RESULT = Path(__file__).parent / "results" / "planning.json"


class Row(NamedTuple):
    """A planner on a task.

    Attributes:
        task, algorithm: their names.
        settings: that differ from the algorithm's defaults.
        episodes: of each seed.
        wanted: return to reach; None where any is reported.
        published: what others report, in words.
    """

    task: str
    algorithm: str
    settings: dict[str, Any]
    episodes: int = 1
    wanted: float | None = None
    published: str = ""


ICEM = {"noise_exponent": 0.25}
SLOW = {"noise_exponent": 3.0, "horizon": 100}
SWUNG_UP = {"horizon": 100, "stickiness": 0.85}
ROWS = {
    "half-cheetah": Row("HalfCheetah-v5", "icem", ICEM, wanted=4_000, published="GT-CEM 14,777 at 75,000 an action"),
    "half-cheetah-5x": Row(
        "HalfCheetah-v5", "icem", ICEM | {"num_plans": 200, "last_plans": 125, "num_elites": 20}, wanted=6_500
    ),
    "hopper": Row("Hopper-v5", "icem", SLOW, published="GT-CEM 3,232, without ends"),
    "walker2d": Row("Walker2d-v5", "icem", SLOW, published="GT-CEM 7,720, without ends"),
    "ant": Row("Ant-v5", "icem", {"noise_exponent": 1.0}, published="GT-CEM 8,074 with ends minded, 226 without"),
    "pendulum": Row(
        "Pendulum-v1",
        "mppi",
        {"num_envs": 20, "horizon": 50, "num_rounds": 2, "num_plans": 64, "noise_std": 1.0},
        episodes=20,
        wanted=-160,
    ),
    **{
        f"acrobot-{name}": Row("Acrobot-v1", name, SWUNG_UP | {"num_envs": 20}, episodes=20)
        for name in ("uct", "iw", "categorical-cem")
    },
}


def played(row: Row, seed: int, threads: int) -> dict[str, Any]:
    """Return what one seed's episodes came to."""
    plan = Plan(row.task, {}, row.algorithm, row.settings, seed)
    spec = plan.spec()
    loop = make_loop(plan, spec, threads)
    assert isinstance(loop, PlanAhead)
    begun, actor = time.process_time(), actor_of(loop.algorithm, loop.start().state)
    try:
        slots, found = loop.num_slots, []
        for first in range(0, row.episodes, slots):
            numbers = np.arange(first, first + slots, dtype=np.int32)
            found.append(loop.player.play(actor, "evaluate", 0, np.where(numbers < row.episodes, numbers, -1)))
    finally:
        loop.close()
    returns, length = (np.concatenate([getattr(one, name) for one in found]) for name in ("returns", "length"))
    simulated, passed = (sum(one.seconds[part] for one in found) for part in (0, 1))
    told = {
        "seed": seed,
        "returns": returns[: row.episodes].tolist(),
        "lengths": length[: row.episodes].tolist(),
        "planning_steps_per_action": loop.algorithm.steps_per_action,
        "planning_error": float(max(one.error.max() for one in found)),
        "real_time_factor": simulated / passed if passed else None,
        "seconds": passed,
        "core_s": time.process_time() - begun,
        "minds_ends": loop.algorithm.minds_ends,
        "failures": [failure for one in found for failure in one.failures],
    }
    if row.task == "HalfCheetah-v5":
        pitch = np.concatenate([one.taken.obs[one.taken.is_there][:, 1] for one in found])
        told["upright"] = float((np.cos(pitch) > 0).mean())
    if row.task == "Acrobot-v1":
        told["solved"] = float((length[: row.episodes] < (spec.max_episode_steps or 0)).mean())
    return told


def summary(name: str, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a row of the record: means over seeds with an interval."""
    row, found = ROWS[name], mean_interval(np.array([np.mean(seed["returns"]) for seed in seeds]))
    ends = all(seed["minds_ends"] for seed in seeds)
    return {
        **row._asdict(),
        "mean": found.value,
        "interval": [found.low, found.high],
        "ends": "minded" if ends else "not minded",
        "real_time_factor": float(np.mean([seed["real_time_factor"] for seed in seeds])),
        "seeds": seeds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--into", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows: dict[str, Any] = json.loads(arguments.into.read_text())["rows"] if arguments.into.exists() else {}
    for name in arguments.only:
        row = ROWS[name]
        former = rows.get(name, {})
        same = json.dumps([former.get("settings"), former.get("episodes")]) == json.dumps([row.settings, row.episodes])
        seeds = former["seeds"] if same else []
        for seed in range(arguments.seeds):
            if any(one["seed"] == seed for one in seeds):
                continue
            seeds.append(played(row, seed, arguments.threads))
            rows[name] = summary(name, seeds)
            record = {**head("python bench/planning.py"), "rows": rows}
            arguments.into.parent.mkdir(exist_ok=True)
            arguments.into.write_text(json.dumps(record, indent=1))
        told = rows[name]
        low, high = told["interval"]
        per_action = told["seeds"][0]["planning_steps_per_action"]
        print(
            f"{name}: {row.algorithm}, {per_action:,} planning steps an action, ends {told['ends']}: "
            f"{told['mean']:.1f} [{low:.1f}, {high:.1f}], real-time factor {told['real_time_factor']:.2f}"
            + "".join(
                f", {words} {np.mean([seed[words] for seed in told['seeds']]):.0%}"
                for words in ("upright", "solved")
                if words in told["seeds"][0]
            )
        )


if __name__ == "__main__":
    main()
