"""A worker of a cluster for real, without Ray: its training process is killed, and the run goes on elsewhere."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from workhorse.core.machine import installed_versions
from workhorse.runs.metrics import read_metrics
from workhorse.studies.job_messages import decode, encode
from workhorse.studies.job_worker import JobWorker
from workhorse.studies.parcels import Packer, unpack
from workhorse.studies.study_file import plan_of
from workhorse.studies.training_job import request, train

WORDS = {
    "tasks": ["CartPole-v1"],
    "algorithms": ["ars"],
    "seeds": 1,
    "env_steps": 60_000,
    "evaluations": 2,
    "evaluation_episodes": 2,
    "final_episodes": 4,
    "settings": {"ars": {"num_directions": 4, "num_top_directions": 2}},
    "task_options": {"CartPole-v1": {"max_episode_steps": 50}},
}


def job_of(root, checkpoint_every_s=60.0):
    plan = plan_of(WORDS)
    job = request(plan, plan.jobs()[0], root, ("workhorse", "study"))
    return {**job, "schedule": {**job["schedule"], "checkpoint_every_s": checkpoint_every_s}}


def told(worker, job, parcel, home, until):
    """Have a worker do a job; files go to `home`. Return the events up to the first that `until` holds of."""
    answer, events = worker.handle(encode({"do": "begin", "job": job}), parcel), []
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        record, parcels = decode(answer)
        assert record["answer"] == "heard", record
        for event in record["events"]:
            events.append(event)
            if event["event"] == "saved":
                unpack(parcels.pop(0), home)
            if until(event):
                return events
            assert event["event"] in ("progress", "saved"), event  # it ended otherwise: nothing more will come
        answer = worker.handle(encode({"do": "listen", "patience_s": 1.0, "gather_s": 0.0}))
    raise AssertionError("it never came to that")


def test_a_run_whose_process_is_killed_goes_on_from_its_files_to_the_same_bits(tmp_path):
    home, job = tmp_path / "CartPole-v1-ars-s0", job_of(tmp_path / "nowhere")
    many = job_of(tmp_path / "nowhere", checkpoint_every_s=0.0)  # one an iteration: it cannot end before the kill
    first = JobWorker("w0", "node")
    try:
        record, _ = decode(first.handle(encode({"do": "set up", "versions": installed_versions()})))
        assert record["answer"] == "ready" and record["process"] == os.getpid()

        def has_moved(event):
            if event["event"] == "saved" and max(int(one.name) for one in (home / "checkpoints").iterdir()) >= 2:
                os.kill(first._pool._processes[0]._process.pid, signal.SIGKILL)
            return event["event"] == "crashed"

        events = told(first, many, b"", home, has_moved)
        assert events[-1]["killed"] and "SIGKILL" in events[-1]["reason"] and "log" in events[-1]
        place = Path(first._place)
    finally:
        first.close()
    assert not place.exists()
    came_home = sorted(int(one.name) for one in (home / "checkpoints").iterdir())
    assert came_home[-1] >= 2 and not (home / "lock").exists()

    second = JobWorker("w1")
    try:
        events = told(second, job, Packer(home).pack(), home, lambda event: event["event"] not in ("progress", "saved"))
    finally:
        second.close()
    assert events[-1]["event"] == "done", events[-1]

    record = train(job_of(tmp_path / "alone"), lambda what: None)
    of_the_clock = ("wall_s", "core_hours")
    assert {k: v for k, v in events[-1]["run"].items() if k not in of_the_clock} == {
        k: v for k, v in record.items() if k not in of_the_clock
    }
    ours, theirs = (read_metrics(run)["digest"].to_list() for run in (home, tmp_path / "alone" / home.name))
    assert ours == theirs and len(ours) > came_home[-1]
    assert sorted(path.name for path in (home / "evaluations").iterdir()) == sorted(
        path.name for path in (tmp_path / "alone" / home.name / "evaluations").iterdir()
    )
    assert not (tmp_path / "nowhere").exists()


DIES = """
import os, signal
from workhorse.studies.job_messages import encode
from workhorse.studies.job_worker import JobWorker
worker = JobWorker("w0")
floor = {"kind": "floor", "id": "f", "task": "CartPole-v1", "task_options": {}, "episodes": 10**6}
worker.handle(encode({"do": "begin", "job": floor}))
print(worker._place, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_training_process_of_a_worker_that_died_cleans_up_and_ends():
    answer = subprocess.run([sys.executable, "-c", DIES], stdout=subprocess.PIPE, text=True, timeout=120)
    place = Path(answer.stdout.strip())
    assert answer.returncode == -signal.SIGKILL and place.name.startswith("workhorse-study-")
    deadline = time.monotonic() + 120
    while place.exists():
        assert time.monotonic() < deadline, "its temporary folder was left behind"
        time.sleep(0.05)


def test_another_version_is_refused_and_a_bad_message_is_answered():
    worker = JobWorker("w0")
    record, _ = decode(worker.handle(encode({"do": "set up", "versions": {**installed_versions(), "jax": "0.1"}})))
    assert record["answer"] == "refused" and "jax must be the same everywhere" in record["why"]
    record, _ = decode(worker.handle(b"nonsense"))
    assert record == {"answer": "failed", "why": "BadMessage: bytes that do not begin as a message does"}
    record, _ = decode(worker.handle(encode({"do": "stop"})))
    assert record == {"answer": "heard", "events": []}
    worker.close()
