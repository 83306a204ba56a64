"""Weights & Biases: metrics and settings by request, one run over all sittings, and never the end of a training."""

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import types

import pytest

from workhorse.core.errors import UsageError
from workhorse.runs import train
from workhorse.runs.metrics import read_metrics
from workhorse.runs.run import Observer
from workhorse.runs.wandb_log import sent_to_wandb, wandb_project

QUICK = train.Schedule(evaluate_every=64, evaluation_episodes=1, final_episodes=2)
SETTINGS = {"num_directions": 1, "num_top_directions": 1}


class Recorded:
    """A run of the package that only remembers what it was told."""

    url = "https://example.org/run"
    step = 0
    offline = False

    def __init__(self, **given):
        self.given, self.rows, self.summary, self.exit_code = given, [], {}, None

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "global_step")

    def log(self, row, step):
        self.rows.append((step, row))

    def finish(self, exit_code):
        self.exit_code = exit_code


class Told(Observer):
    def __init__(self):
        self.sentences, self.rows = [], []

    def iterated(self, row):
        self.rows.append(row["iteration"])

    def noted(self, sentence):
        self.sentences.append(sentence)


@pytest.fixture
def runs(monkeypatch):
    """Stand in for the package; the runs that it began."""
    found = []
    module = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None, origin="wandb.py")
    module.Settings = lambda **given: given
    module.init = lambda **given: found.append(Recorded(**given)) or found[-1]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return found


def begin(root, project, env_steps=300, told=None, **more):
    observer = told or Told()
    with sent_to_wandb(project, observer) as sent:
        folder, _ = train.start(
            task="CartPole-v1", algorithm="ars", settings=SETTINGS, env_steps=env_steps, threads=1, schedule=QUICK,
            root=root, id="first", observer=sent, **more,
        )  # fmt: skip
    return folder, observer


def go_on(folder, project, env_steps):
    told = Told()
    with sent_to_wandb(project, told) as sent:
        train.resume(folder.path, env_steps=env_steps, threads=1, observer=sent)
    return told


def test_every_iteration_is_sent_by_its_tags(tmp_path, runs):
    folder, told = begin(tmp_path, "team/carts")
    (run,) = runs
    rows = read_metrics(folder)
    assert [step for step, _ in run.rows] == rows["iteration"].to_list() == told.rows
    assert [row["global_step"] for _, row in run.rows] == rows["env_steps"].to_list()
    assert [row["rollout/ep_rew_mean"] for _, row in run.rows] == rows["training_return"].to_list()
    assert (run.given["project"], run.given["entity"]) == ("carts", "team")
    assert run.given["config"]["num_directions"] == 1 and run.given["config"]["task"] == "CartPole-v1"
    assert run.summary == {"final/mean_reward": folder.status().last_return}
    assert run.exit_code == 0
    assert "Weights & Biases: https://example.org/run" in told.sentences


def test_nothing_is_uploaded_but_metrics_and_settings(tmp_path, runs):
    begin(tmp_path, "carts")
    settings = runs[0].given["settings"]
    assert settings["console"] == "off" and not settings["save_code"] and not settings["x_save_requirements"]
    unwanted = ("disable_code", "disable_git", "x_disable_meta", "x_disable_stats", "x_disable_machine_info")
    assert all(settings[name] for name in unwanted)


def test_nothing_is_sent_unasked(tmp_path, runs):
    folder, _ = begin(tmp_path, None)
    assert not runs and wandb_project(folder) is None


def test_a_resume_goes_on_with_the_same_run_and_sends_no_row_twice(tmp_path, runs):
    folder, _ = begin(tmp_path, "carts")
    assert wandb_project(folder) == "carts"
    go_on(folder, "carts", 600)
    first, second = runs
    assert first.given["id"] == second.given["id"] and second.given["resume"] == "allow"
    assert [step for run in runs for step, _ in run.rows] == read_metrics(folder)["iteration"].to_list()
    go_on(folder, "another", 700)
    assert runs[2].given["id"] != first.given["id"]


