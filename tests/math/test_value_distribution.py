"""Distributions over atoms: properties of the projection, and plain loops."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workhorse.math.value_distribution import atoms, cross_entropy, mean_value, projected

LOW, HIGH, COUNT = -2.0, 3.0, 11
SUPPORT = atoms(LOW, HIGH, COUNT)
masses = st.lists(st.floats(0, 1, width=32), min_size=COUNT, max_size=COUNT).filter(lambda row: sum(row) > 0.1)
shifts, discounts = st.floats(-8, 8, width=32), st.floats(0, 1, width=32)


def distribution(row):
    return np.array(row, np.float32) / np.float32(sum(row))


def moved(probability, shift, discount):
    return np.asarray(projected(jnp.asarray(probability), SUPPORT, jnp.float32(shift), jnp.float32(discount)))


def test_atoms_are_evenly_spaced_and_end_at_the_ends():
    np.testing.assert_allclose(SUPPORT, np.linspace(LOW, HIGH, COUNT), atol=1e-6)
    assert SUPPORT.dtype == jnp.float32 and SUPPORT[0] == LOW and SUPPORT[-1] == HIGH


@given(masses, shifts, discounts)
@settings(deadline=None)
def test_the_projection_is_a_distribution_whose_mean_is_that_of_the_clipped_values(row, shift, discount):
    probability = distribution(row)
    found = moved(probability, shift, discount)
    assert (found >= -1e-6).all()
    np.testing.assert_allclose(found.sum(), 1, atol=1e-5)
    values = np.clip(shift + discount * np.asarray(SUPPORT, np.float64), LOW, HIGH)
    np.testing.assert_allclose(found @ np.asarray(SUPPORT), probability @ values, atol=1e-4)


@given(masses, shifts, discounts)
@settings(deadline=None)
def test_each_mass_goes_to_the_atoms_next_to_it_by_their_distance(row, shift, discount):
    probability, width = distribution(row), (HIGH - LOW) / (COUNT - 1)
    expected = np.zeros(COUNT)
    for mass, atom in zip(probability, np.linspace(LOW, HIGH, COUNT), strict=True):
        place = min(max(shift + discount * atom, LOW), HIGH)
        for number in range(COUNT):
            expected[number] += mass * max(0.0, 1 - abs(place - (LOW + number * width)) / width)
    np.testing.assert_allclose(moved(probability, shift, discount), expected, atol=1e-4)


@given(masses)
@settings(deadline=None)
def test_nothing_moves_without_a_shift_and_a_discount(row):
    probability = distribution(row)
    np.testing.assert_allclose(moved(probability, 0.0, 1.0), probability, atol=1e-5)


@given(masses, shifts)
@settings(deadline=None)
def test_after_an_end_only_the_reward_is_left(row, shift):
    found, inside = moved(distribution(row), shift, 0.0), min(max(shift, LOW), HIGH)
    near = np.abs(np.asarray(SUPPORT) - inside) < 0.5
    np.testing.assert_allclose(found[near].sum(), 1, atol=1e-5)
    np.testing.assert_allclose(found @ np.asarray(SUPPORT), inside, atol=1e-4)


def test_what_falls_beyond_the_ends_lies_on_them():
    even = np.full(COUNT, 1 / COUNT, np.float32)
    np.testing.assert_allclose(moved(even, 100.0, 1.0), np.eye(COUNT)[-1], rtol=1e-6)
    np.testing.assert_allclose(moved(even, -100.0, 1.0), np.eye(COUNT)[0], rtol=1e-6)


@given(st.lists(st.floats(-30, 30, width=32), min_size=COUNT, max_size=COUNT), masses)
@settings(deadline=None)
def test_means_and_cross_entropies_are_those_of_numpy(logits, row):
    target, exact = distribution(row), np.array(logits, np.float64)
    log_q = exact - exact.max() - np.log(np.exp(exact - exact.max()).sum())
    logits = jnp.array(logits, jnp.float32)
    np.testing.assert_allclose(mean_value(logits, SUPPORT), np.exp(log_q) @ np.linspace(LOW, HIGH, COUNT), atol=1e-4)
    np.testing.assert_allclose(cross_entropy(jnp.asarray(target), logits), -(target @ log_q), rtol=1e-4, atol=1e-4)
