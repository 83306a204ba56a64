"""Guided evolution strategies: the law of their noise, and the plane it lies in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.algorithms.evolution.population import members_of, ranks_of, returns, started
from workhorse.algorithms.evolution.guided_es import orthonormal
from workhorse.core.errors import UsageError


def test_before_the_first_step_no_direction_is_preferred():
    algorithm, state, _ = started("guided-es", num_pairs=4_000, noise_std=0.5)
    away = members_of(algorithm, state)[0::2] / 0.5
    np.testing.assert_allclose(np.cov(away.T), np.eye(6), atol=0.1)


def test_half_the_variance_lies_in_the_plane_and_its_sum_is_kept():
    algorithm, state, _ = started("guided-es", num_pairs=6_000, noise_std=0.5, num_guides=3)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 2)))[0].T.astype(np.float32)
    state = state._replace(basis=jnp.asarray(np.vstack([basis, np.zeros(6, np.float32)])))
    away = (members_of(algorithm, state)[0::2] - np.asarray(state.params)) / 0.5
    expected = 0.5 * np.eye(6) + 0.5 * 6 / 2 * basis.T @ basis  # two directions share it, the third is none
    np.testing.assert_allclose(np.cov(away.T), expected, atol=0.15)
    assert abs(np.square(away).sum(1).mean() - 6) < 0.2


def test_an_update_equals_an_independent_implementation():
    algorithm, state, update = started("guided-es", num_pairs=5, noise_std=0.2, learning_rate=0.1, num_guides=2)
    rng, theta = np.random.default_rng(1), np.zeros(6)
    mean, second, gradients = np.zeros(6), np.zeros(6), []
    for step in range(1, 4):
        members, fitness = members_of(algorithm, state), rng.normal(size=10)
        eps, u = (members[0::2] - theta) / 0.2, ranks_of(fitness)
        state, metrics = update(state, returns(fitness), jax.random.key(0))
        gradient = ((u[0::2] - u[1::2])[:, None] * eps).sum(0) / (2 * 5 * 0.2)
        if gradients:
            plane = np.linalg.qr(np.array(gradients[-2:]).T)[0]
            share = np.square(plane.T @ gradient).sum() / np.square(gradient).sum()
            np.testing.assert_allclose(metrics["guided_share"], share, rtol=1e-4)
        gradients.append(gradient)
        mean, second = 0.9 * mean + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        theta = theta + 0.1 * mean / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        np.testing.assert_allclose(state.params, theta, atol=1e-5)
    spans = np.linalg.qr(np.array(gradients[-2:]).T)[0]
    np.testing.assert_allclose(np.asarray(state.basis).T @ np.asarray(state.basis), spans @ spans.T, atol=1e-4)


def test_a_population_in_which_all_tie_forgets_no_guide():
    _, state, update = started("guided-es", num_pairs=5, num_guides=3)
    for turn in range(3):
        state, _ = update(state, returns(np.random.default_rng(turn).normal(size=10)), jax.random.key(0))
    for _ in range(3):
        after, _ = update(state, returns(np.zeros(10)), jax.random.key(0))
    np.testing.assert_array_equal(after.gradients, state.gradients)
    np.testing.assert_allclose(np.square(after.basis).sum(1), 1, rtol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_rows_become_orthonormal_and_span_the_same(seed, dependent):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(4, 9)) * 10.0 ** rng.uniform(-3, 3, (4, 1))
    if dependent:
        rows[dependent] = rng.normal(size=dependent) @ rows[:dependent]
    found = np.asarray(orthonormal(jnp.asarray(rows, jnp.float32)), np.float64)
    np.testing.assert_allclose(
        found @ found.T, np.diag([float(row != dependent or not dependent) for row in range(4)]), atol=1e-5
    )
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ found.T @ found, unit, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_guides": 0}, "num_guides must be a finite number above 0: got 0"),
        ({"full_share": 0.0}, "full_share must be above 0 and at most 1: got 0.0"),
    ],
)
def test_bad_settings_are_named(options, words):
    with pytest.raises(UsageError, match=words):
        started("guided-es", **options)
