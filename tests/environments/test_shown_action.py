"""The previous action in the observation, in every kind of environment, against the task without it."""

from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces

from workhorse.core.addresses import host_keys
from workhorse.core.errors import UsageError
from workhorse.core.shown_action import action_bounds, action_numbers
from workhorse.core.spec import Box, Discrete, MultiBinary, MultiDiscrete
from workhorse.environments import registry
from workhorse.environments.actions import random_actions
from workhorse.environments.batch import as_batch, episode_keys
from workhorse.environments.bounds import return_bounds
from workhorse.environments.check import check_env
from workhorse.environments.shown_action_wrapper import ShowsAction, drawn_number

TASKS = [("MountainCar-v0", {}), ("Pendulum-v1", {}), ("Hopper-v5", {}), ("FrozenLake-v1", {"frame_stack": None})]
IDS = [task for task, _ in TASKS]


class Pictures(gymnasium.Env):
    """Grey images that show how many steps there were; three choices, counted from 5."""

    def __init__(self, side: int = 40) -> None:
        self.observation_space = spaces.Box(0, 255, (side, side), np.uint8)
        self.action_space = spaces.Discrete(3, start=5)
        self.count = 0

    def _image(self) -> np.ndarray:
        return np.full(self.observation_space.shape, self.count, np.uint8)  # type: ignore[arg-type]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self._image(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return self._image(), 0.0, False, self.count == 6, {}


def made(task: str, slots: int, **options: Any) -> Any:
    return as_batch(registry.make(task, slots, 1, **options), slots)


@pytest.mark.parametrize("kind", [True, "random"])
@pytest.mark.parametrize("task", ["MountainCar-v0", "Pendulum-v1", "InvertedPendulum-v5", "FrozenLake-v1"])
def test_a_task_that_shows_the_action_keeps_its_promises(task: str, kind: Any) -> None:
    if task in registry.TASKS and registry.TASKS[task].kind == "classic":
        check_env(registry.make(task, previous_action=kind, max_episode_steps=12))
    else:
        check_env(lambda: registry.make(task, 2, 1, previous_action=kind))


@pytest.mark.parametrize(("task", "options"), TASKS, ids=IDS)
def test_observations_end_with_the_action_of_the_step_before(task: str, options: dict[str, Any]) -> None:
    """Beside the task itself, through episodes that end and begin again: zeros there, the action in every successor."""
    options = {**options, "max_episode_steps": 11}
    plain, shown = made(task, 2, **options), made(task, 2, previous_action=True, **options)
    keys = episode_keys(plain, 3, "reset", 0, np.arange(2))
    size = plain.spec.observation.size
    first = plain.reset(keys), shown.reset(keys)
    np.testing.assert_array_equal(first[1][:, :size], first[0])
    np.testing.assert_array_equal(first[1][:, size:], 0.0)
    actions = random_actions(plain.spec.action, (60, 2), np.random.default_rng(0))
    ended = 0
    for time, action in enumerate(actions):
        resets = episode_keys(plain, 3, "reset", time + 1, np.arange(2))
        ours, its = shown.step(action, None, resets), plain.step(action, None, resets)
        if isinstance(plain.spec.action, Discrete):
            wanted = np.array([[float(choice == one) for choice in range(plain.spec.action.count)] for one in action])
        else:
            wanted = action.reshape(2, -1)
        np.testing.assert_allclose(ours.next_obs, np.hstack([its.next_obs, wanted]), rtol=1e-6)
        over = its.terminated | its.truncated
        np.testing.assert_allclose(ours.obs, np.hstack([its.obs, np.where(over[:, None], 0.0, wanted)]), rtol=1e-6)
        for name in ("reward", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(its, name))
        ended += int(over.sum())
    assert ended >= 10
    plain.close()
    shown.close()


def test_a_failed_slot_keeps_its_last_observation() -> None:
    env = made("Hopper-v5", 2, previous_action=True)
    env.reset(host_keys(0, "reset", 0, np.arange(2)))
    before = env.step(np.full((2, 3), 0.25)).obs
    step = env.step(np.array([[np.nan] * 3, [0.5] * 3]))
    assert step.measures["failed"].tolist() == [True, False]
    np.testing.assert_array_equal(step.next_obs[0], before[0])
    np.testing.assert_array_equal(step.next_obs[1, -3:], 0.5)
    assert "NaN" in env.failure_reason(0)


def test_what_is_shown_at_random_tells_nothing_of_the_action_and_comes_again() -> None:
    found = []
    for _ in range(2):
        env = made("Hopper-v5", 1, previous_action="random")
        env.reset(host_keys(5, "reset", 0, np.arange(1)))
        found.append(np.concatenate([env.step(np.full((1, 3), 0.9)).next_obs[:, -3:] for _ in range(40)]))
    np.testing.assert_array_equal(found[0], found[1])
    assert len(np.unique(found[0][:, 0])) == 40 and np.abs(found[0]).max() <= 1
    assert abs(found[0].mean()) < 3 / np.sqrt(3 * 120)  # uniform on [-1, 1] has the variance 1/3
    pure = registry.make("CartPole-v1", previous_action="random")
    state, _ = pure.reset(jax.random.key(0))  # type: ignore[union-attr]
    told = [np.asarray(pure.step(state, 1, jax.random.key(n))[1].next_obs[-2:]).tolist() for n in range(20)]  # type: ignore[union-attr]
    assert sorted(map(tuple, np.unique(told, axis=0))) == [(0.0, 1.0), (1.0, 0.0)]


