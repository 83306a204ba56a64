"""Variants of classic tasks, against a plain loop over the task itself."""

import jax
import numpy as np
import pytest

from workhorse.core.errors import UsageError
from workhorse.environments import registry
from workhorse.environments.check import check_env
from workhorse.environments.variants import Change

ALL = {
    "reward_at_end": {"reward_at_end": True},
    "reward_delay": {"reward_delay": 7},
    "reward_above": {"reward_above": -1.0},
    "scaled": {"reward_scale": 0.5, "reward_shift": -2.0},
    "noise": {"observation_noise": 0.1, "distractors": 3, "hidden": (1,)},
    "action_delay": {"action_delay": 2},
    "action_repeat": {"action_repeat": 4},
    "random_actions": {"random_actions": 0.5},
}


def episode(env, actions, key=0):
    """Play a list of actions; return observations, rewards and the ends."""
    state, obs = env.reset(jax.random.key(key))
    step, seen, rewards, ends = jax.jit(env.step), [np.array(obs)], [], []
    for time, action in enumerate(actions):
        state, found = step(state, action, jax.random.fold_in(jax.random.key(key), time + 1))
        seen.append(np.array(found.next_obs))
        rewards.append(float(found.reward))
        ends.append((bool(found.terminated), bool(found.truncated)))
        if any(ends[-1]):
            break
    return np.array(seen), np.array(rewards), ends


def pushes(count, seed=0):
    return [np.array([push], np.float32) for push in np.random.default_rng(seed).uniform(-2, 2, count)]


@pytest.mark.parametrize("change", ALL.values(), ids=ALL)
def test_variants_keep_the_promises(change):
    check_env(registry.make("Pendulum-v1", max_episode_steps=20, **change))


def test_rewards_that_are_owed_are_paid_in_full():
    plain = episode(registry.make("Pendulum-v1"), pushes(200))[1]
    late = episode(registry.make("Pendulum-v1", reward_delay=7), pushes(200))[1]
    np.testing.assert_array_equal(late[:7], 0)
    np.testing.assert_allclose(late[7:-1], plain[:-8], rtol=1e-12)
    assert late.sum() == pytest.approx(plain.sum(), rel=1e-12)
    whole = episode(registry.make("Pendulum-v1", reward_at_end=True), pushes(200))[1]
    np.testing.assert_array_equal(whole[:-1], 0)
    assert whole[-1] == pytest.approx(plain.sum(), rel=1e-12)


def test_a_task_that_ends_early_pays_what_it_owes():
    rewards, ends = episode(registry.make("CartPole-v1", reward_delay=50), [0] * 100)[1:]
    assert ends[-1] == (True, False) and len(rewards) < 50
    assert rewards[-1] == len(rewards) and not rewards[:-1].any()


def test_rewards_are_compared_scaled_and_shifted_in_this_order():
    plain = episode(registry.make("Pendulum-v1"), pushes(50))[1]
    found = episode(registry.make("Pendulum-v1", reward_above=-4.0, reward_scale=3.0, reward_shift=-1.0), pushes(50))[1]
    np.testing.assert_array_equal(found, 3.0 * (plain > -4.0) - 1.0)
    assert 0 < (plain > -4.0).sum() < 50


def test_actions_come_late_and_are_repeated():
    idle, actions = np.zeros(1, np.float32), pushes(20)
    late = episode(registry.make("Pendulum-v1", action_delay=2), actions)
    plain = episode(registry.make("Pendulum-v1"), [idle, idle, *actions])
    np.testing.assert_array_equal(late[0], plain[0][:21])
    repeated = episode(registry.make("Pendulum-v1", action_repeat=4), actions)
    plain = episode(registry.make("Pendulum-v1"), [action for action in actions for _ in range(4)])
    np.testing.assert_allclose(repeated[0], plain[0][::4], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(repeated[1], plain[1].reshape(20, 4).sum(1), rtol=1e-6)


def test_a_repeated_action_stops_with_the_task_and_the_clock_counts_the_tasks_steps():
    env = registry.make("CartPole-v1", action_repeat=4)
    assert env.spec.max_episode_steps == 125 and env.spec.step_seconds == pytest.approx(0.08)
    plain = episode(registry.make("CartPole-v1"), [0] * 100)
    found = episode(env, [0] * 100)
    assert found[1].sum() == plain[1].sum() and found[2][-1] == (True, False)
    np.testing.assert_allclose(found[0][-1], plain[0][-1], rtol=1e-5)


def test_what_is_observed():
    plain = episode(registry.make("Pendulum-v1"), pushes(30))[0]
    env = registry.make("Pendulum-v1", hidden=[1], distractors=3, observation_noise=0.1)
    assert env.spec.observation.shape == (5,) and np.isinf(env.spec.observation.low).all()
    found = episode(env, pushes(30))[0]
    errors = found[:, :2] - plain[:, [0, 2]]
    assert 0.05 < errors.std() < 0.15 and abs(errors.mean()) < 0.05
    assert 0.7 < found[:, 2:].std() < 1.3 and len(np.unique(found[:, 2:])) == found[:, 2:].size


def test_the_share_of_random_actions():
    actions = [np.array([0.0], np.float32)] * 1000
    env = registry.make("Pendulum-v1", random_actions=0.3, max_episode_steps=1000)
    states, _ = env.reset(jax.random.key(0))
    step, moved = jax.jit(env.step), 0
    plain = jax.jit(env.env.step)
    for time, action in enumerate(actions):
        key = jax.random.fold_in(jax.random.key(0), time)
        after, _ = step(states, action, key)
        moved += not np.array_equal(after.inner.physics, plain(states.inner, action, key)[0].physics)
        states = after
    assert 0.25 < moved / 1000 < 0.35


def test_options_out_of_range_are_named():
    with pytest.raises(UsageError, match=r"option reward_delay must be a whole number of at least 0: got -1\."):
        Change(reward_delay=-1)
    with pytest.raises(UsageError, match=r"option random_actions must be in \[0, 1\]: got 1\.5\."):
        registry.make("CartPole-v1", random_actions=1.5)
    with pytest.raises(UsageError, match=r"names component 4, but an observation has the components 0 to 3\."):
        registry.make("CartPole-v1", hidden=[4]).spec  # noqa: B018
    with pytest.raises(UsageError, match=r"no option 'colour'.*and those of every classic task: reward_at_end"):
        registry.make("CartPole-v1", colour=1)
    with pytest.raises(UsageError, match="hidden leaves nothing to observe"):
        registry.make("MountainCar-v0", hidden=[0, 1]).spec  # noqa: B018
