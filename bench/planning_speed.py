"""Planning steps per second against raw `mujoco.batch` steps: `python bench/planning_speed.py [--actions 40]`.

A planner plays the first actions of an episode, and what it tried is noted. Then the same plans are tried again from
the same states by the simulator alone, in the two ways it has: `Batch.step` once an environment step, and
`Batch.rollout` without a record. The ratio is to the faster of the two. All three alternate, and the least of their
times is taken.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from mujoco.batch import Batch
from record import head

from workhorse.core.algorithm import Planner
from workhorse.core.randomness import root_key
from workhorse.environments import registry
from workhorse.training.plan import Plan
from workhorse.training.planned_episodes import planning_player
from workhorse.training.rollouts import actor_of

RESULT = Path(__file__).parent / "results" / "planning_speed.json"
ROWS = {
    "HalfCheetah-v5": {"noise_exponent": 0.25},
    "Hopper-v5": {"horizon": 100},
    "Walker2d-v5": {"horizon": 100},
    "Ant-v5": {},
}
REPEATS = 3


def raw(model: Any, frame_skip: int, trials: list[tuple[np.ndarray, np.ndarray]], threads: int) -> tuple[float, float]:
    """Return the seconds that the trials take by `Batch.step` and by `Batch.rollout`."""
    batches = {count: Batch(model, count, threads) for count in {len(states) for states, _ in trials}}
    stepped = rolled = 0.0
    for states, plans in trials:
        batch = batches[len(states)]
        size, control = batch.state.shape[1], np.repeat(plans, frame_skip, axis=1)
        ctrl = batch.bind("ctrl")
        batch.state[:] = states[:, :size]
        begin = time.perf_counter()
        for now in range(plans.shape[1]):
            ctrl[:] = plans[:, now]
            batch.step(None, frame_skip)
        stepped += time.perf_counter() - begin
        batch.state[:] = states[:, :size]
        begin = time.perf_counter()
        batch.rollout(control.shape[1], control, record=())
        rolled += time.perf_counter() - begin
    return stepped, rolled


def measured(task: str, settings: dict[str, Any], actions: int, threads: int) -> dict[str, Any]:
    """Measure one task."""
    plan = Plan(task, {"max_episode_steps": actions}, "icem", settings, 0)
    algorithm = plan.make_algorithm(plan.spec())
    assert isinstance(algorithm, Planner)
    env: Any = registry.make(task, 1, threads, **plan.task_options)
    actor, trials = actor_of(algorithm, algorithm.init(root_key(0))), []
    rollout = env.rollout

    def noted(states: np.ndarray, plans: np.ndarray, **given: Any) -> Any:
        trials.append((states.copy(), plans.copy()))
        return rollout(states, plans, **given)

    player = planning_player(algorithm, env, 0)
    best = [np.inf] * 3
    for _ in range(REPEATS):
        trials.clear()
        env.rollout = noted
        player.play(actor, "evaluate", 0, np.array([0], np.int32))
        env.rollout = rollout
        begin = time.perf_counter()
        length = int(player.play(actor, "evaluate", 0, np.array([0], np.int32)).length[0])
        found = (time.perf_counter() - begin, *raw(env.model, env.options.frame_skip, trials, threads))
        best = [min(pair) for pair in zip(best, found, strict=True)]
    steps = length * algorithm.steps_per_action
    env.close()
    planning, stepped, rolled = (steps / seconds for seconds in best)
    return {
        "task": task,
        "settings": settings,
        "steps_per_action": algorithm.steps_per_action,
        "planning_steps_per_s": planning,
        "raw_step_per_s": stepped,
        "raw_rollout_per_s": rolled,
        "ratio": planning / max(stepped, rolled),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--into", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows = []
    for task in arguments.only:
        row = measured(task, ROWS[task], arguments.actions, arguments.threads)
        rows.append(row)
        print(
            f"{task}: {row['planning_steps_per_s']:,.0f} planning steps/s, raw {row['raw_step_per_s']:,.0f} by step "
            f"and {row['raw_rollout_per_s']:,.0f} by rollout: ratio {row['ratio']:.3f}",
            flush=True,
        )
    record = {**head("python bench/planning_speed.py"), "threads": arguments.threads, "rows": rows}
    arguments.into.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
