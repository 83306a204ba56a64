"""States that are given other positions and velocities: they are those in which an episode of that pose begins."""

import numpy as np
import pytest

from workhorse.core.addresses import host_keys
from workhorse.environments.registry import make


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Swimmer-v5", "Ant-v5", "Humanoid-v5", "Hopper-v5"])
def test_the_position_that_progress_is_measured_by_moves_along(task):
    """The first step from the pose of another reset pays what it pays after that reset, whatever it was before."""
    env = make(task, 3, 1)
    env.reset(host_keys(0, "reset", 0, np.arange(3)))
    plan = np.tile(env.spec.action.high, (3, 1, 1)) * 0.3
    begun = env.states()
    there = env.physics(begun)
    moved = env.states(np.array([1]))
    for _ in range(5):
        moved = env.rollout(moved, plan[:1]).states
    given = env.with_physics(moved, there)
    np.testing.assert_array_equal(env.physics(given), there)
    position = slice(env._simulations.state.shape[1], None)
    np.testing.assert_allclose(given[:, position], begun[:, position], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(env.rollout(given, plan).reward, env.rollout(begun, plan).reward, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(env.states(), begun)
    env.close()
