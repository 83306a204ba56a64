"""The least and the most that a task can return hold for episodes that were played."""

import math

import gymnasium
import numpy as np
import pytest

from workhorse.environments.possible_returns import _BOUNDS, possible_returns
from workhorse.environments.registry import TASKS


def played(task, act, seed, **options):
    env = gymnasium.make(task, **options)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    total, over = 0.0, False
    while not over:
        _, reward, terminated, truncated, _ = env.step(act(env.action_space))
        total, over = total + float(reward), terminated or truncated
    return total


def extremes(space):
    return [space.high, space.low] if hasattr(space, "high") else [space.n - 1, 0]


@pytest.mark.parametrize("task", sorted(_BOUNDS))
def test_no_episode_is_outside(task):
    assert task in TASKS
    low, high = possible_returns(task)
    ways = [lambda space: space.sample(), lambda space: extremes(space)[0], lambda space: extremes(space)[1]]
    returns = [played(task, act, seed) for seed in range(2) for act in ways]
    assert all(low <= value <= high for value in returns), (low, high, returns)


def test_options_that_change_what_is_paid():
    assert played("CartPole-v1", lambda space: 0, 0, sutton_barto_reward=True) == -1.0
    assert possible_returns("CartPole-v1", {"sutton_barto_reward": True}) == (-1.0, 0.0)
    assert possible_returns("CartPole-v1", {"max_episode_steps": None}) == (1.0, math.inf)
    assert possible_returns("InvertedDoublePendulum-v5", {"healthy_reward": 2.0, "max_episode_steps": 10})[1] == 20.0
    assert possible_returns("InvertedDoublePendulum-v5", {"healthy_reward": 0.0, "max_episode_steps": None})[1] == 0.0
    assert possible_returns("Reacher-v5", {"reward_dist_weight": -1.0})[1] == math.inf


@pytest.mark.parametrize("options", [{"max_episode_steps": "many"}, {"max_episode_steps": [3]}, None])
def test_what_is_not_known_has_no_bounds(options):
    assert possible_returns("CartPole-v1" if options else "mine:Own-v0", options) == (-math.inf, math.inf)


def test_the_most_of_cart_pole_is_reached():
    upright = np.array([0.1, 0.3, 1.0, 1.0])
    env = gymnasium.make("CartPole-v1")
    obs, _ = env.reset(seed=0)
    total, over = 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(int(obs @ upright > 0))
        total, over = total + float(reward), terminated or truncated
    assert total == possible_returns("CartPole-v1")[1]
