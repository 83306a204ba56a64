"""The permutation test against SciPy, its level for scores of every shape, and looks at a growing sample."""

import numpy as np
import pytest
import scipy.stats

from tests.statistics.test_intervals import bimodal, normal, one_in_four_fails
from workhorse.statistics.permutation import (
    look_shares,
    monitored_test,
    permutation_p_values,
    permutation_test,
    runs_for_level,
    smallest_p,
)


def test_p_is_scipys():
    rng = np.random.default_rng(0)
    for sizes in ((5, 5), (5, 7)):
        x, y = (rng.normal(size=size) for size in sizes)

        def welch(a, b, axis):
            return np.abs(scipy.stats.ttest_ind(a, b, equal_var=False, axis=axis).statistic)

        expected = scipy.stats.permutation_test(
            (x, y), welch, n_resamples=np.inf, alternative="greater", vectorized=True
        )
        assert permutation_test(x, y).p_value == pytest.approx(expected.pvalue)
        assert permutation_p_values(x[None], y[None])[0] == pytest.approx(expected.pvalue)


def test_many_runs_are_labelled_at_random_and_the_same_way_each_time():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.6, 1, 30), rng.normal(0, 1, 30)
    found = permutation_test(x, y)
    assert found == permutation_test(x, y)
    assert found.p_value == pytest.approx(scipy.stats.ttest_ind(x, y, equal_var=False).pvalue, abs=0.01)
    expected = scipy.stats.ttest_ind(x, y, equal_var=False).confidence_interval()
    np.testing.assert_allclose(found.difference[1:3], [expected.low, expected.high], atol=0.05)


@pytest.mark.parametrize("shift", [0.0, 1.1, -3.0, 1000.0])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_the_interval_leaves_out_0_exactly_where_the_test_rejects(shift, level):
    rng = np.random.default_rng(3)
    for _ in range(40):
        x, y = bimodal(rng, 6) / 1000 + shift, bimodal(rng, 6) / 1000
        found = permutation_test(x, y, 1 - level)
        low, high = found.difference[1:3]
        assert low <= found.difference.value <= high
        assert (low > 0 or high < 0) == (found.p_value < level)


def test_scores_that_do_not_vary():
    same = permutation_test([5.0] * 5, [5.0] * 5)
    assert (same.p_value, same.difference[:3]) == (1.0, (0.0, 0.0, 0.0))
    apart = permutation_test([500.0] * 5, [20.0] * 5)
    assert apart.p_value == smallest_p(5, 5)
    assert apart.difference[:3] == pytest.approx((480, 480, 480))


def test_too_few_runs_for_a_level_have_an_interval_without_ends():
    found = permutation_test([9.0, 8, 7, 6, 5], [1.0, 2, 3, 4, 0], 1 - 0.05 / 10)
    assert found.difference[1:3] == (-np.inf, np.inf)
    assert runs_for_level(0.05 / 10) == 6


@pytest.mark.parametrize("draw", [normal, bimodal, one_in_four_fails])
def test_equal_variants_are_called_different_as_seldom_as_it_says(draw):
    """Three pairs of cells, five seeds a side, Holm over the pairs: the false verdict is any p below .05 / 3."""
    rng, times = np.random.default_rng(0), 2000
    p = permutation_p_values(draw(rng, (3 * times, 5)), draw(rng, (3 * times, 5))).reshape(times, 3)
    assert (3 * p.min(1) < 0.05).mean() <= 0.06
    assert (p[:, 0] < 0.05).mean() <= 0.06


@pytest.mark.parametrize("draw", [normal, bimodal])
def test_runs_added_until_intervals_are_narrow_do_not_make_a_difference(draw):
    """Welch's t after the same rule calls equal variants different in 8 % (normal) and 15 % (two modes)."""
    rng, times, sizes = np.random.default_rng(1), 800, [5, 10, 15, 20]
    x, y = draw(rng, (times, 20)), draw(rng, (times, 20))
    wide = draw(rng, 100_000).std()

    def ended(scores):
        for size in sizes[:-1]:
            half = scipy.stats.t.ppf(0.975, size - 1) * scores[:, :size].std(1, ddof=1) / size**0.5
            yield np.where(2 * half < wide, size, 20)

    runs = np.minimum(np.min(list(ended(x)), axis=0), np.min(list(ended(y)), axis=0))
    p = np.ones(times)
    for size, share in zip(sizes, look_shares(sizes), strict=True):
        looked = np.flatnonzero(runs >= size)
        p[looked] = np.minimum(p[looked], permutation_p_values(x[looked, :size], y[looked, :size]) / share)
    assert (p < 0.05).mean() <= 0.06
    found = [monitored_test(x[i, : runs[i]], y[i, : runs[i]], sizes)[0].p_value for i in range(20)]
    np.testing.assert_allclose(found, np.minimum(p[:20], 1.0))


def test_looks_share_the_significance():
    assert look_shares([3, 8, 13]) == [0.0, 1 / 2, 1 / 6]
    assert sum(look_shares(range(5, 2000, 5))) < 1
    x, y = np.arange(10.0) + 100, np.arange(10.0)
    found, runs = monitored_test(x, y[:7], [5, 10])
    assert runs == 5, "a look needs as many runs of both sides"
    assert found.p_value == pytest.approx(2 * smallest_p(5, 5))
    late = np.concatenate([np.tile([0.0, 200.0], 3)[:5], np.full(5, 300.0)])
    assert monitored_test(late, y, [5, 10])[1] == 10
    with pytest.raises(ValueError, match="at least 5 runs a side, got 4"):
        monitored_test(x[:4], y, [4, 9])


@pytest.mark.parametrize(
    ("sides", "message"),
    [(([1.0], [1.0, 2.0]), "at least two values a side, got 1 and 2"), (([1.0, np.nan], [1.0, 2.0]), "finite values")],
)
def test_what_cannot_be_compared(sides, message):
    with pytest.raises(ValueError, match=message):
        permutation_test(*sides)