def test_another_slot_order_and_a_snapshot_go_on_with_what_is_shown() -> None:
    env = made("Hopper-v5", 3, previous_action=True)
    env.reset(host_keys(0, "reset", 0, np.arange(3)))
    env.step(np.array([[0.1] * 3, [0.2] * 3, [0.3] * 3]))
    kept = env.snapshot()
    step = env.step(np.array([[0.5] * 3, [0.4] * 3]), np.array([2, 0]))
    np.testing.assert_array_equal(step.next_obs[:, -1], [0.5, 0.4])
    np.testing.assert_array_equal(env.states()[:, -1], [0.4, 0.2, 0.5])
    env.restore(kept)
    np.testing.assert_array_equal(env.states()[:, -1], [0.1, 0.2, 0.3])
    with pytest.raises(UsageError, match=r"restore expects shown of shape .* restore with the same option"):
        env.restore({name: array for name, array in kept.items() if name != "shown"})


@pytest.mark.parametrize("task", ["Hopper-v5", "MountainCar-v0"])
def test_plans_are_tried_with_the_observations_of_steps(task: str) -> None:
    env = made(task, 1, previous_action=True)
    env.reset(episode_keys(env, 0, "reset", 0, np.arange(1)))
    start = env.states()
    plan = random_actions(env.spec.action, (1, 4), np.random.default_rng(1))
    tried = env.rollout(start, plan, observed=True)
    steps = [env.step(plan[:, time]) for time in range(4)]
    np.testing.assert_allclose(tried.next_obs[0], np.concatenate([step.next_obs for step in steps]), rtol=1e-6)
    np.testing.assert_allclose(tried.states, env.states(), rtol=1e-6)
    assert env.physics(start).shape[1] + env.spec.observation.size > 0
    moved = env.with_physics(tried.states, env.physics(start))
    np.testing.assert_allclose(env.physics(moved), env.physics(start))
    np.testing.assert_array_equal(moved[:, -1], tried.states[:, -1])


def test_actions_of_every_kind_are_numbers() -> None:
    """Choices against loops over them; the bounds hold them, and the zeros of a start."""
    rng = np.random.default_rng(0)
    spaces = [
        Discrete(4),
        MultiDiscrete((2, 3)),
        MultiBinary(3),
        Box((0.5, -1.0), (2.0, 1.0)),
        Box((-1.0,) * 4, (1.0,) * 4, (2, 2)),
    ]
    for space in spaces:
        actions = random_actions(space, (20,), rng)
        numbers, bounds = action_numbers(space, actions), action_bounds(space)
        assert numbers.shape == (20, bounds.size)
        assert (np.asarray(bounds.low) <= np.minimum(numbers.min(0), 0)).all()
        assert (np.asarray(bounds.high) >= numbers.max(0)).all()
        if isinstance(space, MultiDiscrete):
            for row, action in zip(numbers, actions, strict=True):
                assert np.flatnonzero(row).tolist() == [action[0], 2 + action[1]]


def test_the_number_of_the_action_is_drawn_on_images() -> None:
    blank = np.full((84, 84, 3), 7, np.uint8)
    drawn = [drawn_number(blank, number, (70, 2), 2) for number in range(12)]
    assert len({image.tobytes() for image in drawn}) == 12
    for image in drawn:
        changed = np.argwhere((image != blank).any(-1))
        assert changed.min(0).tolist() == [70, 2] and changed.max(0)[0] <= 79
        assert set(np.unique(image)) <= {0, 7, 255}
    assert (blank == 7).all()


def test_an_image_shows_the_number_of_the_last_action_until_the_episode_ends() -> None:
    env = ShowsAction(Pictures())
    assert env.observation_space == env.env.observation_space
    np.testing.assert_array_equal(env.reset(seed=0)[0], 0)
    for time, action in enumerate((2, 0, 1), start=1):
        found = env.step(action + 5)[0]
        wanted = drawn_number(np.full((40, 40), time, np.uint8), action, (34, 1), 1)
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(env.reset(seed=0)[0], 0)


def test_it_is_refused_where_it_cannot_be_shown() -> None:
    with pytest.raises(UsageError, match=r"previous_action must be true, false or random.*got 'yes'"):
        registry.make("MountainCar-v0", previous_action="yes")
    with pytest.raises(UsageError, match="can be drawn on images of at least 16 x 16"):
        ShowsAction(Pictures(side=8))


def test_rewards_and_their_bounds_stay() -> None:
    assert return_bounds("MountainCar-v0", {"previous_action": True}) == (-200.0, 0.0)
    assert registry.make("MountainCar-v0", previous_action=False) == registry.make("MountainCar-v0")
