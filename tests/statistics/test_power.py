"""Numbers of runs: the tables of the textbooks, and a simulation that must agree."""

import numpy as np
import pytest
from scipy.stats import ttest_ind

from workhorse.statistics.power import detectable_effect, more_runs_needed, power_of, runs_needed


def test_runs_and_effects_of_the_published_table():
    assert [runs_needed(d) for d in (0.5, 0.8, 1, 1.5, 2, 3)] == [64, 26, 17, 9, 6, 4]
    found = [round(detectable_effect(n), 2) for n in (3, 5, 10, 20, 30)]
    assert found == [3.07, 2.02, 1.32, 0.91, 0.74]


@pytest.mark.parametrize(("effect", "runs"), [(0.0, 5), (1.0, 10), (2.0, 4)])
def test_power_is_how_often_a_test_rejects(effect, runs):
    rng = np.random.default_rng(0)
    x, y = rng.normal(effect, 1, (20_000, runs)), rng.normal(0, 1, (20_000, runs))
    rejects = ttest_ind(x, y, axis=1).pvalue < 0.05
    assert power_of(effect, runs) == pytest.approx(rejects.mean(), abs=0.01)


def test_power_grows_with_everything_that_should_help():
    assert power_of(1, 5) < power_of(1, 6) < power_of(1.2, 6) < power_of(1.2, 6, significance=0.1)
    assert power_of(-1, 5) == power_of(1, 5) and power_of(1000, 50) == 1.0


def test_more_runs_are_counted_from_those_there_are():
    x = np.arange(6.0)
    deviation = x.std(ddof=1)
    needed = runs_needed(1.0)
    assert more_runs_needed(x, x + deviation) == needed - 6
    assert more_runs_needed(x, x + 100 * deviation) == 0
    assert more_runs_needed(x, x) is None and runs_needed(1e-6) is None
    assert more_runs_needed([1.0, 1.0], [2.0, 2.0]) == 0 and more_runs_needed([1.0, 1.0], [1.0, 1.0]) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power_of(1, 1), "at least 2 runs a side, got 1"),
        (lambda: power_of(1, 5, 0), r"must be in \(0, 1\), got 0"),
        (lambda: runs_needed(1, power=0.01), "must lie between"),
        (lambda: more_runs_needed([1.0], [1.0, 2.0]), "got 1 and 2"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
