"""Tests reject equal distributions as often as they say, and find what is there."""

import numpy as np
import pytest
from scipy.stats import ttest_ind

from workhorse.statistics.comparison import sequential_test, welch_test


def test_welch_is_scipys():
    rng = np.random.default_rng(0)
    for sizes in ((3, 3), (5, 12), (2, 30)):
        x, y = rng.normal(1, 1, sizes[0]), rng.normal(0, 4, sizes[1])
        reference = ttest_ind(x, y, equal_var=False)
        found = welch_test(x, y)
        assert found.p_value == pytest.approx(reference.pvalue, rel=1e-9)
        interval = reference.confidence_interval()
        np.testing.assert_allclose(found.difference[1:3], [interval.low, interval.high], rtol=1e-9)


def test_henderson_s_split_of_equal_runs_is_what_a_test_must_be_guarded_against():
    """t = -9.09 for two groups of five runs of one algorithm has p = .0016 by Welch: one test can be wrong."""
    x = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    shift = 9.0916 * np.sqrt(2 * x.var(ddof=1) / 5)
    assert welch_test(x - shift, x).p_value < 0.002


def test_constant_samples_are_equal_or_different():
    assert welch_test([1.0, 1.0], [1.0, 1.0]).p_value == 1.0
    assert welch_test([1.0, 1.0], [2.0, 2.0]).p_value == 0.0


def batches_of(rng, sizes, shift=0.0, draw=None):
    draw = draw or rng.normal
    return [draw(size=size) + shift for size in sizes]


@pytest.mark.parametrize("kind", ["normal", "bimodal"])
def test_looking_five_times_at_equal_algorithms_rejects_at_most_as_often_as_said(kind):
    rng, rejected, repetitions = np.random.default_rng(0), 0, 600

    def bimodal(size):
        return rng.choice([0.0, 1.0], p=[0.3, 0.7], size=size) + rng.normal(0, 0.01, size)

    draw = rng.normal if kind == "normal" else bimodal
    for _ in range(repetitions):
        x, y = (batches_of(rng, [4] * 5, draw=draw) for _ in range(2))
        found = sequential_test(x, y, rng, resamples=400)
        rejected += found.decision in ("larger", "smaller")
    assert 0.015 < rejected / repetitions < 0.06 + 0.02  # two standard errors of 600 repetitions are .018


def test_a_clear_difference_is_found_early_and_with_its_sign():
    rng = np.random.default_rng(0)
    x, y = batches_of(rng, [5] * 5, 10.0), batches_of(rng, [5] * 5)
    found = sequential_test(x, y, rng)
    assert found.decision == "larger" and len(found.looks) == 1
    assert sequential_test(y, x, rng).decision == "smaller"


def test_power_grows_with_looks():
    rng, found = np.random.default_rng(1), []
    for _ in range(60):
        x, y = batches_of(rng, [5] * 5, 1.2), batches_of(rng, [5] * 5)
        found.append(sequential_test(x, y, rng, resamples=1000))
    assert sum(one.decision == "larger" for one in found) > 50  # 25 runs a side see 1.2 sd nearly always
    assert 2 <= np.mean([len(one.looks) for one in found]) <= 4


def test_a_look_is_the_same_when_later_batches_are_there():
    rng = np.random.default_rng(1)
    x, y = batches_of(rng, [3] * 4), batches_of(rng, [3] * 4)
    parts = [sequential_test(x[:k], y[:k], np.random.default_rng(7), looks=4) for k in (2, 3, 4)]
    assert parts[0].looks == parts[1].looks[:2] == parts[2].looks[:2]
    assert parts[0].decision == "undecided" and parts[2].decision == "no difference shown"


def test_equal_values_never_reject():
    assert (
        sequential_test([[1.0] * 5], [[1.0] * 5], np.random.default_rng(0), looks=1).decision == "no difference shown"
    )


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([[1.0]], [[1.0], [2.0]], "same number of batches, got 1 and 2"),
        ([[1.0]] * 6, [[1.0]] * 6, "Expected 1 to 5 batches"),
        ([[]], [[1.0]], "A batch is empty"),
    ],
)
def test_batches_that_make_no_sense_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        sequential_test(x, y, np.random.default_rng(0))
