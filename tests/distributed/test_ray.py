"""Whole runs on a Ray cluster of this machine, on loopback: the same bits, whoever is killed."""

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from workhorse.cli.main import main
from workhorse.distributed.ray_transport import RayTransport
from workhorse.runs.metrics import read_metrics
from workhorse.runs.traffic import read_traffic
from workhorse.studies import training_job
from workhorse.studies.folder import StudyFolder
from workhorse.studies.study_file import plan_of

pytest.importorskip("ray", reason="the extra workhorse[cluster] is not installed")

HOST = "127.0.0.2"
CHEETAH = ["HalfCheetah-v5", "--task-option", "max_episode_steps=100", "--slots", "4"]
CART_POLE = ["CartPole-v1", "--task-option", "max_episode_steps=100", "--slots", "4"]
OPENAI_ES = ["--algorithm", "openai-es", "--num-pairs", "10"]
EVALUATED = ["--evaluate-every", "1", "--evaluation-episodes", "3", "--final-episodes", "9"]
ARS = ["--algorithm", "ars", "--num-directions", "10", "--num-top-directions", "5"]


def free_port():
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return listener.getsockname()[1]


HERE = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])}


class Cluster:
    """A head on loopback, in a process group of its own; `cores` are what Ray believes."""

    def __init__(self, cores):
        self.folder = tempfile.TemporaryDirectory(prefix="wh-ray-", dir="/tmp", ignore_cleanup_errors=True)
        self.address = f"{HOST}:{free_port()}"
        self.env = HERE | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        port = self.address.rpartition(":")[2]
        command = ["start", "--head", "--block", f"--node-ip-address={HOST}", f"--port={port}", f"--num-cpus={cores}"]
        command += ["--include-dashboard=false", f"--temp-dir={self.folder.name}", "--object-store-memory=200000000"]
        self.head = self.ray(*command)
        deadline = time.monotonic() + 90
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, int(port))) == 0:
                    break
            assert self.head.poll() is None and time.monotonic() < deadline, (
                "the head of the test cluster did not start"
            )
            time.sleep(0.2)

    def ray(self, *arguments):
        command = [sys.executable, "-m", "ray.scripts.scripts", *arguments]
        return subprocess.Popen(
            command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def workhorse(self, *arguments, **options):
        command = [sys.executable, "-m", "workhorse.cli.main", *arguments]
        return subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )

    def train(self, folder, *arguments, evaluated=("--evaluate-every", "0", "--final-episodes", "4")):
        """A whole run on this cluster; its output."""
        command = ["train", *arguments, "--runs", str(folder), "--id", "run", "--cluster", self.address, *evaluated]
        process = self.workhorse(*command)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        return output

    def workers(self):
        """Process ids of the workers of this cluster."""
        return [pid for pid in processes("ray::RayWorker") if self.head.pid in ancestors(pid)]

    def close(self):
        end(self.head)
        self.folder.cleanup()


