"""ReBRAC against NumPy, and against TD3 where nothing is penalised."""

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
    crossing,
    learnt_on,
    made,
    perceptron,
    shaken,
    values,
)
from workhorse.core.errors import UsageError

SMALL = {"hidden": (8, 6), "policy_every": 1}


def rebrac(**settings):
    return made("rebrac", **SMALL, **settings)


def normed(critic, x):
    """Outputs (N, out) of a perceptron with layer norms, a row and a unit at a time."""
    found = []
    for row in np.asarray(x, np.float64):
        *hidden, last = zip(critic.dense.weights, critic.dense.biases, strict=True)
        for (weight, bias), scale, shift in zip(hidden, critic.scales, critic.shifts, strict=True):
            z = [np.dot(one, row) + offset for one, offset in zip(weight, bias, strict=True)]
            mean = sum(z) / len(z)
            variance = sum((one - mean) ** 2 for one in z) / len(z)
            triples = zip(z, scale, shift, strict=True)
            row = np.array([max(a * (one - mean) / np.sqrt(variance + 1e-5) + b, 0.0) for one, a, b in triples])
        found.append(np.asarray(last[0], np.float64) @ row + np.asarray(last[1], np.float64))
    return np.array(found)


def begun(algorithm):
    state, other = (algorithm.init(jax.random.key(seed)) for seed in (0, 1))
    return state._replace(
        policy=shaken(state.policy, 1), target_policy=shaken(other.policy, 2),
        critics=shaken(state.critics, 3), target_critics=shaken(other.critics, 4),
    )  # fmt: skip


def test_targets_and_slopes_are_those_of_numpy():
    algorithm = rebrac(policy_penalty=0.3, critic_penalty=0.2, reward_scale=0.5)
    batch, state, key = batch_of(), begun(algorithm), jax.random.key(3)
    chosen = np.asarray(algorithm.smoothed(state, batch.next_obs, key), np.float64)
    state = state._replace(target_critics=crossing(state.target_critics, batch.next_obs, chosen, normed))
    after, priority, metrics = after_one(algorithm, state, batch, key)
    ahead = values(state.target_critics, batch.next_obs, chosen, normed)
    assert set(ahead.argmin(0)) == {0, 1}, "else one critic would do"
    target = []
    for row in range(12):
        away = sum((chosen[row, part] - batch.next_action[row, part]) ** 2 for part in range(2))
        following = 0.9 ** int(batch.steps[row]) * (ahead[:, row].min() - 0.2 * away)
        target.append(0.5 * batch.reward[row] + (0.0 if batch.terminated[row] else following))
    np.testing.assert_allclose(metrics["target"], np.mean(target), rtol=1e-4)
    first = values(state.critics, batch.obs, batch.action, normed)[0]
    np.testing.assert_allclose(priority, np.abs(first - target), rtol=1e-3, atol=1e-4)
    weight = np.asarray(batch.weight, np.float64)

    def critic_loss(critics):
        return np.mean(weight * np.square(values(critics, batch.obs, batch.action, normed) - target).sum(0))

    assert_slopes(after.optimisers[1], state.critics, critic_loss, picks=3)
    of_policy = values(after.critics, batch.obs, np.tanh(perceptron(state.policy, batch.obs)), normed).min(0)
    size = np.abs(of_policy).mean()  # no slope goes through it

    def policy_loss(policy):
        own = np.tanh(perceptron(policy, batch.obs))
        smaller = values(after.critics, batch.obs, own, normed).min(0)
        return np.mean(0.3 * np.square(own - batch.action).sum(1) - smaller / size)

    np.testing.assert_allclose(metrics["policy_loss"], policy_loss(state.policy), rtol=1e-3)
    assert_slopes(after.optimisers[0], state.policy, policy_loss)


def test_without_penalties_its_target_is_that_of_td3():
    free, td3, batch = rebrac(critic_penalty=0.0), made("td3", hidden=(8, 6)), batch_of()
    state, key = begun(free), jax.random.key(0)
    expected = np.asarray(td3.target(state, batch, batch.next_obs, key))
    np.testing.assert_array_equal(free.target(state, batch, batch.next_obs, key), expected)
    held = np.asarray(rebrac(critic_penalty=0.2).target(state, batch, batch.next_obs, key))
    assert (held[~batch.terminated] < expected[~batch.terminated]).all(), "also where a clock cut"
    np.testing.assert_array_equal(held[batch.terminated], expected[batch.terminated])


def test_the_policy_and_all_targets_move_in_every_second_update():
    algorithm, batch = made("rebrac", hidden=(8,), learning_rate=0.01), batch_of()
    state = begun(algorithm)
    for number in (1, 2):
        after, _, _ = after_one(algorithm, state, batch, jax.random.key(number))
        for name in ("policy", "target_policy", "target_critics"):
            pairs = zip(*(jax.tree.leaves(getattr(one, name)) for one in (state, after)), strict=True)
            assert any((old != new).any() for old, new in pairs) == (number == 2), name
        state = after


def test_critics_do_not_grow_with_the_distance_of_an_action():
    algorithm = rebrac()
    critic = algorithm.init(jax.random.key(0)).critics[0]
    rows = np.array([[0.1, 0.2, -0.3, 10.0**far, -(10.0**far)] for far in range(7)])
    found = normed(critic, rows)[:, 0]
    np.testing.assert_allclose(jax.vmap(critic)(np.asarray(rows, np.float32))[:, 0], found, rtol=1e-3, atol=1e-4)
    assert np.abs(found[-1] - found[3]) < 0.01, "from 1e3 to 1e6"


def test_it_learns_the_better_actions_of_a_log(tmp_path):
    path = bandit_log(tmp_path / "log")
    algorithm, state, _ = learnt_on(path, "rebrac", learning_rate=3e-3, updates=1500)
    np.testing.assert_allclose(acted(algorithm, state, CORNERS)[:, 0], 0.5 * np.sign(CORNERS)[:, 0], atol=0.2)


@pytest.mark.parametrize("option", ["policy_penalty", "critic_penalty"])
def test_negative_penalties_are_refused(option):
    with pytest.raises(UsageError, match=f"ReBRAC.{option} must be a finite number of at least 0: got -1.0"):
        rebrac(**{option: -1.0})
