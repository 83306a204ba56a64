"""`workhorse tasks TASK`: what it says of a task is what the task is."""

import re
from pathlib import Path

import gymnasium
import pytest

from workhorse.algorithms.recipes import recipes
from workhorse.cli.main import main
from workhorse.environments.task_description import describe

TANK = '''
import gymnasium
import numpy as np
from gymnasium.spaces import Box, MultiDiscrete


class Tank(gymnasium.Env):
    """A tank.

    Args:
        level: litres at the start,
            whatever the size.
    """

    def __init__(self, level=3.5, size=2):
        self.observation_space = Box(np.array([0, -1], np.float32), np.array([9, 1], np.float32))
        self.action_space = MultiDiscrete([3, 2])

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 0.0, False, False, {}


gymnasium.register("Tank-v0", Tank, max_episode_steps=20, reward_threshold=7, kwargs={"size": 4})
'''


def said_of(task, capsys):
    assert main(["tasks", task]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    return said


def test_a_task_of_the_table(capsys):
    said = said_of("Hopper-v5", capsys)
    assert said.startswith("Hopper-v5: a one-legged planar robot hops without falling\n")
    for row in (
        "  observation  11 numbers without bounds",
        "  action       3 numbers in [-1, 1]",
        "  episode      up to 1,000 steps of 0.008 s, 8 s in all",
        "  solved at    a mean return of 3,800, by Gymnasium",
        "  frame_skip=4\n      simulation steps an environment step.",
        "  healthy_z_range=(0.7,inf)\n      open interval of the torso's height, m.",
        "  healthy_state_range=(-100.0,100.0)\n      open interval of every position and velocity but",
        "  ars*: 7,000,000 steps, reached 3,436 [3,309, 3,564], mean of 8 seeds\n      --num-directions 8 ",
        "  ppo: 1,000,000 steps, reached 2,913 ",
        "--recompute-advantages --log-std -0.5",
        "source: rl-zoo, after Mania et al. 2018",
    ):
        assert row in said


@pytest.mark.parametrize("task", ["HalfCheetah-v5", "Ant-v5", "Reacher-v5", "CartPole-v1", "MountainCarContinuous-v0"])
def test_every_option_of_our_tasks_has_a_sentence(task):
    found = describe(task)
    assert found.options and all(option.sentence for option in found.options)
    assert "max_episode_steps" in {option.name for option in found.options}


def test_a_task_of_gymnasium_and_one_of_a_user(capsys, tmp_path, monkeypatch):
    said = said_of("FrozenLake-v1", capsys)
    assert "one of 4 choices" in said and "  is_slippery=True\n" in said and "  map_name=4x4\n" in said
    assert "It has no recipe" in said and "render_mode" not in said
    (tmp_path / "tank_task.py").write_text(TANK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(gymnasium.registry, "Tank", raising=False)  # of another test of this process
    said = said_of("tank_task:Tank-v0", capsys)
    for row in (
        "2 numbers, each with bounds of its own",
        "2 choices at once, of 3, 2",
        "up to 20 steps\n",
        "a mean return of 7, by",
        "  level=3.5\n      litres at the start, whatever the size.\n",
        "  size=4\n",
    ):
        assert row in said


def test_what_recipes_reached_is_what_the_benchmarks_say():
    text = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    reached = [row for row in recipes() if row.reaches]
    assert len(reached) == 26
    for row in reached:
        numbers, _, seeds = row.reaches.partition(", mean of ")
        lines = [line for line in text.splitlines() if line.startswith("|") and row.task in line and numbers in line]
        assert lines, row.name
        assert re.fullmatch(r"\d+ seeds", seeds)


def test_a_misspelt_task_is_named(capsys):
    assert main(["tasks", "Hoper-v5"]) == 2
    assert "Did you mean Hopper-v5" in capsys.readouterr().err
