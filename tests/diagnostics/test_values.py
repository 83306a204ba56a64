"""Value functions, against closed forms."""

import jax
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.diagnostics.store import plain_json
from workhorse.diagnostics.value_errors import PairErrors
from workhorse.diagnostics.values import (
    _next_update,
    _of_all_ages,
    _pairs,
    _returns,
    _with_a_whole_clock,
    study_values,
    summarise,
)
from workhorse.environments.probes import TerminationProbe, TimeLimitProbe
from workhorse.runs import train
from workhorse.runs.history import opened
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.rollouts import JaxCollector, actor_of

PLAIN = {"normalise_observations": False, "observation_clip": None, "scale_rewards": False, "reward_clip": None}


@pytest.mark.parametrize("probe", [TimeLimitProbe, TerminationProbe])
def test_the_truth_is_the_closed_form_whatever_the_value_function_says(probe):
    env, discount = probe(6), 0.5
    settings = {"num_envs": 3, "held_out_envs": 0, "rollout_steps": 2, "discount": discount, "hidden": (4,)}
    algorithm = registry.make("a2c", env.spec, {**PLAIN, **settings})
    state = algorithm.init(jax.random.key(0))
    collector, actor = JaxCollector(algorithm, env, 0), algorithm.actor(state)
    _, stand, _, _ = collector.collect(actor, collector.start(actor), 0)  # two steps into the episode
    assert (np.asarray(stand.environment.clock) == 2).all()
    assert (np.asarray(_with_a_whole_clock(stand).environment.clock) == 1).all(), "not 0: a first step may be special"
    start = collector.start(actor)
    assert (np.asarray(_with_a_whole_clock(start).environment.clock) == 0).all()
    found = _returns(collector, algorithm, state, stand, 1.0, 20, 1)
    if probe is TerminationProbe:
        np.testing.assert_allclose(found, env.value(discount, 2))
    else:  # four steps to the clock, and then what the value function says of the last observation
        last = float(algorithm.values(state.params, np.ones((1, 1), np.float32))[0])
        np.testing.assert_allclose(found, 2 * (1 - discount**4) + discount**4 * last, rtol=1e-5)


def test_noise_of_the_truth_is_taken_off():
    rng = np.random.default_rng(0)
    states, count, bias, spread = 4000, 8, 0.3, 2.0
    truth = rng.normal(0.0, 1.0, states)
    returns = truth + spread * rng.normal(size=(count, states))
    value = truth + bias + 0.5 * rng.normal(size=states)
    found = summarise(0, value, value + 0.1 * rng.normal(size=states), returns, 100, 1)
    assert found.bias == pytest.approx(bias, abs=4 * found.bias_error)
    assert found.squared_error == pytest.approx(bias**2 + 0.25, abs=0.05)
    assert found.truth_spread == pytest.approx(1.0, abs=0.05)
    assert found.truth_explained == pytest.approx(1 - bias**2 - 0.25, abs=0.07)
    assert found.return_spread == pytest.approx(spread, rel=0.05)
    assert found.own_explained > 0.95 > found.truth_explained > found.return_explained, "own targets flatter"


def test_a_value_function_that_has_learnt_its_rollout_by_heart_is_far_from_the_truth():
    rng = np.random.default_rng(1)
    truth = rng.normal(5.0, 1.0, (3, 4000))
    target = truth + 2.0 * rng.normal(size=truth.shape)
    returns = truth[0] + 2.0 * rng.normal(size=(64, 4000))
    by_heart, wise = PairErrors.of(target, target, returns), PairErrors.of(truth, target, returns)
    assert by_heart.own_error == 0.0 and by_heart.own_explained == 1.0
    assert by_heart.truth_error > 0.25 > 0.1 > wise.truth_error
    assert by_heart.truth_explained == pytest.approx(1 - 4, abs=0.5)
    assert wise.truth_explained == pytest.approx(1.0, abs=0.05)
    assert wise.return_explained == pytest.approx(1 - 4 / 5, abs=0.05), "what luck adds cannot be explained"
    assert by_heart.return_explained == pytest.approx(1 - 8 / 5, abs=0.1)
    flat = PairErrors.of(np.full_like(truth, 5.0), target, returns)
    assert flat.truth_explained == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("task", ["Pendulum-v1", "HalfCheetah-v5"])
def test_states_are_of_all_ages_where_all_slots_run_in_step(task):
    settings = {"num_envs": 7, "held_out_envs": 1, "rollout_steps": 8, "minibatch_size": 56, "hidden": (4,)}
    plan = Plan(task, {}, "ppo", settings, 0)
    loop = make_loop(plan, plan.spec(), 1)
    progress = loop.start()
    actor = actor_of(loop.algorithm, progress.state)
    stand = _of_all_ages(loop.collector, actor, progress.data.slots, 16)
    np.testing.assert_array_equal(stand.episode_length, 8 * (1 + np.arange(0, 16, 2)))
    environment = stand.environment
    elapsed = environment["elapsed"] if isinstance(environment, dict) else environment.clock
    np.testing.assert_array_equal(elapsed, stand.episode_length)
    rollout, *_ = loop.collector.collect(actor, stand, 99)
    np.testing.assert_array_equal(rollout.obs[0], stand.obs)
    far = np.abs(np.asarray(rollout.next_obs[0]) - np.asarray(rollout.obs[0])).max()
    apart = np.abs(np.diff(np.asarray(stand.obs), axis=0)).max()
    assert far < 100 and apart > 0.1, "each goes on from where it stood"
    loop.close()


def test_a_run_is_measured_the_same_again_and_what_cannot_be_is_said(tmp_path):
    settings = {"num_envs": 8, "rollout_steps": 32, "minibatch_size": 64, "num_epochs": 1, "hidden": (8,)}
    common = {"task": "CartPole-v1", "threads": 1, "root": tmp_path}
    quick = train.Schedule(final_episodes=4, checkpoint_every_s=1000, milestones=1)
    run, _ = train.start(
        algorithm="ppo", settings={**settings, "discount": 0.9}, env_steps=512, id="ppo", schedule=quick, **common
    )
    with opened(run.path, 1) as history:
        taken = []
        found = study_values(history, 2, env_steps=20_000, threads=1, progress=taken.append)
        assert study_values(history, 2, env_steps=20_000, threads=1) == found
        assert sum(taken) == found.env_steps <= 20_000
        assert (found.states, found.horizon) == (9, 96)
        assert found.returns == (20_000 // 9 - 18 * 32) // (2 * 96)
        assert plain_json(found)["returns"] == found.returns
        assert found.learnt and plain_json(found)["learnt"]["own_error"] == found.learnt.own_error
        there, algorithm = history.at(1), history.loop.algorithm
        lesson, params = _next_update(history, algorithm, there)
        after = history.at(2).state.params
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7), params, after)
        batch, _, _ = algorithm.batch(there.state, lesson)
        expected = np.asarray(algorithm.values(after, batch.obs)), batch.target
        for one, other in zip(_pairs(algorithm, there.state, params, lesson), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        with pytest.raises(UsageError, match=r"--budget must be at least 12,096 steps for the values, 4 returns of 96"):
            study_values(history, 2, env_steps=1000)
    run, _ = train.start(algorithm="openai-es", settings={}, env_steps=1, id="es", **common)
    with opened(run.path, 1) as history, pytest.raises(UsageError, match="learns no value function"):
        study_values(history, 0)
