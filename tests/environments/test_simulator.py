"""Trials are the task's own steps, bit for bit, from any state, in any order, on any number of threads."""

import numpy as np
import pytest

from workhorse.core.spec import Box
from workhorse.environments import registry
from workhorse.environments.actions import random_actions
from workhorse.environments.batch import as_batch, episode_keys
from workhorse.environments.mujoco import trials
from workhorse.environments.protocol import Simulator

NO_CONTACT = {"contact_cost_weight": 0, "include_cfrc_ext_in_observation": False}
TASKS = {name: (name, {}) for name in registry.TASKS}
TASKS |= {
    "Ant without contact forces": ("Ant-v5", NO_CONTACT),
    "Humanoid without contact forces": ("Humanoid-v5", NO_CONTACT),
    "Hopper a simulation step at a time": ("Hopper-v5", {"frame_skip": 1}),
}
SLOTS, STEPS = 3, 8


def made(task, options, threads=2):
    env = as_batch(registry.make(task, SLOTS, threads, **options), SLOTS)
    env.reset(episode_keys(env, 0, "evaluate", 0, np.arange(SLOTS)))
    return env


def plans_for(env, seed=0, steps=STEPS, count=SLOTS):
    return random_actions(env.spec.action, (count, steps), np.random.default_rng(seed))


def stepped(env, plans):
    """Rewards, ends and successors of plans that are carried out."""
    rows = [env.step(plans[:, time]) for time in range(plans.shape[1])]
    return tuple(np.stack([getattr(row, name) for row in rows], 1) for name in ("reward", "terminated", "next_obs"))


@pytest.mark.parametrize(("task", "options"), list(TASKS.values()), ids=list(TASKS))
def test_a_trial_is_what_comes_bit_for_bit(task, options):
    env = made(task, options)
    assert isinstance(env, Simulator)
    stepped(env, plans_for(env, seed=1, steps=4))
    states, plans, order = env.states(), plans_for(env), np.array([2, 0, 1, 0])
    tried = env.rollout(states[order], plans[order], observed=True)
    unseen = env.rollout(states[order], plans[order])
    np.testing.assert_array_equal(env.states(), states, "the slots themselves stay where they are")
    np.testing.assert_array_equal(env.states(np.array([1])), states[1:2])
    reward, terminated, next_obs = stepped(env, plans)
    np.testing.assert_array_equal(tried.reward, reward[order])
    np.testing.assert_array_equal(tried.terminated, terminated[order])
    np.testing.assert_array_equal(tried.next_obs, next_obs[order])
    np.testing.assert_array_equal(tried.states, env.states()[order])
    assert unseen.next_obs is None
    for name in ("reward", "terminated", "states"):
        np.testing.assert_array_equal(getattr(unseen, name), getattr(tried, name))
    env.close()


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Ant-v5", "Pendulum-v1"])
def test_equal_rows_give_equal_bits_on_any_number_of_threads_and_however_many_there_are(task):
    one, two = made(task, {}, threads=1), made(task, {}, threads=2)
    plans = plans_for(one, count=40)
    states = np.repeat(one.states()[:1], 40, axis=0)
    alone, together = one.rollout(states, plans), two.rollout(states, plans)
    np.testing.assert_array_equal(alone.reward, together.reward)
    np.testing.assert_array_equal(one.rollout(states[:1], plans[7:8]).reward[0], alone.reward[7])
    np.testing.assert_array_equal(two.rollout(states, plans[:, :3]).reward, alone.reward[:, :3])
    one.close()
    two.close()


def test_more_plans_than_fit_at_once_are_tried_in_several_calls(monkeypatch):
    env = made("Hopper-v5", {})
    plans, states = plans_for(env, count=7), np.repeat(env.states()[:1], 7, axis=0)
    whole = env.rollout(states, plans, observed=True)
    monkeypatch.setattr(trials, "MOST_NUMBERS", 12 * 2 * STEPS * 4)  # two plans of qpos and qvel
    parts = env.rollout(states, plans, observed=True)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
    env.close()


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Ant-v5", "InvertedDoublePendulum-v5"])
def test_a_broken_simulation_earns_nothing_and_touches_no_other(task):
    env = made(task, {})
    plans, states = plans_for(env, count=6), np.repeat(env.states()[:1], 6, axis=0)
    whole = env.rollout(states, plans)
    fast, lost = states.copy(), plans.copy()
    physics = env.physics(states)
    physics[2, -1] = 1e12  # beyond what MuJoCo goes on with
    fast = env.with_physics(states, physics)
    lost[4, 3] = np.nan
    broken = env.rollout(fast, lost, observed=True)
    assert (broken.reward[2] == 0).all() and broken.terminated[2].all()
    assert (broken.reward[4, 3:] == 0).all() and broken.terminated[4, 3:].all()
    np.testing.assert_array_equal(broken.reward[4, :3], whole.reward[4, :3])
    fine = [0, 1, 3, 5]
    np.testing.assert_array_equal(broken.reward[fine], whole.reward[fine])
    np.testing.assert_array_equal(broken.states[fine], whole.states[fine])
    np.testing.assert_array_equal(env.rollout(states, plans).reward, whole.reward, "the copies are as good as new")
    env.close()


def test_a_trial_goes_on_past_an_end_of_the_task():
    env = made("Hopper-v5", {})
    space = env.spec.action
    assert isinstance(space, Box)
    plans = np.tile(np.array(space.high), (1, 80, 1))
    tried = env.rollout(env.states()[:1], plans)
    ended = int(np.argmax(tried.terminated[0]))
    assert 0 < ended < 79 and (tried.reward[0, ended + 1 :] != 0).all()
    env.close()


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Pusher-v5", "CartPole-v1", "Acrobot-v1"])
def test_states_with_another_motion_are_those_of_it(task):
    env = made(task, {})
    states = env.states()
    physics = env.physics(states)
    np.testing.assert_array_equal(env.with_physics(states, physics), states)
    moved = env.with_physics(states[:1], physics[::-1])
    np.testing.assert_array_equal(env.physics(moved), physics[::-1])
    assert env.with_physics(states[:1], physics[:1]).shape == (1, states.shape[1])
    env.close()
