"""A study on a cluster: lost workers, new heads, bad answers. The cluster is a script, so every case takes its turn."""

import dataclasses
import json
import os

import pytest

from tests.studies.scripted_cluster import ITERATIONS, Died, Executor, FakeWorker, chained
from workhorse.core.errors import UsageError
from workhorse.core.machine import Hardware, describe_hardware
from workhorse.runs import trust
from workhorse.runs.folder import RunFolder
from workhorse.studies import cluster_pool
from workhorse.studies.cluster_pool import ATTEMPTS, ClusterPool
from workhorse.studies.conduct import conduct
from workhorse.studies.dispatch import StudyObserver
from workhorse.studies.folder import StudyFolder
from workhorse.studies.job_messages import BadMessage, decode, encode
from workhorse.studies.spending import spending
from workhorse.studies.study_file import plan_of
from workhorse.studies.training_job import request

WORDS = {"tasks": ["CartPole-v1"], "algorithms": ["ars"], "seeds": 3, "env_steps": ITERATIONS}


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch):
    """A processor that is the workers', and a disk that nothing waits for."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(cluster_pool, "installed_versions", dict)
    monkeypatch.setattr(cluster_pool, "describe_hardware", lambda: Hardware("Fake 3000", 2, 0, "", ()))


@pytest.fixture
def folder(tmp_path):
    return StudyFolder.create(tmp_path, "study", plan_of(WORDS), ("workhorse", "study"))


class Notes(StudyObserver):
    def __init__(self):
        self.sentences = []

    def noted(self, sentence):
        self.sentences.append(sentence)


def scores(results):
    return [(run.seed, run.outcome, run.score) for run in results.runs]


EXPECTED = [(seed, "finished", float(chained(seed))) for seed in range(3)]


def test_runs_are_trained_side_by_side_and_come_home(folder, tmp_path):
    executor = Executor(tmp_path / "nodes", 2)
    assert scores(conduct(folder, 1, Notes(), transport=executor)) == EXPECTED
    assert executor.most == 2 and executor.closed
    assert len(executor.steps) == 3 * ITERATIONS
    order = [id for id, at, _ in executor.steps if at in (1, ITERATIONS)]
    assert order[:2] == ["CartPole-v1-ars-s0", "CartPole-v1-ars-s1"], "both began before one had ended"
    run = folder.path / "runs" / "CartPole-v1-ars-s2"
    assert (run / "checkpoints" / str(ITERATIONS) / "state").read_text() == str(chained(2))
    assert not RunFolder(run).is_locked()
    spent = spending(folder)
    assert set(spent.ledger.core_seconds) <= {"Fake 3000", describe_hardware().cpu}
    (sitting,) = folder.records("sittings").values()
    assert sitting["cores"] == 0 and list(sitting["core_seconds"]) == ["Fake 3000"]


def dying(at):
    """Workers that die in their `at`th message after the first of a job, as long as `at` has more."""
    left = iter(at)

    class Dying(FakeWorker):
        def begin(self, job, attachment):
            super().begin(job, attachment)
            self.messages = next(left, None) if job["kind"] == "run" else None

        def move(self):
            if self.messages is not None:
                if not self.messages:
                    raise Died("the raylet died")
                self.messages -= 1
            return super().move()

    return Dying


def test_a_run_whose_worker_dies_goes_on_from_its_last_checkpoint(folder, tmp_path):
    executor, notes = Executor(tmp_path / "nodes", 2, dying([3, None, 0, 1])), Notes()
    assert scores(conduct(folder, 1, notes, transport=executor)) == EXPECTED
    assert len(executor.steps) == 3 * ITERATIONS, "no iteration was done again"
    assert len(set(executor.steps)) == len({step[:2] for step in executor.steps}) == 3 * ITERATIONS
    gone = [sentence for sentence in notes.sentences if "is gone: the raylet died" in sentence]
    assert len(gone) == 3
    assert "CartPole-v1-ars-s0 goes on from its last checkpoint on another worker." in gone[0]


def test_a_run_without_a_checkpoint_begins_again(folder, tmp_path):
    notes = Notes()
    assert scores(conduct(folder, 1, notes, transport=Executor(tmp_path / "nodes", 1, dying([0])))) == EXPECTED
    assert "CartPole-v1-ars-s0 begins again on another worker." in notes.sentences[0]


def test_a_job_that_every_worker_dies_of_has_crashed_and_the_others_go_on(folder, tmp_path):
    executor = Executor(tmp_path / "nodes", 1, dying([2, *[0] * (ATTEMPTS - 1)]))
    results = conduct(folder, 1, Notes(), transport=executor)
    assert scores(results)[1:] == EXPECTED[1:]
    assert results.runs[0].outcome == "crashed"
    assert f"{ATTEMPTS} workers in a row were lost with it" in results.runs[0].reason


def test_losses_count_from_the_last_checkpoint(folder, tmp_path):
    deaths = [*[0] * (ATTEMPTS - 1), 1, *[0] * (ATTEMPTS - 2), 1]
    executor = Executor(tmp_path / "nodes", 1, dying(deaths))
    assert scores(conduct(folder, 1, Notes(), transport=executor)) == EXPECTED


def test_a_study_goes_on_under_another_head(folder, tmp_path):
    class Stop(Notes):
        def progressed(self, id, env_steps, of, value):
            if id.endswith("s1") and env_steps == 2:
                raise KeyboardInterrupt  # as Ctrl-C; what the other workers do is told to stop and comes home

    first = Executor(tmp_path / "nodes", 2)
    with pytest.raises(KeyboardInterrupt):
        conduct(folder, 1, Stop(), transport=first)
    assert first.closed and not first.events
    again = StudyFolder.open(folder.path)
    second = Executor(tmp_path / "others", 2)
    assert scores(conduct(again, 1, Notes(), transport=second)) == EXPECTED
    done = [step[:2] for step in [*first.steps, *second.steps]]
    assert len(done) == len(set(done)) == 3 * ITERATIONS, "nothing that came home was done again"


def test_a_head_that_was_killed_leaves_what_came_home(folder, tmp_path):
    pool = ClusterPool(Executor(tmp_path / "nodes", 1), folder, print)
    job = {**request_of(folder, 0), "kind": "run"}
    pool.give(job)
    while (found := pool.answer(0)) is None or found[1].get("env_steps", 0) < 3:
        pass
    for given in pool._given:
        given.held.close()  # as the kernel does
    second = Executor(tmp_path / "others", 2)
    assert scores(conduct(folder, 1, Notes(), transport=second)) == EXPECTED
    assert ("CartPole-v1-ars-s0", 4, "w0") in second.steps
    assert not [step for step in second.steps if step[0].endswith("s0") and step[1] < 4]


def request_of(folder, seed):
    return request(folder.plan, folder.plan.jobs()[seed], folder.path / "runs", ("workhorse", "study"))


def test_a_run_is_held_while_it_is_trained_elsewhere(folder, tmp_path):
    pool = ClusterPool(Executor(tmp_path / "nodes", 1), folder, print)
    pool.give(request_of(folder, 0))
    run = folder.path / "runs" / "CartPole-v1-ars-s0"
    assert RunFolder(run).is_locked()
    pool.close()
    assert not RunFolder(run).is_locked()


class Hostile(FakeWorker):
    """Sends something that no worker of ours sends, once in all."""

    sent = False
    answer = b""

    def move(self):
        if self.job["kind"] == "run" and self.at == 2 and not Hostile.sent:
            Hostile.sent = True
            return Hostile.answer
        return super().move()


def parcel(*files):
    head = json.dumps({"files": [[name, len(content)] for name, content in files]}).encode()
    return b"WHP1" + len(head).to_bytes(4, "little") + head + b"".join(content for _, content in files)


def heard(*events, parcels=()):
    return encode({"answer": "heard", "events": list(events)}, list(parcels))


SAVED = {"event": "saved", "parcel": "1"}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"WHJ1", "bytes that do not begin as a message does"),
        (b"\x80\x05cos\nsystem\n.", "bytes that do not begin as a message does"),
        (
            heard(SAVED, parcels=[parcel(("../s1/manifest.json", b"{}"))]),
            "'../s1/manifest.json', which is none of a run",
        ),
        (heard(SAVED, parcels=[parcel(("/etc/cron.d/x", b"x"))]), "'/etc/cron.d/x', which is none of a run"),
        (heard(SAVED, parcels=[parcel(("manifest.json", b"{}"))]), "files that are no run's"),
        (heard(SAVED), "pop from an empty deque"),
        (heard({"event": "done", "seconds": 1.0, "run": {"score": 1e9}}), "a result that is none"),
        (heard({"event": "done", "seconds": 1.0}), "'run'"),
        (heard({"event": "progress"}), "'env_steps'"),
        (heard({"event": "ended", "run": "CartPole-v1-ars-s5", "reason": ""}), "the event 'ended'"),
        (encode({"answer": "sudo"}), "failed: None"),
        (encode({"answer": "failed", "why": "OSError: no space"}), "failed: OSError: no space"),
    ],
)
def test_what_no_worker_of_ours_would_answer_is_not_believed(folder, tmp_path, answer, sentence):
    Hostile.sent, Hostile.answer = False, answer
    notes = Notes()
    (folder.path / "runs" / "CartPole-v1-ars-s1").mkdir()
    assert scores(conduct(folder, 1, notes, transport=Executor(tmp_path / "nodes", 1, Hostile))) == EXPECTED
    assert Hostile.sent and sentence in notes.sentences[0] and "on another worker" in notes.sentences[0]
    assert len(notes.sentences) == 1


@pytest.mark.parametrize(
    "event",
    [
        {"event": "crashed", "reason": "the process died of SIGKILL (see /tmp/x)", "killed": True, "log": ""},
        {"event": "stopped", "id": "x"},
        {"event": "fatal", "reason": "Could not write the checkpoint: the disk (or its quota) is full."},
    ],
)
def test_what_befalls_a_node_is_no_end_of_a_run(folder, tmp_path, event):
    Hostile.sent, Hostile.answer = False, heard(event)

    class Node(Hostile):
        def move(self):
            was = Hostile.sent
            found = super().move()
            self.job = self.job if was or not Hostile.sent else None
            return found

    executor = Executor(tmp_path / "nodes", 2, Node)
    assert scores(conduct(folder, 1, Notes(), transport=executor)) == EXPECTED
    assert len(executor.steps) == 3 * ITERATIONS


def test_a_crash_is_a_result_and_its_log_comes_home(folder, tmp_path):
    crash = {"event": "crashed", "reason": "the process died of SIGSEGV (see /tmp/w/worker-1.log)", "killed": False}
    Hostile.sent, Hostile.answer = False, heard({**crash, "seconds": 1.0, "log": "Fatal Python error"})

    class Crashing(Hostile):
        def move(self):
            was, found = Hostile.sent, super().move()
            self.job = self.job if was or not Hostile.sent else None
            return found

    results = conduct(folder, 1, Notes(), transport=Executor(tmp_path / "nodes", 1, Crashing))
    log = folder.path / "logs" / "CartPole-v1-ars-s0.log"
    assert scores(results)[1:] == EXPECTED[1:]
    assert results.runs[0].reason == f"the process died of SIGSEGV (see {log})"
    assert log.read_text() == "Fatal Python error"


def test_workers_of_another_version_are_refused(folder, tmp_path):
    class Other(FakeWorker):
        versions_differ = True

    with pytest.raises(UsageError, match=r"No worker can take part\. Worker w1 cannot take part: jax must be the same"):
        conduct(folder, 1, Notes(), transport=Executor(tmp_path / "nodes", 2, Other))


def test_a_cluster_without_a_free_core_is_waited_for_with_a_sentence(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_pool, "PATIENT_S", 0.0)
    executor, notes = Executor(tmp_path / "nodes", 2), Notes()
    executor.kept_back = 2

    waited = []

    def poll(timeout_s, poll=executor.poll):
        waited.append(timeout_s)
        executor.kept_back = 2 if len(waited) < 5 else 0
        return poll(timeout_s)

    monkeypatch.setattr(executor, "poll", poll)
    assert scores(conduct(folder, 1, notes, transport=executor)) == EXPECTED
    assert [sentence[:38] for sentence in notes.sentences] == [
        "No worker is there: waiting for one. E",
        "Going on with 1 worker(s).",
    ]


def test_a_cluster_that_can_have_no_worker_is_not_waited_for(folder, tmp_path):
    executor = Executor(tmp_path / "nodes", 0)
    executor.why_exhausted = "None is started any more."
    with pytest.raises(UsageError, match=r"No worker can take part\. None is started any more\."):
        conduct(folder, 1, Notes(), transport=executor)


def test_a_worker_without_work_gives_its_core_back(folder, tmp_path):
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    clock, executor = Clock(), Executor(tmp_path / "nodes", 2)
    pool = ClusterPool(executor, folder, print, clock)
    floor = {"kind": "floor", "id": "f", "task": "CartPole-v1", "task_options": {}, "algorithm": "ars", "episodes": 1}
    pool.give(floor)
    pool.give(request_of(folder, 0))
    ended = False
    while not ended:
        found = pool.answer(0)
        ended = found is not None and found[1]["event"] == "done"
    assert len(executor.workers) == 2
    clock.now += 60
    while pool.answer(0)[1].get("env_steps") != 3:
        pass
    assert list(executor.workers) == ["w1"], "the run's worker stays"
    clock.now += 3600
    assert pool.core_seconds() == {"Fake 3000": 60 + 3660}


def test_a_run_that_names_other_code_than_its_study_is_sent_nowhere(folder, tmp_path):
    pool = ClusterPool(Executor(tmp_path / "nodes", 1), folder, print)
    pool.give(request_of(folder, 0))
    while (found := pool.answer(0)) is None or found[1].get("env_steps", 0) < 2:
        pass
    pool.close()
    run = RunFolder(folder.path / "runs" / "CartPole-v1-ars-s0")
    other = dataclasses.replace(run.manifest(), task="evil_module:Task-v0")
    run.write_manifest(other)
    assert not trust.is_trusted(trust.key_of(dataclasses.asdict(other)))
    with pytest.raises(UsageError, match="would import evil_module and run evil_module:Task-v0, and it was not begun"):
        conduct(folder, 1, Notes(), transport=Executor(tmp_path / "others", 1))


@pytest.mark.parametrize("message", [b"", b"WHJ1\xff\xff\xff\xff", encode({"a": 1})[:-1], encode({}, [b"x"]) + b"y", 3])
def test_torn_messages_are_told(message):
    with pytest.raises(BadMessage):
        decode(message)
