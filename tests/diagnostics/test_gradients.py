"""Gradient estimates of a run, against exact gradients and direct differentiation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from workhorse.algorithms import registry
from workhorse.algorithms.policy_gradient.measures import gradient_agreement
from workhorse.core.errors import UsageError
from workhorse.diagnostics import gradients
from workhorse.diagnostics.experience import training_batch
from workhorse.diagnostics.gradients import independent_estimates, study_gradients
from workhorse.diagnostics.scores import ScoreSums, score_sums, sizes_up_to
from workhorse.diagnostics.store import plain_json
from workhorse.environments.probes import QuadraticProbe
from workhorse.runs import train
from workhorse.runs.history import opened
from workhorse.statistics.gradient_quality import concentration, expected_cosine
from workhorse.training.rollouts import JaxCollector

SETTINGS = {
    "num_envs": 8,
    "rollout_steps": 32,
    "minibatch_size": 64,
    "num_epochs": 1,
    "hidden": (8,),
    "held_out_envs": 1,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, _ = train.start(
        task="CartPole-v1",
        algorithm="ppo",
        settings=SETTINGS,
        env_steps=4 * 256,
        seed=3,
        threads=1,
        schedule=train.Schedule(final_episodes=4, checkpoint_every_s=1000, milestones=2),
        root=tmp_path_factory.mktemp("runs"),
        id="original",
    )
    return folder


def test_summed_pieces_are_the_gradient_of_the_surrogate_with_normalised_advantages(run):
    with opened(run.path, 1) as history:
        there, algorithm = history.kept(2), history.loop.algorithm
        rollout, *_ = history.loop.collector.collect(algorithm.actor(there.state), there.data.slots, 7)
    batch = training_batch(algorithm, there.state, rollout)
    by_slot = score_sums(algorithm, there.state.params, batch)
    found = ScoreSums(*(np.asarray(leaf, np.float64).sum(0) for leaf in by_slot)).gradient()

    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)
    weight = (flat.advantage - flat.advantage.mean()) / flat.advantage.std()

    def surrogate(policy):
        log_prob = jax.vmap(lambda obs, drawn: policy(obs).log_prob(drawn))(flat.obs, flat.drawn)
        return (jnp.exp(log_prob - flat.log_prob) * weight).mean()

    expected, _ = ravel_pytree(jax.grad(surrogate)(there.state.params.policy))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)


def test_more_experience_agrees_more_and_the_study_repeats(run):
    with opened(run.path, 1) as history:
        taken = []
        found = study_gradients(history, 2, env_steps=10 * 32 * 288, threads=1, progress=taken.append)
        again = study_gradients(history, 2, env_steps=10 * 32 * 288, threads=1)
    assert found == again
    assert sum(taken) == found.env_steps == 10 * 32 * 288
    assert found.own_samples == 256 and found.parameters == 4 * 8 + 8 + 8 * 2 + 2
    cosines = [row.concentration.cosine for row in found.gradients]
    assert cosines[-1] > cosines[0] + 0.2
    large = found.gradients[-1]
    assert large.samples == 32 * 256 and found.reference_samples == 9 * large.samples
    assert [row.samples for row in found.steps] == [256, 4 * 256, 16 * 256]
    assert plain_json(found)["gradients"][0]["samples"] == found.gradients[0].samples


def test_no_estimate_is_compared_with_a_reference_that_contains_it():
    """Orthogonal estimates agree with the mean of all others not at all, and with one that holds them they would."""
    apart, together = np.eye(5), np.ones((5, 5))
    small, large = gradients._rows({10: apart, 80: apart}, [10, 80])
    assert small.to_reference == large.to_reference == 0.0
    assert [row.to_reference for row in gradients._rows({80: together}, [80])] == [pytest.approx(1.0)]
    noisy = np.concatenate([np.ones((4, 1)), 2 * np.eye(4)], axis=1)  # one signal, noise of twice its length
    (row,) = gradients._rows({80: noisy}, [80])
    others = np.concatenate([[1.0], np.full(3, 2 / 3)])  # of each: the signal, and a third of the others' noise
    assert row.to_reference == pytest.approx(1.0 / (np.sqrt(5.0) * np.linalg.norm(others)))


def test_estimates_by_the_objective_alone_are_those_by_scores(run, monkeypatch):
    """Estimates of any other `Differentiable` algorithm come from its own objective and update, on whole rollouts."""
    with opened(run.path, 1) as history:
        there, algorithm = history.kept(2), history.loop.algorithm
        slots = there.data.slots
        rollouts = [history.loop.collector.collect(algorithm.actor(there.state), slots, n)[0] for n in range(4)]
        sizes = {"sizes": [256, 512], "step_sizes": [256]}
        by_scores = independent_estimates(algorithm, there.state, iter(rollouts), 2, **sizes)
        monkeypatch.setattr(gradients, "_reads_steps", lambda algorithm: False)
        by_loss = independent_estimates(algorithm, there.state, iter(rollouts), 2, **sizes)
        np.testing.assert_allclose(by_loss.gradients[256], by_scores.gradients[256], rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose(by_loss.steps[256], by_scores.steps[256], rtol=1e-4, atol=1e-7)
        second = independent_estimates(algorithm, there.state, iter(rollouts[1:2]), 1, sizes=[256]).gradients[256]
        mean = (by_loss.gradients[256][:1] + second) / 2
        np.testing.assert_allclose(by_loss.gradients[512][:1], mean, rtol=1e-5, atol=1e-8)
        found = study_gradients(history, 2, env_steps=4 * 2 * 288, estimates=4, threads=1)
    assert [row.samples for row in found.gradients] == [256, 512], "whole rollouts alone"
    assert [row.samples for row in found.steps] == [256]


def test_estimates_are_unbiased_where_the_gradient_is_known_and_agree_as_the_closed_form_says():
    env, slots, count = QuadraticProbe(), 512, 40
    plain = {"normalise_observations": False, "observation_clip": None, "scale_rewards": False, "reward_clip": None}
    sizes = {"num_envs": slots, "held_out_envs": 0, "rollout_steps": 1, "log_std": -0.5}
    algorithm = registry.make("a2c", env.spec, {**plain, **sizes, "policy": "linear"})
    state = algorithm.init(jax.random.key(0))
    collector, actor = JaxCollector(algorithm, env, 5), algorithm.actor(state)
    slots_stand, estimates, scales, meter = collector.start(actor), [], [], []
    for number in range(count):
        rollout, slots_stand, _, _ = collector.collect(actor, slots_stand, number)
        by_slot = score_sums(algorithm, state.params, training_batch(algorithm, state, rollout))
        sums = ScoreSums(*(np.asarray(leaf, np.float64).sum(0) for leaf in by_slot))
        estimates.append(sums.gradient())
        scales.append(np.sqrt(sums.square / sums.count - (sums.advantage / sums.count) ** 2))
        meter.append(gradient_agreement(state.params.policy, training_batch(algorithm, state, rollout)))
    estimates = np.stack(estimates)

    policy, deviation = state.params.policy, np.exp(-0.5)
    offset = np.asarray(policy(jnp.ones(1)).mode(), np.float64) - np.array(env.target)
    spread = np.sqrt((2 * deviation**4 + 4 * deviation**2 * offset**2).sum())  # of the reward |a - target|^2
    zero = jax.tree.map(jnp.zeros_like, policy)
    network = dataclasses.replace(
        zero.network,
        weights=(jnp.asarray(-2 * offset / spread)[:, None],),
        biases=tuple(jnp.asarray(-2 * offset / spread) for _ in zero.network.biases),
    )
    log_std = jnp.full(3, -2 * deviation**2 / spread)
    exact, _ = ravel_pytree(dataclasses.replace(zero, network=network, log_std=log_std))
    error = estimates.std(0, ddof=1) / np.sqrt(count)
    assert (np.abs(estimates.mean(0) - np.asarray(exact)) < 3.5 * error + 0.01 * np.abs(exact)).all()

    noise_scale = slots * estimates.var(0, ddof=1).sum() / np.square(exact).sum()
    found = concentration(estimates, slots)
    assert found.noise_scale == pytest.approx(float(noise_scale), rel=0.1)
    assert found.cosine == pytest.approx(expected_cosine(found.noise_scale, slots), abs=0.02)

    # parts share the scale of their rollout, so its own noise, which turns no gradient, is taken out of the comparison
    scale = np.array(scales) / spread
    signal, noise = (
        np.mean([float(row[name]) * one**2 for row, one in zip(meter, scale, strict=True)])
        for name in ("gradient_signal", "gradient_noise")
    )
    assert signal == pytest.approx(float(np.square(exact).sum()), rel=0.05)
    assert noise == pytest.approx(float((estimates * scale[:, None]).var(0, ddof=1).sum()), rel=0.15)


def test_sizes_are_whole_slots_and_whole_rollouts():
    sizes = sizes_up_to(2048, 64, 1_000_000)
    assert sizes == sorted(set(sizes)) and 2048 in sizes
    assert all(size % 32 == 0 if size < 2048 else size % 2048 == 0 for size in sizes)
    assert sizes[0] <= 128 and sizes[-1] > 900_000
    assert sizes_up_to(256, 8, 256)[-1] == 256


def test_what_cannot_be_diagnosed(run, tmp_path):
    with opened(run.path, 1) as history:
        with pytest.raises(UsageError, match=r"at least 2,880 steps for the gradients, 10 estimates .*, or 864"):
            study_gradients(history, 2, env_steps=100)
        with pytest.raises(UsageError, match=r"keeps no state of iteration 3: the nearest are 2 and 4"):
            study_gradients(history, 3)
    folder, _ = train.start(
        task="CartPole-v1", algorithm="openai-es", settings={}, env_steps=1, threads=1, root=tmp_path, id="es"
    )
    with (
        opened(folder.path, 1) as history,
        pytest.raises(UsageError, match="reads runs of reinforce, a2c, ppo and trpo"),
    ):
        study_gradients(history, 0)
