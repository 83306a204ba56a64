"""The least and the most that a task can return hold for episodes that were played."""

import gymnasium
import numpy as np
import pytest

from workhorse.environments.bounds import _PER_STEP, return_bounds
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


@pytest.mark.parametrize("task", ["MountainCarContinuous-v0", *_PER_STEP])
def test_no_episode_is_outside(task):
    assert task in TASKS
    low, high = return_bounds(task)
    ways = [lambda space: space.sample(), lambda space: extremes(space)[0], lambda space: extremes(space)[1]]
    returns = [played(task, act, seed) for seed in range(2) for act in ways]
    assert all((low is None or low <= value) and value <= high for value in returns), (low, high, returns)


def test_the_most_of_cart_pole_is_reached():
    upright = np.array([0.1, 0.3, 1.0, 1.0])
    env = gymnasium.make("CartPole-v1")
    obs, _ = env.reset(seed=0)
    total, over = 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(int(obs @ upright > 0))
        total, over = total + float(reward), terminated or truncated
    assert total == return_bounds("CartPole-v1")[1]
