"""Intervals against SciPy, published numbers and their own promise."""

import numpy as np
import pytest
import scipy.stats

from workhorse.statistics.intervals import (
    Interval,
    bootstrap_interval,
    cut,
    difference_interval,
    iqm_interval,
    mean_interval,
    proportion_interval,
    rate_bound_without_events,
    score_interval,
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


def normal(rng, count):
    return rng.normal(100, 15, count)


def bimodal(rng, count):
    return np.where(rng.random(count) < 0.5, rng.normal(1000, 50, count), rng.normal(3000, 200, count))


def one_in_four_fails(rng, count):
    return np.where(rng.random(count) < 0.25, rng.normal(100, 10, count), rng.normal(3000, 200, count))


MEANS = {normal: 100.0, bimodal: 2000.0, one_in_four_fails: 0.25 * 100 + 0.75 * 3000}


@pytest.mark.parametrize("draw", MEANS)
@pytest.mark.parametrize("count", [5, 10])
def test_the_iqm_interval_covers_as_often_as_it_says(draw, count):
    rng = np.random.default_rng(0)
    truth = scipy.stats.trim_mean(draw(rng, 1_000_000), 0.25)
    covered = [low <= truth <= high for _, low, high, _ in (iqm_interval(draw(rng, count)) for _ in range(1500))]
    assert 0.92 <= np.mean(covered) <= 0.98, "with Tukey and McLaughlin's t it was .64 for two modes and five runs"


@pytest.mark.parametrize("count", [5, 8, 13])
def test_the_iqm_is_the_trimmed_mean_and_its_interval_that_of_resamples(count):
    sample = np.random.default_rng(count).standard_t(2, count)
    found = iqm_interval(sample)
    assert found.value == pytest.approx(scipy.stats.trim_mean(sample, 0.25))
    drawn = scipy.stats.trim_mean(np.random.default_rng(1).choice(sample, (40_000, count)), 0.25, axis=1)
    tail = scipy.stats.norm.cdf(scipy.stats.t.ppf(0.025, count - 1))
    low, high = np.mean(drawn <= found.low), np.mean(drawn >= found.high)
    assert low == pytest.approx(tail, abs=0.01)
    assert high == pytest.approx(tail, abs=0.01)
    assert iqm_interval(sample) == found, "the same scores have the same interval"


@pytest.mark.parametrize("draw", MEANS)
def test_the_interval_of_a_score_covers_as_often_as_it_says_from_ten_runs_on(draw):
    rng = np.random.default_rng(0)
    for count in (10, 15):
        found = [score_interval(draw(rng, count)) for _ in range(1500)]
        covered = np.mean([low <= MEANS[draw] <= high for _, low, high, _ in found])
        assert 0.92 <= covered <= 0.98, count


def test_runs_that_were_added_for_narrowness_do_not_narrow_the_interval_by_their_spread():
    first, later = [0.0, 10.0, 5.0, 2.0, 8.0], [5.0] * 20
    plain, honest = score_interval(first + later), score_interval(first + later, first=5)
    half = scipy.stats.t.ppf(0.975, 4) * np.std(first, ddof=1) / 5
    assert honest.high == pytest.approx(5 + half)
    assert honest.low == pytest.approx(5 - half)
    assert honest.high - honest.low > 2 * (plain.high - plain.low)
    rng, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        scores = rng.normal(size=60)
        count = next(n for n in range(5, 61, 5) if n == 60 or mean_interval(scores[:n]).high - scores[:n].mean() < 0.5)
        low, high = score_interval(scores[:count], first=5)[1:3]
        covered += low <= 0 <= high
    assert 930 <= covered <= 980, "Student's t of all runs covers 93 %"


def test_what_is_impossible_is_cut():
    whole = mean_interval([500.0, 500, 500, 104])
    assert whole.high > 500
    assert cut(whole, (0.0, 500.0))[:3] == (whole.value, max(whole.low, 0.0), 500.0)
    assert cut(whole, (-np.inf, np.inf)) == whole
    assert cut(Interval(7.0, -np.inf, np.inf, "Student t"), (0.0, 10.0))[:3] == (7.0, 0.0, 10.0)


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
        (lambda: iqm_interval([1.0] * 4), "at least five values, got 4"),
        (lambda: score_interval([1.0] * 2), "at least three values, got 2"),
        (lambda: bootstrap_interval([1.0, 2.0], np.mean, np.random.default_rng(0)), "at least three values, got 2"),
        (lambda: bootstrap_interval([1.0] * 3, np.mean, np.random.default_rng(0), method="t"), "bca or percentile"),
        (lambda: proportion_interval(3, 2), "got 3 of 2"),
        (lambda: rate_bound_without_events(0), "at least 1 trial"),
    ],
)
def test_what_allows_no_interval_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
