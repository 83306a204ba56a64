"""Seeds go where they narrow most, and the study ends for a reason that is said."""

import numpy as np
import pytest

from workhorse.statistics.adaptive import Cell, interval_of, next_batch, predicted_width


def test_every_cell_first_gets_the_least_number_of_runs():
    cells = {"a": Cell([1.0] * 5, 1.0), "b": Cell([], 1.0)}
    found = next_batch(cells, width=1, budget=100)
    assert (found.cell, found.runs) == ("b", 5) and "0 of the 5 runs" in found.why
    assert next_batch({"a": Cell([1.0], 1.0)}, width=1, budget=2).runs == 2


def test_seeds_go_to_the_shaky_and_the_cheap():
    shaky, steady = [0.0, 9.0, 1.0, 8.0, 2.0], [1.0, 1.5, 0.9, 1.0, 1.0]
    assert next_batch({"s": Cell(steady, 1.0), "w": Cell(shaky, 1.0)}, width=0.1, budget=99).cell == "w"
    assert next_batch({"dear": Cell(shaky, 3.0), "cheap": Cell(shaky, 1.0)}, width=0.1, budget=99).cell == "cheap"
    assert next_batch({"dear": Cell(shaky, 30.0), "cheap": Cell([1.0] * 5, 1.0)}, width=0.1, budget=20).cell is None


def test_it_ends_when_everything_is_narrow_or_the_budget_is_gone():
    done = next_batch({"a": Cell([1.0, 1.01, 0.99, 1.0, 1.0], 1.0)}, width=0.5, budget=0)
    assert done.cell is None and done.why == "every interval is at most 0.5 wide"
    broke = next_batch({"a": Cell([0.0, 9.0, 1.0, 8.0, 2.0], 1.0)}, width=0.5, budget=0.9)
    assert broke.cell is None and "the budget is spent; the interval of a is still 10" in broke.why


@pytest.mark.parametrize("estimand", ["mean", "proportion"])
def test_a_study_ends_with_intervals_that_are_narrow_and_cover(estimand):
    """Stopping when it is narrow enough must not spoil the coverage."""
    rng, covered, truth = np.random.default_rng(0), [], {"mean": 3.0, "proportion": 0.1}[estimand]
    for _ in range(200):
        outcomes = []
        while True:
            step = next_batch({"a": Cell(outcomes, 1.0)}, width=0.35, budget=1e6, estimand=estimand, least=10)
            if step.cell is None:
                break
            new = rng.normal(truth, 0.5, step.runs) if estimand == "mean" else rng.random(step.runs) < truth
            outcomes += [float(value) for value in new]
        found = interval_of(outcomes, estimand)
        assert found.high - found.low <= 0.35
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) >= 0.92


def test_no_failure_in_few_runs_is_not_taken_for_never():
    """The naive rule, to stop when the estimate no longer changes, ends at once here."""
    step = next_batch({"a": Cell([0] * 10, 1.0)}, width=0.1, budget=1000, estimand="proportion")
    assert step.cell == "a"
    step = next_batch({"a": Cell([0] * 36, 1.0)}, width=0.1, budget=1000, estimand="proportion")
    assert step.cell is None


@pytest.mark.parametrize("estimand", ["mean", "proportion"])
def test_the_prediction_is_the_width_that_comes(estimand):
    rng = np.random.default_rng(0)
    draw = (lambda n: rng.normal(0, 1, n)) if estimand == "mean" else (lambda n: (rng.random(n) < 0.3).astype(float))
    outcomes = draw(200)
    found = interval_of(np.concatenate([outcomes, draw(200)]), estimand)
    assert predicted_width(outcomes, 200, estimand) == pytest.approx(found.high - found.low, rel=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: next_batch({}, width=1, budget=1), "at least one cell"),
        (lambda: next_batch({"a": Cell([1.0], 0.0)}, width=1, budget=1), "one of a costs 0.0"),
        (lambda: next_batch({"a": Cell([1.0], 1.0)}, width=0, budget=1), "width > 0"),
        (lambda: interval_of([0.5], "proportion"), "must be 0 or 1"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
