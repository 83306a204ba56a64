"""Videos: a file that plays, of the policy that was trained; and a sentence where there is no OpenGL."""

import os
import subprocess
import sys

import imageio.v2 as imageio
import numpy as np
import pytest

from workhorse.core.errors import UsageError
from workhorse.runs import train, video

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


@pytest.mark.parametrize(
    ("given", "message"), [({"width": 0}, "--width"), ({"seed": -1}, "--seed"), ({"max_steps": 0}, "--max-steps")]
)
def test_numbers_out_of_range_are_refused(tmp_path, given, message):
    with pytest.raises(UsageError, match=message):
        video.record(tmp_path, **given)
