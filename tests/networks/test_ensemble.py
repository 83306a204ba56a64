"""Stacked perceptrons: the same as one after the other, with and without norms; some of them taken out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.networks.ensemble import Ensemble


def one(network, member, x):
    """A member in double precision, on one row."""
    last = len(network.weights) - 1
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        x = np.asarray(weight[member], float) @ x + np.asarray(bias[member], float)
        if layer < last:
            if network.scales:
                scale, shift = (np.asarray(part[layer][member], float) for part in (network.scales, network.shifts))
                x = (x - np.mean(x)) / np.sqrt(np.var(x) + 1e-5) * scale + shift
            x = np.maximum(x, 0)
    return x


@pytest.mark.parametrize("layer_norm", [False, True])
def test_every_member_is_a_perceptron_of_its_own(layer_norm):
    network = Ensemble.uniform(jax.random.key(0), 4, (3, 8, 6, 2), layer_norm)
    noise = np.random.default_rng(0)
    network = jax.tree.map(lambda leaf: leaf + jnp.asarray(0.3 * noise.normal(size=leaf.shape), jnp.float32), network)
    shared, own = noise.normal(size=(5, 3)).astype(np.float32), noise.normal(size=(4, 5, 3)).astype(np.float32)
    for rows in (shared, own):
        found = network(jnp.asarray(rows))
        assert found.shape == (4, 5, 2) and found.dtype == jnp.float32
        each = np.broadcast_to(rows, (4, 5, 3)).astype(float)
        expected = [[one(network, member, row) for row in each[member]] for member in range(4)]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    some = network.members(jnp.array([2, 0]))
    np.testing.assert_allclose(some(jnp.asarray(shared)), network(jnp.asarray(shared))[jnp.array([2, 0])], rtol=1e-6)


def test_initial_weights_differ_between_members_and_are_bounded_by_the_inputs():
    network = Ensemble.uniform(jax.random.key(1), 50, (4, 16, 1))
    assert len({float(weight[0, 0]) for weight in network.weights[0]}) == 50
    for leaf, inputs in zip((*network.weights, *network.biases), (4, 16, 4, 16), strict=True):
        assert float(jnp.abs(leaf).max()) <= inputs**-0.5
        assert float(jnp.abs(leaf).max()) > 0.9 * inputs**-0.5
