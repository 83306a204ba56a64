"""Warnings of runs from a log: each comes where its condition holds, and not where one part of it is missing."""

import numpy as np
import pytest

from workhorse.runs.warnings import Watch
from workhorse.runs.warnings.offline import RULES

COUNT = 30
LEFT = {"outside_support": 0.5}


def warned(**columns):
    """Names of the warnings of a run of 30 iterations, with the iteration; a number stands for a constant column."""
    usual = {
        "policy_value": -40.0, "data_value": -42.0, "value_bound": 0.0, "seen_value_bound": -1.0, "action_gap": 2.0,
        "return_gap": 5.0, "data_return_spread": 20.0, "outside_support": 0.05, "held_out_error": 1.0,
        "trained_error": 1.0,
    }  # fmt: skip
    watch = Watch({}, RULES)
    table = {name: np.broadcast_to(value, COUNT) for name, value in (usual | columns).items()}
    for number in range(COUNT):
        row = {"iteration": number + 1, "env_steps": 1000 * (number + 1)}
        watch.see(row | {name: float(column[number]) for name, column in table.items()})
    return {one.name: one.iteration for one in watch.given}, {one.name: one for one in watch.given}


def test_a_healthy_run_is_not_warned_of():
    assert warned()[0] == {}
    assert warned(policy_value=3.0)[0] == {}, "within a quarter of the spread of the bound"
    assert warned(return_gap=np.linspace(500, 300, COUNT), **LEFT)[0] == {}, "values begin at 0, and may fall far"
    assert warned(return_gap=np.linspace(-400, 0, COUNT), **LEFT)[0] == {}, "or to rise"


def test_values_above_the_bound_of_the_task_are_proof():
    names, given = warned(policy_value=np.where(np.arange(COUNT) < 10, -40, 30))
    assert names == {"value-above-bound": 12}
    assert "no reward that the task can give allows more than 0" in given["value-above-bound"].sentence
    assert "iql, td3+bc, cql" in given["value-above-bound"].remedy


def test_where_the_task_is_not_known_the_log_bounds_values():
    names, given = warned(policy_value=30.0, value_bound=np.nan, seen_value_bound=12.0)
    assert names == {"value-above-bound": 2}
    assert "no reward that the log holds allows more than 12" in given["value-above-bound"].sentence
    assert warned(policy_value=30.0, value_bound=np.nan, seen_value_bound=26.0)[0] == {}
    assert warned(policy_value=30.0, value_bound=np.nan, seen_value_bound=np.nan)[0] == {}


def test_the_highest_entropy_there_was_counts_for_the_bound():
    """A soft value may hold what the temperature was earlier."""
    assert warned(policy_value=30.0, value_bound=np.linspace(60, 10, COUNT))[0] == {}


def test_the_spread_is_that_of_the_beginning():
    """Later it grows with the values that complete the returns, and would hide them."""
    grows = np.linspace(20, 4000, COUNT)
    assert "value-above-bound" in warned(policy_value=np.linspace(-40, 900, COUNT), data_return_spread=grows)[0]


RISES = np.concatenate([np.linspace(300, 5, 10), np.full(5, 5.0), np.linspace(5, 50, 15)])


def test_values_that_rise_away_from_the_returns():
    assert "values-leave-returns" in warned(return_gap=RISES, **LEFT)[0]
    assert "values-leave-returns" not in warned(return_gap=RISES)[0], "the policy acts as the log does"
    assert "values-leave-returns" not in warned(return_gap=RISES, data_return_spread=60.0, **LEFT)[0]
    far = np.concatenate([RISES[:15], np.linspace(5, 90, 15)])
    assert "values-leave-returns" in warned(return_gap=far)[0], "by three times the spread it is wrong all the same"
    below = np.concatenate([np.linspace(-300, -30, 15), np.linspace(-30, 15, 15)])
    assert warned(return_gap=below, **LEFT)[0] == {}, "what has come up from below the returns does not count"


def test_ever_more_preferred_actions_without_support():
    gap = np.linspace(1, 9, COUNT)
    assert warned(action_gap=gap, **LEFT)[0].keys() == {"unsupported-actions"}
    assert warned(action_gap=gap)[0] == {}
    assert warned(action_gap=0.1 * gap, **LEFT)[0] == {}, "small beside what the log's returns differ by"
    assert warned(action_gap=np.linspace(7, 9, COUNT), **LEFT)[0] == {}, "it does not grow"


def test_errors_that_look_well_beside_values_that_are_made_up():
    assert "no-overfitting" in warned(return_gap=RISES, **LEFT)[0]
    names, given = warned(return_gap=RISES, held_out_error=0.8, **LEFT)
    assert (
        "is made up" in given["no-overfitting"].sentence and "0.8 on held-out steps" in given["no-overfitting"].sentence
    )
    assert "no-overfitting" not in warned(return_gap=RISES, held_out_error=2.0, **LEFT)[0], "that would be overfitting"
    assert "no-overfitting" not in warned(return_gap=RISES)[0]
    assert names["no-overfitting"] < names["values-leave-returns"]


@pytest.mark.parametrize("name", ["policy_value", "return_gap", "action_gap", "held_out_error", "data_return_spread"])
def test_a_run_without_these_metrics_is_not_judged(name):
    """As one of bc, which has no values: NaN and missing columns give no warning."""
    everything = {"policy_value": 900.0, "return_gap": RISES * 20, "action_gap": np.linspace(1, 90, COUNT), **LEFT}
    assert set(warned(**everything)[0]) == {rule.name for rule in RULES}
    rules = {
        "policy_value": {"value-above-bound"}, "return_gap": {"values-leave-returns", "no-overfitting"},
        "action_gap": {"unsupported-actions"}, "held_out_error": {"no-overfitting"},
        "data_return_spread": {rule.name for rule in RULES} - {"value-above-bound"},  # which is proof without it
    }  # fmt: skip
    found = warned(**{**everything, name: np.nan})[0]
    assert not rules[name] & found.keys()
