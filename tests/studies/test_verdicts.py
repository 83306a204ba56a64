"""Nothing is called better unless a test says so."""

from dataclasses import replace

import numpy as np
import pytest

from tests.studies.made_up import run, study
from workhorse.core.errors import UsageError
from workhorse.statistics.comparison import welch_test
from workhorse.studies.across_tasks import aggregate_scores
from workhorse.studies.between import compare_studies
from workhorse.studies.cells import summarise
from workhorse.studies.outliers import outlying_seeds
from workhorse.studies.results import SearchResult, Trial
from workhorse.studies.tuning import search_gap, searched, tornado, tuning_value
from workhorse.studies.verdicts import verdicts


def scores(values, **more):
    return [run(seed, value, **more) for seed, value in enumerate(values)]


def judged(results):
    return verdicts(results, summarise(results))


def test_a_clear_difference_is_called_by_its_name():
    results = study(scores([100.0, 101, 102, 103], variant="a") + scores([10.0, 11, 12, 13], variant="b"))
    (verdict,) = judged(results)
    assert verdict.better == "a"
    assert verdict.sentence.startswith("a is better than b on Task-v0: +90")
    swapped = study(scores([10.0, 11, 12, 13], variant="a") + scores([100.0, 101, 102, 103], variant="b"))
    assert judged(swapped)[0].better == "b"


def test_an_unclear_one_says_how_many_seeds_are_missing():
    results = study(scores([100.0, 120, 80], variant="a") + scores([90.0, 110, 70], variant="b"))
    (verdict,) = judged(results)
    assert verdict.better is None
    assert "better" not in verdict.sentence
    assert verdict.more_runs is not None
    assert verdict.more_runs > 10
    assert f"about {verdict.more_runs} more seeds of each" in verdict.sentence


def test_too_few_runs_are_not_compared():
    results = study(scores([100.0, 120], variant="a") + scores([1.0, 2, 3], variant="b"))
    (verdict,) = judged(results)
    assert verdict.comparison is None
    assert "too few runs to compare (2)" in verdict.sentence


def test_equal_scores_need_no_number_of_seeds():
    results = study(scores([5.0, 5, 5], variant="a") + scores([5.0, 5, 5], variant="b"))
    assert "no feasible number of seeds" in judged(results)[0].sentence


def test_many_comparisons_share_one_error():
    # one pair that would pass alone at 5 %, among many that do not differ
    near = scores([100.0, 103, 106, 109, 112, 98], variant="a") + scores([93.0, 96, 99, 102, 105, 91], variant="b")
    alone = judged(study(near))[0]
    p = welch_test([100.0, 103, 106, 109, 112, 98], [93.0, 96, 99, 102, 105, 91]).p_value
    assert alone.p_adjusted == pytest.approx(p)
    assert alone.better == "a"
    others = scores([100.0, 103, 106, 109, 112, 98], variant="c")
    found = {(v.ours, v.theirs): v for v in judged(study(near + others))}
    assert found["a", "b"].p_adjusted == pytest.approx(3 * p)
    assert found["a", "b"].better is None
    assert found["a", "c"].p_adjusted == 1.0
    interval = found["a", "b"].comparison.difference
    assert interval.low < 0 < interval.high, "what is not shown has an interval that says so"
    assert alone.comparison.difference.low > 0
    assert found["a", "b"].more_runs > 1, "and the seeds that are missing are counted at the same level"


def test_one_number_over_tasks_needs_one_scale():
    tasks = ["One-v0", "Two-v0"]
    runs = [one for task in tasks for one in scores([1.0, 51, 101], task=task)]
    (found,) = aggregate_scores(study(runs))
    assert found.scores[:, 0] == pytest.approx([0.0, 50 / 99, 100 / 99])
    assert found.mean.value == pytest.approx(np.mean([0.0, 50 / 99, 100 / 99]))
    reason = aggregate_scores(study(runs, thresholds={"One-v0": 100.0, "Two-v0": None}))
    assert "Two-v0 has no success threshold" in reason
    assert "the same number" in aggregate_scores(study(runs[:-1]))
    assert "one task" in aggregate_scores(study(runs[:3]))
    assert "is not above the random policy's 1" in aggregate_scores(study(runs, thresholds=dict.fromkeys(tasks, 0.5)))


