"""Estimates from another policy's episodes, against enumeration of a small task."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workhorse.statistics.off_policy_estimates import (
    ESTIMATORS,
    PlayedEpisodes,
    effective_sample_size,
    estimate,
    padded,
    ranking,
)

GAMMA, HORIZON = 0.8, 3
NEXT = np.array([[0, 1], [2, 0], [1, 2]])
"""State after each action in each of three states: the task is deterministic."""
REWARD = np.array([[1.0, 0.0], [0.5, -1.0], [2.0, 0.0]])
BEHAVIOUR = np.array([[0.5, 0.5], [0.3, 0.7], [0.6, 0.4]])
TARGET = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])


def exact(policy):
    """Values by backward recursion: J, Q (T, 3, 2) and V (T + 1, 3)."""
    value, found = np.zeros(3), []
    for _ in range(HORIZON):
        action_value = REWARD + GAMMA * value[NEXT]
        value = (policy * action_value).sum(1)
        found.insert(0, (action_value, value))
    return found[0][1][0], np.array([q for q, _ in found]), np.array([v for _, v in found])


TRUTH, Q, V = exact(TARGET)


def trajectories():
    """All episodes from state 0 with their chance under the behaviour."""
    for actions in itertools.product((0, 1), repeat=HORIZON):
        state, chance, steps = 0, 1.0, []
        for action in actions:
            steps.append((state, action))
            chance *= BEHAVIOUR[state, action]
            state = NEXT[state, action]
        yield steps, chance


def as_episodes(all_steps, q=None, v=None):
    shape = (len(all_steps), HORIZON)
    ratio, reward, action_value, state_value = (np.zeros(shape) for _ in range(4))
    for row, steps in enumerate(all_steps):
        for time, (state, action) in enumerate(steps):
            ratio[row, time] = np.log(TARGET[state, action] / BEHAVIOUR[state, action])
            reward[row, time] = REWARD[state, action]
            if q is not None:
                action_value[row, time] = q[time, state, action]
                state_value[row, time] = v[time, state]
    return PlayedEpisodes(ratio, reward, action_value, state_value)


def drawn(rng, count):
    kinds = list(trajectories())
    chosen = rng.choice(len(kinds), count, p=[chance for _, chance in kinds])
    return [kinds[one][0] for one in chosen]


def value_of(episodes, method):
    return estimate(episodes, method, GAMMA, np.random.default_rng(0)).interval.value


def some_q():
    """A Q that is wrong, and the V that belongs to it."""
    q = np.random.default_rng(7).normal(size=(HORIZON, 3, 2))
    return q, (TARGET * q).sum(2)


@pytest.mark.parametrize("method", ["ordinary", "per decision", "doubly robust"])
def test_the_mean_over_all_episodes_is_the_truth(method):
    """Without sampling: a sum over every episode that the behaviour can play, by its chance."""
    q, v = some_q()
    total = sum(chance * value_of(as_episodes([steps], q, v), method) for steps, chance in trajectories())
    assert total == pytest.approx(TRUTH, abs=1e-12)


@pytest.mark.parametrize("method", ESTIMATORS)
def test_many_episodes_come_near_the_truth(method):
    q, v = some_q()
    found = value_of(as_episodes(drawn(np.random.default_rng(1), 4_000), q, v), method)
    assert found == pytest.approx(TRUTH, abs=0.1)


@pytest.mark.parametrize("method", ["doubly robust", "weighted doubly robust"])
def test_with_the_true_values_one_episode_is_enough(method):
    """The task is deterministic: r + gamma V(s') = Q(s, a), so that every weight meets a zero, but the first V."""
    for steps, _ in trajectories():
        episodes = as_episodes([steps], Q, V)
        after = np.array(
            [[V[time + 1, NEXT[s, a]] if time + 1 < HORIZON else 0.0 for time, (s, a) in enumerate(steps)]]
        )
        assert np.allclose(episodes.reward + GAMMA * after, episodes.action_value)
        assert value_of(episodes, method) == pytest.approx(TRUTH, abs=1e-12)


def test_without_values_doubly_robust_is_importance_sampling():
    episodes = as_episodes(drawn(np.random.default_rng(2), 40))
    assert value_of(episodes, "doubly robust") == pytest.approx(value_of(episodes, "per decision"), abs=1e-12)
    same = value_of(episodes, "weighted per decision")
    assert value_of(episodes, "weighted doubly robust") == pytest.approx(same, abs=1e-12)


def test_the_weighted_estimate_is_that_of_a_plain_loop():
    episodes = as_episodes(drawn(np.random.default_rng(3), 25))
    weight, total = np.ones(25), 0.0
    for time in range(HORIZON):
        weight = weight * np.exp(episodes.log_ratio[:, time])
        total += GAMMA**time * sum(weight * episodes.reward[:, time]) / sum(weight)
    assert value_of(episodes, "weighted per decision") == pytest.approx(total, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(-400, 400))
def test_a_weighted_estimate_stays_within_the_rewards(seed, scale):
    """However large the weights are, also where a plain product of them would overflow."""
    rng = np.random.default_rng(seed)
    reward = rng.uniform(-1, 2, (6, 8))
    episodes = PlayedEpisodes(scale + rng.normal(size=(6, 8)), reward, 0 * reward, 0 * reward)
    found = estimate(episodes, "weighted per decision", 1.0, rng).interval
    assert reward.min(0).sum() - 1e-9 <= found.value <= reward.max(0).sum() + 1e-9
    assert found.low <= found.high


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, (q, v) = np.random.default_rng(4), some_q()
    for method in ("per decision", "weighted per decision", "doubly robust"):
        hits = 0
        for _ in range(200):
            found = estimate(as_episodes(drawn(rng, 60), q, v), method, GAMMA, rng).interval
            hits += found.low <= TRUTH <= found.high
        assert 0.87 <= hits / 200 <= 0.99, method


def test_effective_sample_size():
    assert effective_sample_size(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_sample_size(np.array([2.0, 1.0, 1.0])) == pytest.approx(16 / 6)
    assert effective_sample_size(np.array([1e300, 1e300])) == pytest.approx(2)
    assert effective_sample_size(np.zeros(3)) == 0
    episodes = as_episodes(drawn(np.random.default_rng(5), 30))
    weight = np.exp(episodes.log_ratio.sum(1))
    rng = np.random.default_rng(0)
    found = estimate(episodes, "ordinary", GAMMA, rng).effective
    assert found == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    cumulative = np.exp(np.cumsum(episodes.log_ratio, 1))
    sizes = cumulative.sum(0) ** 2 / (cumulative**2).sum(0)
    powers = GAMMA ** np.arange(HORIZON)
    found = estimate(episodes, "weighted per decision", GAMMA, rng).effective
    assert found == pytest.approx((sizes * powers).sum() / powers.sum())


def test_an_ended_episode_keeps_its_weight():
    """One of a step with weight 3, one of two steps with weight 1: the mean of the second step is over both."""
    ratio = padded(np.log(np.array([3.0, 1.0, 1.0])), np.array([0, 1]))
    reward = padded(np.array([1.0, 1.0, 8.0]), np.array([0, 1]))
    episodes = PlayedEpisodes(ratio, reward, 0 * reward, 0 * reward)
    assert value_of(episodes, "weighted per decision") == pytest.approx(1 + GAMMA * 8 / 4)


def test_rankings():
    truth = np.array([1.0, 2.0, 3.0, 5.0])
    assert ranking(truth**2, truth) == (pytest.approx(1.0), 0.0, pytest.approx((5 - 2.75) / 4))
    assert ranking(-truth, truth)[:2] == (pytest.approx(-1.0), 1.0)
    assert ranking(np.zeros(4), truth).regret == pytest.approx((5 - 2.75) / 4), "no estimate is a random choice"
    assert np.isnan(ranking(np.zeros(4), truth).correlation)
    assert ranking(truth, np.zeros(4)).regret == 0


def test_an_unknown_estimator_is_named():
    with pytest.raises(ValueError, match="method must be one of ordinary"):
        value_of(as_episodes(drawn(np.random.default_rng(6), 3)), "magic")
