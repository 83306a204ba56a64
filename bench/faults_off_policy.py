"""Recall and false alarms of warnings of off-policy runs: `python bench/faults_off_policy.py [--seeds 0 1 2]`.

As `bench/faults.py`, with algorithms that learn from a replay, small networks and short runs.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from faults import CHANGED, Changed, judged, rarely
from record import head

from workhorse.algorithms.actor_critic.ddpg import DDPG
from workhorse.algorithms.actor_critic.sac import SAC
from workhorse.algorithms.actor_critic.td3 import TD3
from workhorse.algorithms.value_based.dqn import DQN
from workhorse.core.configuration import configuration
from workhorse.data import replay
from workhorse.environments import registry as environments
from workhorse.runs.warnings import RULES
from workhorse.training.episodes import make_player
from workhorse.training.lanes import Lanes
from workhorse.training.off_policy import OffPolicyLoop
from workhorse.training.on_policy import EVALUATION_SLOTS
from workhorse.training.rollouts import JaxCollector

HERE = Path(__file__).parent
EVALUATIONS = 8
POLE = {
    "hidden": (64, 64), "batch_size": 64, "replay_ratio": 32.0, "exploration_env_steps": 5_000, "target_rate": 1.0,
    "target_every": 100,
}  # fmt: skip
SWING = {
    "hidden": (64, 64), "batch_size": 128, "replay_ratio": 128.0, "learning_rate": 1e-3, "target_rate": 0.01,
    "warmup_env_steps": 1_000,
}  # fmt: skip


# --- broken learners ---


@configuration
class ThroughTerminations(DQN):
    """Bootstraps where the task terminated."""

    def learn(self, state, experience, key):
        return super().learn(state, experience._replace(discount=self.discount**experience.steps), key)


@configuration
class DiscountOfOneStep(DQN):
    """Weighs the value after n steps as if it came after one."""

    def learn(self, state, experience, key):
        once = jnp.float32(self.discount) * (1 - experience.terminated)
        return super().learn(state, experience._replace(discount=once), key)


@configuration
class HundredfoldRewards(DQN):
    """Multiplies rewards once more."""

    def learn(self, state, experience, key):
        return super().learn(state, experience._replace(reward=100 * experience.reward), key)


@configuration
class HundredfoldSoftRewards(SAC):
    """Multiplies rewards once more, and takes them for positive."""

    def learn(self, state, experience, key):
        return super().learn(state, experience._replace(reward=-100 * experience.reward), key)


@configuration
class SaturatedPolicy(DDPG):
    """Begins with a policy far beyond its bounds."""

    def init(self, key):
        state = super().init(key)
        *biases, last = state.policy.biases
        policy = type(state.policy)(state.policy.weights, (*biases, last + 30.0), state.policy.activation)
        return state._replace(policy=policy, target_policy=policy)


def merged_flags(size, rows, cursor, tree, steps, *rest):
    """Write terminations to the replay as truncations."""
    ended = steps.terminated | steps.truncated
    merged = steps._replace(terminated=jnp.zeros_like(steps.terminated), truncated=ended)
    return _written(size, rows, cursor, tree, merged, *rest)


_written = replay.written

CHANGED["nan reward, one in a thousand"] = lambda step, key: step._replace(
    reward=jnp.where(rarely(key, 1e-3), jnp.nan, step.reward)
)


class Case(NamedTuple):
    """A run. `expected`: the warnings that are meant for it; none for a healthy one."""

    name: str
    expected: tuple[str, ...]
    task: str
    kind: type
    settings: dict[str, Any]
    change: str = ""
    written: Callable[..., Any] = _written
    env_steps: int = 20_000


def pole(name: str, expected: str, kind: type = DQN, change: str = "", **settings: Any) -> Case:
    return Case(name, tuple(expected.split()), "CartPole-v1", kind, {**POLE, **settings}, change)


def swing(name: str, expected: str, kind: type = SAC, change: str = "", **settings: Any) -> Case:
    return Case(name, tuple(expected.split()), "Pendulum-v1", kind, {**SWING, **settings}, change, env_steps=12_000)


FAULTS = [
    pole("bootstrap through terminations", "value-above-returns", ThroughTerminations),
    pole("terminations stored as truncations", "dead-replay value-above-returns")._replace(written=merged_flags),
    pole("discount of one step after three", "value-above-rewards", DiscountOfOneStep, n_steps=3),
    pole("rewards x 100 in targets", "value-above-rewards", HundredfoldRewards),
    pole("no target network, learning rate x 30", "value-above-rewards", target_every=1, learning_rate=0.03,
         gradient_clip=None),
    pole("support too narrow", "support-ends", categorical=True),
    pole("a reward is not a number", "not-finite", change="nan reward, one in a thousand"),
    swing("rewards x -100 in targets", "value-above-rewards", HundredfoldSoftRewards),
    swing("entropy next to the highest", "temperature", target_entropy=0.692, learning_rate=3e-3),
    swing("policy saturated at the start", "saturated-actions", SaturatedPolicy),
]  # fmt: skip

HEALTHY = [
    pole("dqn", ""),
    pole("ddqn, dueling, prioritised", "", double=True, dueling=True, prioritised=True),
    pole("c51, support to 120", "", categorical=True, value_low=0.0, value_high=120.0),
    Case("dqn", (), "Acrobot-v1", DQN, POLE),
    swing("sac", ""),
    swing("sac, learning rate x 3", "", learning_rate=3e-3),
    swing("td3", "", TD3),
    swing("ddpg", "", DDPG),
    Case("sac", (), "MountainCarContinuous-v0", SAC, SWING, env_steps=12_000),
]


def rows_of(case: Case, seed: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the metrics of a case's run, with evaluations, and the algorithm's settings."""
    replay.written = case.written
    env: Any = environments.make(case.task, 1, 1)
    spec = env.spec.rescaled()
    algorithm = case.kind(spec=spec, **case.settings)
    algorithm.validate()
    task = Changed(env, case.change) if case.change else env
    collector = JaxCollector(algorithm, task, seed, algorithm.num_envs, algorithm.learn_every)
    judge = make_player(algorithm, env, EVALUATION_SLOTS, seed)
    loop = OffPolicyLoop(algorithm, seed, collector, Lanes([judge]))
    progress, rows = loop.start(), []
    while int(progress.env_steps) < case.env_steps:
        before = int(progress.env_steps)
        progress, metrics, _ = loop.iterate(progress)
        row = {"iteration": int(progress.iteration), "env_steps": int(progress.env_steps), **metrics}
        if int(progress.env_steps) * EVALUATIONS // case.env_steps > before * EVALUATIONS // case.env_steps:
            found = loop.evaluate(progress, 8)
            row |= {
                "evaluation_return": float(found.returns.mean()),
                "evaluation_return_std": float(found.returns.std()),
            }
        rows.append(row)
    return rows, algorithm.settings()


