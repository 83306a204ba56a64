"""Noise-reuse evolution strategies: windows, perturbations that last an episode, and slots spread over it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.algorithms.evolution.population import SPEC, started
from workhorse.algorithms import registry
from workhorse.algorithms.evolution.nres import Particle
from workhorse.core.errors import UsageError
from workhorse.core.types import Rollout
from workhorse.environments import registry as environments
from workhorse.training.rollouts import make_collector


def window(reward, ended, eps):
    steps, slots = reward.shape
    obs = np.zeros((steps, slots, 3), np.float32)
    never = np.zeros_like(ended)
    return Rollout(obs, None, reward, never, ended, obs, (), Particle(jnp.asarray(eps, jnp.float32)))


def begun(algorithm, state):
    actor = algorithm.actor(state)
    return np.asarray(jax.vmap(lambda slot: algorithm.begin(actor, slot).eps)(jnp.arange(algorithm.num_slots)))


def test_an_update_equals_an_independent_implementation():
    algorithm, state, update = started("nres", num_envs=4, rollout_steps=6, noise_std=0.3, learning_rate=0.1)
    rng = np.random.default_rng(0)
    reward, eps, fresh = rng.normal(size=(6, 4)) * 5, rng.normal(size=(4, 6)), begun(algorithm, state)
    ended = np.zeros((6, 4), bool)
    ended[2, 1] = ended[5, 2] = ended[0, 3] = ended[3, 3] = True
    after, metrics = update(state, window(reward, ended, eps), jax.random.key(0))
    gain, gradient = reward - reward.mean(), np.zeros(6)
    for slot in range(4):
        row = eps[slot]
        for time in range(6):
            gradient += gain[time, slot] * row
            if ended[time, slot]:
                row = fresh[slot]
    gradient /= 0.3 * 4 * 6
    np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(gradient), rtol=1e-5)
    np.testing.assert_allclose(after.params, 0.1 * gradient / (np.abs(gradient) + 1e-8), atol=1e-5)


def test_pairs_are_mirrored_new_each_iteration_and_held_out_slots_are_unperturbed():
    algorithm, state, _ = started("nres", num_envs=4, held_out_envs=2)
    eps = begun(algorithm, state)
    np.testing.assert_array_equal(eps[0::2][:2], -eps[1::2][:2])
    assert not eps[4:].any() and np.abs(eps[0] - eps[2]).min() > 0
    later = begun(algorithm, state._replace(iteration=state.iteration + 1))
    assert np.abs(later[:4] - eps[:4]).min() > 0


def test_it_climbs_while_perturbations_outlive_many_updates():
    algorithm, state, update = started("nres", num_envs=64, rollout_steps=5, noise_std=0.2, learning_rate=0.05)
    target, scale = np.linspace(-1, 1, 6), 0.2
    carry = begun(algorithm, state)
    for iteration in range(150):
        members = np.asarray(state.params) + scale * carry
        reward = np.tile(-np.square(members - target).sum(1), (5, 1))
        ended = np.zeros((5, 64), bool)
        ended[4] = iteration % 10 == 9  # an episode is ten windows
        fresh = begun(algorithm, state)
        state, _ = update(state, window(reward, ended, carry), jax.random.key(0))
        carry = fresh if ended.any() else carry
    assert np.square(np.asarray(state.params) - target).sum() < 0.1 * np.square(target).sum()


@pytest.mark.parametrize("task", ["Pendulum-v1", "Swimmer-v5"])
def test_first_episodes_are_cut_at_even_distances(task):
    env = environments.make(task, 6, 1, max_episode_steps=30)
    algorithm = registry.make("nres", env.spec, {"num_envs": 6, "rollout_steps": 25, "rescale_actions": False})
    collector = make_collector(algorithm, env, 0)
    actor = algorithm.actor(algorithm.init(jax.random.key(0)))
    slots, ends, lengths = collector.start(actor), [], []
    for iteration in range(2):
        rollout, slots, ended, _ = collector.collect(actor, slots, iteration)
        ends.append(np.asarray(rollout.truncated))
        lengths.append(np.asarray(ended.episode_length))
        assert not np.asarray(rollout.terminated).any()
        before, after = np.asarray(rollout.next_obs)[:-1], np.asarray(rollout.obs)[1:]
        same = (before == after).all(-1)
        np.testing.assert_array_equal(same, ~ends[-1][:-1])  # a cut episode has its true successor, then a reset
    collector.close()
    ends = np.concatenate(ends)
    found = [(np.flatnonzero(ends[:, slot]) + 1).tolist() for slot in range(6)]
    assert found == [[30], [30], [10, 40], [10, 40], [20, 50], [20, 50]]
    assert np.concatenate(lengths)[9, 2] == 10 and np.concatenate(lengths)[39, 2] == 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_envs": 5}, "must be even, two for each perturbation: got 5"),
        ({"held_out_envs": -1}, "held_out_envs must be at least 0"),
        ({"noise_std": 0.0}, "noise_std"),
    ],
)
def test_bad_settings_are_named(options, words):
    with pytest.raises(UsageError, match=words):
        registry.make("nres", SPEC, options)
