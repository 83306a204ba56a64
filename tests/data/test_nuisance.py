"""The previous action appended to a log, against a log that was recorded with the option."""

from typing import Any

import numpy as np
import pytest

from workhorse.core.errors import UsageError
from workhorse.core.spec import Box
from workhorse.data.dataset import Dataset
from workhorse.data.nuisance import with_previous_action
from workhorse.environments import registry
from workhorse.environments.actions import random_actions
from workhorse.environments.batch import as_batch, episode_keys


def recorded(task: str, steps: int, **options: Any) -> Dataset:
    """Random episodes of at most 12 steps; the last one is broken off."""
    env = as_batch(registry.make(task, 1, 1, max_episode_steps=12, **options), 1)
    actions = random_actions(env.spec.action, (steps, 1), np.random.default_rng(0))
    columns: dict[str, list[Any]] = {name: [] for name in ("obs", "action", "reward", "terminated", "truncated")}
    final, begins, obs = [], [], None
    for time, action in enumerate(actions):
        if obs is None:
            begins.append(time)
            obs = env.reset(episode_keys(env, 1, "reset", len(final), np.arange(1)))
        step = env.step(action)
        row = (obs[0], action[0], step.reward[0], step.terminated[0], step.truncated[0])
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
        is_over = step.terminated[0] or step.truncated[0]
        if is_over or time == steps - 1:
            final.append(step.next_obs[0])
        obs = None if is_over else step.next_obs
    arrays: dict[str, Any] = {name: np.array(column) for name, column in columns.items()}
    spec = env.spec
    env.close()
    return Dataset.of(
        "walk", spec.observation, spec.action, task=task, task_options=dict(options), final_obs=np.array(final),
        begins=np.array(begins), **arrays,
    )  # fmt: skip


@pytest.mark.parametrize("task", ["MountainCar-v0", "Pendulum-v1", "Hopper-v5"])
def test_it_is_the_log_that_the_option_would_have_recorded(task: str) -> None:
    made, wanted = with_previous_action(recorded(task, 40)), recorded(task, 40, previous_action=True)
    for name in ("obs", "final_obs", "action", "reward", "terminated", "truncated", "begins"):
        np.testing.assert_allclose(getattr(made, name), getattr(wanted, name), rtol=1e-6, err_msg=name)
    assert made.observation == wanted.observation
    assert made.card.task_options == wanted.card.task_options == {"previous_action": True}
    assert dict(made.spec().options) == {"previous_action": True}
    assert made.card.digest == made.digest() != recorded(task, 40).digest()


def test_drawn_actions_can_be_shown_instead() -> None:
    log = recorded("MountainCar-v0", 30)
    drawn = (np.asarray(log.action) + 1) % 3
    made = with_previous_action(log, drawn)
    for step in range(30):
        shown = made.obs[step, 2:]
        if step in log.begins:
            assert not shown.any()
        else:
            assert shown.argmax() == drawn[step - 1] and shown.sum() == 1
    assert made.card.task_options == {"previous_action": "random"}


def test_what_cannot_be_appended_is_refused() -> None:
    log = recorded("MountainCar-v0", 20)
    with pytest.raises(UsageError, match="shows the previous action already"):
        with_previous_action(with_previous_action(log))
    images = Dataset.of(
        "images", Box.of(np.zeros((2, 2)), np.ones((2, 2))), log.action_space, obs=np.zeros((2, 2, 2)),
        action=np.zeros(2, int), reward=np.zeros(2), terminated=np.array([False, True]), truncated=np.zeros(2, bool),
        final_obs=np.zeros((1, 2, 2)), begins=np.array([0]),
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"appends numbers to a vector, but observations have the shape \(2, 2\)"):
        with_previous_action(images)
