"""RLPD: two random target critics, norms in critics, the mean that the policy climbs, its schedule, a bandit's log."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.algorithms.offline.plain import KEY, A, batch_of, begin, gains, learn, made, run
from workhorse.algorithms import registry
from workhorse.core.errors import UsageError

EPSILON = 1e-5


def small(**settings):
    return made("rlpd", **{"num_critics": 4, "hidden": (8,), "temperature": 0.3} | settings)


def state_of(algorithm, seed=0):
    return begin(algorithm, seed)._replace(targets=begin(algorithm, seed + 1).critics)


def values_of(ensemble, obs, action):
    """Values of every critic with its norm, in NumPy, (K, N)."""
    found = []
    for k in range(len(ensemble.weights[0])):
        x = np.concatenate([obs, action], axis=1).astype(float)
        first, last = (
            (np.asarray(w[k], float), np.asarray(b[k], float))
            for w, b in zip(ensemble.weights, ensemble.biases, strict=True)
        )
        x = x @ first[0].T + first[1]
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + EPSILON)
        x = x * np.asarray(ensemble.scales[0][k], float) + np.asarray(ensemble.shifts[0][k], float)
        found.append((np.maximum(x, 0) @ last[0].T + last[1])[:, 0])
    return np.array(found)


def drawn(policy, obs, key):
    mean, spread = np.split(run(policy, obs), 2, axis=1)
    std = np.exp(-5 + 3.5 * (1 + np.tanh(spread)))
    noise = np.asarray(jax.random.normal(key, mean.shape, jnp.float32), float)
    u = mean + std * noise
    density = -0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi) + 2 * np.logaddexp(u, -u) - 2 * np.log(2)
    return np.tanh(u), density.sum(1)


@pytest.mark.parametrize("entropy", [True, False])
def test_the_target_is_the_smaller_of_two_random_critics(entropy):
    algorithm, batch, pairs = small(entropy_backup=entropy), batch_of(), set()
    state = state_of(algorithm)
    for number in range(8):
        key = jax.random.key(number)
        found = np.asarray(algorithm.target(state, batch, jnp.asarray(batch.next_obs), key))
        action, log_prob = drawn(state.policy, batch.next_obs, key)
        value = values_of(state.targets, batch.next_obs, action)
        close = []
        for i in range(4):
            for j in range(i):
                soft = np.minimum(value[i], value[j]) - entropy * 0.3 * log_prob
                if np.allclose(found, batch.reward + batch.discount * soft, rtol=1e-4, atol=1e-5):
                    close.append((i, j))
        assert len(close) == 1, "one pair explains it, for all rows"
        pairs.update(close)
        assert (found[batch.terminated] == batch.reward[batch.terminated]).all()
    assert len(pairs) >= 3, "and another one the next time"
    assert (algorithm.entropy_bonus(state, jnp.asarray(batch.obs[0]), KEY) != 0) == entropy


def test_the_policy_climbs_the_mean_of_all_critics_once_in_its_turn():
    algorithm, batch = small(policy_every=3), batch_of()
    state = state_of(algorithm)
    for number in range(1, 5):
        after, _, metrics = learn(algorithm, state, batch, KEY)
        assert (float(metrics["policy_loss"]) != 0) == (number == 3)
        assert bool((after.policy.weights[0] != state.policy.weights[0]).any()) == (number == 3)
        assert bool((after.critics.weights[0] != state.critics.weights[0]).any())
        if number == 3:
            action, log_prob = drawn(state.policy, batch.obs, jax.random.split(KEY)[1])
            temperature = np.exp(float(state.log_temperature))
            expected = (temperature * log_prob - values_of(after.critics, batch.obs, action).mean(0)).mean()
            assert float(metrics["policy_loss"]) / 3 == pytest.approx(expected, rel=1e-3)
        state = after
    assert float(algorithm.wanted_entropy) == -A / 2 and float(small(target_entropy=-3.0).wanted_entropy) == -3


def test_values_are_told_in_raw_rewards_and_are_means():
    algorithm, batch = small(reward_scale=0.25), batch_of()
    state = state_of(algorithm)
    expected = values_of(state.critics, batch.obs[:1], batch.action[:1]).mean() / 0.25
    found = algorithm.action_value(state, jnp.asarray(batch.obs[0]), jnp.asarray(batch.action[0]))
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_norms_bound_values_however_far_an_action_is():
    rows = np.zeros((1, 3), np.float32)
    for layer_norm in (True, False):
        critics = begin(small(layer_norm=layer_norm), 0).critics
        near, far = (critics.values(jnp.asarray(rows), jnp.full((1, A), size, jnp.float32)) for size in (1e3, 1e6))
        assert (np.abs(far - near).max() < 1.0) == layer_norm


def test_it_does_twenty_updates_a_step_and_shares_its_batches():
    algorithm = registry.make("rlpd", made("rlpd").spec, {})
    assert algorithm.replay_ratio / algorithm.batch_size == 20 == algorithm.policy_every
    assert algorithm.log_share == 0.5 and algorithm.needs_log and algorithm.layer_norm


@pytest.mark.slow
def test_it_climbs_a_reward_with_its_top_inside_the_log():
    found = gains("rlpd", policy_every=1, num_critics=3, updates=1000, reward_scale=10.0)
    assert (found > 0.15).all(), found


@pytest.mark.parametrize(("number", "critics"), [(0, 4), (5, 4)])
def test_settings_out_of_range_are_refused(number, critics):
    with pytest.raises(
        UsageError, match=f"RLPD.num_smallest must be from 1 to num_critics, here {critics}: got {number}"
    ):
        small(num_smallest=number)
