"""Normalised perceptrons against NumPy in double precision: batch and running statistics, unit weights, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from workhorse.core.spec import Box, EnvSpec
from workhorse.networks.batch_norm import NormalisedMLP, Statistics, batch_statistics, running
from workhorse.networks.unit_norm import unit_rows, unit_rows_with_bias

SIZES = (3, 7, 5, 2)
SPEC = EnvSpec("test", Box.unbounded(3), Box((-1.0,) * 2, (1.0,) * 2), 100)


def network_of(norm="batch", seed=0):
    """A network whose scales, shifts and bias are not those of the start."""
    made = NormalisedMLP.create(jax.random.key(seed), SIZES, norm)
    rng = np.random.default_rng(seed)
    noisy = lambda leaf: leaf + jnp.asarray(rng.normal(size=leaf.shape) * 0.3, jnp.float32)  # noqa: E731
    return NormalisedMLP(
        tuple(map(noisy, made.scales)), tuple(map(noisy, made.shifts)), made.weights, noisy(made.bias), norm
    )


def rows(count, seed=0, offset=2.0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, 3)) * 3 + offset, jnp.float32)


def by_hand(network, x, statistics=None, epsilon=1e-3):
    """Outputs of a batch norm network and the statistics used, layer by layer: those of the rows, or those given."""
    x, used = np.asarray(x, float), []
    for layer, weight in enumerate(network.weights):
        mean, variance = (x.mean(0), x.var(0)) if statistics is None else statistics[layer]
        used.append((mean, variance))
        x = (x - mean) / np.sqrt(np.asarray(variance) + epsilon)
        x = x * np.asarray(network.scales[layer]) + np.asarray(network.shifts[layer])
        x = np.maximum(x, 0) if layer else x
        x = x @ np.asarray(weight, float).T
    return x + np.asarray(network.bias), used


def test_training_normalises_by_the_batch_and_use_by_what_it_is_given():
    network, x = network_of(), rows(20)
    (hidden,), statistics = network.hidden(x)
    expected, used = by_hand(network, x)
    np.testing.assert_allclose(network.head(hidden), expected, rtol=1e-4, atol=1e-4)
    for found, (mean, variance) in zip(statistics, used, strict=True):
        np.testing.assert_allclose(found.mean, mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.variance, variance, rtol=1e-4, atol=1e-5)
    _, others = by_hand(network, rows(30, seed=1))
    given_others = tuple(Statistics(*(jnp.asarray(part, jnp.float32) for part in pair)) for pair in others)
    np.testing.assert_allclose(network(x, given_others), by_hand(network, x, others)[0], rtol=1e-4, atol=1e-4)


def test_in_use_one_sample_does_not_depend_on_its_neighbours_and_in_training_it_does():
    network, x = network_of(), rows(6)
    statistics = network.hidden(rows(30, seed=1))[1]
    np.testing.assert_allclose(network(x[:1], statistics)[0], network(x, statistics)[0], atol=1e-6)
    alone, together = network.hidden(x[:3])[0][0], network.hidden(x)[0][0][:3]
    assert np.abs(np.asarray(alone - together)).max() > 0.1


def test_blocks_are_one_batch_in_whatever_order_they_come():
    """The swap test: what a row becomes depends on the rows of all blocks, and not on the block that it is in."""
    network, first, second = network_of(), rows(8), rows(12, seed=1, offset=-4.0)
    (one, two), statistics = network.hidden(first, second)
    (swapped_two, swapped_one), swapped = network.hidden(second, first)
    (whole,), of_whole = network.hidden(jnp.concatenate([first, second]))
    for found, expected in ((one, swapped_one), (two, swapped_two), (jnp.concatenate([one, two]), whole)):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    for found, other in ((statistics, swapped), (statistics, of_whole)):
        np.testing.assert_allclose(*map(np.concatenate, map(jax.tree.leaves, (found, other))), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(network.head(one), by_hand(network, np.concatenate([first, second]))[0][:8], atol=1e-4)
    assert np.abs(np.asarray(one - network.hidden(first)[0][0])).max() > 0.1


def test_a_frozen_block_counts_in_the_statistics_and_lets_no_gradient_through():
    network, first, second = network_of(), rows(8), rows(12, seed=1)

    def loss(network, frozen):
        (now, _), _ = network.hidden(first, second, frozen=frozen)
        return jnp.square(network.head(now)).sum()

    def with_constants(network, fixed):
        """The same, with the frozen block's numbers before each norm as constants."""
        x = jnp.asarray(first)
        for layer, weight in enumerate(network.weights):
            mean, variance = batch_statistics(x, fixed[layer])
            x = (x - mean) / jnp.sqrt(variance + 1e-3) * network.scales[layer] + network.shifts[layer]
            x = jax.nn.relu(x) if layer else x
            x = x @ weight.T + (network.bias if layer == 2 else 0)
        return jnp.square(x).sum()

    both, fixed = jnp.concatenate([first, second]), []
    for layer, weight in enumerate(network.weights):
        fixed.append(both[8:])
        mean, variance = both.mean(0), both.var(0)
        both = (both - mean) / jnp.sqrt(variance + 1e-3) * network.scales[layer] + network.shifts[layer]
        both = (jax.nn.relu(both) if layer else both) @ weight.T
    expected = jax.grad(with_constants)(network, fixed)
    frozen, free = jax.grad(loss)(network, True), jax.grad(loss)(network, False)
    assert loss(network, True) == loss(network, False)
    flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(one)]) for one in (frozen, expected, free)]
    np.testing.assert_allclose(flat[0], flat[1], rtol=1e-3, atol=1e-3)
    assert np.abs(flat[0] - flat[2]).max() > 0.1


