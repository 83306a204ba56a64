"""Code that a run names is run only where it is known, or where the user vouches for the run."""

import json
import shutil
import sys
from dataclasses import replace

import pytest

from workhorse.cli.main import main
from workhorse.core.errors import UsageError
from workhorse.runs import trust
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.runs.sealing import renew_checksums
from workhorse.runs.train import plan_of, start

MARK = "import pathlib\npathlib.Path({!r}).touch()\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a module that says that it was imported; and a user who vouches for nothing yet."""
    (tmp_path / "brought_along.py").write_text(MARK.format(str(tmp_path / "imported")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(trust, "_vouched", set())
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("brought_along", None)


def sent(root, task="brought_along:Tank-v0", algorithm="ppo", **options) -> RunFolder:
    folder = RunFolder.create(root / "runs", "sent", task="t", algorithm="a", seed=0)
    described = Manifest.describe(
        id="sent",
        command=["workhorse"],
        task=task,
        task_options=options,
        algorithm=algorithm,
        settings={},
        seed=0,
        env_steps=100,
        slots=1,
        threads=1,
    )
    folder.write_manifest(described)
    return folder


COMMANDS = [
    ["evaluate"],
    ["resume"],
    ["video"],
    ["replay", "--iteration", "0"],
    ["fork", "--iteration", "0", "--set", "discount=.9"],
    ["bisect", "runs/sent"],
    ["diagnose", "--only", "gradients"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_run_from_elsewhere_imports_nothing(here, capsys, command):
    sent(here)
    assert main([command[0], "runs/sent", *command[1:]]) == 2
    said = capsys.readouterr().err
    assert "The run sent would import brought_along and run brought_along:Tank-v0" in said and "--trust" in said
    assert not (here / "imported").exists() and "brought_along" not in sys.modules
    assert main([command[0], "runs/sent", *command[1:], "--trust"]) == 2  # there is no such task, and no checkpoint
    assert "would import" not in capsys.readouterr().err
    assert (here / "imported").exists() or command == ["video"]  # which looks for the policy first


def test_trust_is_remembered_for_this_manifest_and_user(here, monkeypatch):
    folder = sent(here)
    with pytest.raises(UsageError, match="would import brought_along"):
        plan_of(folder.manifest())
    trust.open_run(folder.path, True)
    monkeypatch.setattr(trust, "_vouched", set())  # another process
    assert plan_of(folder.manifest()).task == "brought_along:Tank-v0"
    shutil.move(folder.path, here / "moved")
    plan_of(RunFolder.open(here / "moved").manifest())
    with pytest.raises(UsageError, match="would import brought_along"):
        plan_of(replace(folder_manifest(here / "moved"), seed=1))
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "another-user"))
    with pytest.raises(UsageError, match="would import brought_along"):
        plan_of(folder_manifest(here / "moved"))


def folder_manifest(path) -> Manifest:
    return RunFolder.open(path).manifest()


def test_a_run_that_was_begun_here_needs_no_word(here, monkeypatch):
    (here / "brought_along.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import PendulumEnv\n"
        "gymnasium.register('Brought-v0', lambda: PendulumEnv(), max_episode_steps=10)\n"
    )
    folder, _ = start(
        task="brought_along:Brought-v0", algorithm="hill-climb", settings={}, env_steps=20, root=here / "runs"
    )
    monkeypatch.setattr(trust, "_vouched", set())
    sys.modules.pop("brought_along", None)
    trust.require_trusted_run(folder.manifest())
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "another-user"))
    with pytest.raises(UsageError, match="would import brought_along"):
        trust.require_trusted_run(folder.manifest())


def test_a_state_folder_that_cannot_be_written_counts_in_this_process(here, monkeypatch):
    (here / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "file"))
    folder = sent(here)
    trust.trust_run(folder.manifest())
    assert plan_of(folder.manifest()).seed == 0


@pytest.mark.parametrize(
    ("task", "options", "algorithm", "refused"),
    [
        ("HalfCheetah-v5", {"frame_skip": 2, "note": "a b"}, "ppo", []),
        ("gymnasium:CartPole-v1", {}, "ppo", []),  # registered by an installed module
        ("gymnasium.envs.toy_text.taxi:TaxiEnv", {}, "ppo", []),  # a class of environments
        ("CartPole-v1", {"wrappers": ["gymnasium.wrappers:RescaleAction(-1.0, 1.0)"]}, "ppo", []),
        ("CartPole-v1", {}, "workhorse.algorithms.policy_gradient.ppo:PPO", []),
        ("os:system", {"command": "reboot"}, "ppo", ["os:system"]),  # imported already, and no environment
        ("shutil:rmtree", {"path": "/"}, "ppo", ["shutil:rmtree"]),
        ("workhorse.core.files:remove_folder", {}, "ppo", ["workhorse.core.files:remove_folder"]),
        ("antigravity:CartPole-v1", {}, "ppo", ["antigravity:CartPole-v1"]),
        ("pip:main", {}, "ppo", ["pip:main"]),  # installed, and no environment
        ("CartPole-v1", {"wrappers": ["os:system"]}, "ppo", ["os:system"]),
        ("CartPole-v1", {"other": "gymnasium.wrappers:Autoreset()"}, "ppo", ["gymnasium.wrappers:Autoreset()"]),
        ("CartPole-v1", {}, "subprocess:Popen", ["subprocess:Popen"]),
        ("GymV21Environment-v0", {"env_id": "brought_along:Tank-v0"}, "ppo", ["brought_along:Tank-v0"]),
        ("GymV21Environment-v0", {"deep": [{"env_id": "a:b"}]}, "ppo", ["a:b"]),
    ],
)
def test_only_environments_wrappers_and_algorithms_are_called_unasked(here, task, options, algorithm, refused):
    assert trust.needing_trust(task, options, algorithm) == refused
    assert "antigravity" not in sys.modules


def test_a_module_beside_the_run_is_not_installed_however_it_is_dressed(here, monkeypatch):
    information = here / "brought_along-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: brought_along\nVersion: 1.0\n")
    (information / "RECORD").write_text("brought_along.py,,\n")
    monkeypatch.setattr(sys, "path", [str(here), *sys.path])
    assert trust.needing_trust("brought_along:Tank-v0", {}, "ppo") == ["brought_along:Tank-v0"]


def test_an_edit_on_purpose_keeps_the_trust_and_a_seal_gives_none(here):
    folder = sent(here)
    trust.trust_run(folder.manifest())
    edit(folder, seed=3)
    with pytest.raises(UsageError, match="does not have its checksum"):
        folder.manifest()
    assert renew_checksums(folder.path) == [folder.path / "manifest.json"]
    assert plan_of(folder.manifest()).seed == 3
    other = sent(here / "other")
    record = json.loads((other.path / "manifest.json").read_text())
    edit(other, seed=4, checksum="0" * 64)
    renew_checksums(other.path)
    assert record["seed"] == 0
    with pytest.raises(UsageError, match="would import brought_along"):
        plan_of(other.manifest())


def edit(folder, **fields) -> None:
    file = folder.path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
