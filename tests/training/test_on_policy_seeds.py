"""Runs that share their programs: what they learn, beside what they learn alone."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from workhorse.runs import train
from workhorse.runs.metrics import read_metrics
from workhorse.training.on_policy_seeds import RolloutSeeds
from workhorse.training.plan import Plan
from workhorse.training.seeds import together

pytestmark = pytest.mark.usefixtures("compiled_once")

STEPS = 4 * 64
TINY = {
    "num_envs": 4,
    "rollout_steps": 16,
    "minibatch_size": 32,
    "num_epochs": 1,
    "hidden": (8,),
    "anneal_env_steps": STEPS,
}
PLAN = Plan("CartPole-v1", {}, "ppo", TINY, 0)
QUICK = train.Schedule(evaluate_every=0, final_episodes=4, checkpoint_every_s=0)


def plans(seeds, **settings):
    return {seed: replace(PLAN, seed=seed, settings={**TINY, **settings}) for seed in seeds}


def trained(root, seed, on_policy=None, settings=TINY, env_steps=STEPS, name=None, observer=None):
    """A run's digests, one an iteration."""
    folder, _ = train.start(
        task="CartPole-v1",
        algorithm="ppo",
        settings=settings,
        env_steps=env_steps,
        seed=seed,
        threads=1,
        schedule=QUICK,
        root=root,
        id=name or f"s{seed}",
        on_policy=on_policy,
        observer=observer,
    )
    return read_metrics(folder.path)["digest"].to_list()


class StopsAt(train.Observer):
    """Ctrl-C at an iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def iterated(self, row):
        if row["iteration"] == self.iteration:
            raise KeyboardInterrupt


def test_runs_that_share_programs_learn_what_each_learns_alone_and_go_on_alone(tmp_path):
    group = RolloutSeeds(plans((3, 5, 8)), threads=2)

    def one(seed, on_policy):
        observer = StopsAt(2) if seed == 8 else None
        return trained(tmp_path / "together", seed, on_policy, observer=observer)

    found = together(group, one)
    expected = {seed: trained(tmp_path / "alone", seed) for seed in (3, 8)}
    assert found[3] == expected[3]
    assert len(set(found[3] + found[5])) == 8, "different seeds must differ"
    assert isinstance(found[8], KeyboardInterrupt)
    folder, _ = train.resume(tmp_path / "together" / "s8", threads=1)
    assert read_metrics(folder.path)["digest"].to_list() == expected[8]


def test_vectorised_runs_go_on_as_if_never_stopped_whoever_takes_part(tmp_path):
    group = RolloutSeeds(plans((3, 5, 8)), vectorised=True, width=2)
    straight = together(group, lambda seed, on_policy: trained(tmp_path / "a", seed, on_policy))
    assert len({tuple(digests) for digests in straight.values()}) == 3

    def interrupted(seed, on_policy):
        return trained(tmp_path / "b", seed, on_policy, observer=StopsAt(seed - 2))  # after 1, and after 3

    two = RolloutSeeds({seed: plan for seed, plan in plans((3, 5, 8)).items() if seed != 8}, vectorised=True, width=2)
    assert all(isinstance(outcome, KeyboardInterrupt) for outcome in together(two, interrupted).values())

    def resumed(seed, on_policy):
        folder, _ = train.resume(tmp_path / "b" / f"s{seed}", threads=1, on_policy=on_policy)
        return read_metrics(folder.path)["digest"].to_list()

    assert together(two, resumed) == {seed: straight[seed] for seed in (3, 5)}


def test_float_settings_are_swept_in_one_program(tmp_path):
    rates = (1e-9, 1e-2)
    swept = {number: replace(PLAN, settings={**TINY, "learning_rate": rate}) for number, rate in enumerate(rates)}
    group = RolloutSeeds(swept, vectorised=True)
    moved = {}

    def one(number, on_policy):
        loop = on_policy(swept[number], group.spec)
        start = loop.start()
        after, metrics, _ = loop.iterate(start)
        loop.close()
        steps = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after.learner.params, start.learner.params)
        moved[number] = max(jax.tree.leaves(steps))
        return metrics["learning_rate"]

    found = together(group, one)
    assert found == {number: pytest.approx(rate) for number, rate in enumerate(rates)}
    assert moved[0] < 1e-6 < 1e-3 < moved[1]


def test_what_cannot_share_a_program():
    with pytest.raises(ValueError, match="pure JAX environment"):
        RolloutSeeds({0: replace(PLAN, task="Hopper-v5")})
    with pytest.raises(ValueError, match="differ in float settings only"):
        RolloutSeeds({**plans((0,)), 1: plans((1,), hidden=(16,))[1]})
    with pytest.raises(ValueError, match="same algorithm: 'ppo' of run 0, 'a2c' of run 1"):
        RolloutSeeds({0: replace(PLAN, settings={}), 1: replace(PLAN, algorithm="a2c", settings={})})
