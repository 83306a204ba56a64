"""CQL: its penalty by enumeration and by quadrature, its target and steps in NumPy, its limits, and a bandit's log."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.algorithms.offline.plain import (
    CLOSE,
    KEY,
    SPEC,
    A,
    assert_first_step_of_adam,
    batch_of,
    begin,
    gains,
    learn,
    made,
    run,
    value_of,
)
from workhorse.algorithms import registry
from workhorse.algorithms.offline.cql import Sampled
from workhorse.core.errors import UsageError


def state_of(algorithm, seed=0):
    """A state whose targets are not the critics that learn."""
    return begin(algorithm, seed)._replace(targets=begin(algorithm, seed + 1).critics)


def drawn_of(algorithm, state, batch):
    return algorithm.sampled(state, batch.obs, batch.next_obs, jax.random.fold_in(KEY, 2))


def penalty(critic, batch, sampled, rows=slice(None)):
    """log (1/M sum exp(Q(s, a_m)) / p(a_m)) - Q(s, a), one action after the other, its mean over some rows."""
    gaps = []
    for obs, action, drawn, logs in zip(
        batch.obs[rows], batch.action[rows], np.asarray(sampled.action), np.asarray(sampled.log_density), strict=True
    ):
        total = 0.0
        for one, log in zip(drawn, logs, strict=True):
            total += np.exp(value_of(critic, obs, one)) / np.exp(float(log)) / len(drawn)
        gaps.append(np.log(total) - value_of(critic, obs, action))
    return np.mean(gaps)


def target_of(state, batch, key, entropy=False):
    """r + discount min Q'(s', a') with the action of the key, row by row."""
    outputs = run(state.policy, batch.next_obs)
    mean, spread = np.split(outputs, 2, axis=1)
    std = np.exp(-5 + 3.5 * (1 + np.tanh(spread)))
    noise = np.asarray(jax.random.normal(key, mean.shape, jnp.float32), float)
    u = mean + std * noise
    log_prob = (-0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi) + 2 * np.logaddexp(u, -u) - 2 * np.log(2)).sum(
        1
    )
    value = np.minimum(*(value_of(one, batch.next_obs, np.tanh(u)) for one in state.targets))
    soft = value - entropy * np.exp(float(state.log_temperature)) * log_prob
    return np.array([batch.reward[n] + batch.discount[n] * soft[n] for n in range(len(soft))])


@pytest.mark.parametrize("entropy", [False, True])
def test_the_target_is_that_of_sac_with_or_without_its_entropy(entropy):
    algorithm, batch = made("cql", entropy_backup=entropy, temperature=0.3), batch_of()
    state = state_of(algorithm)
    expected = target_of(state, batch, KEY, entropy)
    found = np.asarray(algorithm.target(state, batch, batch.next_obs, KEY))
    np.testing.assert_allclose(found, expected, **CLOSE)
    assert (found[batch.terminated] == batch.reward[batch.terminated]).all(), "no value after an end of the task"
    cut = batch.truncated & ~batch.terminated
    assert cut.any() and (np.abs(found - batch.reward)[cut] > 1e-3).all(), "but after one of the clock"
    bonus = algorithm.entropy_bonus(state, jnp.asarray(batch.obs[0]), KEY)
    assert (bonus != 0) == entropy


def test_the_penalty_is_what_enumeration_gives():
    algorithm, batch = made("cql", conservative_weight=2.0, num_actions=4, learning_rate=0.01), batch_of()
    state = state_of(algorithm)
    sampled = drawn_of(algorithm, state, batch)
    assert sampled.action.shape == (12, 12, A)
    after, error, metrics = learn(algorithm, state, batch, KEY)
    both = [penalty(critic, batch, sampled) for critic in state.critics]
    np.testing.assert_allclose(metrics["conservative_gap"], np.mean(both), **CLOSE)
    target = target_of(state, batch, jax.random.split(KEY)[0])
    found = value_of(state.critics[0], batch.obs, batch.action)
    np.testing.assert_allclose(error, np.abs(found - target), **CLOSE)
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(np.square(found - target)), **CLOSE)

    def loss(critic):
        errors = value_of(critic, batch.obs, batch.action) - target
        return np.mean(batch.weight * errors**2) + 2.0 * penalty(critic, batch, sampled)

    for before, now in zip(state.critics, after.critics, strict=True):
        assert_first_step_of_adam(before, now, loss, 0.01)
        assert_first_step_of_adam(before, now, loss, 0.01, layer=0)


def test_rows_of_the_penalty_are_spread_over_the_batch_and_the_error_is_that_of_all():
    algorithm, batch = made("cql", penalty_rows=4, num_actions=3), batch_of()
    state, rows = state_of(algorithm), slice(None, None, 3)
    some = batch._replace(obs=batch.obs[rows], next_obs=batch.next_obs[rows])
    sampled = drawn_of(algorithm, state, some)
    assert sampled.action.shape == (4, 9, A)
    _, error, metrics = learn(algorithm, state, batch, KEY)
    expected = np.mean([penalty(critic, batch, sampled, rows) for critic in state.critics])
    np.testing.assert_allclose(metrics["conservative_gap"], expected, **CLOSE)
    assert error.shape == (12,)


