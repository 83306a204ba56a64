"""Baselines of the policy gradient: V* and the variance each leaves, against closed forms."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.diagnostics.baselines import BASELINES, Allotment, _estimate, study_baselines
from workhorse.diagnostics.experience import frozen_rollouts, with_fixed_scale
from workhorse.diagnostics.store import plain_json
from workhorse.diagnostics.value_fit import fit_value, trajectory_of
from workhorse.environments.probes import ContextProbe, TerminationProbe, TimeLimitProbe
from workhorse.runs import train
from workhorse.runs.history import opened
from workhorse.training.rollouts import JaxCollector

PLAIN = {"normalise_observations": False, "observation_clip": None, "scale_rewards": False, "reward_clip": None}


def frozen(env, seed=0, change=lambda state: state, **settings):
    """(algorithm, state, rollouts of its policy), of an agent that has learnt nothing."""
    algorithm = registry.make("a2c", env.spec, {**PLAIN, "held_out_envs": 0, **settings})
    state = change(algorithm.init(jax.random.key(seed)))
    collector, actor = JaxCollector(algorithm, env, seed), algorithm.actor(state)
    return algorithm, state, frozen_rollouts(algorithm, state, collector, collector.start(actor))


@pytest.mark.parametrize("probe", [TerminationProbe, TimeLimitProbe])
def test_the_fitted_value_is_the_closed_form(probe):
    env, discount = probe(6), 0.7
    sizes = {"num_envs": 16, "rollout_steps": 9, "hidden": (16,)}
    algorithm, state, stream = frozen(env, discount=discount, **sizes)
    found = fit_value(algorithm, state, stream, 40, 6, jax.random.key(1))
    assert found.pairs == 40 * 9 * 16 and 2 <= found.epochs <= 60
    obs = jnp.arange(6, dtype=jnp.float32)[:, None] / 6
    value = np.asarray(algorithm.values(state.params._replace(value=found.value), obs))
    if probe is TerminationProbe:
        np.testing.assert_allclose(value, [env.value(discount, step) for step in range(6)], atol=0.05)
    else:  # two fits leave a share of what the agent, which knows nothing, says at the clock
        agent = np.asarray(algorithm.values(state.params, obs))
        error = np.abs(value - env.value(discount))
        assert (error < 0.6 * np.abs(agent - env.value(discount))).all() and error[0] < 0.3


def test_a_trajectory_is_cut_at_clocks_and_at_its_end_alone():
    env, discount = TimeLimitProbe(6), 0.5
    algorithm, state, stream = frozen(env, num_envs=2, rollout_steps=4, discount=discount, hidden=(4,))
    found = trajectory_of(algorithm, state, (next(stream) for _ in range(4)))
    assert found.obs.shape == (16, 2, 1)
    assert np.flatnonzero(found.cut[:, 0]).tolist() == [5, 11, 15], "not at 3 and 7, where a rollout ends"
    np.testing.assert_allclose(found.cut_obs[::2, 0], [1.0, 1.0, 4 / 6], rtol=1e-6)
    np.testing.assert_allclose(found.next_value[found.cut], algorithm.values(state.params, found.cut_obs), rtol=1e-5)


def test_the_variance_that_each_baseline_leaves_is_the_closed_form_and_the_mean_is_the_same():
    env, count, slots = ContextProbe(offset=4.0, slope=10.0), 60, 256

    def zeroed(state):  # a ~ N(0, 1), and an agent whose value is half right
        policy = jax.tree.map(jnp.zeros_like, state.params.policy)
        return state._replace(params=state.params._replace(policy=policy, value=line(state, 0.5)))

    def line(state, share):
        network = jax.tree.map(jnp.zeros_like, state.params.value)
        values = (jnp.full((1, 1), share * env.slope), jnp.full(1, share * env.offset))
        return jax.tree.unflatten(jax.tree.structure(network), values)

    algorithm, state, stream = frozen(env, 3, zeroed, num_envs=slots, rollout_steps=1, policy="linear")
    plan = Allotment(0, 0, 1, 0)
    found = [_estimate(algorithm, state, line(state, 1.0), stream, plan, [slots]) for _ in range(count)]
    half = ContextProbe(env.offset / 2, env.slope / 2)
    constant = ContextProbe(0.0, env.slope)  # centring takes the offset off
    expected = {"none": env, "constant": constant, "agent": ContextProbe(0.0, half.slope)}
    for name in BASELINES:
        gradients = np.stack([each.gradients["whole", name, slots] for each in found])
        error = gradients.std(0, ddof=1) / np.sqrt(count)
        assert (np.abs(gradients.mean(0) - [0, 1, 0]) < 4 * error).all(), "all have the same mean: weight, bias, spread"
        variance = slots * gradients.var(0, ddof=1).sum()
        exact = expected[name].variance(exact=False) if name in expected else env.variance(exact=True)
        assert variance == pytest.approx(exact, rel=0.3), name
        own, whole = (found[0].gradients[kind, name, slots] for kind in ("own", "whole"))
        np.testing.assert_allclose(own, whole, rtol=1e-4, atol=1e-4, err_msg="one step: no trace and no cut")
    agent, true, returns = (np.concatenate(part) for part in zip(*(each.judged for each in found), strict=True))
    assert np.var(returns - true) == pytest.approx(1.0, rel=0.05), "what is left is the action"
    np.testing.assert_allclose(agent, true / 2, rtol=1e-5)


def test_rewards_of_all_rollouts_are_on_one_scale():
    settings = {"num_envs": 4, "rollout_steps": 8, "hidden": (4,), "scale_rewards": True}
    algorithm, state, stream = frozen(ContextProbe(offset=3.0), **settings)
    first, second = next(stream), next(stream)

    def scale(state, rollout):
        return np.asarray(algorithm.batch(state, rollout)[0].transition.reward) / np.asarray(rollout.reward)

    fixed = with_fixed_scale(algorithm, state, first)
    for rollout in (first, second):
        np.testing.assert_allclose(scale(fixed, rollout), scale(state, first), rtol=1e-5)
    assert np.abs(scale(state, second) / scale(state, first) - 1).max() > 0.01, "or there is nothing to fix"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {"num_envs": 8, "rollout_steps": 32, "hidden": (8,), "discount": 0.9, "held_out_envs": 1}
    folder, _ = train.start(
        task="CartPole-v1", algorithm="a2c", settings=settings, env_steps=512, threads=1, id="a2c",
        schedule=train.Schedule(final_episodes=4, checkpoint_every_s=1000, milestones=1),
        root=tmp_path_factory.mktemp("runs"),
    )  # fmt: skip
    return folder


@pytest.mark.slow
def test_a_run_is_measured_the_same_again(run):
    with opened(run.path, 1) as history:
        taken: list[int] = []
        common: dict[str, Any] = {"env_steps": 2 * 4 * 8 * 288, "estimates": 4, "threads": 1}
        found = study_baselines(history, 2, progress=taken.append, **common)
        again = study_baselines(history, 2, **common)
    record = plain_json(found)
    assert record == plain_json(again)
    assert sum(taken) == found.env_steps <= common["env_steps"]
    assert (found.lookahead, found.fitted_pairs, found.judged_pairs) == (3 * 32, 27 * 288, 4 * 4 * 256)
    assert {row["baseline"] for row in record["rows"]} == set(BASELINES)
    assert max(row["samples"] for row in record["rows"]) == 4 * 256
    assert found.true_explained > 0.5 and found.true_explained > found.agent_explained + 0.2, "two updates teach little"
    ratio = {
        (row.returns, row.baseline): row.pairing.ratio
        for row in found.steps
        if row.other == "none" and row.samples == 1024
    }
    assert max(ratio["whole", name] for name in ("constant", "true")) < 0.5, "every CartPole state is worth much"


def test_what_cannot_be_measured_is_said(run):
    with opened(run.path, 1) as history:
        with pytest.raises(UsageError, match=r"--budget must be at least 5,760 steps .* or 1,728 with"):
            study_baselines(history, 2, env_steps=1000)
        without = {**history.manifest.settings, "learned_baseline": False}
        history.manifest = dataclasses.replace(history.manifest, settings=without)
        with pytest.raises(UsageError, match="learns no value function: `diagnose --only baselines` reads"):
            study_baselines(history, 2)
