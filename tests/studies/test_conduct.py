"""Studies for real: processes, crashes, kills, budgets. Interrupted equals uninterrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workhorse.runs.metrics import read_metrics
from workhorse.studies import conduct as conducting
from workhorse.studies.cells import summarise
from workhorse.studies.conduct import conduct
from workhorse.studies.dispatch import StudyObserver
from workhorse.studies.folder import StudyFolder
from workhorse.studies.loading import load_results
from workhorse.studies.plan import FIRST_TUNING_SEED
from workhorse.studies.study_file import plan_of
from workhorse.studies.table import read_table, write_table

HERE = Path(__file__).parent
CARTPOLE = {
    "tasks": ["CartPole-v1"],
    "algorithms": ["ars"],
    "seeds": 3,
    "env_steps": 4000,
    "evaluations": 4,
    "evaluation_episodes": 2,
    "final_episodes": 4,
    "settings": {"ars": {"num_directions": 4, "num_top_directions": 2}},
    "task_options": {"CartPole-v1": {"max_episode_steps": 50}},
}
PENDULUM = {**CARTPOLE, "tasks": ["InvertedPendulum-v5"], "task_options": {}}
"""On the host: one process a seed. CartPole is a JAX environment, whose seeds may share one."""
PATIENCE_S = 120


@pytest.fixture(autouse=True)
def where_the_broken_tasks_are(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{Path.cwd()}")


def new(tmp_path, words, id="study"):
    return StudyFolder.create(tmp_path, id, plan_of(words), ("workhorse", "study"))


class Notes(StudyObserver):
    def __init__(self):
        self.sentences, self.records = [], {}

    def noted(self, sentence):
        self.sentences.append(sentence)

    def ended(self, id, variant, task, record):
        self.records[id] = record


def digests(folder):
    return {run.name: read_metrics(run)["digest"].to_list() for run in sorted((folder.path / "runs").iterdir())}


def test_a_study_is_ordinary_runs_and_says_what_became_of_each(tmp_path):
    folder = new(tmp_path, CARTPOLE)
    results = conduct(folder, 2, Notes())
    assert [(run.seed, run.outcome) for run in results.runs] == [(0, "finished"), (1, "finished"), (2, "finished")]
    for run in results.runs:
        assert run.folder is not None
        newest = max((run.folder / "evaluations").glob("*.json"), key=lambda place: int(place.name.split("-")[0]))
        assert run.score == pytest.approx(json.loads(newest.read_text())["mean"])
        assert run.curve_steps[-1] == run.env_steps
        assert run.curve_returns[-1] == run.score
        assert len(run.curve_steps) == 4
    assert len({tuple(found) for found in digests(folder).values()}) == 3, "seeds differ"
    floor = results.floors["CartPole-v1"]
    assert len(floor.random) == len(floor.nothing) == 100
    assert max(floor.nothing) <= 12, "pushing one way lets the pole fall in some ten steps"
    assert 15 < sum(floor.random) / 100 < 30, "random pushes last 22 steps or so"
    assert results.thresholds == {"CartPole-v1": 475.0}

    about = json.loads((folder.path / "study.json").read_text())
    del about["checksum"]  # as the study of an earlier version, which wrote none
    about["versions"]["jax"] = "0.0.1"
    (folder.path / "study.json").write_text(json.dumps(about))
    notes = Notes()
    again = conduct(StudyFolder.open(folder.path), 2, notes)
    assert again.runs[0].score == results.runs[0].score, "nothing is left to do"
    assert "other versions (jax 0.0.1 -> " in notes.sentences[0]
    assert notes.sentences[0] in again.notes, "the page says it too"

    table = read_table(write_table(results, tmp_path / "results.parquet"))
    assert [(run.seed, run.score, run.outcome) for run in table.runs] == [
        (run.seed, run.score, run.outcome) for run in results.runs
    ]
    assert table.floors == results.floors


def test_a_seed_that_crashes_is_a_result(tmp_path):
    words = {**CARTPOLE, "tasks": ["sometimes_broken:broken/Fragile-v0"], "seeds": 4, "env_steps": 3000}
    words |= {"task_options": {}, "thresholds": 5}
    results = conduct(new(tmp_path, words), 2, Notes())
    assert [run.outcome for run in results.runs] == ["crashed"] * 4, "none is dropped, and the study comes to its end"
    assert all("the motor came off" in run.reason for run in results.runs)
    assert "4 of 4 runs have ended; 4 crashed" in results.notes[0]
    assert "the policies that learn nothing could not be run" in results.notes[1].lower()
    (cell,) = summarise(results)
    assert (cell.num_crashed, cell.successes.sum()) == (4, 0)


def test_a_worker_that_is_killed_is_a_crashed_seed_and_the_study_goes_on(tmp_path):
    folder = new(tmp_path, {**PENDULUM, "env_steps": 60_000, "seeds": 3})

    class Killer(Notes):
        killed = None

        def progressed(self, id, env_steps, of, value):
            if self.killed is None:
                self.killed = id
                holder = int((folder.path / "runs" / id / "lock").read_text())
                os.kill(holder, signal.SIGKILL)

    killer = Killer()
    results = conduct(folder, 2, killer)
    crashed = [run for run in results.runs if run.outcome == "crashed"]
    assert len(results.runs) == 3
    assert len(crashed) == 1
    assert killer.killed is not None
    assert killer.killed.endswith(f"s{crashed[0].seed}")
    assert "SIGKILL" in crashed[0].reason
    assert crashed[0].score is None
    assert "1 crashed" in results.notes[0]


def test_seeds_in_one_process_give_what_they_give_alone(tmp_path, monkeypatch):
    folder = new(tmp_path, CARTPOLE, "together")
    results = conduct(folder, 1, Notes())
    monkeypatch.setattr(conducting, "_is_pure", lambda task, options: False)  # a process a seed
    alone = new(tmp_path, CARTPOLE, "alone")
    expected = conduct(alone, 2, Notes())
    assert digests(folder) == digests(alone)
    assert [run.episode_returns for run in results.runs] == [run.episode_returns for run in expected.runs]


def test_seeds_whose_common_process_dies_go_on_alone(tmp_path):
    folder = new(tmp_path, {**CARTPOLE, "env_steps": 20_000})

    class Killer(Notes):
        killed = 0

        def progressed(self, id, env_steps, of, value):
            if not self.killed:
                self.killed = int((folder.path / "runs" / id / "lock").read_text())
                os.kill(self.killed, signal.SIGKILL)

    killer = Killer()
    results = conduct(folder, 1, killer)
    assert killer.killed
    assert [run.outcome for run in results.runs] == ["finished"] * 3, "who killed it is not known, so none is to blame"


SCRIPT = """
import sys
from workhorse.studies import conduct as conducting
from workhorse.studies.cells import summarise
from workhorse.studies.conduct import conduct
from workhorse.studies.dispatch import StudyObserver
from workhorse.studies.folder import StudyFolder
folder = StudyFolder.open(sys.argv[1])
with folder.lock():
    conduct(folder, 2, StudyObserver())
