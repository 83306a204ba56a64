"""The whole way, from steps of an environment to values that are known in closed form, by the real loop."""

import numpy as np
import pytest

from tests.algorithms.value_based.setting import CHAIN, chain_values, trained_on, values_at
from workhorse.environments.probes import ResetLeakProbe, TerminationProbe

PLACES = np.eye(3)
TABLE = {
    "hidden": (), "discount": 0.9, "batch_size": 32, "warmup_env_steps": 1024, "rollout_steps": 512, "learn_every": 64,
    "replay_capacity": 4000, "replay_ratio": 100.0, "learning_rate": 0.03, "target_every": 20,
    "target_rate": 1.0,
}  # fmt: skip
"""A linear network over places is a table, which can hold every value exactly."""

VARIANTS = {
    "dqn": {"final_epsilon": 1.0},
    "ddqn": {"final_epsilon": 1.0},
    "c51": {"final_epsilon": 1.0, "num_atoms": 41, "value_low": -1.0, "value_high": 2.0},
    # Longer windows would hold the choices of the behaviour, whose values are others.
    "rainbow": {"n_steps": 1, "num_atoms": 41, "value_low": -1.0, "value_high": 2.0, "noise_std": 1.0},
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "settings"), VARIANTS.items())
def test_a_chain_is_solved(name, settings, seed):
    algorithm, state, metrics = trained_on(CHAIN, name, 5, seed, **TABLE, **settings)
    expected = chain_values(0.9)
    assert (expected.argmax(1) == [1, 1, 1]).all() and abs(expected[0, 1] - 0.81) < 1e-9
    close = {"c51": 0.02, "rainbow": 0.05}.get(name, 1e-3)  # the noise of rainbow's weights never ends
    np.testing.assert_allclose(values_at(algorithm, state, PLACES), expected, atol=close)
    np.testing.assert_allclose(metrics["value"], metrics["target"], atol=0.05)
    if algorithm.categorical:
        assert metrics["support_end_mass"] < 0.01


@pytest.mark.parametrize("temperature", [0.05, 0.4])
def test_discrete_sac_finds_the_soft_values_of_the_chain_and_their_policy(temperature):
    settings = {key: value for key, value in TABLE.items() if key != "target_every"}
    settings |= {"learn_temperature": False, "temperature": temperature, "target_rate": 0.05}
    algorithm, state, metrics = trained_on(CHAIN, "sac-discrete", 5, **settings)
    expected = chain_values(0.9, temperature)
    for critic in state.critics:
        np.testing.assert_allclose(PLACES @ critic.weights[0].T + critic.biases[0], expected, atol=0.03)
    logits = PLACES @ state.policy.weights[0].T + state.policy.biases[0]
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    best = np.exp(expected / temperature) / np.exp(expected / temperature).sum(1, keepdims=True)
    np.testing.assert_allclose(share, best, atol=0.05)
    np.testing.assert_allclose(metrics["temperature"], temperature, rtol=1e-5)
    assert algorithm.is_stochastic


CLOCKED = {
    "dqn": {},
    "c51": {"num_atoms": 71, "value_low": -12.0, "value_high": 3.0},
    "sac-discrete": {"learn_temperature": False, "temperature": 1e-6, "target_rate": 0.05},
}


@pytest.mark.parametrize("name", CLOCKED)
@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_cut_episode_is_bootstrapped_from_its_final_observation_and_not_from_the_reset(name, n_steps):
    """What is done has no effect, so that windows of any length have the same values."""
    settings = {key: value for key, value in TABLE.items() if name != "sac-discrete" or key != "target_every"}
    env = ResetLeakProbe(-10.0)
    algorithm, state, _ = trained_on(env, name, 5, **settings | CLOCKED[name] | {"discount": 0.5, "n_steps": n_steps})
    if name == "sac-discrete":
        found = np.eye(2) @ state.critics[0].weights[0].T + state.critics[0].biases[0]
    else:
        found = values_at(algorithm, state, np.eye(2))
    np.testing.assert_allclose(found, np.repeat(env.value(0.5), 2).reshape(2, 2), atol=0.05)
    assert abs(env.leaked_value(0.5) - env.value(0.5)[1]) > 1


@pytest.mark.parametrize("n_steps", [1, 3])
def test_nothing_is_bootstrapped_at_an_end(n_steps):
    env, settings = TerminationProbe(4), {"hidden": (16,), "learning_rate": 0.01, "discount": 0.8, "n_steps": n_steps}
    algorithm, state, _ = trained_on(env, "dqn", 5, **TABLE | settings)
    expected = [env.value(0.8, taken) for taken in range(4)]
    found = values_at(algorithm, state, np.arange(4)[:, None] / 4)
    np.testing.assert_allclose(found, np.repeat(expected, 2).reshape(4, 2), atol=0.05)