def end(process):
    """End a process that this test started, with everything in its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def processes(title):
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cmdline").read_bytes().startswith(title.encode()):
                found.append(int(place.name))
        except OSError:
            continue
    return found


def ancestors(pid):
    found = []
    while pid > 1:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            break
        pid = int(status.partition("PPid:")[2].split()[0])
        found.append(pid)
    return found


@pytest.fixture(scope="module")
def cluster():
    made = Cluster(cores=5)
    yield made
    made.close()


def alone(folder, *arguments, evaluated=("--evaluate-every", "0", "--final-episodes", "4")):
    """Digests of the same run in one process."""
    command = [sys.executable, "-m", "workhorse.cli.main", "train", *arguments, "--runs", str(folder), "--id", "run"]
    command += [*evaluated, "--quiet", "--threads", "1"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return digests(folder)


def result(evaluation):
    """The record of an evaluation without whose it is."""
    record = json.loads(evaluation.read_text())
    return {name: value for name, value in record.items() if name not in ("run", "checksum")}


def digests(folder):
    metrics = read_metrics(folder / "run")
    assert metrics["iteration"].to_list() == list(range(1, metrics.height + 1)), "an iteration is missing or repeated"
    return metrics["digest"].to_list()


def test_a_run_on_ray_has_the_bits_of_one_process_and_says_what_it_sent(cluster, tmp_path):
    arguments = [*CHEETAH, *OPENAI_ES, "--env-steps", "6000"]
    output = cluster.train(tmp_path / "ray", *arguments, "--workers", "2", evaluated=EVALUATED)
    assert digests(tmp_path / "ray") == alone(tmp_path / "alone", *arguments, evaluated=EVALUATED)
    ours, theirs = (next((tmp_path / name / "run" / "evaluations").iterdir()) for name in ("ray", "alone"))
    assert ours.name == theirs.name == "3-9.json" and result(ours) == result(theirs)
    assert "Exchange of scalars: a worker is sent 376 bytes an iteration by scalars, 892 by parameters." in output
    assert "core time" in output and " bytes to and " in output and "from each worker" in output
    traffic = read_traffic(tmp_path / "ray" / "run")
    assert set(traffic["purpose"]) - {"state"} == {"set up", "updates", "orders", "reports", "evaluation"}
    assert (traffic["purpose"] == "state").sum() <= 1, "of two workers one may come when the other has begun"
    assert traffic.filter(traffic["purpose"] == "updates")["sent"].max() <= 2 * (16 + 8 * 10 + 8 * (1 + 2 * 17))
    metrics = read_metrics(tmp_path / "ray" / "run")
    assert 1 <= metrics["workers"].max() <= 2 and metrics["bytes_sent"].min() > 0


STUDY = """
tasks: [CartPole-v1]
algorithms: [ars]
seeds: 2
env_steps: 2000
evaluations: 2
evaluation_episodes: 2
final_episodes: 4
task_options: {CartPole-v1: {max_episode_steps: 50}}
"""


JOB_ON_RAY = """
import json, sys
from workhorse.distributed.ray_jobs import RayJobs
from workhorse.distributed.ray_transport import connect
from workhorse.studies.cluster_pool import ClusterPool
from workhorse.studies.folder import StudyFolder
from workhorse.studies.job_worker import JobWorker

connect(sys.argv[1])
pool = ClusterPool(RayJobs(JobWorker, 1, print), StudyFolder.open(sys.argv[2]), print)
floor = {"kind": "floor", "id": "f", "task": "CartPole-v1", "task_options": {"max_episode_steps": 5}, "episodes": 2}
assert (pool.size, pool.idle) == (1, 1)
pool.give(floor)
assert pool.idle == 0
while (found := pool.answer()) is None:
    pass
pool.close()
print(json.dumps([found[1]["event"], found[1]["floor"]["nothing"], list(pool.core_seconds().values())]))
"""


def test_a_job_on_ray_is_done_and_leaves_nothing(cluster, tmp_path):
    folder = StudyFolder.create(
        tmp_path, "s", plan_of({"tasks": ["CartPole-v1"], "algorithms": ["ars"]}), ("workhorse",)
    )
    command = [sys.executable, "-c", JOB_ON_RAY, cluster.address, str(folder.path)]
    answer = subprocess.run(command, env=cluster.env, capture_output=True, text=True, timeout=200)
    assert answer.returncode == 0, answer.stderr
    event, nothing, (core_seconds,) = json.loads(answer.stdout.splitlines()[-1])
    assert (event, nothing) == ("done", [5.0, 5.0]) and 0 < core_seconds < 200
    assert processes("ray::RayJobWorker") == []


@pytest.mark.slow
def test_a_study_on_ray_has_the_runs_of_one_machine(cluster, tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    command = ["study", str(tmp_path / "study.yaml"), "--studies", str(tmp_path), "--id", "s", "--workers", "2"]
    process = cluster.workhorse(*command, "--cluster", cluster.address)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "2 of 2 runs have ended; 0 crashed" in output
    plan = StudyFolder.open(tmp_path / "s").plan
    for job in plan.jobs():
        record = training_job.train(
            training_job.request(plan, job, tmp_path / "alone", ("workhorse",)), lambda what: None
        )
        found = json.loads((tmp_path / "s" / "records" / "runs" / f"{job.id}.json").read_text())
        assert (found["outcome"], found["episode_returns"]) == ("finished", record["episode_returns"])
        ours, theirs = (read_metrics(tmp_path / name / job.id)["digest"].to_list() for name in ("s/runs", "alone"))
        assert ours == theirs
    deadline = time.monotonic() + 30
    while processes("ray::RayJobWorker"):
        assert time.monotonic() < deadline, "a worker was left behind"
        time.sleep(0.2)


def test_more_workers_than_the_cluster_has_is_said(cluster, tmp_path):
    arguments = [*CART_POLE, *OPENAI_ES, "--env-steps", "100", "--workers", "9"]
    output = cluster.train(tmp_path, *arguments)
    assert "9 workers of 1 core(s) were asked for, and the cluster has room for 5: going on with 5." in output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--cluster", "10.0.0.1"], "A cluster's address must be HOST:PORT"),
        (["--cluster", f"{HOST}:1"], f"Expected the head of a Ray cluster at {HOST}:1, but nothing answers there"),
        (["--workers", "2"], "--workers is for runs on a cluster. Add --cluster auto"),
        (["--cluster", "auto", "--workers", "0"], "--workers must be at least 1: got 0."),
        (["--cluster", "auto", "--worker-threads", "-1"], "--worker-threads must be at least 1 and at most 1,024"),
    ],
)
def test_bad_options_are_one_sentence_and_leave_nothing(words, sentence, tmp_path):
    command = [sys.executable, "-m", "workhorse.cli.main", "train", "CartPole-v1", "--algorithm", "ars", *words]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, env=HERE)
    assert answer.returncode == 2
    assert sentence in answer.stderr and "Traceback" not in answer.stderr
    assert not list(tmp_path.iterdir())


def test_a_run_that_learns_on_one_machine_is_not_resumed_on_a_cluster(tmp_path, capsys):
    """And nothing is connected to before: nothing answers there."""
    run = shutil.copytree(Path(__file__).parents[1] / "runs" / "old_runs" / "ppo", tmp_path / "ppo")
    before = sorted(run.rglob("*"))
    assert main(["resume", str(run), "--cluster", f"{HOST}:1"]) == 2
    assert "ppo learns on one machine" in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before


def test_joining_a_head_that_is_not_there_is_one_sentence():
    command = [sys.executable, "-m", "workhorse.cli.main", "worker", "--join", f"{HOST}:1"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 2 and "nothing answers there" in answer.stderr


FLAKY = """
import os
import gymnasium
import numpy as np

