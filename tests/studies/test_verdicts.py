"""Nothing is called better unless a test says so."""

from dataclasses import replace

import numpy as np
import pytest

from tests.studies.made_up import run, study
from workhorse.core.errors import UsageError
from workhorse.robustness.results import Floor
from workhorse.statistics.permutation import permutation_test
from workhorse.studies.across_tasks import aggregate_scores
from workhorse.studies.between import compare_studies
from workhorse.studies.cells import summarise
from workhorse.studies.outliers import outlying_seeds
from workhorse.studies.results import SearchResult, Trial
from workhorse.studies.tuning import search_gap, search_sentences, tornado, tuning_value
from workhorse.studies.verdicts import _holm, unequal_steps, verdicts


def scores(values, **more):
    return [run(seed, value, **more) for seed, value in enumerate(values)]


def judged(results):
    return verdicts(results, summarise(results))


def test_a_clear_difference_is_called_by_its_name():
    high, low = [100.0, 101, 102, 103, 104], [10.0, 11, 12, 13, 14]
    (verdict,) = judged(study(scores(high, variant="a") + scores(low, variant="b")))
    assert verdict.better == "a"
    assert verdict.sentence.startswith("a is better than b on Task-v0: +90")
    (swapped,) = judged(study(scores(low, variant="a") + scores(high, variant="b")))
    assert (swapped.better, swapped.ours, swapped.theirs) == ("b", "b", "a")
    assert swapped.sentence.startswith("b is better than a on Task-v0: +90"), "the sign agrees with the words"
    assert swapped.comparison is not None and verdict.comparison is not None
    assert swapped.comparison.difference[:3] == pytest.approx(verdict.comparison.difference[:3])
    assert verdict.comparison.difference.low > 0


@pytest.mark.parametrize("returns", [[2.8, 2.2, 2.4, 2.6, 2.5], [-5.0, -4.0, -6.0, -5.5, -4.5]])
def test_a_variant_that_crashes_is_never_the_better_one(returns):
    """A random policy earns 1 here, more or less than those who finished."""
    crashed = [run(seed, None, variant="b", outcome="crashed", curve=[]) for seed in range(5)]
    for runs in (scores(returns, variant="a") + crashed, crashed + scores(returns, variant="a")):
        (verdict,) = judged(study(runs))
        assert verdict.better in (None, "a")
        assert "b is better" not in verdict.sentence
    theirs = replace(study(crashed), name="other", floors={"Task-v0": Floor((9.0,), (9.0,))})
    assert compare_studies(study(scores(returns)), theirs).verdicts[0].better in (None, "made-up: a")


def test_until_shares_the_error_over_looks():
    high, low = [100.0, 101, 102, 103, 104] * 2, [10.0, 11, 12, 13, 14] * 2
    runs = scores(high, variant="a") + scores(low, variant="b")
    (fixed,), (added,) = judged(study(runs)), judged(study(runs, first_seeds=5))
    assert added.better == "a"
    assert added.p_adjusted > 3 * fixed.p_adjusted
    assert "2 looks, this one at 10 seeds of each" in added.sentence
    few = study(scores(high[:7], variant="a") + scores(low[:7], variant="b"), first_seeds=10)
    assert judged(few)[0].p_adjusted == pytest.approx(2 / 3432), "until has added none: one look"


def test_too_many_pairs_for_so_few_seeds_say_so():
    runs = [one for at in range(4) for one in scores(np.arange(5) + 100.0 * at, variant="abcd"[at])]
    found = judged(study(runs))
    assert len(found) == 6
    assert all(verdict.better for verdict in found), "six pairs can just be told apart by five seeds"
    more = study(runs + scores(np.arange(5) + 1000.0, variant="e"))
    sentence = judged(more)[0].sentence
    assert "5 seeds of each can show no difference, however large: at least 1 more of each are needed" in sentence
    assert "inf" not in sentence


def test_unequal_steps_are_named_with_their_numbers():
    runs = [replace(one, env_steps=16_000) for one in scores([1.0, 2, 3, 4, 5], variant="a")]
    runs += [replace(one, env_steps=10_240) for one in scores([101.0, 102, 103, 104, 105], variant="b")]
    cells = summarise(study(runs))
    (sentence,) = unequal_steps(cells)
    assert "on Task-v0 are compared after unequal training steps (a 16,000, b 10,240; up to 56.2% more)" in sentence
    (verdict,) = verdicts(study(runs), cells)
    assert verdict.sentence.startswith("b is better than a on Task-v0 after 10,240 and 16,000 training steps: +100")
    assert unequal_steps(summarise(study(scores([1.0, 2], variant="a") + scores([1.0, 2], variant="b")))) == ()


def test_a_difference_beyond_what_is_possible_is_cut():
    runs = scores([500.0] * 4 + [0.0], variant="a") + scores([0.0] * 4 + [500.0], variant="b")
    (verdict,) = judged(study(runs, return_bounds={"Task-v0": (0.0, 500.0)}))
    assert verdict.comparison is not None
    assert verdict.comparison.difference.high <= 500


