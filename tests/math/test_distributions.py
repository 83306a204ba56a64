"""Squashed Gaussians: the density against numeric integration and exact arithmetic, far out as well."""

import math
from decimal import Decimal, getcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from workhorse.math.distributions import TanhGaussian

log_prob = jax.jit(lambda mean, log_std, u: TanhGaussian(mean, log_std).log_prob(u))


def density(mean, log_std, u):
    return float(log_prob(*(jnp.asarray([one], jnp.float32) for one in (mean, log_std, u))))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.8, 0.3), (-2.0, 0.5)])
def test_the_density_integrates_to_one_over_actions(mean, std):
    """Over a in (-1, 1), where it is told of u = artanh(a)."""
    log_std = math.log(std)
    total, _ = integrate.quad(
        lambda a: math.exp(density(mean, log_std, math.atanh(a))), -1, 1, points=[math.tanh(mean)], limit=200
    )  # fmt: skip
    assert total == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("between", [(-0.9, -0.2), (0.3, 0.99)])
def test_an_integral_over_actions_is_the_probability_of_their_interval(between):
    low, high = map(math.atanh, between)
    expected = stats.norm.cdf(high, 0.5, 0.7) - stats.norm.cdf(low, 0.5, 0.7)
    found, _ = integrate.quad(lambda a: math.exp(density(0.5, math.log(0.7), math.atanh(a))), *between)
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("u", [-20.0, -9.5, 0.0, 3.0, 20.0])
def test_the_density_is_exact_however_far_out(u):
    """At |u| = 20 the action is 1 in float32 and the Jacobian 1 - tanh(u)^2 about 1.7e-17: fifty digits tell it."""
    getcontext().prec = 50
    twice = (2 * Decimal(abs(u))).exp()
    jacobian = 1 - ((twice - 1) / (twice + 1)) ** 2
    mean, std = 1.5 * np.sign(u), 2.0
    expected = stats.norm.logpdf(u, mean, std) - float(jacobian.ln())
    assert density(mean, math.log(std), u) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert math.isfinite(expected)


def test_gradients_far_out_are_those_of_the_limit():
    """d/du of -log(1 - tanh(u)^2) is 2 tanh(u); of the density of N(0, 1) it is -u more."""
    slope = jax.vmap(jax.grad(lambda u: TanhGaussian(jnp.zeros(1), jnp.zeros(1)).log_prob(u[None])))
    u = jnp.asarray([-20.0, -1.0, 0.5, 20.0], jnp.float32)
    np.testing.assert_allclose(slope(u), 2 * np.tanh(u) - u, rtol=1e-5)


def test_components_are_independent_and_an_action_is_told_with_its_own_density():
    mean, log_std = jnp.asarray([0.3, -1.0], jnp.float32), jnp.asarray([-0.5, 0.2], jnp.float32)
    noise = jnp.asarray([0.7, -1.1], jnp.float32)
    action, told = TanhGaussian(mean, log_std).at(noise)
    u = np.asarray(mean) + np.exp(np.asarray(log_std)) * np.asarray(noise)
    np.testing.assert_allclose(action, np.tanh(u), rtol=1e-5)
    apart = sum(density(*one) for one in zip(mean, log_std, u, strict=True))
    assert float(told) == pytest.approx(apart, rel=1e-5)


def test_draws_have_the_mean_and_the_entropy_that_the_density_says():
    one = TanhGaussian(jnp.asarray([0.4], jnp.float32), jnp.asarray([-0.3], jnp.float32))
    action, told = jax.jit(jax.vmap(one.sample))(jax.random.split(jax.random.key(0), 50_000))
    grid = np.linspace(-8, 8, 20_001)
    weight = stats.norm.pdf(grid, 0.4, math.exp(-0.3)) * (grid[1] - grid[0])
    logs = stats.norm.logpdf(grid, 0.4, math.exp(-0.3)) + 2 * np.log(np.cosh(grid))
    assert float(action.mean()) == pytest.approx(weight @ np.tanh(grid), abs=0.01)
    assert float(told.mean()) == pytest.approx(weight @ logs, abs=0.03)


@pytest.mark.parametrize(("low", "high"), [(-5.0, 2.0), (-10.0, 2.0)])
def test_outputs_stand_for_means_and_spreads_that_stay_in_their_range(low, high):
    found = TanhGaussian.bounded(jnp.asarray([0.1, -3.0, 9.0, -1e6, 0.0, 1e6], jnp.float32), low, high)
    np.testing.assert_allclose(found.mean, [0.1, -3.0, 9.0], rtol=1e-6)
    np.testing.assert_allclose(found.log_std, [low, (low + high) / 2, high], rtol=1e-6)
    np.testing.assert_allclose(found.mode(), np.tanh([0.1, -3.0, 9.0]), rtol=1e-5)
