"""Dueling streams and noisy weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.algorithms.value_based.setting import A, D, batch_of, made, plain_outputs
from workhorse.algorithms.value_based.q_network import QNetwork, Streams
from workhorse.runs.inference import run_hidden

SHAPES = [(), (6,), (6, 5), (7, 6, 5)]


def streams(hidden, dueling, atoms=1):
    return Streams.create(jax.random.key(0), D, hidden, A, atoms, dueling)


@pytest.mark.parametrize("hidden", SHAPES, ids=str)
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("atoms", [1, 4])
def test_outputs_are_those_of_a_plain_loop_and_of_the_chain_of_layers(hidden, dueling, atoms):
    network, obs = streams(hidden, dueling, atoms), batch_of(20).obs
    found = jax.vmap(network)(obs)
    assert found.shape == (20, A, atoms)
    np.testing.assert_allclose(found, [plain_outputs(network, row) for row in obs], atol=1e-5)
    chain, _ = run_hidden(network.layers(), obs, ())
    np.testing.assert_allclose(np.asarray(chain).reshape(found.shape), found, atol=1e-5)


def test_dueling_parts_are_determined_by_their_sum():
    """The mean over choices is the value, and what is left are advantages whose mean is zero."""
    network, obs = streams((6, 5), True), batch_of(20).obs
    found = np.asarray(jax.vmap(network)(obs))[..., 0]
    hidden = np.maximum(np.asarray(jax.vmap(network.trunk)(obs)), 0)
    value = np.asarray(jax.vmap(network.value)(hidden))[:, 0]
    np.testing.assert_allclose(found.mean(1), value, atol=1e-6)
    last = network.advantage
    shifted = type(last)(last.weights, (*last.biases[:-1], last.biases[-1] + 7.0), last.activation)
    same = Streams(network.trunk, network.value, shifted, A)
    np.testing.assert_allclose(jax.vmap(same)(obs)[..., 0], found, atol=1e-5)


def test_the_hidden_layers_before_the_last_are_shared_and_the_last_is_not():
    network = streams((7, 6, 5), True)
    assert [weight.shape for weight in network.trunk.weights] == [(7, D), (6, 7)]
    assert [weight.shape for weight in network.value.weights] == [(5, 6), (1, 5)]
    assert [weight.shape for weight in network.advantage.weights] == [(5, 6), (A, 5)]
    plain = streams((7, 6, 5), False)
    assert plain.trunk is None and plain.value is None and len(plain.advantage.weights) == 4


def noisy(hidden=(6, 5), dueling=False, std=0.5):
    return QNetwork.create(streams(hidden, dueling), jnp.float32(std))


@pytest.mark.parametrize("dueling", [False, True])
def test_noise_is_a_product_of_one_draw_a_unit_in_every_layer(dueling):
    network = noisy((6, 5), dueling)
    drawn = network.drawn(jax.random.key(3))
    layers = 0
    for name in ("trunk", "value", "advantage"):
        mean, spread, found = (getattr(one, name) for one in (network.mean, network.spread, drawn))
        for layer in range(0 if mean is None else len(mean.weights)):
            std = 0.5 / np.sqrt(mean.weights[layer].shape[1])
            np.testing.assert_allclose(spread.weights[layer], std, rtol=1e-6)
            np.testing.assert_allclose(spread.biases[layer], std, rtol=1e-6)
            noise = np.asarray(found.weights[layer] - mean.weights[layer], np.float64) / std
            out = np.asarray(found.biases[layer] - mean.biases[layer], np.float64) / std
            into = noise[0] / out[0]
            np.testing.assert_allclose(noise, np.outer(out, into), rtol=1e-3, atol=1e-4)
            assert len(np.unique(np.abs(out))) == len(out) and len(np.unique(np.abs(into))) == len(into)
            layers += 1
    assert layers == (5 if dueling else 3)


def test_the_mean_over_draws_is_the_network_without_noise_and_the_spread_of_a_weight_as_stated():
    """f(e) has mean 0 and variance E|e| = sqrt(2 / pi); the factors of a weight are independent."""
    network = noisy()
    weight = jax.vmap(lambda key: network.drawn(key).advantage.weights[1])(jax.random.split(jax.random.key(0), 20_000))
    std = 0.5 / np.sqrt(6)
    np.testing.assert_allclose(weight.mean(0), network.mean.advantage.weights[1], atol=5 * std / np.sqrt(20_000))
    np.testing.assert_allclose(weight.std(0), std * np.sqrt(2 / np.pi), rtol=0.05)
    bias = jax.vmap(lambda key: network.drawn(key).advantage.biases[1])(jax.random.split(jax.random.key(0), 20_000))
    np.testing.assert_allclose(bias.std(0), std * (2 / np.pi) ** 0.25, rtol=0.05)


def test_different_keys_draw_different_noise_and_different_layers_too():
    network = noisy((5, 5))
    one, other = (network.drawn(jax.random.key(seed)).advantage for seed in (1, 2))
    assert (one.weights[1] != other.weights[1]).all()
    first, second = (one.biases[layer] - network.mean.advantage.biases[layer] for layer in (0, 1))
    assert not np.allclose(first / first[0], second / second[0])


def test_a_network_without_noise_is_drawn_as_it_is():
    network = QNetwork.create(streams((6,), False), None)
    assert network.drawn(jax.random.key(0)) is network.mean


def test_a_noisy_policy_explores_by_its_noise_and_acts_greedily_without_it():
    algorithm = made("dqn", noisy=True, noise_std=3.0)
    state = algorithm.init(jax.random.key(1))._replace(env_steps=jnp.asarray(32, jnp.int64))
    actor, obs = algorithm.actor(state), jnp.ones(D, jnp.float32)

    def chosen(explore):
        act = jax.vmap(lambda key: algorithm.act(actor, (), obs, key, explore=explore)[0])
        return np.asarray(act(jax.random.split(jax.random.key(2), 200)))

    values = np.asarray(jax.vmap(state.network.mean)(obs[None]))[0, :, 0]
    assert (chosen(False) == values.argmax()).all()
    assert len(np.unique(chosen(True))) == A
    keys = jax.random.split(jax.random.key(2), 200)
    by_hand = [int(state.network.drawn(jax.random.split(key, 3)[0])(obs).argmax()) for key in keys[:20]]
    assert chosen(True)[:20].tolist() == by_hand  # nothing else is random: no epsilon beside the noise


def test_an_update_draws_other_noise_for_each_network_and_moves_the_spread():
    algorithm = made("dqn", noisy=True, double=True, noise_std=1.0, learning_rate=0.1)
    state, batch = algorithm.init(jax.random.key(1)), batch_of(16)
    one, other = (algorithm.target(state, batch, batch.next_obs, jax.random.key(seed)) for seed in (1, 2))
    assert not np.allclose(one, other)
    # the networks are equal: with equal noise the value of the choice would be the greatest of the target network's
    value_key = jax.random.split(jax.random.key(1))[0]
    greatest = jax.vmap(state.target.drawn(value_key))(batch.next_obs)[..., 0].max(1)
    assert not np.allclose(one, batch.reward + batch.discount * greatest)
    after, _, metrics = algorithm.learn(state, batch, jax.random.key(3))
    assert (after.network.spread.advantage.weights[0] != state.network.spread.advantage.weights[0]).any()
    assert "epsilon" not in metrics
