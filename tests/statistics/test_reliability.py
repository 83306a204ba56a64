"""Chan et al.'s measures on their published examples."""

import numpy as np
import pytest

from workhorse.statistics.reliability import (
    collapsed,
    cvar,
    dispersion_of_rollouts,
    dispersion_over_time,
    drawdown,
    long_term_risk,
    outlying,
    short_term_risk,
)

FIRST, SECOND = ([1, 2, 4, 5], [1.0, 2.0, 3.0, 4.0]), ([1, 2, 3, 4], [0.3, 0.1, -0.5, 1.0])


def test_the_published_examples_within_a_run():
    assert drawdown([100, 150, 90, 120, 80, 200]).max() == 70 and drawdown([5, 5, 3, 6, 5]).max() == 2
    assert [cvar(y, 0.51) for _, y in (FIRST, SECOND)] == pytest.approx([1.5, -0.2])
    assert [short_term_risk(*curve, tail=0.51) for curve in (FIRST, SECOND)] == pytest.approx([0.8333333, -0.4])
    assert [short_term_risk(*curve, tail=0.49) for curve in (FIRST, SECOND)] == pytest.approx([0.5, -0.6])
    assert [long_term_risk(y, tail=0.25) for _, y in (FIRST, SECOND)] == pytest.approx([0.0, 0.8])


def test_the_published_examples_of_rollouts():
    rollouts = [-1.0, 2, 5, 7, 3], [6.0, 5, 1, 34, 2]
    assert [dispersion_of_rollouts(y) / np.median(y) for y in rollouts] == pytest.approx([1.0, 0.8])
    assert [cvar(y, 0.49) for y in rollouts] == pytest.approx([0.5, 1.5])


def test_long_term_risk_takes_the_worst_tail_not_the_mildest():
    curve = np.linspace(0, 100, 100) + np.random.default_rng(0).normal(0, 1, 100)
    curve[90:95] = 5.0
    assert long_term_risk(curve) > 80 and cvar(drawdown(curve)) < 1


def test_dispersion_over_time_ignores_a_steady_rise():
    steps = np.arange(0, 100, 10)
    assert dispersion_over_time(steps, 3.0 * steps, window=40) == pytest.approx(0)
    assert dispersion_over_time(steps, np.where(steps % 20, 1.0, 0.0), window=40) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="take a wider one"):
        dispersion_over_time(steps, steps, window=5)


@pytest.mark.parametrize(
    ("curve", "floor", "expected"),
    [
        ([0, 900, 300], 0, True),
        ([0, 900, 450], 0, False),
        ([-1600, -200, -1000], -1600, True),
        ([-1600, -200, -600], -1600, False),
        ([-1600, -1650], -1600, False),
        ([0, 900, float("nan")], 0, False),
    ],
)
def test_collapse_is_below_half_of_the_own_best(curve, floor, expected):
    assert collapsed(curve, floor) is expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cvar([1.0], 0.0), r"tail must be in \(0, 1\)"),
        (lambda: short_term_risk([1, 1], [0.0, 1.0]), "must rise"),
        (lambda: collapsed([float("nan")]), "without points"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("values", [[500.0] * 5 + [20.0], [-1.0, 0.0, 1.0, 0.5, 90.0], [500.0] * 8 + [20.0, 30.0]])
def test_values_that_stand_apart_are_found(values):
    apart = np.abs(np.array(values) - np.median(values)) > 50
    np.testing.assert_array_equal(outlying(values), apart)


def test_of_normal_values_few_stand_apart():
    rng = np.random.default_rng(0)
    share = np.mean([outlying(sample).any() for sample in rng.normal(size=(1000, 10))])
    assert 0.02 < share < 0.06
    assert not outlying(np.full(10, 3.0)).any()
    assert not outlying([0.0, 0.0, 0.0, 1e9]).any()  # too few
