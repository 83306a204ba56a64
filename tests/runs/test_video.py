"""Videos: a file that plays, of the policy that was trained; and a sentence where there is no OpenGL."""

import os
import subprocess
import sys
import warnings

import imageio.v2 as imageio
import numpy as np
import pytest

from workhorse.core.errors import UsageError
from workhorse.runs import train, video
from workhorse.runs.quiet import quiet_libraries

# The encoder is started by a fork, which JAX, imported here for training, warns of; `workhorse video` imports no JAX.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork")

QUICK = train.Schedule(final_episodes=1)


def trained(root, task):
    folder, _ = train.start(
        task=task,
        algorithm="ars",
        settings={"num_directions": 1, "num_top_directions": 1},
        env_steps=1,
        task_options={"max_episode_steps": 12},
        threads=1,
        schedule=QUICK,
        root=root,
        id=task,
    )
    return folder


def frames_of(film):
    with imageio.get_reader(film.path) as reader:
        return list(reader.iter_data())


def test_a_classic_task_is_filmed(tmp_path):
    film = video.record(trained(tmp_path, "CartPole-v1").path)
    frames = frames_of(film)
    assert len(frames) == film.length + 1 > 5
    assert film.episode_return == film.length
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 50, "nothing moved"


def opengl_works():
    command = [sys.executable, "-c", video._TRY_CONTEXT]
    return subprocess.run(command, env={**os.environ, "MUJOCO_GL": "egl"}, capture_output=True).returncode == 0


def test_a_mujoco_task_is_filmed(tmp_path):
    if not opengl_works():
        pytest.skip("no EGL on this machine")
    folder = trained(tmp_path, "HalfCheetah-v5")
    film = video.record(folder.path, width=64, height=48)
    frames = frames_of(film)
    assert frames[0].shape == (48, 64, 3) and len(frames) == 13 and frames[0].std() > 10


def test_without_opengl_there_is_a_sentence_and_no_file(tmp_path, monkeypatch):
    folder = trained(tmp_path, "HalfCheetah-v5")
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(UsageError, match="A video needs OpenGL, and none of nonsense works here"):
        video.record(folder.path)
    assert not list(folder.videos.iterdir())


def test_earlier_films_are_kept(tmp_path):
    folder = trained(tmp_path, "CartPole-v1")
    films = [video.record(folder.path, seed=seed, max_steps=2).path for seed in (0, 0, 1, 0)]
    assert [film.name for film in films] == ["1-seed0.mp4", "1-seed0-2.mp4", "1-seed1.mp4", "1-seed0-3.mp4"]
    first = films[0].read_bytes()
    video.record(folder.path, seed=0, max_steps=5)
    assert films[0].read_bytes() == first
    assert sorted(folder.videos.iterdir()) == sorted([*films, folder.videos / "1-seed0-4.mp4"])


def test_a_film_that_fails_leaves_nothing_behind(tmp_path):
    folder = trained(tmp_path, "CartPole-v1")

    def fails(steps):
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        video.record(folder.path, progress=fails)
    assert not list(folder.videos.iterdir())


def test_what_libraries_print_is_hidden_and_what_a_task_prints_is_not(capfd):
    installed = np.__file__
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *rest: print("warned:", message, file=sys.stderr)
        with quiet_libraries():
            os.write(2, b"a driver's error\n")
            warnings.warn_explicit("old", DeprecationWarning, installed, 1, module="numpy")
            warnings.warn_explicit("WARN: overriding", UserWarning, "tank.py", 1, module="tank")
            warnings.warn_explicit("mine", UserWarning, "tank.py", 1, module="tank")
            print("printed", file=sys.stderr)
    print("after", file=sys.stderr)
    os.write(2, b"later\n")
    assert capfd.readouterr().err.splitlines() == ["warned: mine", "printed", "after", "later"]


def test_what_libraries_print_is_shown_where_they_fail(capfd):
    def draw():
        with quiet_libraries():
            os.write(2, b"libEGL: no display\n")
            raise ValueError("no picture")

    with pytest.raises(ValueError, match="no picture"):
        draw()
    assert "libEGL: no display" in capfd.readouterr().err


def test_the_command_prints_one_line(tmp_path):
    folder = trained(tmp_path, "CartPole-v1")
    command = [sys.executable, "-m", "workhorse.cli.main", "video", str(folder.path), "--max-steps", "3"]
    bare = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    done = subprocess.run(command, capture_output=True, text=True, env=bare)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1 and "over 3 steps" in done.stdout


@pytest.mark.parametrize(
    ("given", "message"), [({"width": 0}, "--width"), ({"seed": -1}, "--seed"), ({"max_steps": 0}, "--max-steps")]
)
def test_numbers_out_of_range_are_refused(tmp_path, given, message):
    with pytest.raises(UsageError, match=message):
        video.record(tmp_path, **given)


@pytest.mark.parametrize(("task", "chosen"), [("filmed:Own-v0", 1), ("CartPole-v1", 0)])
def test_opengl_is_chosen_for_tasks_of_other_packages_before_they_are_imported(tmp_path, monkeypatch, task, chosen):
    (tmp_path / "filmed.py").write_text(
        "import gymnasium\nfrom gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('Own-v0', entry_point='filmed:CartPoleEnv', max_episode_steps=9)\n"
    )
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr(video, "_choose_opengl", lambda: calls.append("filmed" in sys.modules))
    env = video._environment(task, {"frame_stack": 2}, 64, 64)
    assert env.reset()[0].shape == (2, 4)
    env.close()
    assert calls == [False] * chosen


def test_a_film_passes_on_no_warnings_of_others(tmp_path, recwarn):
    folder = trained(tmp_path, "CartPole-v1")
    video.record(folder.path)
    assert [str(warning.message) for warning in recwarn if "fork" not in str(warning.message)] == []
