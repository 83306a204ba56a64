"""Continuous actions of algorithms with a replay: in [-1, 1] inside, and over the whole of the task's box outside."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Step
from workhorse.networks.heads import task_action
from workhorse.networks.mlp import MLP
from workhorse.runs.policy import Policy
from workhorse.training.episodes import make_player
from workhorse.training.lanes import Lanes
from workhorse.training.off_policy import OffPolicyLoop
from workhorse.training.rollouts import make_collector

NETWORK = {"ddpg": "policy", "td3": "policy", "sac": "policy", "naf": "network"}
"""Field of the state that holds the network which acts."""

BOXES = [(-0.4, 0.4), (0.0, 1.0), (-3.0, 5.0)]
SMALL = {"hidden": (32,), "batch_size": 8, "warmup_env_steps": 16}

every_algorithm = pytest.mark.parametrize("name", NETWORK)
every_box = pytest.mark.parametrize(("low", "high"), BOXES)


def spec_of(low, high, size=2):
    return EnvSpec("Boxed-v0", Box.unbounded(3), Box((low,) * size, (high,) * size), 10)


def acting(algorithm, name, scale):
    """A state after the warm-up whose last layer is `scale` times what it was."""
    state = algorithm.init(jax.random.key(0))
    network = getattr(state, NETWORK[name])
    *weights, last = network.weights
    louder = MLP((*weights, scale * last), network.biases, network.activation)
    return state._replace(**{NETWORK[name]: louder}, env_steps=jnp.int64(16))


def acted(algorithm, state, obs, explore):
    actor = algorithm.actor(state)
    carry = jax.vmap(lambda slot: algorithm.begin(actor, slot))(jnp.arange(len(obs)))
    keys = jax.random.split(jax.random.key(1), len(obs))
    act = jax.vmap(lambda carry, obs, key: algorithm.act(actor, carry, obs, key, explore=explore)[0])
    return act(carry, obs, keys)


@every_algorithm
@every_box
def test_actions_are_in_the_tasks_box_and_reach_both_of_its_ends(name, low, high):
    algorithm = registry.make(name, spec_of(low, high), SMALL)
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(3000, 3)), jnp.float32)
    bounds = np.float32(low), np.float32(high)
    warming = acting(algorithm, name, 1.0)._replace(env_steps=jnp.int64(15))
    for state, explore, reach in (
        (acting(algorithm, name, 1e4), False, 0.0),
        (acting(algorithm, name, 1e4), True, 0.0),
        (warming, True, 0.01),
    ):
        action = np.asarray(acted(algorithm, state, obs, explore))
        sent = np.asarray(jax.vmap(lambda one: task_action(algorithm.spec, one))(action))
        assert action.dtype == sent.dtype == np.float32
        assert action.min() >= -1 and action.max() <= 1
        assert bounds[0] <= sent.min() <= bounds[0] + reach * (high - low)
        assert bounds[1] - reach * (high - low) <= sent.max() <= bounds[1]
        np.testing.assert_allclose(sent, (low + high) / 2 + (high - low) / 2 * action, atol=1e-5)


@every_algorithm
@every_box
@pytest.mark.parametrize("normalise", [False, True])
def test_the_artefact_does_in_numpy_what_act_does(name, low, high, normalise):
    algorithm = registry.make(name, spec_of(low, high), SMALL | {"normalise_observations": normalise})
    state = acting(algorithm, name, 50.0 if name == "naf" else 5.0)
    if normalise:
        known = state.observations
        state = state._replace(
            observations=known._replace(
                count=jnp.float64(4), mean=jnp.array([1.0, -2.0, 0.0]), deviation=jnp.array([4.0, 16.0, 1.0])
            )
        )
    obs = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    actions = acted(algorithm, state, jnp.asarray(obs), explore=False)
    sent = np.asarray(jax.vmap(lambda one: task_action(algorithm.spec, one))(actions))
    policy = Policy(
        algorithm.policy_layers(algorithm.actor(state)), observation=algorithm.spec.observation,
        action=algorithm.spec.task_action, task="Boxed-v0",
    )  # fmt: skip
    assert sent.std() > 0.05 * (high - low)
    np.testing.assert_allclose(policy.predict(obs)[0], sent, atol=2e-5 * (high - low))


@every_algorithm
@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (0.0, np.inf), (-1000.0, 1000.0), (-1.0, 300.0)])
def test_boxes_without_bounds_or_much_too_wide_ones_are_refused_with_advice(name, bounds):
    sentence = "squashes actions into their bounds.*component 1 of Boxed-v0.*RescaleAction, or choose ppo"
    box = Box((-1.0, bounds[0]), (1.0, bounds[1]))
    with pytest.raises(UsageError, match=sentence):
        registry.make(name, EnvSpec("Boxed-v0", Box.unbounded(3), box, 10), SMALL)


@every_algorithm
def test_actions_in_the_tasks_own_numbers_are_refused(name):
    with pytest.raises(UsageError, match="acts in \\[-1, 1\\], so that rescale_actions has to be True for Boxed-v0"):
        registry.make(name, spec_of(0.0, 1.0), SMALL | {"rescale_actions": False})


class Dial(NamedTuple):
    """Task of four steps: the reward is minus the distance of the action from a place in the box, in half-widths."""

    low: float
    high: float
    best: float = 0.3

    @property
    def spec(self):
        return EnvSpec("Dial-v0", Box((-1.0,), (1.0,)), Box((self.low,), (self.high,)), 4)

    def reset(self, key):
        return jnp.zeros((), jnp.int32), jax.random.uniform(key, (1,), jnp.float64, -1, 1)

    def step(self, state, action, key):
        half = (self.high - self.low) / 2
        seen = jax.random.uniform(key, (1,), jnp.float64, -1, 1)
        reward = -jnp.abs((action[0] - self.low) / half - 1.0 - self.best).astype(jnp.float64)
        nothing = jnp.zeros((), bool)
        return state + 1, Step(seen, reward, nothing, state + 1 >= 4, seen, {"failed": nothing})


@every_algorithm
def test_the_best_place_is_learnt_in_a_box_that_is_not_around_zero(name):
    env = Dial(-3.0, 5.0)
    settings = {
        "hidden": (16,), "batch_size": 64, "warmup_env_steps": 200, "replay_ratio": 64.0, "learning_rate": 3e-3,
        "target_rate": 0.05, "discount": 0.5, "rollout_steps": 200, "learn_every": 20, "replay_capacity": 2_000,
    } | ({"temperature": 0.01, "learn_temperature": False} if name == "sac" else {})  # fmt: skip
    algorithm = registry.make(name, env.spec, settings)
    collector = make_collector(algorithm, env, 0, 1, 20)
    lanes = Lanes([make_player(algorithm, env, 8, 0)])
    loop = OffPolicyLoop(algorithm, 0, collector, lanes)
    progress = loop.start()
    before = -float(loop.evaluate(progress, 8).returns.mean()) / 4
    for _ in range(8):
        progress, metrics, _ = loop.iterate(progress)
    distance = -float(loop.evaluate(progress, 8).returns.mean()) / 4
    assert distance < 0.1 < before, metrics
    loop.close()
