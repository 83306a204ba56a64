"""Fitted Q evaluation and models of a behaviour, against exact values of small tasks."""

import numpy as np
import pytest

from workhorse.diagnostics.behaviour import LEAST_LOG_STD, behaviour_log_prob
from workhorse.diagnostics.fitted_evaluation import FixedPolicySteps, fit_values

GAMMA = 0.8
CHANCES = np.array([[[0.7, 0.3, 0], [0, 0.2, 0.8]], [[0.5, 0, 0.5], [0.1, 0.9, 0]], [[0, 0, 1], [1, 0, 0]]])
"""Chance of each next state, by state and action."""
REWARD = np.array([[1.0, 0.0], [-2.0, 3.0], [0.5, 0.0]])
ENDS = np.array([[0, 0], [0, 1], [0, 0]])
"""1 where the task terminates."""
POLICY = np.array([1, 0, 1])


def exact(policy):
    """Q of a deterministic policy by the linear equations Q = r + gamma (1 - ends) P Q(., pi(.))."""
    matrix = np.eye(6)
    for state in range(3):
        for action in range(2):
            for after in range(3):
                place = 2 * after + policy[after]
                matrix[2 * state + action, place] -= GAMMA * (1 - ENDS[state, action]) * CHANCES[state, action, after]
    return np.linalg.solve(matrix, REWARD.reshape(-1)).reshape(3, 2)


def steps_of(policy, count=4000, seed=0):
    rng = np.random.default_rng(seed)
    state, action = rng.integers(0, 3, count), rng.integers(0, 2, count)
    after = np.array([rng.choice(3, p=CHANCES[s, a]) for s, a in zip(state, action, strict=True)])
    states, actions = np.eye(3, dtype=np.float32), np.eye(2, dtype=np.float32)
    return FixedPolicySteps(
        states[state], actions[action], REWARD[state, action], GAMMA * (1 - ENDS[state, action]), states[after],
        actions[policy[after]],
    )  # fmt: skip


def table(values):
    pairs = [(state, action) for state in range(3) for action in range(2)]
    states, actions = np.eye(3, dtype=np.float32), np.eye(2, dtype=np.float32)
    found = values(states[[s for s, _ in pairs]], actions[[a for _, a in pairs]])
    return found.reshape(3, 2)


@pytest.mark.parametrize("policy", [POLICY, np.array([0, 1, 0])])
def test_it_finds_the_exact_values_of_a_fixed_policy(policy):
    steps = steps_of(policy)
    values = fit_values(steps, steps.reward, (-50, 50), updates=4000, hidden=(32,), learning_rate=5e-3)
    assert table(values) == pytest.approx(exact(policy), abs=0.12)
    both = values.both(steps.obs[:50], steps.action[:50])
    assert np.abs(both[0] - both[1]).max() < 0.3 and (both[0] != both[1]).any(), "two networks of their own"


def test_another_policy_has_other_values():
    """Else the test above could not tell whose values were found."""
    assert np.abs(exact(POLICY) - exact(np.array([0, 1, 0]))).max() > 1


def test_values_stay_within_the_bounds():
    """Targets above 2 are cut, so that values that no reward allows cannot feed themselves."""
    steps = steps_of(POLICY)
    steps = steps._replace(discount=np.full(4000, 0.999))
    values = fit_values(steps, steps.reward, (-1.0, 2.0), updates=2000, hidden=(32,), learning_rate=5e-3)
    assert table(values).max() < 2.2


def test_the_same_seed_gives_the_same_values():
    steps = steps_of(POLICY, 500)
    first, again, other = (
        table(fit_values(steps, steps.reward, (-9, 9), updates=50, hidden=(8,), seed=seed)) for seed in (1, 1, 2)
    )
    assert (first == again).all() and (first != other).any()


def test_a_gaussian_behaviour_is_found():
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(4000, 2)).astype(np.float32)
    mean, std = np.stack([np.tanh(obs[:, 0]), obs[:, 1] ** 2 - 1], 1), np.array([0.2, 0.5])
    action = mean + std * rng.normal(size=mean.shape)
    found = behaviour_log_prob(obs, action, is_choice=False, updates=3000)
    wanted = (-0.5 * ((action - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum(1)
    assert found.mean() == pytest.approx(wanted.mean(), abs=0.1)
    assert np.corrcoef(found, wanted)[0, 1] > 0.9


def test_chances_of_choices_are_found():
    rng = np.random.default_rng(0)
    obs = rng.choice([-1.0, 1.0], size=(3000, 1)).astype(np.float32)
    chance = np.where(obs[:, 0] > 0, 0.8, 0.3)
    action = np.eye(2)[(rng.uniform(size=3000) > chance).astype(int)]
    found = np.exp(behaviour_log_prob(obs, action, is_choice=True, updates=1500))
    assert found == pytest.approx(np.where(action[:, 0] > 0, chance, 1 - chance), abs=0.06)


def test_a_log_without_noise_has_a_bounded_density():
    obs = np.random.default_rng(0).normal(size=(500, 1)).astype(np.float32)
    found = behaviour_log_prob(obs, np.zeros((500, 1)), is_choice=False, updates=3000)
    assert found.max() <= -LEAST_LOG_STD