def test_an_unclear_one_says_how_many_seeds_are_missing():
    results = study(scores([100.0, 120, 80, 90, 110], variant="a") + scores([95.0, 115, 75, 85, 105], variant="b"))
    (verdict,) = judged(results)
    assert verdict.better is None
    assert "better" not in verdict.sentence
    assert verdict.more_runs is not None
    assert verdict.more_runs > 10
    assert f"about {verdict.more_runs} more seeds of each" in verdict.sentence


def test_too_few_runs_are_not_compared():
    results = study(scores([100.0, 120, 130, 140], variant="a") + scores([1.0, 2, 3, 4, 5], variant="b"))
    (verdict,) = judged(results)
    assert verdict.comparison is None
    assert "too few runs to compare (4); each needs at least 5 seeds" in verdict.sentence


def test_equal_scores_need_no_number_of_seeds():
    results = study(scores([5.0] * 5, variant="a") + scores([5.0] * 5, variant="b"))
    assert "no feasible number of seeds" in judged(results)[0].sentence


def test_many_comparisons_share_one_error():
    # one pair that would pass alone at 5 %, among many that do not differ
    near = scores([100.0, 103, 106, 109, 112, 98], variant="a") + scores([92.0, 95, 98, 101, 104, 90], variant="b")
    alone = judged(study(near))[0]
    p = permutation_test([100.0, 103, 106, 109, 112, 98], [92.0, 95, 98, 101, 104, 90]).p_value
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


def test_holms_correction_and_the_level_of_each_pair():
    """Adjusted values as R's p.adjust gives them; the level stays where the first pair does not pass."""
    adjusted, levels = _holm(np.array([0.01, 0.04, 0.03, 0.005]), 0.05)
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert levels == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])
    adjusted, levels = _holm(np.array([0.02, 0.015, 0.016]), 0.05)
    assert adjusted == pytest.approx([0.045] * 3), "a larger p value is never adjusted to a smaller one"
    assert levels == pytest.approx([0.05, 0.05 / 3, 0.05 / 2])


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
    assert "is not above the floor, 1" in aggregate_scores(study(runs, thresholds=dict.fromkeys(tasks, 0.5)))


def searched(trials, winner, fresh, complete=True):
    """A study with one search: its trials' values, and the scores of the winner on fresh seeds, None for a crash."""
    found = tuple(
        Trial(number, {"noise_std": 0.1}, (value,), value, ("crashed" if value is None else "finished",))
        for number, value in enumerate(trials)
    )
    search = SearchResult("Task-v0", "a", (2**31,), (0, 1, 2), found, winner, "a (tuned)", complete)
    runs = [
        run(seed, score, variant="a (tuned)", outcome="crashed" if score is None else "finished", curve=[])
        for seed, score in enumerate(fresh)
    ]
    return study([*runs, run(0, 5.0)], searches=(search,))


def test_what_a_search_promised_beside_what_it_gave():
    trial = Trial(0, {"noise_std": 0.1}, (90.0, 110.0), 100.0)
    search = SearchResult("Task-v0", "a", (2**31, 2**31 + 1), (0, 1, 2), (trial,), 0, "a (tuned)", True)
    results = study(scores([60.0, 70, 80], variant="a (tuned)"), searches=(search,))
    gap = search_gap(results, 0)
    assert gap is not None
    assert (gap.promised, gap.delivered, gap.failed) == (100.0, 70.0, 0)
    assert gap.gap is not None
    assert gap.gap.value == 30.0
    assert "the choice of the best overstates it by 30" in search_sentences(results)[0]
    assert search_gap(study([run(0, None, outcome="unfinished")], searches=(search,)), 0) is None
    low = search_sentences(searched([1.0, 2.0], 1, [3.0, 3.0, 3.0]))[0]
    assert "2 on the tuning seeds, 3 on fresh seeds: the choice of the best did not overstate it (by -1)" in low


@pytest.mark.parametrize("best", [2.77, -2.77])
def test_a_winner_that_fails_on_fresh_seeds_is_said_to_have_failed(best):
    (all_failed,) = search_sentences(searched([None, best], 1, [None, None, None]))
    assert "the winner, trial 1, failed: 3 of 3 fresh seeds crashed or diverged (" in all_failed
    assert "overstate" not in all_failed
    (one_failed,) = search_sentences(searched([None, best], 1, [None, 1.0, 3.0]))
    assert "failed: 1 of 3 fresh seeds crashed or diverged; the others returned 2 on average" in one_failed
    gap = search_gap(searched([None, best], 1, [None, 1.0, 3.0]), 0)
    assert gap is not None and gap.gap is None


def test_a_search_in_which_all_crash_has_no_winner():
    (sentence,) = search_sentences(searched([None, None, None], None, []))
    assert (
        "no setting survived: each of the 3 tried crashed or diverged on a tuning seed. There is no winner." in sentence
    )
    assert search_sentences(searched([None], None, [], complete=False)) == (), "it is under way"


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
    a = study(scores([100.0, 101, 102, 103, 104]))
    b = replace(study(scores([10.0, 11, 12, 13, 14])), name="other")
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
