"""Rollouts: what is drawn for each of their steps, and that their bits know nothing of cores."""

import os
import subprocess
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.runs.metrics import read_metrics
from workhorse.training.rollouts import make_collector


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
