"""Where the slots of a host environment stand between rollouts: going on, and coming back."""

import sys
from pathlib import Path

import numpy as np
import pytest

from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.rollouts import actor_of

sys.path.insert(0, str(Path(__file__).parents[1] / "environments"))
import weird_environments  # noqa: F401

SMALL = {"num_envs": 2, "held_out_envs": 0, "rollout_steps": 7, "minibatch_size": 14, "hidden": (4,)}


@pytest.fixture(params=["weird/Walk-v0", "weird/Declared-v0"])
def loop(request):
    plan = Plan(request.param, {}, "ppo", SMALL, 0)
    loop = make_loop(plan, plan.spec(), 1)
    yield loop
    loop.close()


def test_an_episode_goes_on_from_one_rollout_into_the_next(loop, monkeypatch):
    progress = loop.start()
    actor, slots = actor_of(loop.algorithm, progress.state), progress.data.slots
    restored = []
    monkeypatch.setattr(loop.collector._env, "restore", restored.append)
    rollout, after, ended, _ = loop.collector.collect(actor, slots, 0)
    following, *_ = loop.collector.collect(actor, after, 1)
    going_on = ~ended.flag[-1]
    assert going_on.any() and not restored
    np.testing.assert_array_equal(following.obs[0][going_on], rollout.next_obs[-1][going_on])


def test_slots_that_were_left_are_come_back_to(loop):
    """To the bit where episodes are replayed; where they can only begin again, with nothing of the old ones."""
    progress = loop.start()
    actor = actor_of(loop.algorithm, progress.state)
    _, after, _, _ = loop.collector.collect(actor, progress.data.slots, 0)
    first, _, ended, _ = loop.collector.collect(actor, after, 1)
    again, _, ended_again, _ = loop.collector.collect(actor, after, 1)
    if loop.algorithm.spec.resume == "journal":
        np.testing.assert_array_equal(first.obs, again.obs)
        np.testing.assert_array_equal(ended.episode_length, ended_again.episode_length)
    else:
        assert after.episode_length.min() > 0
        assert ended_again.episode_length[0].max() <= 1
        np.testing.assert_array_equal(again.obs[0], loop.collector._go_to(after, actor).obs)