class Flaky(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        Flaky.steps += 1
        if Flaky.steps == 250 and HOW == "raise":
            raise ConnectionError("the simulator did not answer")
        if Flaky.steps == 250:
            os._exit(9)
        return np.zeros(1, np.float32), 0.0, False, False, {}

gymnasium.register("Flaky-v0", Flaky, max_episode_steps=20)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("raise", "Flaky-v0 raised ConnectionError: the simulator did not answer"),
        ("die", "Flaky-v0 ended its worker process (exit code 9)"),
    ],
)
def test_a_task_that_fails_on_a_cluster_ends_the_run_and_the_state_is_saved(tmp_path, how, sentence):
    (tmp_path / "flaky.py").write_text(FLAKY.replace("HOW", repr(how)))
    command = [sys.executable, "-m", "workhorse.cli.main", "train", "flaky:Flaky-v0", *OPENAI_ES, "--slots", "2"]
    command += ["--env-steps", "6000", "--cluster", "local", "--id", "run"]
    env = HERE | {"PYTHONPATH": os.pathsep.join([str(tmp_path), HERE["PYTHONPATH"]])}
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=200, env=env)
    assert answer.returncode == 2, answer.stderr
    assert sentence in answer.stderr and "Traceback" not in answer.stderr.replace("Traceback (most", "", 1)
    assert not any(words in answer.stderr for words in ("cannot take part", "let go", "is gone")), "no worker is blamed"
    assert json.loads((tmp_path / "runs" / "run" / "status.json").read_text())["state"] == "failed"
    assert list((tmp_path / "runs" / "run" / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_cluster_of_this_machine_that_can_start_no_worker_is_not_waited_for(tmp_path):
    command = [sys.executable, "-m", "workhorse.cli.main", "train", "CartPole-v1", *OPENAI_ES]
    command += ["--cluster", "local", "--worker-threads", "999"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=200, env=HERE)
    assert answer.returncode == 2 and "A worker holds 999 cores (--worker-threads), which no machine" in answer.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("algorithm", [OPENAI_ES, ARS], ids=["openai-es", "ars"])
@pytest.mark.parametrize("task", [CHEETAH, CART_POLE], ids=["HalfCheetah-v5", "CartPole-v1"])
def test_any_number_of_ray_workers_gives_the_bits_of_one_process(cluster, task, algorithm, workers, tmp_path):
    arguments = [*task, *algorithm, "--env-steps", "8000"]
    cluster.train(tmp_path / "ray", *arguments, "--workers", str(workers))
    assert digests(tmp_path / "ray") == alone(tmp_path / "alone", *arguments)


def test_a_closed_cluster_is_exhausted_once_all_its_nodes_are_left_alone():
    transport = RayTransport(threads=2, closed=True)
    assert transport.exhausted() is None, "nobody has looked yet"
    transport._cores = {"one": 4.0, "other": 1.0}
    assert transport.exhausted() is None
    transport._barred = {"one": 0.0, "other": 0.0}
    transport._last_words = "Worker w2 could not start: no memory."
    assert transport.exhausted() == "Worker w2 could not start: no memory."
    transport._actors["w3"] = None
    assert transport.exhausted() is None, "one is arriving, or there"
    del transport._actors["w3"], transport._cores["one"]
    assert "A worker holds 2 cores (--worker-threads)" in str(transport.exhausted())
    transport._closed = False
    assert transport.exhausted() is None, "a machine may join"


THIRTY = ["HalfCheetah-v5", "--task-option", "max_episode_steps=250", "--slots", "2", *OPENAI_ES]
THIRTY += ["--env-steps", str(30 * 20 * 250)]


@pytest.fixture(scope="module")
def thirty(tmp_path_factory):
    found = alone(tmp_path_factory.mktemp("thirty"), *THIRTY)
    assert len(found) == 30
    return found


def begin(cluster, folder, *arguments):
    """Start a run and wait for its first iteration."""
    command = ["train", *arguments, "--runs", str(folder), "--id", "run", "--cluster", cluster.address]
    process = cluster.workhorse(*command, "--evaluate-every", "0", "--final-episodes", "4", "--checkpoint-every-s", "1")
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "steps/s" in line:
            return process, lines
    raise AssertionError("the run ended before its first iteration:\n" + "".join(lines))


def kill_some(cluster, process, lines, rng, most):
    """Kill workers at random moments, so many at most, and await the run's end; its output."""
    killed = 0
    while process.poll() is None and killed < most:
        time.sleep(rng.uniform(0.2, 2.0))
        workers = cluster.workers()
        if workers and process.poll() is None:
            os.kill(rng.choice(workers), signal.SIGKILL)
            killed += 1
    output = "".join(lines) + process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert killed > 0 and "is gone:" in output


@pytest.mark.slow
@pytest.mark.parametrize("repetition", range(20))
def test_killing_workers_at_random_changes_nothing(cluster, thirty, repetition, tmp_path):
    process, lines = begin(cluster, tmp_path, *THIRTY, "--workers", "3")
    kill_some(cluster, process, lines, random.Random(repetition), 4)
    assert digests(tmp_path) == thirty


@pytest.mark.slow
def test_with_a_lag_killing_workers_and_the_coordinator_changes_nothing(cluster, tmp_path):
    expected = alone(tmp_path / "alone", *THIRTY, "--lag", "1")
    process, lines = begin(cluster, tmp_path / "killed", *THIRTY, "--lag", "1", "--workers", "2")
    kill_some(cluster, process, lines, random.Random(0), 3)
    assert digests(tmp_path / "killed") == expected
    process, _ = begin(cluster, tmp_path / "resumed", *THIRTY, "--lag", "1", "--workers", "2")
    time.sleep(2.5)
    process.kill()
    process.communicate(timeout=60)
    resumed = cluster.workhorse("resume", str(tmp_path / "resumed" / "run"), "--cluster", cluster.address)
    output, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, output
    assert digests(tmp_path / "resumed") == expected


@pytest.mark.slow
def test_a_node_that_joins_during_the_run_changes_nothing(tmp_path):
    longer = [*THIRTY[:-1], str(150 * 20 * 250)]
    small = Cluster(cores=1)
    try:
        process, lines = begin(small, tmp_path / "joined", *longer)
        node = small.workhorse("worker", "--join", small.address, "--cores", "2", start_new_session=True)
        output = "".join(lines) + process.communicate(timeout=300)[0]
        assert node.poll() is None, node.communicate()[0]
        end(node)
        assert process.returncode == 0, output
        assert digests(tmp_path / "joined") == alone(tmp_path / "alone", *longer)
        assert read_metrics(tmp_path / "joined" / "run")["workers"].max() > 1, "the node came too late to take part"
    finally:
        small.close()


@pytest.mark.slow
def test_a_coordinator_killed_and_resumed_changes_nothing(cluster, thirty, tmp_path):
    process, _ = begin(cluster, tmp_path, *THIRTY, "--workers", "2")
    time.sleep(2.5)
    process.kill()
    process.communicate(timeout=60)
    resumed = cluster.workhorse("resume", str(tmp_path / "run"), "--cluster", cluster.address, "--workers", "3")
    output, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, output
    assert digests(tmp_path) == thirty
