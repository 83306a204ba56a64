"""Aggregates reproduce published numbers, and their intervals mean what they say."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from workhorse.statistics.aggregates import (
    aggregate_interval,
    iqm,
    mean,
    median,
    optimality_gap,
    performance_profile,
    profile_interval,
)


@pytest.fixture(scope="module")
def atari():
    table = pl.read_parquet(Path(__file__).parent / "data" / "atari100k.parquet")
    found = {}
    for (algorithm,), rows in table.group_by("algorithm"):
        wide = rows.sort("run").pivot("game", index="run", values="score").drop("run")
        found[algorithm] = wide.select(sorted(wide.columns)).to_numpy()
    assert found["SPR"].shape == found["CURL"].shape == (100, 26)
    return found


@pytest.mark.parametrize(
    ("algorithm", "runs", "expected"),
    [
        ("SPR", 100, (0.395629, 0.336649, 0.615796, 0.577302)),
        ("SPR", 10, (0.415478, 0.375402, 0.701334, 0.554237)),
        ("CURL", 100, (0.092349, 0.112792, 0.261489, 0.767980)),
        ("CURL", 10, (0.119952, 0.097415, 0.246174, 0.779642)),
    ],
)
def test_published_aggregates_are_reproduced(atari, algorithm, runs, expected):
    scores = atari[algorithm][:runs]
    found = [float(statistic(scores)) for statistic in (median, iqm, mean, optimality_gap)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_published_profiles_are_reproduced(atari):
    at = [0.25, 0.5, 1.0, 2.0]
    np.testing.assert_allclose(performance_profile(atari["SPR"], at), [0.52, 0.376154, 0.214231, 0.071538], atol=1e-6)
    expected = [0.283462, 0.180385, 0.066923, 0.006538]
    np.testing.assert_allclose(performance_profile(atari["CURL"], at), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("algorithm", "runs", "low", "high"),
    [("SPR", 100, 0.326, 0.348), ("SPR", 10, 0.344, 0.411), ("CURL", 100, 0.108, 0.118)],
)
def test_published_intervals_are_reproduced_within_resampling_error(atari, algorithm, runs, low, high):
    rng = np.random.default_rng(0)
    found = aggregate_interval(atari[algorithm][:runs], iqm, rng, resamples=5_000, expand=False)
    assert found.low == pytest.approx(low, abs=0.002) and found.high == pytest.approx(high, abs=0.002)


@pytest.mark.parametrize("shape", [(2, 1), (5, 3), (33, 7)])
def test_the_quick_way_for_the_iqm_has_the_bits_of_the_plain_one(shape):
    scores = np.round(np.random.default_rng(0).normal(size=shape), 1)  # with ties
    quick, plain = (
        aggregate_interval(scores, statistic, np.random.default_rng(1), resamples=700)
        for statistic in (iqm, lambda sample: iqm(sample))
    )
    assert quick == plain


def test_the_same_generator_gives_the_same_interval_and_another_one_another():
    scores = np.random.default_rng(0).normal(size=(5, 3))
    one, same, other = (
        aggregate_interval(scores, iqm, np.random.default_rng(seed), resamples=300) for seed in (1, 1, 2)
    )
    assert one == same and one != other


def test_runs_are_resampled_within_their_task():
    """Tasks far apart do not widen the interval, and a single task's noise is not spread over the others."""
    scores = np.tile([[0.0, 100.0, 1e6]], (5, 1))
    found = aggregate_interval(scores, mean, np.random.default_rng(0), resamples=200)
    assert found.low == found.value == found.high


def test_expanding_widens_small_samples_and_hardly_large_ones():
    for runs, least, most in ((5, 1.3, 2.0), (100, 1.0, 1.06)):
        scores = np.random.default_rng(0).normal(size=(runs, 4))
        plain, wide = (
            aggregate_interval(scores, mean, np.random.default_rng(1), expand=expand) for expand in (False, True)
        )
        ratio = (wide.high - wide.low) / (plain.high - plain.low)
        assert least < ratio < most, runs


def test_a_profile_has_a_band_around_it_that_narrows_with_runs(atari):
    at = np.linspace(0, 2, 9)
    few, many = (profile_interval(atari["SPR"][:n], at, np.random.default_rng(0), resamples=300) for n in (5, 100))
    assert (many.low <= many.value).all() and (many.value <= many.high).all()
    assert (many.high - many.low).mean() < 0.5 * (few.high - few.low).mean()
    assert (np.diff(many.value) <= 0).all()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, 2.0], r"got 1 axis of length 2: for one task use scores\[:, None\]"),
        (np.zeros((0, 3)), "with something in it"),
        ([[1.0, np.nan], [np.nan, 1.0]], "2 of 4 scores are NaN, the first that of run 0 on task 1"),
        ([[1.0, 2.0]], "at least 2 runs, got 1: run more seeds"),
    ],
)
def test_scores_that_allow_no_interval_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        aggregate_interval(scores, iqm, np.random.default_rng(0))
