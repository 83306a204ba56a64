"""A task of one's own: found in the current folder, refused without a clock, its errors traced, its run resumed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workhorse.core.errors import TaskError, UsageError
from workhorse.runs import train
from workhorse.runs.history import opened
from workhorse.runs.metrics import read_metrics
from workhorse.runs.schedule import Schedule
from workhorse.runs.sealed import sealed_bytes

ROOT = Path(__file__).parents[2]
HERE = ROOT / "tests/environments"
sys.path.insert(0, str(HERE))

ES = {"num_pairs": 2}
PPO = {"num_envs": 2, "held_out_envs": 0, "rollout_steps": 15, "minibatch_size": 30, "anneal_learning_rate": False}
QUICK = Schedule(final_episodes=2, checkpoint_every_s=0.0)

TANK = """
import gymnasium, numpy as np

class Tank(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (1,), np.float32)
    action_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.level = self.np_random.uniform(0.0, 2.0)
        return np.array([self.level], np.float32), {}

    def step(self, action):
        self.level += float(action[0]) - 0.5
        return np.array([self.level], np.float32), -abs(self.level), False, False, {}

class Halved(gymnasium.RewardWrapper):
    def reward(self, reward):
        return reward / 2

gymnasium.register("Tank-v0", entry_point="mytask:Tank", max_episode_steps=10)
"""


def begun(root: Path, task: str, algorithm: str = "openai-es", **given: Any) -> tuple[Path, train.Summary]:
    given = {"env_steps": 100, "settings": ES if algorithm == "openai-es" else PPO, "schedule": QUICK, **given}
    folder, summary = train.start(task=task, algorithm=algorithm, threads=2, root=root, id="r", **given)
    return folder.path, summary


def workhorse(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """The command as it is installed, whose path does not hold the current folder."""
    command = [sys.executable, "-P", "-c", "import sys; from workhorse.cli.main import main; sys.exit(main())"]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, *line.split()], cwd=folder, env=surroundings, capture_output=True, text=True)


def test_a_module_of_the_current_folder_is_found_by_every_command(tmp_path: Path) -> None:
    (tmp_path / "mytask.py").write_text(TANK)
    few = "--algorithm openai-es --num-pairs 1 --env-steps 20 --evaluate-every 0 --final-episodes 2 --id t"
    for line in (f"train mytask:Tank-v0 --wrapper mytask:Halved {few}", "evaluate runs/t --episodes 2"):
        done = workhorse(tmp_path, line)
        assert done.returncode == 0, done.stderr
        assert "return" in done.stdout
    done = workhorse(tmp_path, "train mytask:Tonk-v0 --id u")
    assert done.returncode == 2 and "Unknown task 'mytask:Tonk-v0'. Did you mean mytask:Tank-v0" in done.stderr
    done = workhorse(tmp_path, "train mytask:Tank --id u")  # the class, which nobody registered with a time limit
    assert done.returncode == 2 and "mytask:Tank has no time limit" in done.stderr
    done = workhorse(tmp_path, "train mytask.py:Tank-v0")
    assert done.returncode == 2 and "Write mytask:Tank-v0, without .py." in done.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = workhorse(elsewhere, "evaluate ../runs/t")
    assert done.returncode == 2 and "run the command in the folder that holds it" in done.stderr


def test_a_module_that_raises_shows_where(tmp_path: Path) -> None:
    (tmp_path / "mytask.py").write_text("width = 1\nheight = width / 0\n")
    done = workhorse(tmp_path, "train mytask:Tank-v0")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert "importing the module 'mytask' raised ZeroDivisionError: division by zero" in lines[0]
    assert any('mytask.py", line 2' in line for line in lines) and "internal error" not in done.stderr
    assert lines[-1].startswith("The whole traceback is in ")
    place = Path(lines[-1].removeprefix("The whole traceback is in ").removesuffix("."))
    assert "Traceback" in place.read_text()
    place.unlink()


def test_a_task_without_a_clock_is_refused_before_there_is_a_folder(tmp_path: Path) -> None:
    undeclared = {"wrappers": ["weird_environments:Ending(6)"]}
    with pytest.raises(UsageError, match="has no time limit"):
        begun(tmp_path / "runs", "weird_environments:weird/NoClock-v0", task_options=undeclared)
    assert not (tmp_path / "runs").exists()
    folder, summary = begun(
        tmp_path, "weird_environments:weird/NoClock-v0", task_options={"max_episode_steps": 9}, env_steps=30
    )
    assert summary.evaluation_steps == 2 * 9
    found = train.evaluate_run(folder, episodes=3)[1]
    assert found.lengths.tolist() == [9, 9, 9]


def test_a_run_that_began_without_a_clock_goes_on_and_its_evaluation_ends(tmp_path: Path) -> None:
    """As older versions let it begin: its own clock is not declared."""
    options = {"max_episode_steps": "own", "wrappers": ["weird_environments:Ending(6)"]}
    folder, _ = begun(tmp_path, "weird_environments:weird/NoClock-v0", task_options=options, env_steps=30)
    manifest = folder / "manifest.json"
    manifest.write_bytes(sealed_bytes(json.loads(manifest.read_text().replace('"own"', "null"))))
    train.resume(folder, env_steps=60)
    assert train.evaluate_run(folder, episodes=2)[1].lengths.tolist() == [6, 6]


@pytest.mark.parametrize("algorithm", ["openai-es", "ppo"])
def test_a_task_that_raises_leaves_its_traceback_and_a_run_to_go_on_with(tmp_path: Path, algorithm: str) -> None:
    options = {"wrappers": ["weird_environments:Raising(500)"]}
    with pytest.raises(TaskError, match=r"raised ConnectionError: no answer at step \d+ of the episode") as caught:
        begun(tmp_path, "weird_environments:weird/Walk-v0", algorithm, task_options=options, env_steps=5000)
    traceback, resume = caught.value.__notes__[0], caught.value.__notes__[-1]
    assert 'weird_environments.py", line' in traceback and "ConnectionError: no answer" in traceback
    assert f"The whole traceback is in {tmp_path / 'r' / 'traceback.txt'}." in traceback
    assert (tmp_path / "r" / "traceback.txt").read_text().count("Traceback (most recent call last)") == 1
    assert f"`workhorse resume {tmp_path / 'r'}` goes on from there." in resume
    iterations = int(resume.split()[4])
    assert iterations > 0
    assert train.RunFolder.open(tmp_path / "r").status().state == "failed"  # type: ignore[union-attr]
    steps = len(read_metrics(train.RunFolder(tmp_path / "r")))
    train.resume(tmp_path / "r", env_steps=1)
    assert len(read_metrics(train.RunFolder(tmp_path / "r"))) == steps == iterations


def test_a_task_that_ends_its_process_says_how_the_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="ended its worker process") as caught:
        begun(tmp_path, "weird_environments:weird/Dying-v0")
    assert "The state of iteration 0 is saved: `workhorse resume" in caught.value.__notes__[-1]


@pytest.mark.parametrize("algorithm", ["openai-es", "ppo"])
def test_wrappers_frames_and_clock_come_back_on_resume_bit_for_bit(tmp_path: Path, algorithm: str) -> None:
    given: dict[str, Any] = {
        "task_options": {
            "wrappers": ["weird_environments:Added(1.0)", "weird_environments:Added(0.0, times=2.0)"],
            "frame_stack": 2,
            "max_episode_steps": 15,
        }
    }
    whole, _ = begun(tmp_path / "whole", "weird_environments:weird/Walk-v0", algorithm, env_steps=300, **given)
    part, _ = begun(tmp_path / "part", "weird_environments:weird/Walk-v0", algorithm, env_steps=120, **given)
    assert len(read_metrics(train.RunFolder(part))) < len(read_metrics(train.RunFolder(whole)))
    train.resume(part, env_steps=300)
    digests = [read_metrics(train.RunFolder(folder))["digest"].to_list() for folder in (whole, part)]
    assert digests[0] == digests[1]


class Notes(train.Observer):
    def __init__(self) -> None:
        self.said: list[str] = []

    def noted(self, sentence: str) -> None:
        self.said.append(sentence)


def test_a_task_of_the_table_with_wrappers_says_what_that_costs(tmp_path: Path) -> None:
    notes = Notes()
    begun(tmp_path, "CartPole-v1", task_options={"frame_stack": 2, "max_episode_steps": 9}, observer=notes)
    assert any("CartPole-v1 goes through the Gymnasium adapter" in said and "slower" in said for said in notes.said)


def test_randomness_that_shows_late_is_found_by_a_resume_and_remembered(tmp_path: Path) -> None:
    folder, _ = begun(tmp_path, "weird_environments:weird/LateMoody-v0", "ppo", env_steps=90)
    for env_steps, told in ((180, "step 13 of an episode after reset(seed="), (280, "as an earlier resume found")):
        notes = Notes()
        train.resume(folder, env_steps=env_steps, observer=notes)
        assert [told in said for said in notes.said if "is not deterministic" in said] == [True], notes.said
    assert int(read_metrics(train.RunFolder(folder))["env_steps"][-1]) >= 280
    with opened(folder) as history, pytest.raises(UsageError, match="is not deterministic"):
        history.once_more(history.kept(2))


def test_a_run_of_a_deterministic_task_replays_to_the_same_bits(tmp_path: Path) -> None:
    """The digests of single steps agree with those of the replay, in every kind of observation."""
    options = {"observed": "goals", "acted": "choices"}
    folder, _ = begun(tmp_path, "weird_environments:weird/Answer-v0", "ppo", env_steps=90, task_options=options)
    notes = Notes()
    train.resume(folder, env_steps=200, observer=notes)
    assert notes.said == []


def test_checkpoints_of_older_versions_have_no_digests_and_go_on(tmp_path: Path) -> None:
    from workhorse.core.digest import restore_arrays

    template = {"actions": np.zeros((0, 2)), "digests": np.zeros(0, np.uint32), "keys": np.zeros((2, 2), np.uint64)}
    old = {"actions": np.ones((5, 2)), "keys": np.ones((2, 2), np.uint64)}
    assert restore_arrays(template, old)["digests"].shape == (0,)
    with pytest.raises(UsageError, match="Expected a leaf 'keys'"):
        restore_arrays(template, {"actions": np.ones((5, 2))})
    shutil.rmtree(tmp_path)