"""


def begun(folder):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder.path)], stderr=subprocess.DEVNULL)


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_study_that_was_stopped_goes_on_to_the_same_bits(tmp_path, how):
    words = {**PENDULUM, "env_steps": 20_000}
    whole = new(tmp_path, words, "whole")
    conduct(whole, 2, Notes())

    folder = new(tmp_path, words, "stopped")
    process = begun(folder)
    wait_for(lambda: any((folder.path / "runs").glob("*/checkpoints/0*")))
    time.sleep(2)
    process.send_signal(how)
    assert process.wait(PATIENCE_S) != 0
    runs = folder.path / "runs"
    wait_for(lambda: not any(held(run) for run in runs.iterdir()))
    results = conduct(StudyFolder.open(folder.path), 1, Notes())
    assert {run.outcome for run in results.runs} == {"finished"}
    assert digests(folder) == digests(whole)
    assert [run.score for run in results.runs] == [run.score for run in load_results(whole).runs]


def held(run):
    """Whether a worker still trains there: those of a killed study save and leave by themselves."""
    from workhorse.runs.folder import RunFolder

    return RunFolder(run).is_locked()


def test_no_run_is_begun_beyond_the_budget(tmp_path):
    folder = new(tmp_path, {**PENDULUM, "seeds": 6, "budget": "0.001 core-seconds"})
    notes = Notes()
    results = conduct(folder, 1, notes)
    assert {run.outcome for run in results.runs} == {"unfinished"}
    assert "6 of 6 runs were not started" in " ".join(notes.sentences)


def test_a_budget_is_spent_once_all_of_it_is(tmp_path, monkeypatch):
    folder = new(tmp_path, {**PENDULUM, "seeds": 6, "budget": "2 core-hours"})
    monkeypatch.setattr(StudyFolder, "core_hours", lambda folder: 2.0)
    notes = Notes()
    conduct(folder, 1, notes)
    assert "The budget of 2.0 core-hours is spent: 6 of 6 runs were not started" in " ".join(notes.sentences)


def test_seeds_are_added_until_enough_is_known(tmp_path):
    words = {**CARTPOLE, "seeds": 2, "env_steps": 2000, "thresholds": 40, "until": "success_rate width < 0.75"}
    words |= {"budget": "1 core-hours"}
    folder = new(tmp_path, words)
    results = conduct(folder, 2, Notes())
    seeds = [run.seed for run in results.runs]
    assert seeds == list(range(len(seeds)))
    assert len(seeds) in (7, 12), "batches of five after the first two"
    assert len(load_results(StudyFolder.open(folder.path)).runs) == len(seeds), "added seeds are part of the study"


def test_a_search_is_judged_on_seeds_it_never_reports(tmp_path):
    words = {**CARTPOLE, "seeds": 2, "env_steps": 1500, "trials": 5, "tuning_seeds": 1}
    words["search"] = {"noise_std": {"low": 0.01, "high": 1.0, "log": True}, "variant": ["v1", "v2"]}
    folder = new(tmp_path, words)
    results = conduct(folder, 2, Notes())
    (search,) = results.searches
    assert len(search.trials) == 5
    assert search.winner is not None
    assert search.trials[search.winner].value == max(trial.value for trial in search.trials)
    assert min(search.tuning_seeds) >= FIRST_TUNING_SEED > max(search.reporting_seeds)
    tuned = results.cell("CartPole-v1", "ars (tuned)")
    assert [run.seed for run in tuned] == [0, 1]
    assert {json.dumps(dict(run.settings)) for run in tuned} == {
        json.dumps(dict(search.trials[search.winner].settings))
    }

    # the same search, stopped after its first batch, proposes the same settings again
    record = folder.record("searches", "CartPole-v1-ars")
    assert record is not None
    stopped = {**record, "trials": record["trials"][:4], "winner": None, "complete": False}
    folder.write_record("searches", "CartPole-v1-ars", stopped)
    again = conduct(StudyFolder.open(folder.path), 2, Notes())
    assert [trial.settings for trial in again.searches[0].trials] == [trial.settings for trial in search.trials]
