"""Advantage-weighted actor-critic against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.algorithms.offline.setting import (
    BOX,
    CHOICES,
    CORNERS,
    acted,
    after_one,
    assert_slopes,
    bandit_log,
    batch_of,
    crossing,
    first_gradient,
    learnt_on,
    made,
    perceptron,
    shaken,
    values,
)


def begun(algorithm):
    state, other = (algorithm.init(jax.random.key(seed)) for seed in (0, 1))
    return state._replace(
        policy=shaken(state.policy, 1), critics=shaken(state.critics, 3), target_critics=shaken(other.critics, 4)
    )


@pytest.mark.parametrize("spec", [BOX, CHOICES], ids=["box", "choices"])
def test_targets_weights_and_slopes_are_those_of_numpy(spec):
    algorithm = made("awac", spec, scale_rewards=False, reward_scale=0.5, inverse_temperature=2.0, weight_clip=0.9)
    batch, state, key = batch_of(spec), begun(algorithm), jax.random.key(3)
    rows = np.eye(4)[batch.action] if spec is CHOICES else np.asarray(batch.action, np.float64)
    weight = np.asarray(batch.weight, np.float64)
    next_key, policy_key = jax.random.split(key)
    following = algorithm.drawn_inputs(state.policy, jnp.asarray(batch.next_obs), next_key)
    state = state._replace(target_critics=crossing(state.target_critics, batch.next_obs, following))
    after, priority, metrics = after_one(algorithm, state, batch, key)
    ahead = values(state.target_critics, batch.next_obs, following)
    assert set(ahead.argmin(0)) == {0, 1}, "else one critic would do"
    # a terminated row has no successor, a truncated one has
    target = 0.5 * batch.reward + np.where(batch.terminated, 0, 0.9**batch.steps) * ahead.min(0)
    np.testing.assert_allclose(metrics["target"], target.mean(), rtol=1e-4)
    first = values(state.critics, batch.obs, rows)[0]
    np.testing.assert_allclose(priority, np.abs(first - target), rtol=1e-4, atol=1e-5)

    def critic_loss(critics):
        return np.mean(weight * np.square(values(critics, batch.obs, rows) - target).sum(0))

    assert_slopes(after.optimisers[1], state.critics, critic_loss)
    own = algorithm.drawn_inputs(state.policy, jnp.asarray(batch.obs), policy_key)
    pairs = [values(after.critics, batch.obs, one).min(0) for one in (rows, own)]
    weights = np.minimum(np.exp(2 * (pairs[0] - pairs[1])), 0.9)
    assert 0 < (weights == 0.9).sum() < 12
    np.testing.assert_allclose(metrics["advantage_weight"], weights.mean(), rtol=1e-4)

    def policy_loss(policy):
        outputs = perceptron(policy.network, batch.obs)
        if spec is CHOICES:
            density = (np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True))[np.arange(12), batch.action]
        else:
            std = np.exp(np.asarray(policy.log_std, np.float64))
            each = np.exp(-0.5 * np.square((batch.action - np.tanh(outputs)) / std)) / (std * np.sqrt(2 * np.pi))
            density = each.prod(1)
        return -np.mean(weight * weights * np.log(density))

    assert_slopes(after.optimisers[0], state.policy, policy_loss)


def test_its_own_actions_are_drawn_around_the_mean_within_the_bounds():
    algorithm = made("awac")
    state, obs = begun(algorithm), jnp.tile(jnp.array([0.3, -0.2, 0.1], jnp.float32), (20_000, 1))
    policy = state.policy._replace(log_std=jnp.log(jnp.array([0.05, 0.1], jnp.float32)))
    policy = policy._replace(network=jax.tree.map(lambda leaf: 0.3 * leaf, policy.network))
    drawn = np.asarray(algorithm.drawn_inputs(policy, obs, jax.random.key(0)))
    np.testing.assert_allclose(drawn.mean(0), np.tanh(perceptron(policy.network, obs[:1])[0]), atol=0.005)
    np.testing.assert_allclose(drawn.std(0), [0.05, 0.1], rtol=0.03)
    wide = algorithm.drawn_inputs(policy._replace(log_std=jnp.full(2, 9.0)), obs, jax.random.key(0))
    assert float(jnp.abs(wide).max()) == 1.0


def test_without_the_advantage_it_is_behaviour_cloning():
    awac, cloning = made("awac", inverse_temperature=0.0), made("bc", deterministic=False)
    state, batch = begun(awac), batch_of()
    after, _, _ = after_one(awac, state, batch, jax.random.key(0))
    begun_too = cloning.init(jax.random.key(0))._replace(policy=state.policy)
    cloned, _, _ = after_one(cloning, begun_too, batch, jax.random.key(0))
    trees = (first_gradient(after.optimisers[0]), first_gradient(cloned.optimiser))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7), *trees)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), after.policy, cloned.policy)


def test_it_learns_the_better_actions_of_a_log(tmp_path):
    path = bandit_log(tmp_path / "log")
    algorithm, state, _ = learnt_on(path, "awac", learning_rate=3e-3, scale_rewards=False, inverse_temperature=10.0)
    np.testing.assert_allclose(acted(algorithm, state, CORNERS)[:, 0], 0.5 * np.sign(CORNERS)[:, 0], atol=0.15)
