"""The scale of rewards against a plain loop: seams of episodes, slots, calls of any length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workhorse.math.reward_scale import RewardSums, reward_factor

after = jax.jit(lambda sums, reward, ended, discount: sums.after(reward, ended, discount))


def by_hand(reward, ended, discount):
    """Every sum that is recorded, and each slot's sum at the end."""
    totals, current = [], np.zeros(reward.shape[1])
    for time in range(len(reward)):
        for slot in range(reward.shape[1]):
            current[slot] = discount * current[slot] + reward[time, slot]
            totals.append(current[slot])
            if ended[time, slot]:
                current[slot] = 0.0
    return np.array(totals), current


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000), slots=st.sampled_from([1, 3]), cuts=st.sampled_from([(10,), (1, 9), (4, 4, 2)]),
    discount=st.sampled_from([0.0, 0.9, 1.0]),
)  # fmt: skip
def test_sums_and_their_moments_are_those_of_a_loop_over_all_steps(seed, slots, cuts, discount):
    rng = np.random.default_rng(seed)
    reward, ended = rng.normal(1.0, 5.0, size=(10, slots)), rng.random((10, slots)) < 0.3
    sums, begin = RewardSums.start(slots), 0
    for length in cuts:
        part = slice(begin, begin + length)
        sums, begin = after(sums, jnp.asarray(reward[part]), jnp.asarray(ended[part]), discount), begin + length
    totals, current = by_hand(reward, ended, discount)
    np.testing.assert_allclose(sums.current, current, rtol=1e-12, atol=1e-12)
    assert sums.moments.count == 10 * slots
    np.testing.assert_allclose(sums.moments.mean, totals.mean(), rtol=1e-9)
    np.testing.assert_allclose(sums.moments.deviation, 10 * slots * totals.var(), rtol=1e-9)
    assert float(sums.largest) == pytest.approx(np.abs(totals).max(), rel=1e-12)
    scale = max(totals.std(), np.abs(totals).max() / 5.0)
    assert float(reward_factor(sums, 5.0)) == pytest.approx(1 / scale, rel=1e-6)


def test_the_last_reward_of_an_episode_belongs_to_it_and_not_to_the_next():
    """Rewards 1 and then 100 at an episode's end, discount 1: the sums are 1 and 101, and the next episode's 1."""
    reward = jnp.asarray([[1.0], [100.0], [1.0]])
    sums = after(RewardSums.start(1), reward, jnp.asarray([[False], [True], [False]]), 1.0)
    assert float(sums.largest) == 101.0
    assert sums.current.tolist() == [1.0]
    assert float(sums.moments.mean[0]) == pytest.approx((1 + 101 + 1) / 3)


def test_the_spread_decides_or_the_largest_sum():
    no = jnp.zeros((2, 1), bool)
    even = after(RewardSums.start(1), jnp.asarray([[4.0], [-4.0]]), no, 0.0)  # standard deviation 4, largest 4
    assert float(reward_factor(even, 5.0)) == pytest.approx(1 / 4)
    assert float(reward_factor(even, 0.5)) == pytest.approx(1 / 8)
    far = after(RewardSums.start(1), jnp.full((2, 1), -10.0), no, 0.0)  # standard deviation 0, largest 10
    assert float(reward_factor(far, 5.0)) == pytest.approx(1 / 2)


def test_rewards_that_were_all_zero_are_left_as_they_are():
    assert float(reward_factor(RewardSums.start(2), 5.0)) == 1.0
    nothing = after(RewardSums.start(1), jnp.zeros((3, 1)), jnp.zeros((3, 1), bool), 0.99)
    assert float(reward_factor(nothing, 5.0)) == 1.0


@pytest.mark.parametrize("times", [1e-3, 1e4])
def test_scaled_rewards_do_not_change_with_their_unit(times):
    rng = np.random.default_rng(0)
    reward, ended = jnp.asarray(rng.normal(size=(50, 2))), jnp.asarray(rng.random((50, 2)) < 0.1)
    factors = [float(reward_factor(after(RewardSums.start(2), c * reward, ended, 0.9), 5.0)) for c in (1.0, times)]
    assert factors[1] * times == pytest.approx(factors[0], rel=1e-6)
