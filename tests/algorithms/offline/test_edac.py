"""EDAC: its likeness by explicit slopes, its target and steps in loops, SAC-N as its limit, and a bandit's log."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.algorithms.offline.plain import CLOSE, KEY, A, batch_of, begin, gains, learn, made, run, value_of
from workhorse.algorithms.offline.edac import likeness
from workhorse.core.errors import UsageError


def small(**settings):
    return made("edac", **{"num_critics": 4, "hidden": (8,), "temperature": 0.3} | settings)


def state_of(algorithm, seed=0):
    return begin(algorithm, seed)._replace(targets=begin(algorithm, seed + 1).critics)


def members(ensemble):
    """Every critic as a perceptron of its own."""
    return [
        SimpleNamespace(weights=[w[k] for w in ensemble.weights], biases=[b[k] for b in ensemble.biases])
        for k in range(len(ensemble.weights[0]))
    ]


def plain_likeness(critics, obs, action):
    """sum over i != j of cos / (K - 1), a mean over rows, from slopes by central differences."""
    total = 0.0
    for o, a in zip(obs.astype(float), action.astype(float), strict=True):
        slopes = []
        for critic in critics:
            steps = 1e-5 * np.eye(A)
            slopes.append([(value_of(critic, o, a + s) - value_of(critic, o, a - s)) / 2e-5 for s in steps])
        for i, one in enumerate(slopes):
            for j, other in enumerate(slopes):
                if i != j:
                    total += np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other))
    return total / (len(critics) - 1) / len(obs)


def target_of(state, batch, key):
    mean, spread = np.split(run(state.policy, batch.next_obs), 2, axis=1)
    std = np.exp(-5 + 3.5 * (1 + np.tanh(spread)))
    noise = np.asarray(jax.random.normal(key, mean.shape, jnp.float32), float)
    u = mean + std * noise
    density = -0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi) + 2 * np.logaddexp(u, -u) - 2 * np.log(2)
    value = np.min([value_of(critic, batch.next_obs, np.tanh(u)) for critic in members(state.targets)], axis=0)
    return batch.reward + batch.discount * (value - np.exp(float(state.log_temperature)) * density.sum(1))


def test_the_likeness_is_that_of_explicit_slopes():
    algorithm, batch = small(), batch_of()
    critics = state_of(algorithm).critics
    found = likeness(critics, jnp.asarray(batch.obs), jnp.asarray(batch.action))
    assert float(found) == pytest.approx(plain_likeness(members(critics), batch.obs, batch.action), rel=1e-3, abs=1e-4)
    same = critics.members(jnp.zeros(4, jnp.int32))
    assert float(likeness(same, jnp.asarray(batch.obs), jnp.asarray(batch.action))) == pytest.approx(4, rel=1e-5)


def test_no_slope_at_all_is_no_trouble():
    algorithm, batch = small(), batch_of()
    state = state_of(algorithm)
    dead = state._replace(critics=jax.tree.map(jnp.zeros_like, state.critics))
    after, _, metrics = learn(algorithm, dead, batch, KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.critics)) and metrics["critic_likeness"] == 0


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_target_and_steps_are_those_of_all_critics(weight):
    """With weight 0 this is SAC-N: nothing but squared errors to the smallest of all target critics."""
    algorithm, batch = small(diversity_weight=weight, learning_rate=0.01), batch_of()
    state = state_of(algorithm)
    after, error, metrics = learn(algorithm, state, batch, KEY)
    target = target_of(state, batch, jax.random.split(KEY)[0])
    assert float(metrics["target"]) == pytest.approx(target.mean(), rel=1e-4)
    each = np.array([value_of(critic, batch.obs, batch.action) for critic in members(state.critics)])
    np.testing.assert_allclose(error, np.abs(each - target).mean(0), **CLOSE)
    assert float(metrics["critic_spread"]) == pytest.approx(each.std(0).mean(), rel=1e-4)
    layer = 1
    slope, step = [], []
    for k, unit in np.ndindex(4, 8):
        losses = []
        for sign in (1, -1):
            critics = members(state.critics)
            moved = np.array(critics[k].weights[layer], float)
            moved[0, unit] += sign * 1e-4
            critics[k].weights[layer] = moved
            errors = [batch.weight * (value_of(c, batch.obs, batch.action) - target) ** 2 for c in critics]
            losses.append(np.mean(errors, axis=1).sum())
            if weight:
                losses[-1] += weight * plain_likeness(critics, batch.obs, batch.action)
        slope.append((losses[0] - losses[1]) / 2e-4)
        step.append(float(state.critics.weights[layer][k, 0, unit] - after.critics.weights[layer][k, 0, unit]) / 0.01)
    clear = np.abs(slope) > 1e-2
    assert clear.sum() >= 12
    np.testing.assert_allclose(np.array(step)[clear], np.sign(slope)[clear], atol=2e-2)


def test_the_target_has_no_value_after_an_end_of_the_task():
    algorithm, batch = small(), batch_of()
    state = state_of(algorithm)
    found = np.asarray(algorithm.target(state, batch, jnp.asarray(batch.next_obs), KEY))
    assert (found[batch.terminated] == batch.reward[batch.terminated]).all()
    assert (np.abs(found - batch.reward)[batch.truncated] > 1e-3).all()


def test_diversity_makes_slopes_less_alike():
    found = []
    for weight in (0.0, 5.0):
        algorithm, batch = small(diversity_weight=weight, learning_rate=3e-3), batch_of()
        state = state_of(algorithm)
        for number in range(150):
            state, _, metrics = learn(algorithm, state, batch, jax.random.key(number))
        found.append(float(metrics["critic_likeness"]))
    assert found[1] < found[0] - 0.2, found


def test_values_are_told_in_raw_rewards_and_are_the_smallest():
    algorithm, batch = small(reward_scale=0.25), batch_of()
    state = state_of(algorithm)
    each = [value_of(critic, batch.obs[0], batch.action[0]) for critic in members(state.critics)]
    found = algorithm.action_value(state, jnp.asarray(batch.obs[0]), jnp.asarray(batch.action[0]))
    assert float(found) == pytest.approx(min(each) / 0.25, rel=1e-5)


@pytest.mark.slow
def test_it_climbs_to_the_best_action_of_the_log():
    settings = {"reward_scale": 30.0, "hidden": (32, 32), "num_critics": 5}
    settings |= {"temperature": 0.01, "learn_temperature": False, "updates": 3000}
    for peak in (-0.05, 0.05):
        np.testing.assert_allclose(gains("edac", peak=peak, **settings), peak, atol=0.04)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_critics": 1}, "EDAC.num_critics must be at least 2: got 1"),
        ({"diversity_weight": -1.0}, "EDAC.diversity_weight must be a finite number of at least 0: got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        small(**settings)
