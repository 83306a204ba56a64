"""What a run counts, over iterations and sittings: evaluations, broken episodes, milestones."""

import pytest

from workhorse.runs import checkpoint, train
from workhorse.runs.metrics import read_metrics
from workhorse.runs.schedule import Schedule
from workhorse.training.loop import make_loop

EPISODES, LAST = 5, 7


def breaking(plan, spec, threads):
    """Make a loop in whose every iteration two episodes break."""
    loop = make_loop(plan, spec, 1)
    iterate = loop.iterate

    def broken(*arguments):
        after, metrics, _ = iterate(*arguments)
        return after, metrics, ("slot 0 broke", "slot 1 broke")

    loop.iterate = broken
    return loop


class StopAfter(train.Observer):
    def __init__(self, iteration):
        self.iteration = iteration

    def iterated(self, row):
        if row["iteration"] == self.iteration:
            raise train.StopTraining


def test_evaluations_and_broken_episodes_are_counted_over_iterations_and_sittings(tmp_path):
    """An episode takes one step, so that an evaluation takes as many as it has episodes."""
    words = {
        "task": "CartPole-v1",
        "algorithm": "hill-climb",
        "settings": {},
        "env_steps": 40,
        "threads": 1,
        "task_options": {"max_episode_steps": 1},
        "schedule": Schedule(evaluate_every=1, evaluation_episodes=EPISODES, final_episodes=LAST, milestones=2),
        "root": tmp_path,
        "id": "r",
        "make": breaking,
    }
    with pytest.raises(train.StopTraining):
        train.start(**words, observer=StopAfter(2))
    folder, summary = train.resume(tmp_path / "r", env_steps=80, threads=1, make=breaking)
    rows = read_metrics(folder)
    iterations = rows["iteration"].to_list()
    assert iterations == list(range(1, 11)) and summary.env_steps == 80
    assert rows["evaluation_steps"].to_list() == [EPISODES * number for number in iterations]
    assert summary.evaluation_steps == EPISODES * len(iterations) + LAST
    assert summary.failed_episodes == 2 * len(iterations)
    # at every half of the run's own 40 steps, whatever the budget of a sitting
    assert checkpoint.saved_iterations(folder, "milestones") == [0, 3, 5, 8, 10]


def test_evaluations_fall_where_a_multiple_of_their_steps_is_passed():
    schedule = Schedule(evaluate_every=100)
    pairs = {(0, 99): False, (99, 100): True, (100, 199): False, (150, 420): True, (100, 100): False}
    assert {pair: schedule.evaluation_due(*pair) for pair in pairs} == pairs
    assert not Schedule(evaluate_every=0).evaluation_due(0, 10**9)


def test_milestones_fall_evenly_over_the_budget():
    schedule = Schedule(milestones=4)
    pairs = {(0, 249): False, (249, 250): True, (250, 499): False, (300, 760): True, (999, 1000): True}
    assert {pair: schedule.milestone_due(*pair, budget=1000) for pair in pairs} == pairs
    assert not Schedule(milestones=0).milestone_due(0, 10**9, budget=10)


def test_a_return_that_is_just_reached_is_reached():
    schedule = Schedule(evaluate_every=1, stop_at_return=5.0)
    found = {value: schedule.is_reached({"evaluation_return": value}) for value in (4.999, 5.0, 5.001)}
    assert found == {4.999: False, 5.0: True, 5.001: True}
    assert not schedule.is_reached({}) and not Schedule().is_reached({"evaluation_return": 1e9})
