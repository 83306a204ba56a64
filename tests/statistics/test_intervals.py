"""Intervals against SciPy, published numbers and their own promise."""

import numpy as np
import pytest
import scipy.stats

from workhorse.statistics.intervals import (
    bootstrap_interval,
    difference_interval,
    iqm_interval,
    mean_interval,
    proportion_interval,
    rate_bound_without_events,
)


def test_equals_scipy():
    sample = np.random.default_rng(0).normal(size=12)
    expected = scipy.stats.t.interval(0.9, 11, sample.mean(), scipy.stats.sem(sample))
    np.testing.assert_allclose(mean_interval(sample, 0.9)[1:3], expected, rtol=1e-12)


def test_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(4000, 5))
    covered = np.mean([low <= 0 <= high for _, low, high, _ in map(mean_interval, draws)])
    assert 0.935 < covered < 0.965


def test_one_value_has_an_infinite_interval_and_none_has_none():
    assert mean_interval([3.0])[:3] == (3.0, -np.inf, np.inf)
    with pytest.raises(ValueError, match="at least one value, got none"):
        mean_interval([])


def test_the_difference_is_scipys_welch():
    rng = np.random.default_rng(0)
    x, y = rng.normal(1, 1, 4), rng.normal(0, 5, 9)
    expected = scipy.stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.9)
    found = difference_interval(x, y, 0.9)
    np.testing.assert_allclose(found[1:3], [expected.low, expected.high], rtol=1e-12)
    assert found.value == pytest.approx(x.mean() - y.mean())
    assert difference_interval([2.0, 2.0], [1.0, 1.0])[:3] == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 13])
def test_the_iqm_is_the_trimmed_mean_with_its_standard_error(count):
    sample = np.random.default_rng(count).standard_t(2, count)
    found = iqm_interval(sample)
    assert found.value == pytest.approx(scipy.stats.trim_mean(sample, 0.25))
    kept = count - 2 * (count // 4)
    winsorised = np.asarray(scipy.stats.mstats.winsorize(sample, (0.25, 0.25)))
    error = winsorised.std(ddof=1) * np.sqrt((count - 1) / (kept * (kept - 1)))
    assert found.high - found.value == pytest.approx(scipy.stats.t.ppf(0.975, kept - 1) * error)


@pytest.mark.parametrize("count", [5, 10, 20])
def test_the_iqm_interval_covers_as_often_as_it_says(count):
    rng = np.random.default_rng(0)
    covered = [found.low <= 0 <= found.high for found in (iqm_interval(rng.normal(size=count)) for _ in range(3000))]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_bca_covers_better_than_percentiles():
    rng, covered = np.random.default_rng(0), {"bca": 0, "percentile": 0}
    for _ in range(500):
        sample = rng.exponential(1.0, 8)
        for method in covered:
            found = bootstrap_interval(sample, lambda x: x.mean(-1), rng, resamples=600, method=method)
            covered[method] += found.low <= 1 <= found.high
    assert covered["percentile"] < 440 and covered["bca"] > covered["percentile"] + 15


def test_bca_is_scipys_where_samples_are_large():
    sample = np.random.default_rng(0).exponential(1.0, 300)
    expected = scipy.stats.bootstrap(
        (sample,), np.mean, n_resamples=20_000, method="BCa", random_state=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrap_interval(sample, lambda x: x.mean(-1), np.random.default_rng(2), resamples=20_000)
    np.testing.assert_allclose(found[1:3], [expected.low, expected.high], atol=0.004)


def test_a_constant_sample_has_an_interval_of_no_width():
    found = bootstrap_interval([2.0] * 5, lambda x: x.mean(-1), np.random.default_rng(0))
    assert found[:3] == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(("events", "trials"), [(0, 1), (0, 10), (3, 10), (10, 10), (1, 100)])
def test_proportions_are_scipys_exact_ones(events, trials):
    expected = scipy.stats.binomtest(events, trials).proportion_ci(0.95, method="exact")
    np.testing.assert_allclose(proportion_interval(events, trials)[1:3], [expected.low, expected.high], atol=1e-12)


def test_failure_rates_of_the_literature():
    """NAF on Pendulum failed in 3 of 10 runs: 6.7 to 65 %. No failure in 5, 10, 30 runs excludes 52, 31, 11.6 %."""
    assert [round(end, 3) for end in proportion_interval(3, 10)[1:3]] == [0.067, 0.652]
    assert [round(proportion_interval(0, n).high, 3) for n in (5, 10, 30)] == [0.522, 0.308, 0.116]
    for trials in (1, 7, 50):
        assert (1 - rate_bound_without_events(trials)) ** trials == pytest.approx(0.05)
    assert rate_bound_without_events(1000) == pytest.approx(3 / 1000, rel=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1.0, np.nan]), "1 of 2 values are NaN"),
        (lambda: mean_interval([1.0], 1.5), r"confidence must be in \(0, 1\), got 1.5"),
        (lambda: difference_interval([1.0], [1.0, 2.0]), "at least two values, got 1"),
        (lambda: iqm_interval([1.0]), "at least two values, got 1"),
        (lambda: bootstrap_interval([1.0, 2.0], np.mean, np.random.default_rng(0)), "at least three values, got 2"),
        (lambda: bootstrap_interval([1.0] * 3, np.mean, np.random.default_rng(0), method="t"), "bca or percentile"),
        (lambda: proportion_interval(3, 2), "got 3 of 2"),
        (lambda: rate_bound_without_events(0), "at least 1 trial"),
    ],
)
def test_what_allows_no_interval_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
