"""What a study spends: its runs, its search, its measurements, and what its machine held besides."""

import pytest

from workhorse.core.machine import describe_hardware
from workhorse.reports.study_page import write_study_report
from workhorse.reports.study_tables import spending_text
from workhorse.runs.cost import Ledger
from workhorse.studies import spending as module
from workhorse.studies.folder import StudyFolder
from workhorse.studies.loading import load_results
from workhorse.studies.spending import Sitting, spending
from workhorse.studies.study_file import plan_of

ENDED = {
    "outcome": "finished", "reason": "", "score": 20.0, "episode_returns": [20.0], "env_steps": 60, "wall_s": 30.0,
    "failed_episodes": 0, "task": "CartPole-v1", "variant": "ars", "algorithm": "ars", "setting": {},
}  # fmt: skip


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("WORKHORSE_PRICES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    plan = plan_of({"tasks": ["CartPole-v1"], "algorithms": ["ars"], "seeds": 2, "env_steps": 60}, "a test")
    return StudyFolder.create(tmp_path, "s", plan, ("workhorse", "study"))


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def run(folder, seed, core_hours, kind="runs", cpu=None):
    id = f"CartPole-v1-ars-s{seed}"
    folder.write_record(kind, id, {**ENDED, "seed": seed, "core_hours": core_hours})
    if cpu:
        (folder.path / kind / id).mkdir()
        Ledger().charge(cpu, 1, 3600 * core_hours).write(folder.path / kind / id)


def test_what_is_held_and_is_no_run_is_in_a_row_of_its_own(folder, clock):
    sitting = Sitting(folder, cores=4)
    clock.now += 1800
    run(folder, 0, 0.75)
    run(folder, 7, 0.25, kind="tuning")
    folder.write_record("floors", "CartPole-v1", {"random": [20.0], "nothing": [9.0], "core_hours": 0.125})
    sitting.save()
    clock.now += 1800
    sitting.save()  # the same sitting, later
    found = spending(folder)
    assert found[:4] == (0.75, 0.25, 0.125, 4 - 1.125)
    assert found.ledger.core_seconds == {describe_hardware().cpu: pytest.approx(4 * 3600)}
    assert found.ledger.wall_s == 3600
    second = Sitting(folder, cores=2)
    clock.now += 3600
    second.save()
    assert spending(folder).outside == pytest.approx(6 - 1.125), "every sitting counts"
    text = spending_text(spending(folder))
    assert text.startswith("Core time 6 core-hours in 2 h 00 min, 0.24 USD (an assumed price")
    assert "runs 45 core-minutes, trials of the search 15 core-minutes, floors and changed tasks 7.5 core-min" in text
    assert text.endswith("outside the runs (start-up, idle cores) 4.88 core-hours.")


def test_a_cluster_s_cores_are_its_own_and_this_machine_s_are_free_meanwhile(folder, clock):
    sitting = Sitting(folder, cores=4)
    clock.now += 3600
    run(folder, 0, 64.0, cpu="EPYC of a cluster")
    sitting.elsewhere(2700, 64.0)
    sitting.save()
    found = spending(folder)
    assert (found.runs, found.outside) == (64.0, pytest.approx(1.0))
    kinds = {"EPYC of a cluster": pytest.approx(64 * 3600), describe_hardware().cpu: pytest.approx(3600)}
    assert found.ledger.core_seconds == kinds


def test_what_workers_of_a_cluster_hold_without_a_run_is_of_their_kind(folder, clock):
    held = {"EPYC of a cluster": 2.0, "Xeon": 0.5}
    sitting = Sitting(folder, 0, lambda: {kind: 3600 * hours for kind, hours in held.items()})
    clock.now += 1800
    run(folder, 0, 1.5, cpu="EPYC of a cluster")
    folder.write_record("floors", "CartPole-v1", {"random": [20.0], "nothing": [9.0], "core_hours": 0.25})
    sitting.save()
    found = spending(folder)
    assert found[:4] == (1.5, 0, 0.25, pytest.approx(0.75))
    assert found.ledger.core_seconds == {kind: pytest.approx(3600 * hours) for kind, hours in held.items()} | {
        describe_hardware().cpu: pytest.approx(0)
    }
    assert found.ledger.wall_s == 1800


def test_a_study_from_before_sittings_were_kept_has_its_runs_alone(folder):
    (folder.path / "records" / "sittings").rmdir()
    run(folder, 0, 0.5)
    again = StudyFolder.open(folder.path)
    assert spending(again)[:4] == (0.5, 0, 0, 0)
    Sitting(again, cores=1).save()
    assert len(spending(again)) == 5


def test_the_page_has_the_row(folder, clock):
    sitting = Sitting(folder, cores=2)
    run(folder, 0, 0.75)
    clock.now += 3600
    sitting.save()
    page = write_study_report(load_results(folder), folder.path).read_text()
    assert "Core time" in page and "outside the runs (start-up, idle cores)" in page and "1.25 core-hours" in page
