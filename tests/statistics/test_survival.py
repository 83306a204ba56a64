"""Steps to a threshold: runs that never arrive count as slow, not as missing."""

import numpy as np
import pytest
from scipy.stats import CensoredData, ecdf

from workhorse.statistics.survival import first_reach, median_steps, share_reached


def test_the_estimate_and_its_band_are_scipys():
    rng = np.random.default_rng(0)
    needed, budget = rng.exponential(100, 40).round(), rng.uniform(50, 200, 40).round()
    steps, reached = np.minimum(needed, budget), needed <= budget
    sample = CensoredData(uncensored=steps[reached], right=steps[~reached])
    survival = ecdf(sample).sf
    found = share_reached(steps, reached)
    np.testing.assert_allclose(found.value, 1 - survival.evaluate(found.steps))
    band = survival.confidence_interval(0.95, method="log-log")
    np.testing.assert_allclose(found.low, 1 - band.high.evaluate(found.steps), atol=1e-9)
    np.testing.assert_allclose(found.high, 1 - band.low.evaluate(found.steps), atol=1e-9)


def test_dropping_runs_that_never_arrive_would_say_less():
    steps, reached = [10, 20, 30, 100, 100, 100, 100], [True] * 3 + [False] * 4
    assert median_steps(steps[:3], reached[:3]).value == 20
    assert median_steps(steps, reached).value == np.inf


def test_the_median_s_interval_covers():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        needed, budget = rng.exponential(1.0, 30), rng.uniform(0.5, 3, 30)
        found = median_steps(np.minimum(needed, budget), needed <= budget)
        covered += found.low <= np.log(2) <= found.high
    assert 0.92 <= covered / 400 <= 0.985


def test_everybody_at_once_and_nobody_at_all():
    all_there = share_reached([5, 5], [True, True])
    assert all_there.value.tolist() == [1.0] and all_there.low[0] >= 0 and all_there.high[0] == 1.0
    nobody = share_reached([5, 5], [False, False])
    assert nobody.steps.size == 0 and median_steps([5, 5], [False, False])[:3] == (np.inf, np.inf, np.inf)


def test_reaching_is_at_a_measured_point():
    assert first_reach([1, 2, 3], [np.nan, 5.0, 9.0], 5.0) == (2.0, True)
    assert first_reach([1, 2, 3], [np.nan, np.nan, np.nan], 5.0) == (3.0, False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: first_reach([2, 1], [0.0, 0.0], 1), "must not fall"),
        (lambda: first_reach([], [], 1), "two rows of one length"),
        (lambda: share_reached([1], [True, False]), "got 1 and 2"),
    ],
)
def test_what_is_no_curve_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
