"""Options that any task takes: wrappers in their order, stacked frames, a time limit, and what refuses them."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workhorse.core.addresses import host_keys
from workhorse.core.errors import TaskError, UsageError
from workhorse.core.spec import Box
from workhorse.environments.check import check_env
from workhorse.environments.classic.cart_pole import CartPole
from workhorse.environments.gymnasium_adapter import GymnasiumAdapter
from workhorse.environments.registry import is_native, make
from workhorse.environments.wrappers import parse_wrapper, require_time_limit

sys.path.insert(0, str(Path(__file__).parent))
import weird_environments  # noqa: F401

WALK = "weird_environments:weird/Walk-v0"


def played(**options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of four steps of one episode, and its last observation."""
    env = make(WALK, 1, 1, **options)
    assert isinstance(env, GymnasiumAdapter)
    env.reset(host_keys(3, "reset", 0, np.arange(1)))
    steps = [env.step(np.zeros((1, 2))) for _ in range(4)]
    env.close()
    return np.array([step.reward[0] for step in steps]), steps[-1].obs[0]


def test_wrappers_are_put_around_in_their_order() -> None:
    plain, _ = played()
    one, _ = played(wrappers=["weird_environments:Added(2.0)", "weird_environments:Added(0.0, times=3.0)"])
    other, _ = played(wrappers=["weird_environments:Added(0.0, times=3.0)", "weird_environments:Added(2.0)"])
    np.testing.assert_allclose(one, (plain + 2) * 3)
    np.testing.assert_allclose(other, plain * 3 + 2)


def test_frames_are_stacked_outside_of_all_wrappers() -> None:
    _, last = played()
    _, stacked = played(frame_stack=3)
    assert stacked.shape == (3, 2)
    np.testing.assert_array_equal(stacked[-1], last)
    assert not np.array_equal(stacked[0], last)


def test_a_wrapper_of_gymnasium_takes_its_arguments() -> None:
    env = make("Pendulum-v1", 1, 1, wrappers=["gymnasium.wrappers:RescaleAction(-1.0, max_action=1.0)"])
    assert env.spec.action == Box((-1.0,), (1.0,))
    assert env.spec.options == (("wrappers", ("gymnasium.wrappers:RescaleAction(-1.0, max_action=1.0)",)),)
    env.close()  # type: ignore[union-attr]


def test_a_task_of_the_table_goes_through_the_adapter_only_where_it_must() -> None:
    assert is_native("CartPole-v1", {"max_episode_steps": 9})
    assert not is_native("CartPole-v1", {"frame_stack": 2})
    unset: dict[str, Any] = {"wrappers": [], "frame_stack": None, "max_episode_steps": "own"}
    assert make("CartPole-v1", **unset) == CartPole()
    adapter = make("CartPole-v1", 1, 1, frame_stack=2, max_episode_steps=9)
    assert (adapter.spec.observation.shape, adapter.spec.max_episode_steps) == ((2, 4), 9)
    adapter.close()  # type: ignore[union-attr]


def test_a_time_limit_put_on_by_a_wrapper_is_the_tasks() -> None:
    env = make("weird/NoClock-v0", 1, 1, wrappers=["gymnasium.wrappers:TimeLimit(30)"])
    assert env.spec.max_episode_steps == 30
    env.close()  # type: ignore[union-attr]


def test_an_environment_keeps_an_option_that_its_constructor_takes() -> None:
    env = make("weird/Stacking-v0", 1, 1, frame_stack=4)
    assert (env.spec.observation.shape, env.spec.step_seconds) == ((2,), 4.0)
    env.close()  # type: ignore[union-attr]


def test_a_wrapped_task_keeps_the_contract() -> None:
    check_env(lambda: GymnasiumAdapter(WALK, 3, 2, wrappers=["weird_environments:Added(2.0)"], frame_stack=3))


def test_a_task_without_a_clock_needs_one_or_the_word_that_it_ends() -> None:
    for options in ({}, {"max_episode_steps": None}):
        env = make("weird/NoClock-v0", 1, 1, **options)
        with pytest.raises(UsageError, match=r"NoClock-v0 has no time limit.*--max-episode-steps 1000 .*steps own "):
            require_time_limit(env.spec)
        env.close()  # type: ignore[union-attr]
    for options in ({"max_episode_steps": 40}, {"max_episode_steps": "own"}):
        env = make("weird/NoClock-v0", 1, 1, **options)
        require_time_limit(env.spec)
        assert env.spec.max_episode_steps == (40 if options["max_episode_steps"] == 40 else None)
        env.close()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Scaled",
        "mine:",
        ":Scaled",
        "mine:Scaled(x)",
        "mine:Scaled(__import__('os'))",
        "mine:Scaled(**{})",
        "mine:Scaled()()",
        "mine:a b",
        "mine-:Scaled",
        "mine:Scaled(" + "(" * 500,
        "mine:[1]",
        3,
        None,
    ],
)
def test_a_wrapper_that_is_no_name_with_literals_is_refused(text: Any) -> None:
    with pytest.raises(UsageError, match="A wrapper must be written module:name"):
        parse_wrapper(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wrappers": "mine:Scaled"}, "wrappers must be a list of texts"),
        ({"wrappers": [1]}, "A wrapper must be written"),
        ({"frame_stack": 0}, "frame_stack must be a whole number from 1 to 1000.*got 0"),
        ({"frame_stack": True}, "frame_stack must be"),
        ({"frame_stack": 2.0}, "frame_stack must be"),
        ({"frame_stack": 10**9}, "frame_stack must be"),
        ({"max_episode_steps": 0}, "max_episode_steps must be a whole number of at least 1, or 'own'.*got 0"),
        ({"max_episode_steps": "none"}, "max_episode_steps must be"),
    ],
)
@pytest.mark.parametrize("task", ["CartPole-v1", "HalfCheetah-v5", "weird/Walk-v0"])
def test_values_that_cannot_be_are_refused_for_every_task(task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(task, 1, 1, **options)


@pytest.mark.parametrize(
    ("wrapper", "message", "traced"),
    [
        ("weird_environments:Nope", r"Nope of \S+ cannot be found \(AttributeError.*write module:name", False),
        ("no_such_place:Nope", r"cannot be found \(ModuleNotFoundError", False),
        ("weird_environments:Breaking", "raised TypeError.*give it the arguments it needs", False),
        ("builtins:len", "raised TypeError", False),
        ("builtins:id", "returned int, which is no gymnasium.Env", False),
        ("gymnasium.wrappers:TimeLimit(-3)", "raised (Assertion|Value)Error", True),
    ],
)
def test_a_wrapper_that_cannot_be_made_says_why(wrapper: str, message: str, traced: bool) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        make(WALK, 1, 1, wrappers=[wrapper])
    assert bool(caught.value.traceback) == traced
