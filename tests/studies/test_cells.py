"""What is said of a cell: every run counts, and no interval is drawn from too few."""

import math

import numpy as np
import pytest

from tests.studies.made_up import run, study, sweep, with_sweep
from workhorse.robustness.results import Floor
from workhorse.statistics.intervals import mean_interval, proportion_interval, score_interval
from workhorse.studies.cells import failure_score, floor_return, random_return, summarise


def only(results):
    (cell,) = summarise(results)
    return cell


def test_a_crashed_seed_counts_as_a_failure_with_the_random_return():
    runs = [run(seed, 120.0) for seed in range(4)] + [run(4, None, outcome="crashed", curve=[50.0])]
    cell = only(study(runs))
    assert cell.scores.tolist() == [120.0] * 4 + [1.0], "the random policy's mean"
    assert cell.num_crashed == 1
    assert cell.success == proportion_interval(4, 5)
    assert cell.mean == score_interval([120.0] * 4 + [1.0])
    assert (cell.worst, cell.best, cell.median) == (1.0, 120.0, 120.0)
    assert cell.curve is not None
    assert cell.curve.runs[4].tolist() == [50.0, 1.0, 1.0], "after its crash it earns what the random policy does"
    assert cell.cost.core_hours_per_success == pytest.approx(5 * 0.5 / 4)


def test_a_failure_never_counts_as_more_than_a_run_that_finished():
    """The random policy returns 1 here: more than the runs that finished, which a crash must not beat."""
    for returns in ([-5.0, -7.0, -6.0], [0.1, -3.0, 0.5], [0.3, 0.2, 0.9]):
        runs = [run(seed, value) for seed, value in enumerate(returns)]
        runs += [run(seed, None, outcome="crashed", variant="b", curve=[2.0]) for seed in range(3)]
        results = study(runs)
        assert failure_score(results, "Task-v0") == min(returns)
        finished, crashed = summarise(results)
        assert crashed.scores.tolist() == [min(returns)] * 3
        assert finished.mean is not None and crashed.mean is not None
        assert finished.mean.value > crashed.mean.value
        assert crashed.curve is not None
        assert crashed.curve.runs[0].tolist() == [2.0], "what it was before it crashed"


def test_few_seeds_say_what_they_do_not_show():
    doubts = {number: only(study([run(seed, 120.0 + seed) for seed in range(number)])).doubt for number in (2, 5, 10)}
    assert doubts[5] == "a failure of one seed in four stays unseen by 5 seeds in 24% of studies"
    assert doubts[2] == doubts[10] == ""
    added = only(study([run(seed, 120.0 + seed) for seed in range(25)], first_seeds=5))
    assert added.doubt == doubts[5], "after `until` with five first seeds the mean covers .76 where one in four fails"
    cell = only(study([run(seed, 120.0 + seed) for seed in range(4)]))
    assert cell.iqm is None, "four values hold the middle of a distribution too seldom"


def test_what_is_impossible_is_in_no_interval():
    runs = [run(seed, value) for seed, value in enumerate([500.0, 500, 500, 500, 104])]
    free, bounded = only(study(runs)), only(study(runs, return_bounds={"Task-v0": (0.0, 500.0)}))
    assert free.mean is not None and free.mean.high > 500
    assert bounded.mean is not None and bounded.mean.high == 500.0
    assert bounded.mean.low == free.mean.low
    assert bounded.curve is not None
    assert np.nanmax(bounded.curve.high) == 500.0
    assert bounded.bounds == (0.0, 500.0)


def test_a_diverged_seed_is_no_success_whatever_its_curve():
    cell = only(study([run(0, 120.0), run(1, 120.0), run(2, None, outcome="diverged", curve=[200.0, 300.0])]))
    assert cell.num_diverged == 1
    assert cell.successes.tolist() == [True, True, False]


def test_unfinished_runs_are_no_results_but_are_counted():
    cell = only(study([run(0, 120.0), run(1, None, outcome="unfinished", curve=[])]))
    assert (len(cell.runs), cell.num_unfinished) == (1, 1)
    assert cell.mean is None
    assert "at least 3" in cell.too_few


