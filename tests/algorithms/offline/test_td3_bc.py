"""TD3 with behaviour cloning against NumPy, and against both of what it is between."""

import jax
import numpy as np
import pytest

from tests.algorithms.offline.setting import (
    CORNERS,
    acted,
    after_one,
    assert_slopes,
    bandit_log,
    batch_of,
    first_gradient,
    learnt_on,
    made,
    perceptron,
    shaken,
    values,
)
from workhorse.core.errors import UsageError


def begun(algorithm):
    state, other = (algorithm.init(jax.random.key(seed)) for seed in (0, 1))
    return state._replace(
        policy=shaken(state.policy, 1), target_policy=shaken(other.policy, 2),
        critics=shaken(state.critics, 3), target_critics=shaken(other.critics, 4),
    )  # fmt: skip


def test_the_policys_loss_and_slopes_are_those_of_numpy():
    algorithm, batch = made("td3+bc", policy_every=1), batch_of()
    state = begun(algorithm)
    after, _, metrics = after_one(algorithm, state, batch, jax.random.key(0))

    def of(policy):
        own = np.tanh(perceptron(policy, batch.obs))
        return own, values(after.critics, batch.obs, own)[0]

    size = np.abs(of(state.policy)[1]).mean()  # no slope goes through it

    def loss(policy):
        own, value = of(policy)
        return np.mean([
            np.square(own[row] - batch.action[row]).sum() / 2 - 2.5 / size * value[row] for row in range(12)
        ])  # fmt: skip

    np.testing.assert_allclose(metrics["policy_loss"], loss(state.policy), rtol=1e-4)
    np.testing.assert_allclose(
        metrics["cloning_error"], np.square(of(state.policy)[0] - batch.action).mean(), rtol=1e-5
    )
    assert_slopes(after.optimisers[0], state.policy, loss)


def test_its_critics_are_those_of_td3_to_the_bit():
    batch, key = batch_of(), jax.random.key(0)
    states = []
    for name in ("td3", "td3+bc"):
        algorithm = made(name)
        states.append(after_one(algorithm, begun(algorithm), batch, key))
    (one, error, metrics), (other, same, others) = states
    jax.tree.map(np.testing.assert_array_equal, (one.critics, error), (other.critics, same))
    assert metrics["target"] == others["target"]
    jax.tree.map(np.testing.assert_array_equal, one.policy, other.policy)  # neither moved its policy yet


def test_without_the_value_it_is_behaviour_cloning():
    td3_bc, cloning, batch = made("td3+bc", value_weight=1e-20, policy_every=1), made("bc"), batch_of()
    batch = batch._replace(weight=np.ones(12, np.float32))
    state = begun(td3_bc)
    after, _, _ = after_one(td3_bc, state, batch, jax.random.key(0))
    begun_too = cloning.init(jax.random.key(0))
    begun_too = begun_too._replace(policy=begun_too.policy._replace(network=state.policy))
    cloned, _, _ = after_one(cloning, begun_too, batch, jax.random.key(0))
    trees = (first_gradient(after.optimisers[0]), first_gradient(cloned.optimiser).network)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7), *trees)


def test_the_policy_and_all_targets_move_in_every_second_update_a_share_of_the_way():
    algorithm, batch = made("td3+bc", learning_rate=0.01, target_rate=0.25), batch_of()
    state = begun(algorithm)
    names = ("policy", "target_policy", "target_critics")
    after, _, _ = after_one(algorithm, state, batch, jax.random.key(1))
    for name in names:
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(state, name))
    moved, _, _ = after_one(algorithm, after, batch, jax.random.key(2))
    for old, new, learnt in (
        (after.target_policy, moved.target_policy, moved.policy),
        (after.target_critics, moved.target_critics, moved.critics),
    ):
        for leaf, now, goal in zip(*map(jax.tree.leaves, (old, new, learnt)), strict=True):
            np.testing.assert_allclose(now, 0.75 * np.asarray(leaf) + 0.25 * np.asarray(goal), atol=1e-6)


def test_it_learns_the_better_actions_of_a_log(tmp_path):
    """At the best action the value is 0, so that the pull of the uniform log towards 0 has no weight there."""
    path = bandit_log(tmp_path / "log")
    algorithm, state, _ = learnt_on(path, "td3+bc", learning_rate=3e-3, updates=1500)
    np.testing.assert_allclose(acted(algorithm, state, CORNERS)[:, 0], 0.5 * np.sign(CORNERS)[:, 0], atol=0.2)


def test_a_weight_that_is_not_positive_is_refused():
    with pytest.raises(UsageError, match=r"TD3BC.value_weight must be a finite number above 0: got 0.0"):
        made("td3+bc", value_weight=0.0)
