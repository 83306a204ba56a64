"""Measures of an iteration off the replay: against plain loops over what was played."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workhorse.core.spec import Box, Discrete, MultiDiscrete
from workhorse.data import replay
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.replay_measures import MOST_TAIL, following_rewards, highest_entropy

SMALL = {
    "hidden": (8,), "rollout_steps": 64, "learn_every": 16, "warmup_env_steps": 64, "batch_size": 16,
    "replay_ratio": 4.0, "num_envs": 2,
}  # fmt: skip


def followed(reward, terminated, truncated, value, gamma, start):
    """Plain loop: the discounted return from `start` on, the value of the last step seen where nothing ended it."""
    total, weight = 0.0, 1.0
    for time in range(start, len(reward)):
        if terminated[time]:
            return total + weight * reward[time], 0.0
        if truncated[time] or time == len(reward) - 1:
            return total + weight * value[time], weight
        total, weight = total + weight * reward[time], weight * gamma
    raise AssertionError


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0.1, 1.0))
def test_what_followed_a_step_is_a_plain_sum(seed, gamma):
    rng = np.random.default_rng(seed)
    shape = (12, 3)
    reward, value = rng.normal(size=shape).astype(np.float32), rng.normal(size=shape)
    terminated, truncated = rng.uniform(size=shape) < 0.15, rng.uniform(size=shape) < 0.15
    found = jax.device_get(
        following_rewards(jnp.asarray(reward), jnp.asarray(terminated), jnp.asarray(truncated), jnp.float32(gamma))
    )
    for time in range(12):
        for slot in range(3):
            column = (reward[:, slot], terminated[:, slot], truncated[:, slot], value[:, slot])
            total, weight = followed(*column, gamma, time)
            assert found.weight[time, slot] == pytest.approx(weight, rel=1e-5)
            told = found.reward[time, slot] + found.weight[time, slot] * value[found.cut[time, slot], slot]
            assert told == pytest.approx(total, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("task", "algorithm"), [("CartPole-v1", "dqn"), ("Pendulum-v1", "sac")])
def test_the_metrics_of_an_iteration_are_those_of_its_steps(task, algorithm):
    """Rewards of the newest iteration alone; values and returns of the newest steps, by a loop over the replay."""
    plan = Plan(task, {}, algorithm, {**SMALL, "discount": 0.9, "replay_capacity": 200}, 3)
    loop = make_loop(plan, plan.spec(), 1)
    progress = loop.start()
    for _ in range(5):  # 640 steps, of which 200 are kept
        progress, metrics, _ = loop.iterate(progress)
    cursor, rows = progress.data.cursor, jax.device_get(loop.arrays.rows)
    times = np.arange(int(cursor.first), int(cursor.count))
    at = times % loop.size.rows
    reward, terminated, truncated = rows.reward[at], rows.terminated[at], rows.truncated[at]
    assert metrics["reward_max"] == reward[-64:].max() and metrics["reward_min"] == reward[-64:].min()
    assert metrics["reward_mean"] == pytest.approx(reward[-64:].mean(), rel=1e-6)
    state, learner = progress.state, loop.algorithm
    obs, action = rows.obs[times % (loop.size.rows + 1)], rows.action[at]
    value = np.asarray(jax.vmap(jax.vmap(lambda o, a: learner.action_value(state, o, a)))(obs, action))
    pairs = []
    for slot in range(2):
        for time in range(len(times)):
            column = (reward[:, slot], terminated[:, slot], truncated[:, slot], value[:, slot])
            total, weight = followed(*column, 0.9, time)
            if weight <= MOST_TAIL:
                pairs.append((time, slot, value[time, slot], total))
    pairs.sort()
    wanted = [pairs[int((number + 0.5) * len(pairs) / 64)] for number in range(64)]
    assert metrics["recent_value"] == pytest.approx(np.mean([pair[2] for pair in wanted]), rel=1e-4, abs=1e-5)
    assert metrics["recent_return"] == pytest.approx(np.mean([pair[3] for pair in wanted]), rel=1e-4, abs=1e-5)
    assert metrics["recent_return_spread"] == pytest.approx(np.std([pair[3] for pair in wanted]), rel=1e-3, abs=1e-4)
    if algorithm == "dqn":
        assert terminated.any() and 0 < metrics["sampled_terminals"] < 1
        assert "highest_entropy" not in metrics
    else:
        assert metrics["sampled_terminals"] == 0
        assert metrics["highest_entropy"] == pytest.approx(math.log(2))
    loop.close()


def test_no_value_is_told_before_the_first_update():
    plan = Plan("CartPole-v1", {}, "dqn", {**SMALL, "warmup_env_steps": 1000}, 3)
    loop = make_loop(plan, plan.spec(), 1)
    _, metrics, _ = loop.iterate(loop.start())
    assert metrics["reward_max"] == 1.0
    assert not {name for name in metrics if name.startswith("recent_") or name in ("value", "sampled_terminals")}
    loop.close()


def test_returns_cut_too_early_are_not_looked_at():
    """With a discount of 1 a return that nothing ended is no better than the value it ends in."""
    plan = Plan("Pendulum-v1", {}, "sac", {**SMALL, "discount": 1.0}, 3)
    loop = make_loop(plan, plan.spec(), 1)
    progress = loop.start()
    for _ in range(2):
        progress, metrics, _ = loop.iterate(progress)
    assert math.isnan(metrics["recent_value"]) and math.isnan(metrics["recent_return"])
    loop.close()


def test_the_share_of_sampled_terminations_is_that_of_the_batches(monkeypatch):
    """Every step is stored as a termination: every sampled one is."""
    written = replay.written

    def ended(size, rows, cursor, tree, steps, *rest):
        return written(size, rows, cursor, tree, steps._replace(terminated=jnp.ones_like(steps.terminated)), *rest)

    monkeypatch.setattr(replay, "written", ended)
    plan = Plan("CartPole-v1", {}, "dqn", {**SMALL, "hidden": (7,)}, 3)  # of its own size: a program of its own
    loop = make_loop(plan, plan.spec(), 1)
    progress, _, _ = loop.iterate(loop.start())
    _, metrics, _ = loop.iterate(progress)
    assert metrics["sampled_terminals"] == 1.0
    loop.close()


def test_the_highest_entropy_is_that_of_equal_chances():
    assert highest_entropy(Box((-1.0,) * 3, (1.0,) * 3)) == pytest.approx(3 * math.log(2))
    assert highest_entropy(Discrete(5)) == pytest.approx(math.log(5))
    assert highest_entropy(MultiDiscrete((2, 3))) == pytest.approx(math.log(6))