def test_what_a_search_promised_beside_what_it_gave():
    trial = Trial(0, {"noise_std": 0.1}, (90.0, 110.0), 100.0)
    search = SearchResult("Task-v0", "a", (2**31, 2**31 + 1), (0, 1, 2), (trial,), 0, "a (tuned)")
    results = study(scores([60.0, 70, 80], variant="a (tuned)"), searches=(search,))
    gap = search_gap(results, 0)
    assert gap is not None
    assert (gap.promised, gap.delivered) == (100.0, 70.0)
    assert gap.gap is not None
    assert gap.gap.value == 30.0
    assert searched(results) == [(search, gap)]
    assert search_gap(study([run(0, None, outcome="unfinished")], searches=(search,)), 0) is None


def test_the_tornado_turns_one_option_at_the_best_setting():
    grid = {"x": (1, 2), "y": (1, 2, 3)}
    table = np.array([[10.0, 20, 30], [40, 50, 90]])
    runs = [
        replace(run(0, table[i, j]), settings={"x": x, "y": y}, variant=f"a (x {x}, y {y})")
        for i, x in enumerate(grid["x"])
        for j, y in enumerate(grid["y"])
    ]
    results = study(runs, grid=grid)
    effects = {effect.option: effect for effect in tornado(results, "Task-v0")}
    assert effects["x"].means.tolist() == [30.0, 90.0]
    assert effects["y"].means.tolist() == [40.0, 50.0, 90.0]
    assert list(effects) == ["x", "y"], "the widest swing first"
    found = tuning_value(results)
    assert found.sensitivity == 0.0, "one task: its best setting is the default"
    assert tuning_value(study(runs)) == "the study has no grid of settings"


def test_two_studies_are_compared_on_equal_terms_only():
    a = study(scores([100.0, 101, 102]))
    b = replace(study(scores([10.0, 11, 12])), name="other")
    found = compare_studies(a, b)
    assert found.verdicts[0].better == "made-up: a"
    with pytest.raises(UsageError, match="share no task"):
        compare_studies(a, study(scores([1.0], task="Other-v0")))
    with pytest.raises(UsageError, match="different versions"):
        compare_studies(replace(a, versions={"jax": "1"}), replace(b, versions={"jax": "2"}))
    both = compare_studies(replace(a, versions={"jax": "1"}), replace(b, versions={"jax": "2"}), any_version=True)
    assert both.notes == ("Versions differ: jax 1 and 2.",)
    longer = study([replace(one, budget=600) for one in scores([1.0, 2, 3])])
    with pytest.raises(UsageError, match="unequal budgets"):
        compare_studies(a, longer)
    with pytest.raises(UsageError, match="the same threshold"):
        compare_studies(a, study(scores([1.0, 2, 3]), thresholds={"Task-v0": 5.0}))
    with pytest.raises(UsageError, match="not the same task"):
        compare_studies(replace(a, task_options={"Task-v0": {"wind": 3}}), b)
    with pytest.raises(UsageError, match=r"different versions \(mujoco none and 4"):
        compare_studies(a, replace(b, versions={"mujoco": "4"}))
    with pytest.raises(UsageError, match="no variant 'z'"):
        compare_studies(a, b, "z")
    with pytest.raises(UsageError, match="no cell in common"):
        compare_studies(a, study([run(0, None, outcome="unfinished", curve=[])]))


def test_a_seed_that_stands_apart_is_named_and_stays_in():
    results = study(
        scores([500.0, 490, 510, 495, 20, 505], variant="a") + scores([1.0, 2, 3, 2.5, 1.5, 2.2], variant="b")
    )
    cells = summarise(results)
    (sentence,) = outlying_seeds(cells)
    assert sentence.startswith("a on Task-v0: seed 4 stands apart with 20, the others lie between 490 and 510")
    assert cells[0].mean is not None and cells[0].mean.value == pytest.approx(420)
    assert (
        outlying_seeds(summarise(study(scores([500.0, 490, 20, 505], variant="a")))) == ()
    )  # four seeds say too little
