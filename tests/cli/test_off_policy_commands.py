"""Every command works on runs that learn from a replay."""

import gymnasium
import numpy as np
import pytest

import workhorse
from workhorse.cli.main import main
from workhorse.runs.metrics import read_metrics

TINY = (
    "--hidden 8 --rollout-steps 64 --learn-every 16 --warmup-env-steps 100 --batch-size 16 --replay-ratio 4 "
    "--replay-capacity 1000 --env-steps 320 --final-episodes 3 --evaluate-every 128 --evaluation-episodes 2 --threads 1"
)
RUNS = {"dqn": "CartPole-v1", "sac": "Pendulum-v1"}
OWN = {"dqn": ["--anneal-env-steps", "320"], "sac": []}
"""A plan that does not depend on the budget, so that a run that is stopped early can go on by it."""


@pytest.fixture(scope="module", params=RUNS)
def run(request, tmp_path_factory):
    """The folder of a short run of each."""
    root = tmp_path_factory.mktemp("runs")
    words = ["train", RUNS[request.param], "--algorithm", request.param, *TINY.split(), "--runs", str(root)]
    assert main([*words, *OWN[request.param], "--id", request.param, "--quiet"]) == 0
    return root / request.param


def test_its_metrics_are_those_of_a_replay(run):
    metrics = read_metrics(run)
    assert metrics["updates"].to_list() == [0, 7, 23, 39, 55]
    assert metrics["replay_rows"].to_list() == [64, 128, 192, 256, 320]
    assert metrics["value"].null_count() == metrics["recent_value"].null_count() == 1
    assert metrics["reward_max"].null_count() == 0
    assert ("temperature" in metrics.columns) == (run.name == "sac") != ("epsilon" in metrics.columns)


def test_it_is_evaluated_filmed_reported_and_exported(run, capsys):
    assert main(["evaluate", str(run), "--episodes", "3", "--threads", "1"]) == 0
    assert "over 3 episodes" in capsys.readouterr().out
    assert main(["warnings", str(run)]) == 0
    assert main(["export", str(run), "--to", "onnx"]) == 0
    assert (run / "policy.onnx").stat().st_size > 500
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    for panel in ("Values and what followed", "Value of sampled actions", "Loss of the values", "Steps in the replay"):
        assert panel in page
    assert ("Temperature" in page and "Loss of the policy" in page) == (run.name == "sac")
    assert ("Random actions" in page) == (run.name == "dqn")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:os.fork")  # the encoder is started by one; `workhorse video` imports no JAX
def test_a_film_is_made_of_it(run):
    assert main(["video", str(run)]) == 0
    assert list((run / "videos").glob("*.mp4"))


def test_its_policy_acts_without_jax_as_the_algorithm_does(run):
    opened = workhorse.Run.open(run)
    env = gymnasium.make(RUNS[run.name])
    obs, _ = env.reset(seed=1)
    for _ in range(5):
        action, _ = opened.policy.predict(obs, deterministic=True)
        assert env.action_space.contains(action if run.name == "sac" else np.int64(action))
        obs, *_ = env.step(action)


def test_a_resumed_run_gives_the_metrics_of_one_that_was_not_stopped(run, tmp_path):
    words = ["train", RUNS[run.name], "--algorithm", run.name, *TINY.split(), "--runs", str(tmp_path), "--quiet"]
    words[words.index("320")] = "192"
    assert main([*words, *OWN[run.name], "--id", "again"]) == 0
    assert main(["resume", str(tmp_path / "again"), "--env-steps", "320", "--threads", "1", "--quiet"]) == 0
    whole, again = read_metrics(run), read_metrics(tmp_path / "again")
    assert whole["digest"].to_list() == again["digest"].to_list()
    for name in ("recent_value", "recent_return", "reward_min", "sampled_terminals"):
        assert whole[name].to_list() == again[name].to_list(), name
