"""Rollouts: what is drawn for each of their steps, what is said of their episodes, bits that know nothing of cores."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.runs.metrics import read_metrics
from workhorse.training import on_policy
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.rollouts import actor_of, make_collector

sys.path.insert(0, str(Path(__file__).parents[1] / "environments"))
import weird_environments  # noqa: F401


@dataclass(frozen=True)
class Drawn:
    """Shows the number that its reset drew, pays the number that its step drew, and ends."""

    spec = EnvSpec("Drawn-v0", Box((0.0,), (1.0,)), Discrete(2), 1)

    def reset(self, key):
        return jnp.zeros((), jnp.int32), jax.random.uniform(key, (1,), jnp.float32)

    def step(self, state, action, key):
        obs, reward = jnp.zeros(1, jnp.float32), jax.random.uniform(key, (), jnp.float32).astype(jnp.float64)
        return state, Step(obs, reward, jnp.ones((), bool), jnp.ones((), bool), obs, {})


def test_where_an_episode_starts_has_nothing_to_do_with_what_ended_the_one_before():
    algorithm = registry.make("a2c", Drawn.spec, {"num_envs": 64, "rollout_steps": 64, "policy": "linear"})
    collector, actor = make_collector(algorithm, Drawn(), 0), algorithm.actor(algorithm.init(jax.random.key(0)))
    rollout, *_ = collector.collect(actor, collector.start(actor), 0)
    shown, paid = np.asarray(rollout.obs)[..., 0], np.asarray(rollout.reward)
    assert len(np.unique(np.concatenate([shown, paid]).astype(np.float32))) > 0.99 * 2 * shown.size
    together = np.corrcoef(paid[:-1].ravel(), shown[1:].ravel())[0, 1]
    assert abs(together) < 4 / np.sqrt(paid[:-1].size), "1 where a reset repeats the step's draws"


SMALL = {"num_envs": 2, "held_out_envs": 1, "rollout_steps": 30, "minibatch_size": 30, "hidden": (4,), "num_epochs": 1}
TASKS = {"CartPole-v1": {}, "weird/Walk-v0": {"max_episode_steps": 9}}


@pytest.mark.parametrize("task", list(TASKS))
def test_what_is_said_of_episodes_is_what_a_count_of_their_steps_gives(task):
    """Of the slots trained on alone, over two rollouts, with episodes that go on from one into the next."""
    plan = Plan(task, TASKS[task], "ppo", SMALL, 3)
    loop = make_loop(plan, plan.spec(), 1)
    progress, clock = loop.start(), loop.algorithm.spec.max_episode_steps
    earned, lasted = np.zeros(2), np.zeros(2, int)
    for iteration in range(2):
        actor = actor_of(loop.algorithm, progress.state)
        rollout, *_ = loop.collector.collect(actor, progress.data.slots, iteration)
        reward, terminated, truncated = (np.asarray(part) for part in (rollout.reward, *rollout[3:5]))
        found = []
        for time in range(30):
            earned, lasted = earned + reward[time, :2], lasted + 1
            for slot in np.flatnonzero((terminated | truncated)[time, :2]):
                found.append((earned[slot], lasted[slot], bool(terminated[time, slot])))
                earned[slot], lasted[slot] = 0.0, 0
        progress, metrics, _ = loop.iterate(progress)
        assert found and metrics["episodes"] == len(found)
        returns, lengths, ends = map(np.array, zip(*found, strict=True))
        assert metrics["training_return"] == pytest.approx(returns.mean(), rel=1e-6)
        assert metrics["training_return_max"] == pytest.approx(returns.max(), rel=1e-6)
        assert metrics["training_return_min"] == pytest.approx(returns.min(), rel=1e-6)
        assert metrics["episode_length"] == pytest.approx(lengths.mean())
        assert metrics["truncated_episodes"] == (~ends).sum()
        assert metrics["terminated_at_clock"] == (ends & (lengths == clock)).sum()
        assert metrics["truncated_early"] == (~ends & (lengths < clock)).sum()
        assert metrics["steps"] == 2 * 30 and metrics["held_out_steps"] == 30 * (iteration + 1)
    loop.close()


def test_ends_before_the_clock_and_just_at_it_are_told_apart():
    flag = np.array([[True, True, True], [True, True, True]])
    terminated = np.array([[False, False, True], [True, True, False]])
    lengths = np.array([[9, 4, 3], [9, 5, 2]])  # the third slot is held out
    found = on_policy.episode_metrics(on_policy.Ended(flag, terminated, 1.0 * lengths, lengths), 2, 9)
    counts = ("episodes", "truncated_episodes", "truncated_early", "terminated_at_clock")
    assert [found[name] for name in counts] == [4, 2, 1, 1]
    assert found["episode_length"] == 27 / 4


def test_every_update_draws_from_its_own_address(monkeypatch):
    keys, update = [], on_policy.update

    def watched(algorithm, state, rollout, key):
        keys.append(jax.random.key_data(key).tolist())
        return update(algorithm, state, rollout, key)

    monkeypatch.setattr(on_policy, "update", watched)
    plan = Plan("weird/Walk-v0", {}, "ppo", SMALL, 3)
    loop = make_loop(plan, plan.spec(), 1)
    progress = loop.start()
    for _ in range(3):
        progress, _, _ = loop.iterate(progress)
    loop.close()
    expected = [draw(root_key(3), "update", number) for number in range(3)]
    assert keys == [jax.random.key_data(key).tolist() for key in expected]


def test_an_iteration_as_one_program_is_a_rollout_and_an_update_from_its_own_address():
    settings = {**SMALL, "learning_rate": 0.01, "num_epochs": 3}
    plan = Plan("CartPole-v1", {}, "ppo", settings, 3)
    loop = make_loop(plan, plan.spec(), 1)
    before, _, _ = loop.iterate(loop.start())
    after, _, _ = loop.iterate(before)
    rollout, *_ = loop.collector.collect(actor_of(loop.algorithm, before.state), before.data.slots, 1)
    found = {
        number: on_policy.update(loop.algorithm, before.state, rollout, draw(root_key(3), "update", number))[0]
        for number in (0, 1)
    }
    loop.close()
    apart = {
        number: max(
            np.abs(one - other).max()
            for one, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(after.state.params), strict=True)
        )
        for number, state in found.items()
    }
    assert apart[1] < 1e-5 < 1e-3 < apart[0], "minibatches are drawn from the iteration's address"


ON_CORES = """
import os, sys
os.sched_setaffinity(0, {int(core) for core in sys.argv[1].split(",")})
from workhorse.cli.main import main
main(sys.argv[2:])
"""


CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@pytest.mark.skipif(len(CORES) < 2, reason="there is one core, or no way to choose one")
def test_the_bits_of_a_run_do_not_depend_on_how_many_cores_there_are(tmp_path):
    words = f"train Hopper-v5 --algorithm ppo --env-steps 4096 --threads 1 --runs {tmp_path} --quiet".split()
    words += ["--evaluate-every", "0", "--final-episodes", "1"]
    surroundings = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PJRT_NPROC")}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", ON_CORES, ",".join(map(str, given)), *words, "--id", f"of-{len(given)}"],
            env=surroundings,
            stdout=subprocess.DEVNULL,
        )
        for given in (CORES[:1], CORES)
    ]
    assert [run.wait() for run in runs] == [0, 0]
    one, all_of_them = (read_metrics(tmp_path / f"of-{count}")["digest"].to_list() for count in (1, len(CORES)))
    assert len(one) == 2
    assert one == all_of_them
