"""`workhorse diagnose`: what it prints, keeps and draws, and what it refuses."""

import json
import shutil

import pytest

from workhorse.cli.main import main
from workhorse.diagnostics import gradients, landscape, store
from workhorse.runs import train

ROLLOUT = 32 * 9


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {"num_envs": 8, "rollout_steps": 32, "minibatch_size": 64, "num_epochs": 1, "hidden": (8,)}
    folder, _ = train.start(
        task="CartPole-v1",
        algorithm="ppo",
        settings=settings,
        env_steps=4 * 256,
        threads=1,
        schedule=train.Schedule(final_episodes=4, checkpoint_every_s=1000, milestones=2),
        root=tmp_path_factory.mktemp("runs"),
        id="pole",
    )
    return folder.path


def test_a_diagnosis_is_printed_kept_drawn_and_not_made_twice(run, capsys, monkeypatch):
    words = ["diagnose", str(run), "--at", "2", "--budget", str(10 * 4 * ROLLOUT), "--threads", "1"]
    words += ["--only", "gradients", "trust-region"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "greatest ratio on held-out steps: median" in said
    assert "the run's own" in said and "the noise scale" in said
    record = json.loads((run / "diagnostics" / "gradients-2.json").read_text())
    assert [row["samples"] for row in record["gradients"]][-1] == 4 * 256
    assert record["env_steps"] == 10 * 4 * ROLLOUT
    page = (run / "report.html").read_text()
    assert "Do gradient estimates agree?" in page and "iteration 2" in page
    assert (run / "report-data" / "gradients.csv").read_text().count("\n") == 1 + len(record["gradients"])

    def again(*given, **more):
        raise AssertionError("measured twice")

    monkeypatch.setattr(gradients, "study_gradients", again)
    assert main(words) == 0
    assert capsys.readouterr().out == said


def test_a_value_function_is_measured_and_shown(run, capsys):
    assert main(["diagnose", str(run), "--at", "4", "--budget", "120000", "--only", "values", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "value function at iteration 4, 9 states never trained on" in said and "of the truth" in said
    record = json.loads((run / "diagnostics" / "values-4.json").read_text())
    assert record["returns"] == (120_000 // 9 - 18 * 32) // 1408 and record["horizon"] == 704
    page = (run / "report.html").read_text()
    assert "explains of its own targets" in page and f"9 × {record['returns']}" in page
    for name in ("learnt", "unseen"):
        one = record[name]
        assert f"{one['return_error']:.2f} from single returns, {one['truth_error']:.2f} from the truth" in said
    for name in ("return_error", "truth_error"):
        assert f"{record['learnt'][name]:.2f}, {record['unseen'][name]:.2f}" in page


@pytest.mark.slow
def test_baselines_are_measured_when_asked_for_and_drawn(run, capsys):
    words = ["--at", "4", "--budget", str(2 * 3 * 4 * ROLLOUT), "--estimates", "3", "--threads", "1"]
    assert main(["diagnose", str(run), *words, "--only", "baselines"]) == 0
    said = capsys.readouterr().out
    record = json.loads((run / "diagnostics" / "baselines-4.json").read_text())
    assert all(name in said for name in ("none", "constant", "agent", "true"))
    assert f"V*, fitted to {record['fitted_pairs']:,} returns" in said
    assert "What does a baseline do for the gradient?" in (run / "report.html").read_text()
    assert (run / "report-data" / "baselines.csv").read_text().count("\n") == 1 + len(record["rows"])


def test_a_landscape_is_printed_drawn_gone_on_with_and_not_measured_twice(run, capsys, monkeypatch):
    words = ["diagnose", str(run), "--only", "landscape", "--grid", "3", "--pairs", "2500", "--threads", "1"]
    kept = []

    def stop(self, name, record):
        self.found[name] = record
        kept.append(name)
        if len(kept) == 5:
            raise KeyboardInterrupt

    add = store.Unfinished.add
    monkeypatch.setattr(store.Unfinished, "add", stop)
    assert main([*words, "--at", "2"]) == 130
    unfinished = run / "diagnostics" / "unfinished-landscape-2.json"
    found = json.loads(unfinished.read_text())["found"]
    assert len(found) == 5
    monkeypatch.setattr(store.Unfinished, "add", add)
    capsys.readouterr()
    assert main([*words, "--at", "2"]) == 0
    said = capsys.readouterr().out
    assert "iteration 2: 3 x 3 points of about 2,500 steps" in said and "best point" in said
    assert "2,000" in said and "along the step" in said
    record = json.loads((run / "diagnostics" / "landscape-2.json").read_text())
    first = next(number for number in found if number != "of")
    y, x = divmod(int(first), 3)
    assert record["surfaces"][-1]["reward"][y][x] == found[first]["mean"][-1] and not unfinished.exists()
    page = (run / "report.html").read_text()
    assert "Does the step raise the reward?" in page and "clipped surrogate, which PPO maximises" in page
    table = (run / "report-data" / "landscape-2.csv").read_text().splitlines()
    assert table[0].startswith("x,y,reward_2000,error_2000,reward_2500") and len(table) == 1 + 9

    def again(*given, **more):
        raise AssertionError("measured twice")

    monkeypatch.setattr(landscape, "study_landscape", again)
    assert main([*words, "--at", "2"]) == 0
    assert capsys.readouterr().out == said


def test_a_landscape_needs_a_step_and_a_budget(run, capsys):
    words = ["diagnose", str(run), "--only", "landscape", "--grid", "3", "--pairs", "100", "--at", "4"]
    assert main(words) == 2
    assert "PPO takes no step at iteration 4" in capsys.readouterr().err
    assert main([*words, "--budget", "1e3"]) == 2
    assert "--budget must be at least" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--at", "3"], "keeps no state of iteration 3: the nearest are 2 and 4 of 0, 2, 4"),
        (["--budget", "100"], f"--budget must be at least {10 * ROLLOUT:,} steps"),
        (["--budget", "0"], f"--budget must be at least {10 * ROLLOUT:,} steps"),
        (["--estimates", "0"], "--estimates must be at least 3"),
        (["--only", "values", "--budget", "3000"], "steps for the values, 4 returns of 704 steps"),
        (["--only", "everything"], "must be one of"),
    ],
)
def test_what_is_refused(run, words, sentence, capsys):
    assert main(["diagnose", str(run), *words]) == 2
    said = capsys.readouterr()
    assert sentence in said.err and not said.out


def test_what_was_not_named_and_cannot_be_measured_is_left_out(run, capsys):
    assert main(["diagnose", str(run), "--at", "0", "--budget", str(10 * ROLLOUT), "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "Left out: --budget must be at least" in said and "for the values" in said
    assert "greatest ratio" in said and "10 estimates of the gradient" in said


def test_a_run_without_states_says_so(run, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "empty")
    for place in ("checkpoints", "milestones"):
        shutil.rmtree(folder / place)
    assert main(["diagnose", str(folder)]) == 2
    assert "keeps no state at all" in capsys.readouterr().err


def test_a_run_that_was_killed_before_its_first_metrics_is_measured_but_for_its_trust_region(run, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "early")
    (folder / "metrics.parquet").unlink()
    words = ["diagnose", str(folder), "--at", "0", "--budget", str(10 * ROLLOUT), "--threads", "1"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "has no metrics yet" in said and "10 estimates of the gradient" in said
    assert main([*words, "--only", "trust-region"]) == 2


def test_an_algorithm_without_a_gradient_is_told_what_can_be_diagnosed(tmp_path, capsys):
    folder, _ = train.start(
        task="CartPole-v1", algorithm="openai-es", settings={}, env_steps=1, threads=1, root=tmp_path, id="es"
    )
    for part in ("gradients", "trust-region", "landscape"):
        assert main(["diagnose", str(folder.path), "--only", part]) == 2
        assert "reinforce, a2c, ppo and trpo" in capsys.readouterr().err


# --- off-policy ---

TINY = {
    "hidden": (8,), "rollout_steps": 64, "learn_every": 16, "warmup_env_steps": 100, "batch_size": 16,
    "replay_ratio": 4.0, "replay_capacity": 1000, "discount": 0.8,
}  # fmt: skip


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    """A run of dqn, whose first iteration is within its warm-up."""
    folder, _ = train.start(
        task="CartPole-v1",
        algorithm="dqn",
        settings=TINY,
        env_steps=256,
        threads=1,
        schedule=train.Schedule(final_episodes=4, checkpoint_every_s=1000, milestones=2),
        root=tmp_path_factory.mktemp("runs"),
        id="replayed",
    )
    return folder.path


def test_values_of_actions_are_measured_printed_kept_and_drawn(replayed, capsys):
    words = ["diagnose", str(replayed), "--budget", "20000", "--threads", "1"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "learns from a replay, so that the values of its actions are measured" in said
    assert "Iteration 0 is within the warm-up" in said
    assert "values of actions at iteration 4, 32 states of fresh episodes, 2 returns of up to 31 steps" in said
    record = json.loads((replayed / "diagnostics" / "values-4.json").read_text())
    assert len(record["value"]) == len(record["truth"]) == record["states"] == 32
    over = [value - truth for value, truth in zip(record["value"], record["truth"], strict=True)]
    assert record["over_estimate"] == pytest.approx(sum(over) / 32)
    assert record["worst"][0]["value"] - record["worst"][0]["truth"] == pytest.approx(max(over))
    assert max(record["truth"]) <= 1 / (1 - 0.8)
    page = (replayed / "report.html").read_text()
    assert "Values against the truth" in page and "32 × 2" in page and "most too high" in page
    assert (replayed / "report-data" / "values.csv").read_text().count("\n") == 1 + 32
    kept = (replayed / "diagnostics" / "values-4.json").read_bytes()
    assert main(words) == 0
    assert (replayed / "diagnostics" / "values-4.json").read_bytes() == kept
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--only", "values", "--budget", "100"], "--budget must be at least"),
        (["--only", "values", "--at", "0"], "is within the warm-up"),
        (["--only", "gradients"], "estimates no gradient"),
        (["--only", "trust-region"], "has no policy updates to measure"),
    ],
)
def test_what_cannot_be_measured_of_a_replay_is_refused(replayed, capsys, words, answer):
    assert main(["diagnose", str(replayed), *words]) == 2
    assert answer in capsys.readouterr().err
