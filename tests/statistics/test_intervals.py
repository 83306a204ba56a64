"""Student's interval against SciPy and against its own promise."""

import numpy as np
import pytest
import scipy.stats

from workhorse.statistics.intervals import mean_interval


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
