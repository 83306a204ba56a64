"""What a run is charged, on a clock that the test turns: every sitting, every evaluation, every core that is held."""

import re

import pytest

from workhorse.cli.main import main
from workhorse.core import machine
from workhorse.core.errors import UsageError
from workhorse.core.machine import available_cores, describe_hardware, threads_or_cores
from workhorse.reports.run_page import write_run_report
from workhorse.runs import account, train
from workhorse.runs.cost import Ledger
from workhorse.studies.training_job import ended_as
from workhorse.training.loop import make_loop

ITERATION_S, EPISODE_S = 10.0, 2.0
"""Seconds that the clock shows for an iteration, and for an episode of an evaluation; for nothing else any."""


class Clock:
    """Stands for the time module in the account: moved by what the loop does."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def make(self, plan, spec, threads):
        loop = make_loop(plan, spec, 1)
        iterate, evaluate = loop.iterate, loop.evaluate

        def slow_iterate(*arguments):
            self.now += ITERATION_S
            return iterate(*arguments)

        def slow_evaluate(progress, episodes):
            self.now += EPISODE_S * episodes
            return evaluate(progress, episodes)

        loop.iterate, loop.evaluate = slow_iterate, slow_evaluate
        return loop


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(account, "time", clock)
    monkeypatch.setattr(account, "available_cores", lambda: 4)
    return clock


def begin(clock, root, env_steps=40, threads=3, **others):
    return train.start(
        task="CartPole-v1",
        algorithm="hill-climb",
        settings={},
        env_steps=env_steps,
        threads=threads,
        task_options={"max_episode_steps": 1},
        schedule=train.Schedule(evaluate_every=1, evaluation_episodes=5, final_episodes=7),
        root=root,
        id="r",
        **{"make": clock.make, **others},
    )


def expected_s(iterations, finals=1):
    return iterations * (ITERATION_S + 5 * EPISODE_S) + finals * 7 * EPISODE_S


def test_a_run_is_charged_its_iterations_and_every_evaluation_the_last_too(tmp_path, clock):
    folder, summary = begin(clock, tmp_path)
    iterations = folder.status().iteration
    assert iterations > 0
    ledger = Ledger.of(folder)
    assert ledger.wall_s == expected_s(iterations) and ledger.env_steps == summary.env_steps
    assert ledger.core_seconds == {describe_hardware().cpu or "unknown": 3 * expected_s(iterations)}
    assert ledger == summary.ledger and (summary.wall_s, summary.core_hours) == (ledger.wall_s, ledger.core_hours)
    assert summary.training_s < 60, "of the true clock, without evaluations"


def test_more_threads_than_cores_hold_no_more_cores(tmp_path, clock):
    folder, _ = begin(clock, tmp_path, threads=9)
    assert Ledger.of(folder).core_hours == 4 * expected_s(folder.status().iteration) / 3600


def test_a_loop_that_says_what_it_holds_is_believed_and_asked_for_every_charge(tmp_path, clock):
    told = []

    def make(plan, spec, threads):
        loop = clock.__class__.make(clock, plan, spec, threads)
        loop.core_seconds = lambda: told.append(None) or {"EPYC": 8.0, "Xeon": 0.5}
        return loop

    folder, summary = begin(clock, tmp_path, make=make)
    assert told and summary.ledger.core_seconds == {"EPYC": 8.0 * len(told), "Xeon": 0.5 * len(told)}
    assert summary.ledger == Ledger.of(folder)


class Stop(train.Observer):
    def iterated(self, row):
        raise train.StopTraining


def test_every_sitting_is_charged_with_its_own_threads(tmp_path, clock):
    with pytest.raises(train.StopTraining):
        begin(clock, tmp_path, observer=Stop())
    first = Ledger.of(train.RunFolder.open(tmp_path / "r"))
    assert first.wall_s == expected_s(1, finals=0)
    assert first.core_hours == 3 * first.wall_s / 3600
    clock.now += 1e6  # nothing is held between sittings
    folder, summary = train.resume(tmp_path / "r", threads=2, make=clock.make)
    iterations = folder.status().iteration
    assert iterations > 1
    rest = expected_s(iterations) - first.wall_s
    assert Ledger.of(folder) == summary.ledger
    assert summary.ledger.wall_s == expected_s(iterations)
    assert summary.ledger.core_hours == pytest.approx((3 * first.wall_s + 2 * rest) / 3600, rel=1e-12)


def test_train_cost_report_and_study_say_the_same_of_a_run(tmp_path, clock, capsys, monkeypatch):
    from workhorse.display.run_display import Display

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORKHORSE_PRICES", raising=False)
    (tmp_path / "prices.toml").write_text(
        'currency = "EUR"\n[[core]]\nkind = "*"\nprice_per_core_hour = 31\nsource = "s"\n'
    )
    folder, summary = begin(clock, "runs")
    display = Display(None)
    display.finished(folder, summary)
    told = capsys.readouterr().out
    assert main(["cost", "runs/r"]) == 0
    said = capsys.readouterr().out
    page = re.sub(r"<[^>]+>", " ", write_run_report(folder.path).read_text())
    for name in ("wall time", "core time", "money"):
        (by_train,) = re.findall(rf"^{name} +(.*?)(?:  .*)?$", told, re.M)
        (by_cost,) = re.findall(rf"^{name} +(.*)$", said, re.M)
        (by_page,) = re.findall(rf"{name}\s+([\d.,]+ \S+)", page)
        assert by_train == by_cost and by_cost.startswith(by_page), name
    record = ended_as(folder, summary)  # what a study keeps of its runs
    ledger = Ledger.of(folder)
    assert (record["wall_s"], record["core_hours"]) == (ledger.wall_s, ledger.core_hours)
    assert re.search(r"^money +\d+\.\d\d EUR$", said, re.M)


@pytest.mark.parametrize("threads", [-1, 65, 99_999])
def test_a_number_of_threads_that_no_machine_has_is_refused(monkeypatch, threads, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "available_cores", lambda: 2)
    message = r"The number of threads must be at least 1 and at most 64 on this machine of 2 cores, or 0 for one a core"
    with pytest.raises(UsageError, match=message):
        threads_or_cores(threads)
    for attempt in (
        lambda: train.start(task="CartPole-v1", algorithm="ars", settings={}, env_steps=1, threads=threads),
        lambda: train.evaluate_run(tmp_path / "r", threads=threads),
        lambda: train.resume(tmp_path / "r", threads=threads),
    ):
        with pytest.raises(UsageError):
            attempt()
    assert not list(tmp_path.iterdir())


def test_as_many_threads_as_four_times_the_cores_are_taken(monkeypatch):
    assert threads_or_cores(0) == available_cores() and threads_or_cores(3) == 3
    monkeypatch.setattr(machine, "available_cores", lambda: 100)
    assert threads_or_cores(400) == 400
    with pytest.raises(UsageError, match="at most 400 on this machine of 100 cores"):
        threads_or_cores(401)


@pytest.mark.parametrize(
    "line",
    [
        "train CartPole-v1 --threads 99999",
        "train CartPole-v1 --seeds 2 --threads 99999",
        "study --tasks CartPole-v1 --cores 99999",
    ],
)
def test_the_command_line_refuses_before_any_work(tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    assert "must be at least 1 and at most" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
