"""Whole runs by the command line on workers in threads: what the folder says is what one machine would have said."""

import json

import pytest

from tests.distributed.in_process import InProcess
from workhorse.cli.main import main
from workhorse.core.machine import Hardware, describe_hardware
from workhorse.distributed import ray_transport
from workhorse.distributed.cluster import Cluster
from workhorse.distributed.worker import Worker
from workhorse.runs.cost import Ledger
from workhorse.runs.folder import RunFolder
from workhorse.training import loop

RUN = "--algorithm openai-es --num-pairs 6 --slots 3 --seed 3 --env-steps 700 --task-option max_episode_steps=30"
EVALUATIONS = "--evaluate-every 1 --evaluation-episodes 4 --final-episodes 11"


@pytest.fixture
def threads(monkeypatch):
    """Let `--cluster auto` find workers in threads; the list of transports made."""
    made = []

    def transport(workers, threads, note):
        made.append(InProcess(workers or 2, lambda name: Worker(name, threads or 1)))
        return made[-1]

    monkeypatch.setattr(ray_transport, "connect", lambda address, note: address)
    monkeypatch.setattr(ray_transport, "RayTransport", transport)
    return made


def evaluations(folder):
    """Records of a run's evaluations by name, without whose they are and their checksums."""
    found = {place.name: json.loads(place.read_text()) for place in (folder / "evaluations").iterdir()}
    names = ("iteration", "stochastic", "mean", "interval", "method", "returns", "lengths", "failures")
    return {name: {field: record[field] for field in names} for name, record in found.items()}


def test_a_run_on_a_cluster_reports_the_returns_of_one_machine(tmp_path, threads, capsys):
    words = ["train", "CartPole-v1", *RUN.split(), *EVALUATIONS.split(), "--quiet", "--runs", str(tmp_path)]
    assert main([*words, "--id", "alone"]) == 0
    expected = capsys.readouterr().out
    assert main([*words, "--id", "team", "--cluster", "auto"]) == 0
    assert (
        capsys.readouterr().out.partition("wall time")[0].replace("team", "alone")
        == (expected.partition("wall time")[0])
    )
    assert threads and evaluations(tmp_path / "team") == evaluations(tmp_path / "alone")
    (found,) = evaluations(tmp_path / "team").values()
    assert len(found["returns"]) == 11 and min(found["returns"]) > 0 and min(found["lengths"]) > 0
    for place in (tmp_path / "team" / "evaluations").iterdir():
        place.unlink()
    assert main(["resume", str(tmp_path / "team"), "--cluster", "auto", "--quiet"]) == 0
    assert evaluations(tmp_path / "team") == evaluations(tmp_path / "alone")


class Watched(Cluster):
    """A cluster that adds up what it charges."""

    charged = 0.0

    def core_seconds(self):
        held = super().core_seconds()
        Watched.charged += sum(held.values())
        return held


def test_a_runs_ledger_holds_the_cores_of_the_workers_over_all_sittings(tmp_path, threads, monkeypatch):
    monkeypatch.setattr("workhorse.distributed.cluster.Cluster", Watched)
    words = ["--cluster", "auto", "--worker-threads", "3", "--quiet"]
    assert main(["train", "CartPole-v1", *RUN.split(), "--runs", str(tmp_path), "--id", "r", *words]) == 0
    first = Ledger.of(RunFolder.open(tmp_path / "r")).core_hours
    assert first == pytest.approx(Watched.charged / 3600) and first > 0
    assert main(["resume", str(tmp_path / "r"), "--env-steps", "1400", *words]) == 0
    ledger = Ledger.of(RunFolder.open(tmp_path / "r"))
    assert ledger.core_hours == pytest.approx(Watched.charged / 3600) and ledger.core_hours > first
    assert list(ledger.core_seconds) == [describe_hardware().cpu]


def test_a_policy_beyond_the_machines_memory_is_refused_on_a_cluster_too(tmp_path, threads, monkeypatch, capsys):
    small = Hardware(**{**vars(describe_hardware()), "memory_bytes": 2**20})
    monkeypatch.setattr(loop, "describe_hardware", lambda: small)
    words = ["train", "CartPole-v1", *RUN.split(), "--policy", "mlp", "--hidden", "400", "400"]
    assert main([*words, "--runs", str(tmp_path), "--cluster", "auto"]) == 2
    said = capsys.readouterr().err
    assert "openai-es needs 0 GiB at the least" in said and "Traceback" not in said
    assert not threads, "workers were started before"
    assert list(tmp_path.iterdir()) == []