def test_two_runs_get_no_interval():
    cell = only(study([run(0, 1.0), run(1, 3.0)]))
    assert cell.mean is None
    assert cell.iqm is None
    assert cell.curve is not None
    assert np.isnan(cell.curve.low).all()
    assert cell.curve.mean[-1] == 2.0
    assert cell.success is not None, "a rate has an exact interval from the first run"


def test_without_a_threshold_success_is_to_beat_both_floors():
    floors = {"Task-v0": Floor((0.0, 2.0, 1.0), (50.0, 52.0, 51.0))}
    results = study([run(0, 53.0), run(1, 200.0), run(2, 20.0)], thresholds={"Task-v0": None}, floors=floors)
    cell = only(results)
    upper = mean_interval((50.0, 52.0, 51.0)).high
    assert upper > 53.0, "53 is above the do-nothing policy's mean and not above its interval"
    assert cell.successes.tolist() == [False, True, False]
    assert cell.steps_to_threshold is None
    assert "every policy that learns nothing" in cell.rule


def test_the_best_constant_action_is_a_floor_as_well():
    floors = {"Task-v0": Floor((0.0, 2.0, 1.0), (50.0, 52.0, 51.0), (80.0, 80.0, 80.0))}
    about = {"thresholds": {"Task-v0": None}, "floors": floors}
    cell = only(study([run(0, 79.0), run(1, 81.0), run(2, 20.0)], **about))
    assert cell.successes.tolist() == [False, True, False]
    results = study([run(0, 81.0)], **about)
    assert floor_return(results, "Task-v0") == 80.0, "scores are counted from the greatest floor"
    assert random_return(results, "Task-v0") == 1.0, "a crash is still worth no more than chance"
    assert floor_return(study([run(0, 81.0)], floors={"Other-v0": Floor((1.0,), (2.0,))}), "Task-v0") == 81.0


def test_collapse_is_counted_from_the_greatest_floor():
    curve = [0.0, 100.0, 60.0]
    for nothing, collapsed in ((0.0, 0), (50.0, 1)):  # 60 is more than half of 100 above 0, and less above 50
        floors = {"Task-v0": Floor((0.0, 0.0), (nothing, nothing))}
        cell = only(study([run(seed, 60.0, curve=curve) for seed in range(3)], floors=floors))
        assert cell.num_collapsed == 3 * collapsed


def test_collapse_is_counted_from_the_random_return():
    cell = only(study([run(0, 40.0, curve=[0.0, 100.0, 40.0]), run(1, 90.0, curve=[0.0, 100.0, 90.0]), run(2, 80.0)]))
    assert cell.num_collapsed == 1


def test_unequal_steps_are_aligned_by_the_last_evaluation_and_it_is_said():
    from dataclasses import replace

    late = replace(run(1, 30.0), curve_steps=np.array([150.0, 300.0]), curve_returns=np.array([10.0, 30.0]))
    cell = only(study([run(0, 20.0, curve=[0.0, 10.0, 20.0]), late, run(2, 20.0)]))
    assert cell.curve is not None
    assert cell.curve.steps.tolist() == [100.0, 150.0, 200.0, 300.0]
    assert np.array_equal(cell.curve.runs[1], [np.nan, 10.0, 10.0, 30.0], equal_nan=True)
    assert np.isnan(cell.curve.mean[0]), "no mean over runs where one is missing"
    assert "different steps" in cell.curve.note


def test_steps_to_threshold_with_runs_that_never_got_there():
    runs = [run(0, 120.0, curve=[0.0, 120.0, 120.0]), run(1, 120.0, curve=[0.0, 0.0, 120.0])]
    runs += [run(2, 50.0), run(3, None, outcome="crashed", curve=[20.0])]
    cell = only(study(runs))
    assert cell.reached is not None
    assert cell.reached.steps.tolist() == [200.0, 300.0]
    assert cell.reached.value.tolist() == [0.25, 0.5], "the crashed run is one of four that could have got there"
    assert cell.steps_to_threshold is not None
    assert cell.steps_to_threshold.value == 300.0