def one(kind: str, number: int, seeds: list[int], keep: str | None) -> None:
    """A case's runs, in this process: a line of JSON each."""
    case = {"fault": FAULTS, "healthy": HEALTHY}[kind][number]
    for seed in seeds:
        rows, settings = rows_of(case, seed)
        if keep:
            place = Path(keep) / f"{kind}-{number}-{seed}.json"
            place.write_text(json.dumps({"rows": rows, "settings": settings}))
        returns = [row["training_return"] for row in rows if np.isfinite(row["training_return"])]
        found = {"seed": seed, "return": float(np.mean(returns[-10:])), "warnings": judged(rows, settings)}
        print(json.dumps(found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", default=None, help="a folder for the metrics of every run")
    parser.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], int(arguments.one[1]), arguments.seeds, arguments.keep)
        return
    if arguments.keep:
        Path(arguments.keep).mkdir(parents=True, exist_ok=True)
    cases = []
    for kind, number in [("fault", n) for n in range(len(FAULTS))] + [("healthy", n) for n in range(len(HEALTHY))]:
        case = {"fault": FAULTS, "healthy": HEALTHY}[kind][number]
        command = [sys.executable, __file__, "--one", kind, str(number), "--seeds", *map(str, arguments.seeds)]
        command += ["--keep", arguments.keep] if arguments.keep else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{case.name}: {done.stderr[-3000:]}")
        runs = [json.loads(line) for line in done.stdout.strip().splitlines()]
        print(
            kind, case.task, case.name, [[warned["name"] for warned in each["warnings"]] for each in runs], flush=True
        )
        cases.append({"kind": kind, "name": case.name, "task": case.task, "expected": case.expected, "runs": runs})
    found = {
        **head(f"python bench/faults_off_policy.py --seeds {' '.join(map(str, arguments.seeds))}"),
        "rules": [rule.name for rule in RULES],
        "cases": cases,
    }
    if not arguments.keep:
        (HERE / "results" / "faults_off_policy.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