def test_densities_are_those_of_what_the_actions_were_drawn_from():
    """Each third by itself estimates the integral of exp Q over all actions, here known by a grid."""
    algorithm, batch = made("cql", num_actions=20_000), batch_of()
    state = state_of(algorithm)
    wide = state.policy.biases[-1].at[A:].set(0.5)
    state = state._replace(policy=eqx.tree_at(lambda policy: policy.biases[-1], state.policy, wide))
    critic = state.critics[0]
    line = (np.arange(200) + 0.5) / 100 - 1
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    one = batch._replace(obs=batch.obs[:1], next_obs=batch.next_obs[:1])
    truth = 4 * np.mean(np.exp(value_of(critic, np.repeat(one.obs, len(grid), 0), grid)))
    sampled = jax.tree.map(np.asarray, drawn_of(algorithm, state, one))
    value = value_of(critic, np.repeat(one.obs, 60_000, 0), sampled.action[0])
    weighted = np.exp(value - sampled.log_density[0])
    for part in range(3):
        assert weighted[part * 20_000 :][:20_000].mean() == pytest.approx(truth, rel=0.1)
    assert (
        np.abs(sampled.action).max() <= 1 and not sampled.is_policy[:20_000].any() and sampled.is_policy[20_000:].all()
    )
    at_obs, at_next = (run(state.policy, obs)[0, :2] for obs in (one.obs, one.next_obs))
    medians = [np.median(sampled.action[0, part * 20_000 :][:20_000], 0) for part in (1, 2)]
    np.testing.assert_allclose(medians, np.tanh([at_obs, at_next]), atol=0.03)


def test_without_weight_it_is_sac_to_the_bit_and_with_it_values_of_other_actions_are_lower():
    batch = batch_of()
    plain = made("cql", conservative_weight=0.0, entropy_backup=True, policy_rate_share=1.0, learning_rate=0.01)
    state = state_of(plain)
    sac = registry.make("sac", SPEC, {k: v for k, v in plain.settings().items() if k in registry.options("sac")})
    same = {name: value for name, value in state._asdict().items() if "multiplier" not in name}
    of_sac, error, _ = learn(sac, type(sac.init(KEY))(**same), batch, KEY)
    found, own, _ = learn(plain, state, batch, KEY)
    np.testing.assert_allclose(own, error, rtol=1e-6)
    for name in ("critics", "policy", "targets", "log_temperature"):
        for one, other in zip(*(jax.tree.leaves(getattr(tree, name)) for tree in (of_sac, found)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    pushed = dataclasses.replace(plain, conservative_weight=50.0)
    for _ in range(100):
        found, state = learn(plain, found, batch, KEY)[0], learn(pushed, state, batch, KEY)[0]
    others = np.random.default_rng(1).uniform(-1, 1, batch.action.shape)
    above = [
        np.subtract(*(value_of(one.critics[0], batch.obs, a).mean() for a in (batch.action, others)))
        for one in (found, state)
    ]
    assert above[1] > above[0] + 0.5


def test_values_are_told_in_raw_rewards_and_are_the_smaller_of_two():
    algorithm, batch = made("cql", reward_scale=0.25), batch_of()
    state = state_of(algorithm)
    found = algorithm.action_value(state, batch.obs[0], batch.action[0])
    pair = [value_of(critic, batch.obs[0], batch.action[0]) for critic in state.critics]
    assert found == pytest.approx(min(pair) / 0.25, rel=1e-5)


@pytest.mark.parametrize(("target_gap", "sign"), [(50.0, -1), (-50.0, 1), (None, 0)])
def test_the_multiplier_rises_while_the_gap_is_above_its_target(target_gap, sign):
    algorithm = made("cql", target_gap=target_gap, learning_rate=0.01)
    state = state_of(algorithm)
    after, _, metrics = learn(algorithm, state, batch_of(), KEY)
    assert float(after.log_multiplier) == pytest.approx(0.01 * sign, rel=1e-3)
    assert metrics["conservative_weight"] == 10
    assert float(learn(algorithm, after, batch_of(), KEY)[2]["conservative_weight"]) == pytest.approx(
        10 * np.exp(0.01 * sign), rel=1e-4
    )


def test_the_policy_moves_at_its_own_share_of_the_rate():
    batch, steps = batch_of(), []
    for share in (1.0, 0.25):
        algorithm = made("cql", policy_rate_share=share, learning_rate=0.01)
        state = state_of(algorithm)
        after = learn(algorithm, state, batch, KEY)[0]
        steps.append(np.asarray(after.policy.weights[0] - state.policy.weights[0]))
        assert np.abs(after.critics[0].weights[-1] - state.critics[0].weights[-1]).max() == pytest.approx(
            0.01, rel=1e-2
        )
    np.testing.assert_allclose(steps[1], 0.25 * steps[0], atol=1e-6)


def test_the_gap_of_equal_values_is_the_log_of_the_volume():
    algorithm, batch = made("cql"), batch_of()
    flat = Sampled(np.zeros((12, 5, A), np.float32), np.full((12, 5), -A * np.log(2), np.float32), np.zeros(5, bool))
    gap = algorithm.gap(np.full(12, 3.0, np.float32), np.full((12, 5), 3.0, np.float32), flat, batch)
    assert float(gap) == pytest.approx(A * np.log(2), rel=1e-5)


@pytest.mark.slow
def test_it_stays_within_the_log_where_sac_leaves_it():
    settings = {"reward_scale": 10.0, "num_actions": 4}
    near, far = gains("cql", conservative_weight=1.0, **settings), gains("cql", conservative_weight=0.0, **settings)
    assert (near > 0.05).all() and (near < 0.25).all(), near
    assert (far > 0.5).all(), far


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"conservative_weight": -1.0}, "CQL.conservative_weight must be a finite number of at least 0: got -1.0"),
        ({"num_actions": 0}, "CQL.num_actions must be a finite number above 0: got 0"),
        ({"penalty_rows": 0}, "CQL.penalty_rows must be a finite number above 0: got 0"),
        ({"policy_rate_share": 0.0}, "CQL.policy_rate_share must be a finite number above 0: got 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        made("cql", **settings)
