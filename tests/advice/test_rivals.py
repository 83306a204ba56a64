"""Rivals: what they earn, what they are charged, and which is the cheapest that will do."""

import json

import pytest

from workhorse.advice.line import rival_line
from workhorse.advice.rivals import Contender, Outcome, cheapest_within, contenders, frontier, run_contender, run_rivals
from workhorse.advice.store import TaskRivals, find_rivals, folder_of, read_rivals, save_rivals
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec


def outcome(name, value, core_s, steps=10, kind="rule"):
    return Outcome(Contender(name, kind, 1), 0, (value, value, value), (1, 1, 1), steps, core_s)


def measured(*outcomes, floor=0.0, task="CartPole-v1", options=None):
    return TaskRivals(task, options or {}, 60.0, floor, outcomes, "workhorse rivals", "2026-01-01", "here")


def test_within_five_per_cent_of_what_lies_above_the_floor():
    rivals = [outcome("dear", 100.0, 9.0), outcome("cheap", 95.0, 1.0), outcome("poor", 94.9, 0.5)]
    assert cheapest_within(rivals, 100.0, 0.0).contender.algorithm == "cheap"
    assert cheapest_within(rivals, 100.0, 90.0).contender.algorithm == "dear"  # 99.5 is needed
    assert cheapest_within(rivals, -100.0, -1000.0).contender.algorithm == "poor"
    assert cheapest_within([*rivals, Outcome(Contender("none", "plan", 0), 0)], 200.0, 0.0) is None


def test_the_frontier_has_no_dearer_equal():
    rivals = [
        outcome("c", 50.0, 3.0),
        outcome("a", 10.0, 1.0),
        outcome("b", 10.0, 2.0),
        Outcome(Contender("d", "plan", 0), 0),
    ]
    assert [one.contender.algorithm for one in frontier(rivals)] == ["a", "c"]


def test_the_price_of_a_first_episode_counts_the_search_and_the_plans():
    one = Outcome(Contender("icem", "plan", 0), 0, (1.0,), (10,), 500, 2.0, 30_000.0, 4.0)
    assert (one.steps, one.core_s) == (30_500.0, 6.0)


def test_kinds_of_action_decide_who_may_come():
    box, choice = (EnvSpec("t", Box((0.0,), (1.0,)), action, 5) for action in (Box((-1.0,), (1.0,)), Discrete(2)))
    names = [{one.algorithm for one in contenders(spec)} for spec in (box, choice)]
    assert names[0] >= {"mppi", "icem", "pid", "lqr"} and not names[0] & {"uct", "iw", "categorical-cem"}
    assert names[1] >= {"uct", "iw", "categorical-cem", "lqr"} and not names[1] & {"mppi", "icem", "pid"}
    costs = [("floor", "linear", "rule", "search", "plan", "tree").index(one.kind) for one in contenders(box)]
    assert costs == sorted(costs)


def test_a_rival_is_run_whole_and_charged_for_all():
    lqr = run_contender("CartPole-v1", {}, Contender("lqr", "linear", 1), episodes=5, threads=1)
    assert lqr.returns == (500.0,) * 5 and lqr.lengths == (500,) * 5 and 0 < lqr.steps_before < 5000
    assert lqr.core_s_before > 0 and lqr.real_time_factor > 0 and lqr.planning_error is None
    guess = run_contender("CartPole-v1", {}, Contender("random-search", "search", 20_000), episodes=5, threads=1)
    assert guess.steps_before >= 20_000 and "linear policy" in guess.in_words
    plan = run_contender("Pendulum-v1", {"max_episode_steps": 10}, Contender("mppi", "plan", 0), episodes=2, threads=1)
    assert plan.steps_before == 0 and plan.steps_per_episode > 10 * 100 and plan.planning_error is not None
    assert Outcome.of(json.loads(json.dumps(plan.record()))) == plan


def test_a_rival_that_cannot_play_says_why():
    found = run_contender("Pendulum-v1", {}, Contender("categorical-cem", "plan", 0), threads=1)
    assert not found.returns and "categorical-cem" in found.failure.lower() + found.contender.algorithm
    outcomes = run_rivals("FrozenLake-v1", {}, episodes=2, threads=1, only=("zero", "lqr"))
    assert outcomes[0].returns and "cannot be put into a state" in outcomes[1].failure
    spent = run_rivals("CartPole-v1", {}, budget_s=1e-9, episodes=2, threads=1, only=("zero", "random"))
    assert spent[1].failure == "not run: the budget of 1e-09 core-seconds was spent"
    for wrong, text in (
        ({"budget_s": 0}, "positive number"),
        ({"episodes": 0}, "at least 1"),
        ({"only": ("x",)}, "no rival 'x'"),
    ):
        with pytest.raises(UsageError, match=text):
            run_rivals("CartPole-v1", {}, **wrong)


@pytest.mark.slow
def test_a_planner_whose_episode_is_dearer_than_its_share_is_not_begun():
    found = run_contender("Hopper-v5", {}, Contender("icem", "plan", 0), budget_s=5.0, threads=1)
    assert not found.returns and "more than its share of the budget, 5; give a larger one" in found.failure


def test_the_line_under_a_result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"max_episode_steps": 77}
    assert rival_line("CartPole-v1", options, 70.0).startswith("not measured")
    save_rivals(measured(outcome("lqr", 77.0, 0.5, 800), options=options), folder_of("x", {}).parent)
    assert rival_line("CartPole-v1", options, 77.0) == "lqr earns 77 for 0.5 core-seconds and 800 simulator steps"
    assert rival_line("CartPole-v1", options, 99.0) == "none found for 60 core-seconds; the best is lqr with 77"
    assert rival_line("CartPole-v1", {"max_episode_steps": 78}, 70.0).startswith("not measured")


def test_what_was_measured_here_comes_before_what_is_shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = find_rivals("CartPole-v1", {})
    file = save_rivals(measured(outcome("mine", 1.0, 1.0)), folder_of("x", {}).parent)
    assert find_rivals("CartPole-v1", {}).outcomes[0].contender.algorithm == "mine"
    file.write_text("{}")
    assert find_rivals("CartPole-v1", {}) == shipped
    with pytest.raises(UsageError, match="does not hold the rivals of a task"):
        read_rivals(file)
    file.write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        read_rivals(file)
