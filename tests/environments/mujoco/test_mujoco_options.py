"""Options that make no sense are refused in a sentence, before anything is built."""

import re

import numpy as np
import pytest

from workhorse.core.errors import UsageError
from workhorse.environments.mujoco import batch_task
from workhorse.environments.registry import make

WRONG = [
    ("HalfCheetah-v5", {"ctrl_cost_wieght": 1}, "has no option 'ctrl_cost_wieght'; did you mean ctrl_cost_weight"),
    ("HalfCheetah-v5", {"xyzzy": 1}, "has no option 'xyzzy'; it has ctrl_cost_weight, "),
    ("HalfCheetah-v5", {"healthy_reward": 1}, "HalfCheetah-v5 has no option 'healthy_reward'"),
    ("HalfCheetah-v5", {"frame_skip": 0}, "frame_skip must be an integer of at least 1, got 0; leave it out for 5."),
    ("HalfCheetah-v5", {"frame_skip": 2.5}, "frame_skip must be an integer of at least 1, got 2.5"),
    ("HalfCheetah-v5", {"frame_skip": True}, "frame_skip must be an integer"),
    ("HalfCheetah-v5", {"ctrl_cost_weight": float("nan")}, "ctrl_cost_weight must be a finite number, got nan"),
    ("HalfCheetah-v5", {"ctrl_cost_weight": float("inf")}, "ctrl_cost_weight must be a finite number, got inf"),
    ("HalfCheetah-v5", {"ctrl_cost_weight": "much"}, "ctrl_cost_weight must be a finite number, got 'much'"),
    (
        "HalfCheetah-v5",
        {"reset_noise_scale": -0.1},
        "reset_noise_scale must be a finite number of at least 0, got -0.1",
    ),
    ("HalfCheetah-v5", {"max_episode_steps": 0}, "max_episode_steps must be a whole number of at least 1"),
    ("HalfCheetah-v5", {"exclude_current_positions_from_observation": 1}, "must be True or False, got 1"),
    ("HalfCheetah-v5", {"xml_file": "no_such.xml"}, "xml_file must be an existing XML file"),
    ("HalfCheetah-v5", {"xml_file": 3}, "xml_file must be the name of an XML file, got 3"),
    ("Hopper-v5", {"healthy_z_range": (2.0, 0.7)}, "healthy_z_range must be a pair (low, high) with low < high"),
    ("Hopper-v5", {"healthy_z_range": 0.7}, "healthy_z_range must be a pair (low, high) of numbers, got 0.7"),
    ("Hopper-v5", {"healthy_z_range": (float("nan"), 1)}, "healthy_z_range must be a pair"),
    ("Ant-v5", {"main_body": 1.5}, "main_body must be a body's name or its number"),
    ("Ant-v5", {"main_body": 99}, "Ant-v5.main_body must be one of the model's bodies (world, torso, "),
    ("Ant-v5", {"main_body": "head"}, "Ant-v5.main_body must be one of the model's bodies"),
    ("Reacher-v5", {"xml_file": "ant.xml"}, "and the bodies ['fingertip', 'target'], got nq = 15"),
    ("Humanoid-v5", {"xml_file": "reacher.xml"}, "Humanoid-v5.xml_file must have nq >= 3, nv >= 6"),
]


@pytest.mark.parametrize(("task", "options", "sentence"), WRONG)
def test_a_wrong_option_is_refused(task, options, sentence, monkeypatch):
    def never(*_):
        raise AssertionError("the simulations were built before the options were read")

    monkeypatch.setattr(batch_task, "Batch", never)
    monkeypatch.setattr(batch_task, "ContactBatch", never)
    with pytest.raises(UsageError, match=re.escape(sentence)) as refused:
        make(task, 2, 1, **options)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "broken.xml"
    path.write_text("<mujoco><corpse/></mujoco>")
    with pytest.raises(UsageError, match="is not a model that MuJoCo compiles: XML Error"):
        make("HalfCheetah-v5", xml_file=str(path))


def test_the_pendulum_needs_a_tip():
    with pytest.raises(UsageError, match="must have a site"):
        make("InvertedDoublePendulum-v5", xml_file="hopper.xml")


@pytest.mark.parametrize(("slots", "threads"), [(0, 1), (-1, 1), (2.0, 1), (True, 1), (1, -1), (1, "two")])
def test_wrong_counts_are_refused(slots, threads):
    with pytest.raises(UsageError, match=r"HalfCheetah-v5\.num_(slots|threads) must be an integer of at least"):
        make("HalfCheetah-v5", slots, threads)


def test_the_spec_lists_what_was_changed(build):
    options = {"reset_noise_scale": 0, "frame_skip": 5, "healthy_z_range": [0.3, 1], "max_episode_steps": None}
    spec = build("Ant-v5", **options).spec
    assert spec.options == (("healthy_z_range", (0.3, 1.0)), ("max_episode_steps", None), ("reset_noise_scale", 0.0))
    assert spec.max_episode_steps is None
    hash(spec)
    assert build("Ant-v5", **dict(spec.options)).spec == spec


def test_without_a_limit_no_episode_is_cut(build, keys):
    env = build("Reacher-v5", 2, max_episode_steps=None)
    env.reset(keys(2))
    assert not any(env.step(np.zeros((2, 2))).truncated.any() for _ in range(60))


def test_loading_says_nothing_about_what_the_user_cannot_mend(capfd, build):
    import mujoco

    build("HalfCheetah-v5")
    assert "settotalmass" not in capfd.readouterr().err
    assert mujoco.get_mju_user_warning() is None