def test_gradients_are_those_of_differences():
    network, x = network_of(), rows(10)
    gradient = jax.grad(lambda network: jnp.square(network.head(network.hidden(x)[0][0])).sum())(network)
    for layer, entry in ((0, (2, 1)), (1, (3, 4)), (2, (1, 2))):
        values = []
        for size in (1e-5, -1e-5):
            weights = [np.array(weight, float) for weight in network.weights]
            weights[layer][entry] += size
            moved = NormalisedMLP(network.scales, network.shifts, tuple(map(jnp.asarray, weights)), network.bias)
            values.append(np.square(by_hand(moved, x)[0]).sum())
        assert gradient.weights[layer][entry] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-2, abs=1e-2)


def test_running_statistics_are_weighted_by_how_long_ago_a_batch_was():
    start = Statistics(jnp.zeros(2), jnp.ones(2))
    batches = [batch_statistics(jnp.asarray(rows(9, seed)[:, :2])) for seed in range(4)]
    found = start
    for batch in batches:
        found = running(found, batch, 0.9)
    for part, begun in enumerate((0.0, 1.0)):
        expected = 0.9**4 * begun + sum(0.1 * 0.9 ** (3 - n) * np.asarray(batches[n][part], float) for n in range(4))
        np.testing.assert_allclose(found[part], expected, rtol=1e-5)


def test_before_the_first_batch_a_norm_does_nothing_but_for_its_epsilon():
    network = NormalisedMLP.create(jax.random.key(0), (3, 2))
    expected = rows(4) / np.sqrt(1 + 1e-3) @ np.asarray(network.weights[0]).T
    np.testing.assert_allclose(network(rows(4), network.start()), expected, rtol=1e-4, atol=1e-5)


def test_a_layer_norm_is_over_the_units_of_a_sample_and_leaves_the_input_alone():
    network, x = network_of("layer"), rows(6)
    expected = np.asarray(x, float)
    for layer, weight in enumerate(network.weights):
        expected = expected @ np.asarray(weight, float).T
        if layer < 2:
            mean, variance = expected.mean(1, keepdims=True), expected.var(1, keepdims=True)
            expected = (expected - mean) / np.sqrt(variance + 1e-5)
            expected = np.maximum(expected * np.asarray(network.scales[layer]) + np.asarray(network.shifts[layer]), 0)
    expected = expected + np.asarray(network.bias)
    assert network.start() == () and network.hidden(x)[1] == ()
    np.testing.assert_allclose(network(x, ()), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(network.head(network.hidden(x, rows(9))[0][0]), expected, rtol=1e-4, atol=1e-4)


# --- weights of length one ---


def lengths(network):
    *hidden, last = (np.asarray(weight, float) for weight in network.weights)
    found = [np.linalg.norm(weight, axis=1) for weight in hidden]
    return np.concatenate([*found, np.linalg.norm(np.column_stack([last, network.bias]), axis=1)])


def test_a_network_starts_with_rows_of_length_one():
    np.testing.assert_allclose(lengths(NormalisedMLP.create(jax.random.key(0), SIZES)), 1, atol=1e-6)


def test_unit_weights_have_length_one_the_last_ones_with_their_bias_and_point_where_they_did():
    network = jax.tree.map(lambda leaf: leaf * 3.7, network_of())
    found = network.with_unit_weights()
    np.testing.assert_allclose(lengths(found), 1, atol=1e-6)
    for before, after in zip(network.weights[:-1], found.weights[:-1], strict=True):
        cosine = np.sum(np.asarray(before, float) * np.asarray(after, float), axis=1) / np.linalg.norm(before, axis=1)
        np.testing.assert_allclose(cosine, 1, atol=1e-6)
    ratio = np.asarray(network.bias) / np.asarray(found.bias)
    np.testing.assert_allclose(found.weights[-1] * ratio[:, None], network.weights[-1], rtol=1e-5)
    for before, after in zip(network.scales + network.shifts, found.scales + found.shifts, strict=True):
        assert (before == after).all()


@settings(deadline=None, max_examples=50)
@given(arrays(np.float32, (3, 4), elements=st.floats(-1e3, 1e3, width=32)))
def test_rows_have_length_one_or_were_nothing(weight):
    length = np.linalg.norm(np.asarray(weight, float), axis=1)
    found = np.linalg.norm(np.asarray(unit_rows(jnp.asarray(weight)), float), axis=1)
    np.testing.assert_allclose(found[length > 1e-6], 1, atol=1e-5)
    assert (found[length == 0] == 0).all()
    with_bias, bias = unit_rows_with_bias(jnp.asarray(weight[:, :3]), jnp.asarray(weight[:, 3]))
    joined = np.column_stack([with_bias, bias])
    np.testing.assert_allclose(joined, unit_rows(jnp.asarray(weight)), atol=1e-6)
