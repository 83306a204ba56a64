"""Moments, ranks and noise against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workhorse.core.types import Moments
from workhorse.math import moments, noise
from workhorse.math.fitness import centred_ranks, standardised


def observed(samples, dtype=jnp.float64):
    start = moments.empty(samples.shape[1], dtype)
    return jax.lax.scan(lambda total, row: (moments.observe(total, row), None), start, jnp.asarray(samples, dtype))[0]


def returns_of(*sizes, unique=False):
    """Returns of populations of a few sizes, each of which is compiled anew. XLA reads subnormal numbers as zero."""
    drawn = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-300)
    return st.sampled_from(sizes).flatmap(lambda n: st.lists(drawn, min_size=n, max_size=n, unique=unique))


class TestMoments:
    samples = np.random.default_rng(0).normal([3.0, -200.0, 0.0], [1e-3, 50.0, 0.0], (500, 3))

    def test_welford_equals_numpy(self):
        found = observed(self.samples)
        assert found.count == 500
        np.testing.assert_allclose(found.mean, self.samples.mean(0), rtol=1e-12)
        np.testing.assert_allclose(moments.spread(found), self.samples.std(0), rtol=1e-9, atol=1e-12)

    def test_float32_keeps_a_small_spread_beside_a_large_mean(self):
        np.testing.assert_allclose(moments.spread(observed(self.samples, jnp.float32))[0], 1e-3, rtol=0.05)

    def test_merging_parts_equals_seeing_all(self):
        parts = [observed(self.samples[part]) for part in (slice(0, 1), slice(1, 130), slice(130, 500))]
        stacked = Moments(*(jnp.stack(leaves) for leaves in zip(*parts, strict=True)))
        whole, merged = observed(self.samples), moments.merge_all(stacked, moments.empty(3, jnp.float64))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), whole, merged)

    def test_a_sample_that_does_not_count_changes_no_bit(self):
        before = observed(self.samples)
        after = moments.observe(before, jnp.full(3, 1e9), False)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, after))

    def test_merging_nothing_changes_nothing(self):
        before = observed(self.samples)
        after = moments.merge(before, moments.empty(3, jnp.float64))
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, after))

    def test_a_constant_component_reads_as_zero_and_an_unseen_one_as_itself(self):
        assert moments.inverse_scale(observed(self.samples))[2] == 0
        assert (moments.inverse_scale(moments.empty(3, jnp.float64)) == 1).all()

    @pytest.mark.parametrize("floor", [moments.CONSTANT_BELOW, 1e-2])
    def test_a_component_is_constant_below_the_floor_and_not_at_it(self, floor):
        at = np.float64(floor)
        deviations = np.array([at, np.nextafter(at, 1), np.nextafter(at, 0), at / 2, 0.0])
        given = Moments(jnp.asarray(1.0), jnp.zeros(5), jnp.asarray(deviations**2))
        found = moments.inverse_scale(given._replace(count=jnp.asarray(4.0), deviation=4 * given.deviation), floor)
        spread = np.asarray(moments.spread(given))
        np.testing.assert_allclose(found, np.where(spread < at, 0.0, 1 / np.maximum(spread, 1e-300)))
        assert list(np.asarray(found) > 0) == [True, True, False, False, False]

    def test_moments_of_one_sample_scale_nothing_and_of_two_do(self):
        one = moments.observe(moments.empty(1, jnp.float64), jnp.array([3.0]))
        assert moments.inverse_scale(one).tolist() == [1.0]
        assert moments.inverse_scale(moments.observe(one, jnp.array([7.0]))).tolist() == [0.5]


class TestRanks:
    @given(returns_of(2, 3, 8, 40, unique=True), st.floats(1e-3, 1e3))
    @settings(max_examples=50, deadline=None)
    def test_only_the_order_matters(self, values, factor):
        values = np.array(values)
        scaled = values * factor
        if len(np.unique(scaled)) == len(values):
            assert (centred_ranks(jnp.asarray(values)) == centred_ranks(jnp.asarray(scaled))).all()

    @given(returns_of(1, 2, 7, 40))
    @settings(max_examples=50, deadline=None)
    def test_ranks_lie_in_their_bounds_and_sum_to_zero(self, values):
        ranks = np.asarray(centred_ranks(jnp.asarray(values)))
        assert np.abs(ranks).max() <= 0.5
        assert abs(ranks.sum() + (0.5 if len(values) == 1 else 0)) < 1e-9

    def test_equal_members_weigh_nothing(self):
        assert (centred_ranks(jnp.full(8, -200.0)) == 0).all()

    def test_a_member_without_a_number_is_last(self):
        assert centred_ranks(jnp.array([jnp.nan, -1e9, 5.0])).tolist() == [-0.5, 0.0, 0.5]

    def test_standardised_has_mean_zero_and_spread_one(self):
        found = standardised(jnp.array([1.0, 2.0, 10.0]))
        assert abs(float(found.mean())) < 1e-12 and abs(float(found.std()) - 1) < 1e-12
        assert (standardised(jnp.ones(4)) == 0).all()


class TestNoise:
    key = jax.random.key(7)

    @pytest.mark.parametrize("count", [1, 7, 8, 9, 33])
    def test_the_weighted_sums_are_those_of_the_perturbations_and_of_their_squares_less_one(self, count):
        weights = np.random.default_rng(1).normal(size=(2, count)).astype(np.float32)
        eps = np.stack([noise.perturbation(self.key, index, 50) for index in range(count)]).astype(np.float64)
        expected = np.stack([weights[0] @ eps, weights[1] @ (eps**2 - 1)])
        found = noise.weighted_sums(self.key, jnp.asarray(weights), 50)
        np.testing.assert_allclose(found, expected, atol=4e-5)
        alone = noise.weighted_sums(self.key, jnp.asarray(weights[:1]), 50)
        np.testing.assert_array_equal(alone[0], found[0])

    @pytest.mark.parametrize("size", [3_000, 4_096])
    def test_blocks_make_the_weighted_sums_of_a_long_perturbation(self, size):
        weights = jnp.asarray([[0.5, -2.0, 1.5], [1.0, 0.3, -0.2]], jnp.float32)
        block = jax.jit(noise.weighted_block, static_argnums=3)
        blocks = [block(self.key, weights, number, size) for number in range(noise.num_blocks(size))]
        assert [one.shape for one in blocks] == [(2, noise.BLOCK_SIZE)] * 2
        together = noise.joined(blocks, size)
        rows = np.stack([noise.perturbation(self.key, index, size) for index in range(3)])
        np.testing.assert_allclose(together[0], np.asarray(weights[0]) @ rows, atol=1e-5)
        np.testing.assert_allclose(together[1], np.asarray(weights[1]) @ (rows**2 - 1), atol=2e-5)
        np.testing.assert_array_equal(jax.jit(noise.weighted_sums, static_argnums=2)(self.key, weights, size), together)
        assert abs(np.corrcoef(rows[0][: size - noise.BLOCK_SIZE], rows[0][noise.BLOCK_SIZE :])[0, 1]) < 0.1

    def test_perturbations_are_standard_normal_and_uncorrelated(self):
        rows = np.stack([noise.perturbation(self.key, index, 4000) for index in range(30)])
        assert abs(rows.mean()) < 0.01 and abs(rows.std() - 1) < 0.01
        apart = np.corrcoef(rows) - np.eye(30)
        assert np.abs(apart).max() < 5 / np.sqrt(4000)

    def test_a_perturbation_does_not_depend_on_how_it_is_drawn(self):
        together = jax.jit(jax.vmap(lambda index: noise.perturbation(self.key, index, 9)))(jnp.arange(5))
        assert (together[3] == noise.perturbation(self.key, 3, 9)).all()