def test_grades_follow_their_rule_and_say_what_the_interval_leaves_open():
    good = only(study([run(seed, 120.0) for seed in range(10)]))
    assert good.reliability_grade.letter == "A"
    assert good.reliability_grade.worst == "C", "ten of ten excludes no failure rate below 31 %"
    assert good.reliability_grade.text == "A (to C)"
    assert good.robustness_grade.text == "-"


def test_the_cost_grade_is_beside_the_cheapest_variant():
    from dataclasses import replace

    cheap = [run(seed, 120.0, variant="a") for seed in range(3)]
    dear = [replace(run(seed, 120.0, variant="b"), core_hours=1.5) for seed in range(3)]
    hopeless = [run(seed, 2.0, variant="c") for seed in range(3)]
    cells = summarise(study(cheap + dear + hopeless))
    assert [cell.cost_grade.letter for cell in cells] == ["A", "C", "E"]
    assert cells[2].cost.core_hours_per_success == math.inf


def test_what_a_changed_task_leaves():
    floor = 1.0
    sweeps = [sweep(101.0, [51.0, 101.0, 11.0], corners={"low": 21.0, "high": 31.0}) for _ in range(3)]
    cell = only(study([with_sweep(run(seed, 101.0), found) for seed, found in enumerate(sweeps)]))
    found = cell.robustness
    assert found is not None
    assert found.retained[0].share == pytest.approx([(51 - floor) / 100, 1.0, (11 - floor) / 100])
    assert found.worst_artefact == "gravity"
    assert found.worst_share.value == pytest.approx(0.1)
    assert found.breaks
    assert (found.worst_corner, found.worst_corner_share) == ("low", pytest.approx(0.2))
    assert cell.robustness_grade.letter == "E"


def test_nothing_breaks_a_policy_whose_interval_reaches_a_half():
    sweeps = [
        sweep(101.0, [21.0, 101.0, 101.0]),
        sweep(101.0, [91.0, 101.0, 101.0]),
        sweep(101.0, [21.0, 101.0, 101.0]),
    ]
    cell = only(study([with_sweep(run(seed, 101.0), found) for seed, found in enumerate(sweeps)]))
    assert cell.robustness is not None
    assert cell.robustness.worst_share.value < 0.5
    assert not cell.robustness.breaks


def test_half_the_time_is_no_loss_where_every_step_pays():
    per_step = sweep(101.0, [51.0, 101.0, 201.0], name="time limit")
    at_the_goal = sweep(101.0, [101.0, 101.0, 101.0], name="time limit")
    for found in (per_step, at_the_goal):
        cell = only(study([with_sweep(run(seed, 101.0), found) for seed in range(3)]))
        assert cell.robustness is not None
        assert cell.robustness.retained[0].share == pytest.approx([1.0, 1.0, 1.0], abs=0.011)


def test_a_policy_with_nothing_to_lose_is_left_out_and_counted():
    sweeps = [sweep(101.0, [51.0, 101.0, 11.0])] * 3 + [sweep(0.5, [0.5, 0.5, 0.5])]
    cell = only(study([with_sweep(run(seed, 101.0), found) for seed, found in enumerate(sweeps)]))
    assert cell.robustness is not None
    assert (cell.robustness.num_runs, cell.robustness.left_out) == (3, 1)


def test_without_floors_and_threshold_none_is_called_a_success():
    results = study(
        [run(seed, 1e9) for seed in range(3)], thresholds={"Task-v0": None}, floors={"Other-v0": Floor((0.0,), (0.0,))}
    )
    cell = only(results)
    assert not cell.successes.any()
    assert "unknown: the task has no threshold" in cell.rule


def test_a_diverged_seed_does_not_hide_the_others_curves():
    runs = [run(0, 120.0), run(1, 120.0), run(2, None, outcome="diverged", curve=[0.0, np.nan, np.nan])]
    cell = only(study(runs))
    assert cell.curve is not None
    assert cell.curve.runs[2].tolist() == [0.0, 1.0, 1.0]
    assert np.isfinite(cell.curve.mean).all()
