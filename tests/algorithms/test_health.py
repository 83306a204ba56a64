"""What a rollout says of its own soundness, against closed forms and planted faults."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.algorithms.policy_gradient import health
from workhorse.algorithms.policy_gradient.batch import Acted
from workhorse.core.spec import ActionSpace, Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete
from workhorse.core.types import Rollout
from workhorse.networks.actor_critic import ActorCritic
from workhorse.networks.mlp import MLP

STEPS, SLOTS, SIZE = 40, 6, 3
SPEC = EnvSpec("Anything-v0", Box.unbounded(SIZE), Box((-1.0, -1.0), (1.0, 1.0)), 100)


def networks(action: ActionSpace = SPEC.action, seed: int = 0) -> ActorCritic:
    return ActorCritic.create(
        jax.random.key(seed), SIZE, action, (8, 8), activation="tanh", is_orthogonal=True, log_std=-0.5
    )


def rollout_of(params: ActorCritic, key: jax.Array) -> Rollout:
    """Steps of this policy, every draw with a key of its own."""
    obs = jax.random.normal(key, (STEPS, SLOTS, SIZE))
    keys = jax.random.split(jax.random.fold_in(key, 1), (STEPS, SLOTS))
    distribution = jax.vmap(jax.vmap(params.policy))(obs)
    drawn = jax.vmap(jax.vmap(lambda one, key: one.sample(key)))(distribution, keys)
    log_prob = jax.vmap(jax.vmap(lambda one, action: one.log_prob(action)))(distribution, drawn)
    nothing = jnp.zeros((STEPS, SLOTS))
    return Rollout(obs, drawn, nothing, nothing > 0, nothing > 0, obs, Acted(drawn, log_prob))


@pytest.mark.parametrize("action", [SPEC.action, Discrete(3), MultiDiscrete((2, 4, 3)), MultiBinary(5)])
def test_draws_of_the_policy_itself_are_sound(action: ActionSpace) -> None:
    params = networks(action)
    rollout = rollout_of(params, jax.random.key(1))
    found = health.acting(jax.vmap(jax.vmap(params.policy))(rollout.obs), SPEC, rollout)
    assert float(found["log_prob_gap"]) < 1e-5
    assert abs(float(found["noise_across_slots"]) - 1) < 0.4
    assert abs(float(found["noise_over_time"])) < 0.25
    assert ("saturated_actions" in found) == isinstance(action, Box)


def test_a_log_probability_of_another_policy_is_seen() -> None:
    rollout = rollout_of(networks(), jax.random.key(1))
    found = health.acting(jax.vmap(jax.vmap(networks(seed=5).policy))(rollout.obs), SPEC, rollout)
    assert float(found["log_prob_gap"]) > 0.01


def test_noise_is_told_apart_by_what_repeats() -> None:
    fresh = jax.random.normal(jax.random.key(0), (200, 8, 2))
    for noise, across, over in (
        (fresh, 1.0, 0.0),
        (jnp.broadcast_to(fresh[:, :1], fresh.shape), 8.0, 0.0),
        (jnp.broadcast_to(fresh[:1], fresh.shape), None, 1.0),
    ):
        found = health.noise_agreement(noise)
        if across is not None:
            assert float(found["noise_across_slots"]) == pytest.approx(across, rel=0.15)
        assert float(found["noise_over_time"]) == pytest.approx(over, abs=0.1)
    levels = [
        float(health.noise_agreement(jax.random.normal(jax.random.key(n), (50, 8, 2)))["noise_level"])
        for n in range(200)
    ]
    assert np.mean(levels) == pytest.approx(0, abs=0.25) and np.std(levels) == pytest.approx(1, abs=0.15)


def test_units_that_say_nothing_are_counted() -> None:
    obs = jax.random.normal(jax.random.key(0), (STEPS, SLOTS, SIZE))
    first = jnp.concatenate([jnp.eye(3), jnp.zeros((1, 3))])  # the last unit sees nothing
    network = MLP((first, jnp.ones((2, 4))), (jnp.array([0.0, 0.0, 30.0, 1.0]), jnp.zeros(2)))
    assert float(health.units(network, obs)["dead_units"]) == 0.5  # it, and the one that is saturated
    assert health.units(MLP((jnp.ones((2, 3)),), (jnp.zeros(2),)), obs) == {}


def test_layers_end_in_the_output() -> None:
    network, x = networks().value, jnp.arange(3.0)
    hidden, deeper, output = network.layers(x)
    np.testing.assert_array_equal(output, network(x))
    np.testing.assert_allclose(deeper, jnp.tanh(network.weights[1] @ hidden + network.biases[1]), rtol=1e-6)


def test_the_value_of_a_constant_reward_contradicts_itself_only_where_it_is_wrong() -> None:
    """Reward 1, discount .9 and V = 10 everywhere is right where nothing ends; where all terminates V should be 1."""
    obs = jnp.ones((STEPS, SLOTS, SIZE))
    constant = MLP((jnp.zeros((1, SIZE)),), (jnp.array([10.0]),))
    one, never = jnp.ones((STEPS, SLOTS)), jnp.zeros((STEPS, SLOTS), bool)
    value = jax.vmap(jax.vmap(constant))(obs)[..., 0]
    right = health.value_residual(value, value, one, never, jnp.float32(0.9))
    wrong = health.value_residual(value, value, one, ~never, jnp.float32(0.9))
    assert float(right["td_error_mean"]) == pytest.approx(0, abs=1e-5)
    assert float(wrong["td_error_mean"]) == pytest.approx(1 - 10, abs=1e-5)


def test_scales_count_what_is_at_its_bounds() -> None:
    rollout = rollout_of(networks(), jax.random.key(1))
    obs = jnp.zeros((STEPS, SLOTS, SIZE)).at[..., 0].set(3.0).at[..., 1].set(-10.0)
    reward = jnp.zeros((STEPS, SLOTS)).at[:4].set(5.0)
    found = health.scales(obs, reward, (10.0, 5.0), rollout)
    assert float(found["observation_scale"]) == 10.0
    assert float(found["observations_clipped"]) == pytest.approx(1 / 3)
    assert float(found["rewards_clipped"]) == pytest.approx(0.1)
    assert "rewards_clipped" not in health.scales(obs, reward, (10.0, None), rollout)


@pytest.mark.parametrize("name", ["ppo", "a2c", "trpo", "reinforce"])
def test_every_policy_gradient_measures_it_unless_told_not_to(name: str) -> None:
    rollout = rollout_of(networks(), jax.random.key(1))
    small = {"num_envs": SLOTS - 1, "held_out_envs": 1, "rollout_steps": STEPS, "hidden": (8, 8)}
    small |= {"minibatch_size": 40} if name in ("ppo", "trpo") else {}
    states, metrics = [], []
    for measured in (True, False):
        algorithm = registry.make(name, SPEC, {**small, "measure_health": measured, "measure_gradients": False})
        after, found = jax.jit(algorithm.update)(algorithm.init(jax.random.key(0)), rollout, jax.random.key(2))
        states.append(after)
        metrics.append(found)
    assert metrics[0].keys() - metrics[1].keys() >= {"log_prob_gap", "dead_units", "td_error_mean", "parameter_norm"}
    for one, other in zip(*(jax.tree.leaves(state.params) for state in states), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)  # learnt the same


def test_nothing_is_said_of_noise_that_is_not_there() -> None:
    found = health.noise_agreement(jnp.zeros((20, 4, 2)).at[3, 1, 0].set(1e-3))
    assert all(np.isnan(float(value)) for value in found.values())
