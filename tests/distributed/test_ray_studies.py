"""Whole studies on Ray: workers killed, a head lost, a node lost; the table is that of one machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.distributed.test_ray import Cluster, processes
from workhorse.runs.metrics import read_metrics
from workhorse.studies.conduct import conduct
from workhorse.studies.dispatch import StudyObserver
from workhorse.studies.folder import StudyFolder
from workhorse.studies.loading import load_results
from workhorse.studies.study_file import plan_of

pytest.importorskip("ray", reason="the extra workhorse[cluster] is not installed")

ROOT = Path(__file__).parents[2]
WORDS = {
    "tasks": ["HalfCheetah-v5"],
    "algorithms": ["openai-es"],
    "seeds": 3,
    "env_steps": 60_000,
    "evaluations": 2,
    "evaluation_episodes": 2,
    "final_episodes": 4,
    "settings": {"openai-es": {"num_pairs": 10}},
    "task_options": {"HalfCheetah-v5": {"max_episode_steps": 100}},
}


def outcome(folder):
    runs = load_results(StudyFolder.open(folder)).runs
    return [(run.seed, run.outcome, run.score, run.episode_returns, digests(run.folder)) for run in runs]


def digests(run):
    return read_metrics(run)["digest"].to_list()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = StudyFolder.create(tmp_path_factory.mktemp("local"), "s", plan_of(WORDS), ("workhorse", "study"))
    conduct(folder, 2, StudyObserver())
    return outcome(folder.path)


def begun(cluster, folder):
    """Start a study on a cluster and read on until a run has a checkpoint beyond the first."""
    process = cluster.workhorse("study", str(folder), "--cluster", cluster.address, "--workers", "2")
    deadline = time.monotonic() + 200
    while not any((folder / "runs").glob("*/status.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.2)
    return process


@pytest.mark.slow
def test_workers_that_are_killed_and_a_head_that_is_lost_change_nothing(local, tmp_path):
    folder = StudyFolder.create(tmp_path, "s", plan_of(WORDS), ("workhorse", "study")).path
    first = Cluster(cores=2)
    try:
        process = begun(first, folder)
        for pid in processes("ray::RayJobWorker"):
            os.kill(pid, signal.SIGKILL)
        time.sleep(8)
        process.kill()
        process.communicate(timeout=60)
    finally:
        first.close()
    deadline = time.monotonic() + 60
    while processes(f"{sys.executable} -m workhorse.studies.worker".replace(" ", "\0")):
        assert time.monotonic() < deadline, "a training process was left behind"
        time.sleep(0.5)
    second = Cluster(cores=2)
    try:
        process = second.workhorse("study", str(folder), "--cluster", second.address)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output
    finally:
        second.close()
    assert outcome(folder) == local


@pytest.mark.slow
def test_ctrl_c_brings_the_checkpoints_home_and_leaves_nothing_running(tmp_path):
    folder = StudyFolder.create(tmp_path, "s", plan_of({**WORDS, "env_steps": 10_000_000}), ("workhorse", "study")).path
    cluster = Cluster(cores=2)
    try:
        process = begun(cluster, folder)
        assert process.stdout is not None
        next(line for line in process.stdout if " return " in line)  # one has taken some iterations
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 130, output
        states = [json.loads(place.read_text())["state"] for place in (folder / "runs").glob("*/status.json")]
        assert states == ["stopped"] * len(states) and len(states) == 2
        moved = [max(int(one.name) for one in run.iterdir()) for run in (folder / "runs").glob("*/checkpoints")]
        assert max(moved) > 0, "saved where it was stopped"
        time.sleep(2)
        assert processes("ray::RayJobWorker") == []
    finally:
        cluster.close()


@pytest.mark.slow
def test_eight_runs_on_two_nodes_in_namespaces_of_which_one_is_killed(tmp_path):
    file = tmp_path / "nodes.json"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(ROOT / "bench" / "studies.py"), "--case", "cluster", "--env-steps", "20000"]
    answer = subprocess.run([*command, "--json", str(file)], capture_output=True, text=True, timeout=1500, env=env)
    if answer.returncode == 77:
        pytest.skip(f"network namespaces cannot be made here: {answer.stderr.strip()}")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = json.loads(file.read_text())
    assert found["runs_finished"] == 8 and found["table_equal"] and found["digests_equal"] and found["jobs_lost"] >= 1
