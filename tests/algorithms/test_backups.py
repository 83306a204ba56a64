"""Every algorithm with a replay learns the value that the definition gives: one state, a reward of 1 forever.

A batch is a transition of that state to itself under all sorts of actions. With gamma = 1/2 its value V solves

    V = r + E[discount] V

so that a terminal mask that is left out, a truncation that is taken for a termination, or a discount that ignores how
many steps a window has gives another number.
"""

from functools import partial

import jax
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.algorithm import OffPolicy
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Transitions

COUNT, UPDATES = 32, 1500
SETTINGS = {
    "hidden": (16,), "model_hidden": (16,), "batch_size": COUNT, "warmup_env_steps": COUNT, "discount": 0.5,
    "learning_rate": 0.01, "target_rate": 0.05, "target_every": 10, "temperature": 1e-6, "learn_temperature": False,
    "critic_penalty": 0.0, "conservative_weight": 0.0, "diversity_weight": 0.0,
}  # fmt: skip
WITH_A_REPLAY = [name for name in registry.entries() if registry.algorithm_class(name).consumes is Transitions]
TELLING = [name for name in WITH_A_REPLAY if registry.algorithm_class(name).action_value is not OffPolicy.action_value]
"""Those that tell the value of any action, in raw rewards."""
REPLAYED = [
    name
    for name in WITH_A_REPLAY
    if name in TELLING or not getattr(registry.algorithm_class(name), "needs_log", False)  # else it only imitates
]

# r and the discount of each half of the batch, and V
CASES = {
    "truncation": (1.0, 0.5, 0.5, 2.0),
    "termination": (1.0, 0.0, 0.0, 1.0),
    "both": (1.0, 0.5, 0.0, 4 / 3),
    "three steps": (1.75, 0.125, 0.125, 2.0),
    "three steps, then termination": (1.75, 0.0, 0.0, 1.75),
}


def made(name, **changes):
    """The algorithm on a task of one state, with those of the settings that it has."""
    known = registry.options(name)
    actions = Discrete(2) if registry.algorithm_class(name).takes == "discrete" else Box((-1.0,), (1.0,))
    spec = EnvSpec("OneState", Box((0.0,), (1.0,)), actions, 10)
    given = {option: value for option, value in (SETTINGS | changes).items() if option in known}
    return registry.make(name, spec, given)


def batch_of(algorithm, reward, first, second):
    """Transitions of the one state, those of the first half with one discount and those of the second with another."""
    rng, one = np.random.default_rng(0), np.ones((COUNT, 1), np.float32)
    discount = np.where(np.arange(COUNT) % 2, second, first).astype(np.float32)
    steps = np.full(COUNT, 3 if reward > 1 else 1, np.int32)
    if isinstance(algorithm.spec.action, Discrete):
        action = (np.arange(COUNT) // 2 % 2).astype(np.int32)
    else:
        action = np.repeat(rng.uniform(-1, 1, (COUNT // 2, 1)), 2, axis=0).astype(np.float32)  # one in each half
    number = np.arange(COUNT)
    return Transitions(
        one, action, np.full(COUNT, reward, np.float32), discount, one, discount == 0, discount > 0, steps, number,
        np.ones(COUNT, np.float32), number + 1, action, np.full(COUNT, -np.inf, np.float32),
    )  # fmt: skip


@jax.jit
@partial(jax.vmap, in_axes=(None, 0))
def learnt(algorithm, batch):
    """Return the states after many updates on each of several batches, and the means of the last updates' metrics."""

    def one(state, key):
        state, _, metrics = algorithm.learn(state, batch, key)
        return state, metrics

    state, metrics = jax.lax.scan(one, algorithm.init(jax.random.key(0)), jax.random.split(jax.random.key(1), UPDATES))
    return state, jax.tree.map(lambda leaf: leaf[-100:].mean(), metrics)


@jax.jit
@partial(jax.vmap, in_axes=(None, 0, 0))
def values_of(algorithm, state, batch):
    return jax.vmap(lambda obs, action: algorithm.action_value(state, obs, action))(batch.obs, batch.action)


def batches_of(algorithm, *cases):
    """The batches of some cases, and the values that their definition gives."""
    batches = [batch_of(algorithm, *CASES[case][:-1]) for case in cases]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches), np.array([CASES[case][-1] for case in cases])


@pytest.mark.parametrize("name", REPLAYED)
def test_the_value_of_a_reward_forever_is_what_its_definition_gives(name):
    algorithm = made(name)
    batch, expected = batches_of(algorithm, *CASES)
    state, metrics = learnt(algorithm, batch)
    np.testing.assert_allclose(metrics["value"], expected, rtol=0, atol=0.1)
    np.testing.assert_allclose(metrics["target"], expected, rtol=0, atol=0.1)
    if name in TELLING:
        found = values_of(algorithm, state, batch)
        assert found.shape == (len(CASES), COUNT)
        np.testing.assert_allclose(found, np.repeat(expected[:, None], COUNT, 1), rtol=0, atol=0.15)


@pytest.mark.parametrize("name", TELLING)
def test_values_are_told_in_raw_rewards_whatever_the_scale_they_are_learnt_in(name):
    algorithm = made(name, reward_scale=0.25, scale_rewards=False)
    batch, expected = batches_of(algorithm, "truncation")
    state, _ = learnt(algorithm, batch)
    np.testing.assert_allclose(values_of(algorithm, state, batch)[0], expected[0], rtol=0, atol=0.2)


def test_every_algorithm_with_a_replay_is_here():
    assert {"sac", "ddpg", "td3", "naf"} <= set(REPLAYED)
