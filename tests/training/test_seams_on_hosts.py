"""Where an episode ends in a host environment, its true successor is learnt from, not what came after the reset."""

import sys
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest

from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.rollouts import actor_of

sys.path.insert(0, str(Path(__file__).parents[1] / "environments"))
import weird_environments  # noqa: F401

SMALL = {"num_envs": 3, "held_out_envs": 1, "rollout_steps": 12, "minibatch_size": 36, "hidden": (4,)}


def seams(task, **options):
    plan = Plan(task, options, "ppo", SMALL, 0)
    loop = make_loop(plan, plan.spec(), 1)
    progress = loop.start()
    rollout, *_ = loop.collector.collect(actor_of(loop.algorithm, progress.state), progress.data.slots, 0)
    batch, _, _ = jax.jit(loop.algorithm.batch)(progress.state, rollout)
    loop.close()
    return loop.algorithm, progress.state, rollout, batch


@pytest.mark.parametrize(
    ("task", "options"), [("HalfCheetah-v5", {"max_episode_steps": 5}), ("weird/Walk-v0", {"max_episode_steps": 5})]
)
def test_a_time_limit_is_bootstrapped_from_where_the_episode_was(task, options):
    algorithm, state, rollout, batch = seams(task, **options)
    ended = rollout.terminated | rollout.truncated
    assert rollout.truncated.any() and not (rollout.terminated & rollout.truncated).any()
    within = ~ended[:-1]
    np.testing.assert_array_equal(rollout.next_obs[:-1][within], rollout.obs[1:][within])
    reset = rollout.obs[1:][ended[:-1]]
    assert (np.abs(rollout.next_obs[:-1][ended[:-1]] - reset).max(-1) > 0).all(), "not what came after the reset"
    discount = np.asarray(batch.transition.discount)
    np.testing.assert_allclose(discount, algorithm.discount * ~rollout.terminated, rtol=1e-6)
    value = algorithm.values(state.params, jax.vmap(jax.vmap(
        lambda obs: algorithm.scaled(algorithm.actor(state), obs)))(rollout.next_obs))  # fmt: skip
    cut = rollout.truncated & ~rollout.terminated
    one_step = np.asarray(batch.transition.reward) + discount * np.asarray(value) - np.asarray(batch.value)
    np.testing.assert_allclose(np.asarray(batch.advantage)[cut], one_step[cut], rtol=1e-4, atol=1e-5)


def test_the_successor_at_the_clock_is_gymnasiums():
    """The steps of one episode, taken again by Gymnasium from the same first observation with the same actions."""
    _, _, rollout, _ = seams("HalfCheetah-v5", max_episode_steps=5)
    env = gymnasium.make("HalfCheetah-v5").unwrapped
    env.reset()
    for slot in range(3):
        for first in (0, 5):  # and of the episode after the first reset
            x = env.data.qpos.copy()
            x[1:] = rollout.obs[first, slot, : len(x) - 1]
            env.set_state(x, rollout.obs[first, slot, len(x) - 1 :])
            for time in range(first, first + 5):
                found, *_ = env.step(np.asarray(rollout.action[time, slot]))
            np.testing.assert_allclose(rollout.next_obs[first + 4, slot], found, atol=1e-3)
    env.close()