def test_what_a_sitting_left_out_is_sent_later(tmp_path, runs):
    folder, _ = begin(tmp_path, None)
    go_on(folder, "carts", 600)
    assert [step for step, _ in runs[0].rows] == read_metrics(folder)["iteration"].to_list()


def test_rows_that_the_server_has_are_not_sent_again(tmp_path, runs, monkeypatch):
    folder, _ = begin(tmp_path, "carts")
    last = read_metrics(folder)["iteration"][-1]
    record = folder.path / "wandb.json"
    stale = json.loads(record.read_text()) | {"iteration": 0}  # the machine died before the newest was written
    record.write_text(json.dumps(stale))
    monkeypatch.setattr(Recorded, "step", last + 2)
    go_on(folder, "carts", 900)
    assert read_metrics(folder)["iteration"][-1] >= last + 2
    assert next(step for step, _ in runs[1].rows) == last + 2


@pytest.mark.parametrize("at", ["init", "log", "finish"])
def test_a_failure_there_never_ends_a_training(tmp_path, runs, monkeypatch, at):
    def fails(*given, **more):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(sys.modules["wandb"] if at == "init" else Recorded, at, fails)
    folder, told = begin(tmp_path, "carts")
    assert folder.status().state == "finished" and told.rows == read_metrics(folder)["iteration"].to_list()
    said = [sentence for sentence in told.sentences if "failed" in sentence]
    assert said == ["Weights & Biases failed (no route to host): training goes on without it."]


def test_a_link_in_a_run_folder_is_not_followed(tmp_path, runs):
    outside = tmp_path / "outside"
    outside.mkdir()
    folder, _ = begin(tmp_path, None)
    (folder.path / "wandb").symlink_to(outside)
    (folder.path / "wandb.json").write_text(json.dumps({"project": "carts", "id": "../../x", "iteration": 0}))
    told = go_on(folder, "carts", 600)
    assert not runs and not list(outside.iterdir())
    assert any("Weights & Biases failed" in sentence for sentence in told.sentences)


def test_what_ends_a_run_is_told_there(tmp_path, runs):
    class Stopping(Told):
        def __init__(self, error):
            super().__init__()
            self.error = error

        def iterated(self, row):
            raise self.error

    for number, (error, code) in enumerate(((RuntimeError("mine"), 1), (KeyboardInterrupt(), 0))):
        with pytest.raises(type(error)):
            begin(tmp_path / str(number), "carts", told=Stopping(error))
        assert runs[-1].exit_code == code


@pytest.mark.parametrize("project", ["", "a/b/c", "/a", "a b", "a:b", "x" * 200])
def test_names_that_are_none_are_refused(runs, project):
    with pytest.raises(UsageError, match="--wandb must be the name of a project"):
        sent_to_wandb(project, Observer())


def test_a_missing_package_is_said_even_beside_its_own_folder(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()  # as the package leaves it where it ran
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    if (spec := importlib.util.find_spec("wandb")) is not None and spec.origin is not None:
        pytest.skip("wandb is installed")
    with pytest.raises(UsageError, match=r"needs the package wandb, which is not installed: `pip install"):
        sent_to_wandb("carts", Observer())


def test_the_command_line_says_it_before_any_work(tmp_path):
    command = [sys.executable, "-m", "workhorse.cli.main", "train", "CartPole-v1", "--wandb", "no name"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "--wandb must be the name of a project" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_package_itself_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder, told = begin(tmp_path, "carts")
    (kept,) = (folder.path / "wandb").glob("offline-run-*/run-*.wandb")
    assert told.sentences[:1] == [
        f"Weights & Biases is offline: `wandb sync {folder.path}/wandb/offline-run-*` uploads the run."
    ]
    assert not any(place.is_symlink() for place in (folder.path / "wandb").iterdir())
    content = kept.read_bytes()
    assert b"rollout/ep_rew_mean" in content and b"final/mean_reward" in content
    go_on(folder, "carts", 600)
    ids = {place.stem for place in (folder.path / "wandb").glob("offline-run-*/run-*.wandb")}
    assert len(ids) == 1, "both sittings are one run"
