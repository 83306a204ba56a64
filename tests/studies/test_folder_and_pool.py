"""What kills leave behind: half written records, torn answers, workers that died while they were idle."""

import os
import signal
import time

import pytest

from workhorse.core.errors import UsageError
from workhorse.runs.cost import Ledger
from workhorse.runs.folder import RunFolder
from workhorse.studies import training_job
from workhorse.studies.folder import StudyFolder
from workhorse.studies.pool import Pool
from workhorse.studies.study_file import plan_of

WORDS = {"tasks": ["CartPole-v1"], "algorithms": ["ars"], "seeds": 2}
BATCH = {"task": "CartPole-v1", "algorithm": "ars", "variant": "ars", "setting": {}, "seeds": [7, 8], "why": "few"}


@pytest.fixture
def folder(tmp_path):
    return StudyFolder.create(tmp_path, "study", plan_of(WORDS), ("workhorse", "study"))


def test_records_that_a_kill_left_are_not_read(folder):
    folder.write_record("floors", "whole", {"random": [1.0], "nothing": [2.0], "core_hours": 1.0})
    (folder.path / "records" / "floors" / ".tmp-1-half.json").write_text('{"core_hours": 7.0}')
    (folder.path / "records" / "floors" / "damaged.json").write_text("{")
    assert set(folder.records("floors")) == {"whole"}
    assert folder.core_hours() == 1.0


def test_a_damaged_batch_is_no_room_for_another(folder):
    folder.add_batch(BATCH)
    folder.add_batch({**BATCH, "seeds": [9]})
    assert [job.seed for batch in folder.batches() for job in folder.batch_jobs(batch)] == [7, 8, 9]
    (folder.path / "records" / "batches" / "00000.json").write_text("{")
    with pytest.raises(
        UsageError, match=r"00000\.json, but it cannot be read .*`until` added are not known: restore it"
    ):
        folder.batches()


def test_thresholds_are_those_of_the_day_the_study_began(folder):
    assert folder.about["published_thresholds"] == {"CartPole-v1": 475.0}
    assert StudyFolder.open(folder.path).about["published_thresholds"] == {"CartPole-v1": 475.0}


def test_a_run_killed_in_its_first_checkpoint_begins_anew(tmp_path):
    run = RunFolder.create(tmp_path, "r", task="CartPole-v1", algorithm="ars", seed=0).path
    (run / "manifest.json").write_text("{}")
    (run / "checkpoints" / ".tmp-17-0").mkdir()
    assert not training_job.can_go_on(run)
    (run / "checkpoints" / "0").mkdir()
    assert training_job.can_go_on(run)


def test_a_run_that_another_process_holds_is_no_crash(tmp_path, monkeypatch):
    monkeypatch.setattr(training_job, "LEAVING_S", 0.3)
    run = RunFolder.create(tmp_path, "r", task="CartPole-v1", algorithm="ars", seed=0)
    training_job.wait_until_free(run.path)
    with run.lock(), pytest.raises(UsageError, match="Another process trains") as raised:
        training_job.wait_until_free(run.path)
    assert training_job.is_fatal(raised.value)


FLOOR = {"kind": "floor", "id": "f", "task": "CartPole-v1", "task_options": {"max_episode_steps": 5}, "episodes": 2}


def answered(pool):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = pool.answer()
        if found is not None:
            return found[1]
    raise AssertionError("no answer came")


def test_a_worker_that_died_idle_takes_no_job_along(tmp_path):
    pool = Pool(1, tmp_path)
    try:
        pool.give(FLOOR)
        floor = answered(pool)["floor"]
        assert floor["nothing"] == floor["constant"] == [5.0, 5.0]
        assert floor["trial_episodes"] == 192 and floor["trial_steps"] == 5 * 192 and len(floor["action"]) == 1
        (process,) = pool._processes
        os.kill(process._process.pid, signal.SIGKILL)
        process._process.wait()
        pool.give(FLOOR)
        assert answered(pool)["event"] == "done"
    finally:
        pool.close()


def test_a_job_nobody_knows_is_a_crash_and_the_worker_is_free_again(tmp_path):
    pool = Pool(1, tmp_path)
    try:
        pool.give({"kind": "nonsense", "id": "n"})
        answer = answered(pool)
        assert answer["event"] == "crashed"
        assert "the job 'nonsense'" in answer["reason"]
        assert pool.idle == 1
    finally:
        pool.close()


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 5000, "[]", '{"core_seconds": {"a": "x"}}', '{"core_seconds": {"a": NaN}}']
)
def test_a_damaged_ledger_of_a_crashed_run_costs_nothing(tmp_path, text):
    (tmp_path / "ledger.json").write_text(text)
    assert training_job.ledger_of(tmp_path) == Ledger()
    Ledger().charge("a", 1, 7200).write(tmp_path)
    assert training_job.ledger_of(tmp_path).core_hours == 2.0


def test_a_workers_log_is_not_written_through_a_link(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "outside").write_text("kept")
    (tmp_path / "logs" / "worker-1.log").symlink_to(tmp_path / "outside")
    pool = Pool(1, tmp_path / "logs")
    try:
        pool.give({"kind": "nonsense", "id": "n"})
        assert answered(pool)["event"] == "crashed"
    finally:
        pool.close()
    assert (tmp_path / "outside").read_text() == "kept"
