"""The Gymnasium adapter: parity with the environment itself, odd spaces, journals, and every way to fail."""

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from workhorse.core.addresses import host_keys
from workhorse.core.errors import TaskError, UsageError, last_frames
from workhorse.core.spec import Box, Discrete, Goal, MultiBinary, MultiDiscrete
from workhorse.environments import registry
from workhorse.environments.actions import random_actions
from workhorse.environments.check import check_env
from workhorse.environments.gymnasium_adapter import GymnasiumAdapter, is_registered, registered_ids
from workhorse.environments.gymnasium_worker import episode_seed

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import weird_environments  # noqa: E402

ROOT = Path(__file__).parents[2]


def keys(*address: Any) -> np.ndarray:
    return host_keys(3, "reset", *address)


def run_script(path: Path, text: str) -> subprocess.CompletedProcess[str]:
    path.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=60, env=environment, check=False
    )


@pytest.mark.parametrize(
    "id",
    ["FrozenLake-v1", "CartPole-v1", "Hopper-v5", pytest.param("Blackjack-v1", marks=pytest.mark.slow)],
)
def test_equals_gymnasium_step_by_step(id: str) -> None:
    adapter, theirs = GymnasiumAdapter(id, 2, 2), gymnasium.make(id)
    space = theirs.observation_space
    flat = lambda obs: gymnasium.spaces.flatten(space, obs)  # noqa: E731
    actions = random_actions(adapter.spec.action, (150, 2), np.random.default_rng(0))
    got = adapter.reset(keys(0, np.arange(2)))
    expected = flat(theirs.reset(seed=episode_seed(keys(0, 1)))[0])
    for t in range(150):
        np.testing.assert_array_equal(got[1], expected)
        step = adapter.step(actions[t], None, keys(t + 1, np.arange(2)))
        native = actions[t, 1] if isinstance(adapter.spec.action, Discrete) else actions[t, 1].astype(np.float32)
        successor, reward, terminated, truncated, _ = theirs.step(native)
        np.testing.assert_array_equal(step.next_obs[1], flat(successor))
        assert (step.reward[1], step.terminated[1], step.truncated[1]) == (reward, terminated, truncated)
        expected = flat(successor)
        if terminated or truncated:
            expected = flat(theirs.reset(seed=episode_seed(keys(t + 1, 1)))[0])
        got = step.obs
    adapter.close()


def test_seeds_of_episodes_fit_31_bits_and_differ():
    """Environments that keep a seed as a signed number of 32 bits exist."""
    seeds = {episode_seed(keys(iteration, slot)) for iteration in range(20) for slot in range(20)}
    assert len(seeds) == 400
    assert 2**30 < max(seeds) < 2**31 and min(seeds) >= 0


def test_spec_holds_bounds_clock_seconds_and_options() -> None:
    adapter = GymnasiumAdapter("Pendulum-v1", 1, 1, g=9.0, max_episode_steps=30)
    assert adapter.spec.observation == Box((-1.0, -1.0, -8.0), (1.0, 1.0, 8.0))
    assert adapter.spec.action == Box((-2.0,), (2.0,))
    assert (adapter.spec.max_episode_steps, adapter.spec.step_seconds, adapter.spec.resume) == (30, 0.05, "journal")
    assert adapter.spec.options == (("g", 9.0), ("max_episode_steps", 30))
    adapter.close()


def test_options_that_are_lists_leave_the_spec_hashable() -> None:
    adapter = GymnasiumAdapter("FrozenLake-v1", 1, 1, desc=["SF", "FG"])
    assert adapter.spec.options == (("desc", ("SF", "FG")),)
    assert isinstance(hash(adapter.spec), int)
    adapter.close()


def test_structured_spaces_are_flattened_and_starts_respected() -> None:
    adapter = GymnasiumAdapter("weird/Structured-v0", 2, 1)
    assert adapter.spec.action == Discrete(3)
    assert adapter.spec.observation.size == 4 + 3 + 1 + 2
    obs = adapter.reset(keys(0, np.arange(2)))
    assert obs.dtype == np.float32
    step = adapter.step(np.array([0, 2]))
    np.testing.assert_array_equal(step.reward, [5.0, 7.0])
    np.testing.assert_array_equal(step.obs[:, :7], [[4, 4, 4, 4, 1, 0, 0], [4, 4, 4, 4, 0, 0, 1]])
    with pytest.raises(ValueError, match="integers from 0 to 2"):
        adapter.step(np.array([0, 3]))
    adapter.close()


def test_integer_boxes_are_rounded_clipped_and_cast() -> None:
    adapter = GymnasiumAdapter("weird/IntegerBox-v0", 1, 1)
    assert adapter.spec.observation.shape == adapter.spec.action.shape == (2, 2)  # type: ignore[union-attr]
    adapter.reset(keys(0, np.arange(1)))
    step = adapter.step(np.array([[[0.6, -1.4], [99.0, -99.0]]]))
    np.testing.assert_array_equal(step.obs, [[[1, -1], [3, -3]]])
    adapter.close()


SHAPES = {"vector": (3,), "number": (1,), "matrix": (2, 3), "image": (4, 3, 2), "frames": (2, 4, 3), "switches": (4,)}


@pytest.mark.parametrize("observed", SHAPES)
def test_observations_keep_their_shape(observed: str) -> None:
    adapter, theirs = GymnasiumAdapter("weird/Answer-v0", 2, 1, observed=observed), weird_environments.Answer(observed)
    assert adapter.spec.observation.shape == SHAPES[observed]
    obs = adapter.reset(keys(0, np.arange(2)))
    assert obs.shape == (2, *SHAPES[observed])
    assert obs.dtype == (np.float64 if observed == "vector" else np.float32)
    expected = np.asarray(theirs.reset(seed=episode_seed(keys(0, 1)))[0])
    np.testing.assert_array_equal(obs[1], expected.reshape(SHAPES[observed]))
    adapter.close()


def test_goals_are_observation_achieved_and_desired() -> None:
    adapter = GymnasiumAdapter("weird/Answer-v0", 1, 1, observed="goals")
    space = adapter.spec.observation
    assert isinstance(space, Goal)
    assert (space.low, space.goal_size) == ((-1.0, -1.0, -2.0, -2.0), 1)
    obs = adapter.reset(keys(0, np.arange(1)))
    seen = weird_environments.Answer("goals").reset(seed=episode_seed(keys(0, 0)))[0]
    for part, name in zip(space.parts(obs[0]), ("observation", "achieved_goal", "desired_goal"), strict=True):
        np.testing.assert_array_equal(part, seen[name])
    adapter.close()


@pytest.mark.parametrize(
    ("acted", "space", "right"),
    [
        ("discrete", Discrete(3), 2),
        ("choices", MultiDiscrete((2, 3, 4, 2)), [1, 0, 3, 0]),
        ("small choices", MultiDiscrete((2, 3)), [1, 2]),
        ("switches", MultiBinary(4), [1, 0, 0, 1]),
        ("matrix", Box((-1.0,) * 4, (1.0,) * 4, (2, 2)), [[0.5, -0.5], [0.25, 0.0]]),
        ("bytes", Box((1.0, 1.0), (5.0, 5.0)), [3.6, 2.4]),
        ("valve", Box((0.7, 0.7), (35.3, 35.3)), [20.0, 20.0]),
    ],
)
def test_each_kind_of_action_arrives_as_its_space_has_it(acted: str, space: Any, right: Any) -> None:
    adapter = GymnasiumAdapter("weird/Answer-v0", 2, 1, acted=acted)
    assert adapter.spec.action == space
    adapter.reset(keys(0, np.arange(2)))
    np.testing.assert_array_equal(adapter.step(np.array([right, right])).reward, [1.0, 1.0])
    adapter.close()


@pytest.mark.parametrize("acted", weird_environments.Answer.ACTIONS)
def test_random_actions_and_the_probe_stay_inside_the_space(acted: str) -> None:
    adapter = GymnasiumAdapter("weird/Answer-v0", 3, 1, acted=acted)  # an action outside raises
    rng = np.random.default_rng(0)
    for turn in range(20):
        adapter.reset(keys(turn, np.arange(3)))
        adapter.step(random_actions(adapter.spec.action, (3,), rng))
    adapter.close()


def test_real_actions_are_clipped_in_the_spaces_own_precision() -> None:
    adapter = GymnasiumAdapter("weird/Answer-v0", 1, 1, acted="valve")
    adapter.reset(keys(0, np.arange(1)))
    bounds = np.array([[0.7, 35.3]], np.float32)
    assert float(bounds[0, 0]) < 0.7  # as a policy in float32 gives it
    adapter.step(bounds)
    adapter.close()


def test_an_environment_that_raises_is_not_thereby_random() -> None:
    adapter = GymnasiumAdapter("weird/Refusing-v0", 1, 1)
    assert adapter.spec.resume == "journal"
    adapter.close()


@pytest.mark.parametrize(
    ("acted", "actions", "match"),
    [
        ("choices", [[0, 3, 0, 0]], r"integers from 0 to \[1, 2, 3, 1\]"),
        ("choices", [[0.0, 1.0, 0.0, 0.0]], "integers from 0 to"),
        ("switches", [[0, 2, 0, 0]], "integers from 0 to 1"),
        ("switches", [[[0, 1], [0, 0]]], r"the shape \(1, 4\)"),
        ("matrix", [[0.0, 0.0, 0.0, 0.0]], r"the shape \(1, 2, 2\)"),
    ],
)
def test_actions_of_another_kind_are_refused(acted: str, actions: Any, match: str) -> None:
    adapter = GymnasiumAdapter("weird/Answer-v0", 1, 1, acted=acted)
    adapter.reset(keys(0, np.arange(1)))
    with pytest.raises(ValueError, match=match):
        adapter.step(np.array(actions))
    adapter.close()


def test_a_snapshot_with_flat_observations_is_still_read() -> None:
    adapter = GymnasiumAdapter("weird/IntegerBox-v0", 2, 1)
    adapter.reset(keys(0, np.arange(2)))
    adapter.step(np.ones((2, 2, 2)))
    saved = adapter.snapshot()
    expected = adapter.step(np.zeros((2, 2, 2)))
    adapter.restore({**saved, "obs": saved["obs"].reshape(2, 4), "actions": saved["actions"].reshape(2, 4)})
    np.testing.assert_array_equal(adapter.step(np.zeros((2, 2, 2))).obs, expected.obs)
    adapter.close()


@pytest.mark.parametrize("space", weird_environments.Unusable.SPACES)
def test_spaces_that_cannot_be_used_are_said_in_one_sentence(space: str) -> None:
    with pytest.raises(UsageError, match=r"^weird/Unusable-v0 has the observation space .* no flat vector") as caught:
        GymnasiumAdapter("weird/Unusable-v0", 1, 1, observed=space)
    assert caught.value.__cause__ is None
    with pytest.raises(UsageError, match=r"^weird/Unusable-v0 has the action space .* are the ones supported"):
        GymnasiumAdapter("weird/Unusable-v0", 1, 1, acted=space)


@pytest.mark.parametrize(
    ("task", "match"),
    [
        ("weird/Missing-v0", r"Gymnasium knows no task 'weird/Missing-v0'"),
        ("no_such_module:Task-v0", r"importing the module 'no_such_module' raised ModuleNotFoundError"),
    ],
)
def test_tasks_that_are_not_there_are_said_in_one_sentence(task: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        GymnasiumAdapter(task, 2, 2)


def test_unknown_options_are_said() -> None:
    with pytest.raises(UsageError, match=r"CartPole-v1 could not be made: TypeError.*gravitas"):
        GymnasiumAdapter("CartPole-v1", 1, 1, gravitas=3)


FAULTS = {
    "constructor": r"could not be made: OSError: no such track \(slot 0\)",
    "reset raises": r"raised KeyError: 'lost track' in reset\(seed=\d+\), slot 0",
    "reset bare": r"returned an array of shape \(2,\) in reset.*return the pair",
    "reset shape": r"observation of shape \(1,\), where its space says \(2,\), in reset",
    "reset dies": r"ended its worker process \(exit code 7\) while \w+ slots 0 to 1",
    "raises": r"raised ZeroDivisionError: track of length 0 at step 3 of the episode, slot 0",
    "nan": r"observation with NaN or infinity at step 3 of the episode, slot 0",
    "shape": r"observation of shape \(3,\), where its space says \(2,\), at step 3",
    "text": r"observation of dtype .*, which is no number, at step 3",
    "reward vector": r"returned the reward an array of shape \(1,\) at step 3.*one real number",
    "reward nan": r"returned the reward nan at step 3.*must be finite",
    "reward none": r"returned the reward None \(NoneType\) at step 3",
    "four": r"at step 3.*5-tuple",
    "flag": r"returned terminated=1 \(int\) at step 3.*True or False",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_an_environment_names_itself(fault: str) -> None:
    def episode() -> None:
        adapter = GymnasiumAdapter("weird/Faulty-v0", 2, 1, fault=fault)
        adapter.reset(keys(0, np.arange(2)))
        for _ in range(5):
            adapter.step(np.zeros((2, 2)))

    with pytest.raises(UsageError, match="weird/Faulty-v0 .*" + FAULTS[fault]) as caught:
        episode()
    assert isinstance(caught.value, TaskError)
    if "raises" in fault:
        assert "weird_environments.py" in last_frames(caught.value.traceback)
        assert "gymnasium_worker.py" not in last_frames(caught.value.traceback)


@pytest.mark.parametrize(("how", "said"), [("exit", "exit code 3"), ("signal", "signal SIGSEGV, exit code -11")])
def test_a_dying_worker_is_an_error_and_no_hang(how: str, said: str) -> None:
    adapter = GymnasiumAdapter("weird/Dying-v0", 3, 2, how=how)
    adapter.reset(keys(0, np.arange(3)))
    for _ in range(14):
        adapter.step(np.zeros((3, 2)))
    with pytest.raises(UsageError, match=rf"Dying-v0 ended its worker process \({said}\) while stepping slots 0 to 1"):
        adapter.step(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="closed"):
        adapter.step(np.zeros((3, 2)))
    adapter.close()


def test_slots_that_ended_or_never_began_are_not_stepped() -> None:
    adapter = GymnasiumAdapter("weird/Walk-v0", 2, 1, max_episode_steps=1)
    with pytest.raises(ValueError, match=r"slots \[0, 1\] have no episode"):
        adapter.step(np.zeros((2, 2)))
    adapter.reset(keys(0, np.arange(2)))
    assert adapter.step(np.zeros((2, 2))).truncated.all()
    adapter.reset(keys(1, np.arange(1)), np.array([1]))
    with pytest.raises(ValueError, match=r"slots \[0\] have no episode"):
        adapter.step(np.zeros((2, 2)))
    assert adapter.step(np.zeros((1, 2)), np.array([1])).truncated.all()
    assert len(adapter.step(np.zeros((0, 2)), np.array([], int)).reward) == 0
    for slots in ([0, 0], [2], [-1]):
        with pytest.raises(ValueError, match="slots must be"):
            adapter.reset(keys(0, np.arange(len(slots))), np.array(slots))
    adapter.close()


@pytest.mark.parametrize(
    "task",
    [
        "weird/Walk-v0",
        "weird/Structured-v0",
        "weird/Remembering-v0",
        pytest.param("FrozenLake-v1", marks=pytest.mark.slow),
    ],
)
def test_keeps_the_contract(task: str) -> None:
    check_env(lambda: GymnasiumAdapter(task, 3, 2))


@pytest.mark.parametrize(
    ("observed", "acted"), [("frames", "choices"), ("goals", "switches"), ("number", "valve"), ("image", "bytes")]
)
def test_each_kind_of_space_keeps_the_contract(observed: str, acted: str) -> None:
    check_env(lambda: GymnasiumAdapter("weird/Answer-v0", 3, 2, observed=observed, acted=acted))


@pytest.mark.parametrize("task", ["weird/Moody-v0", "weird/Declared-v0"])
def test_what_is_not_deterministic_says_so_and_keeps_the_rest(task: str) -> None:
    adapter = GymnasiumAdapter(task, 3, 2)
    assert adapter.spec.resume == "episode"
    adapter.reset(keys(0, np.arange(3)))
    adapter.step(np.zeros((3, 2)))
    adapter.restore(adapter.snapshot())
    restart = np.stack([gymnasium.make(task).reset(seed=episode_seed(key))[0] for key in keys(0, np.arange(3))])
    np.testing.assert_array_equal(adapter.observations, restart)
    adapter.close()
    check_env(lambda: GymnasiumAdapter(task, 3, 2))


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    def rewards(num_threads: int) -> np.ndarray:
        adapter = GymnasiumAdapter("weird/Walk-v0", 5, num_threads)
        adapter.reset(keys(0, np.arange(5)))
        actions = random_actions(adapter.spec.action, (30, 5), np.random.default_rng(1))
        total = np.stack([adapter.step(actions[t], None, keys(t + 1, np.arange(5))).reward for t in range(30)])
        adapter.close()
        return total

    np.testing.assert_array_equal(rewards(1), rewards(3))


def moody(steps: int) -> GymnasiumAdapter:
    adapter = GymnasiumAdapter("weird/LateMoody-v0", 2, 1)
    adapter.reset(keys(0, np.arange(2)))
    for _ in range(steps):
        adapter.step(np.zeros((2, 2)))
    return adapter


def test_a_replay_that_differs_begins_the_episodes_again_and_names_the_step() -> None:
    adapter = moody(17)
    assert adapter.spec.resume == "journal"  # ten steps do not show it
    adapter.restore(adapter.snapshot())
    assert adapter.spec.resume == "episode"
    fresh = np.stack([weird_environments.LateMoody().reset(seed=episode_seed(key))[0] for key in keys(0, np.arange(2))])
    np.testing.assert_array_equal(adapter.observations, fresh)
    (note,) = adapter.notes()
    seed = episode_seed(keys(0, 0))
    assert f"LateMoody-v0 is not deterministic: step 13 of an episode after reset(seed={seed}) (slot 0)" in note
    assert adapter.notes() == []
    assert adapter.step(np.zeros((2, 2))).obs.shape == (2, 2)
    adapter.close()


def test_a_replay_that_differed_is_remembered_by_later_snapshots() -> None:
    adapter = moody(17)
    adapter.restore(adapter.snapshot())
    adapter.step(np.zeros((2, 2)))
    later = GymnasiumAdapter("weird/LateMoody-v0", 2, 1)
    later.restore(adapter.snapshot())
    assert later.spec.resume == "episode"
    (note,) = later.notes()
    assert "step 13 of an episode (slot 0) came out otherwise when it was played again, as an earlier resume" in note
    assert later.snapshot()["length"].tolist() == [0, 0]
    adapter.close()
    later.close()


def test_a_snapshot_without_digests_is_compared_at_its_end() -> None:
    """As older versions wrote them."""
    walk = GymnasiumAdapter("weird/Walk-v0", 2, 1)
    walk.reset(keys(0, np.arange(2)))
    walk.step(np.full((2, 2), 0.1))
    old = {name: array for name, array in walk.snapshot().items() if name not in ("digests", "differed")}
    expected = walk.step(np.zeros((2, 2)))
    walk.restore(old)
    assert walk.spec.resume == "journal"
    np.testing.assert_array_equal(walk.step(np.zeros((2, 2))).obs, expected.obs)
    walk.restore({**old, "obs": old["obs"] + 1})
    assert walk.spec.resume == "episode"
    walk.close()


def test_a_reward_alone_that_differs_is_found() -> None:
    walk = GymnasiumAdapter("weird/Walk-v0", 1, 1, wrappers=["weird_environments:Paying(12)"])
    walk.reset(keys(0, np.arange(1)))
    for _ in range(14):
        walk.step(np.zeros((1, 2)))
    walk.restore(walk.snapshot())
    assert walk.snapshot()["differed"].tolist() == [[0, 12]]
    walk.close()


def test_an_environment_that_raises_once_is_not_thereby_random() -> None:
    adapter = GymnasiumAdapter("weird/Flaky-v0", 1, 1)  # raises in the first of the probe's two episodes
    assert adapter.spec.resume == "journal"
    adapter.close()


def test_an_episode_without_a_clock_ends_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workhorse.environments.gymnasium_worker.LONGEST_EPISODE", 7)
    with pytest.warns(UserWarning, match="runs in this process"):
        adapter = GymnasiumAdapter("weird/Endless-v0", 1, 1)
    assert adapter.spec.max_episode_steps is None
    adapter.reset(keys(0, np.arange(1)))
    steps = [adapter.step(np.zeros((1, 2))) for _ in range(7)]
    assert [bool(step.truncated[0]) for step in steps] == [False] * 6 + [True]
    adapter.close()
    weird_environments.register_endless("weird/Clocked-v0", 20)
    with pytest.warns(UserWarning, match="runs in this process"):
        clocked = GymnasiumAdapter("weird/Clocked-v0", 1, 1)
    clocked.reset(keys(0, np.arange(1)))
    assert not any(clocked.step(np.zeros((1, 2))).truncated[0] for _ in range(19))  # a clock of its own is kept
    clocked.close()


def test_a_fault_comes_with_a_program_that_plays_its_episode_again(tmp_path: Path) -> None:
    adapter = GymnasiumAdapter("weird_environments:weird/Walk-v0", 2, 1, wrappers=["weird_environments:Breaking(4)"])
    adapter.reset(keys(0, np.arange(2)))
    for turn in range(3):
        adapter.step(np.full((2, 2), 0.1 * turn))
    with pytest.raises(TaskError, match=r"nan at step 4 of the episode, slot 0 \(reset\(seed=\d+\), action") as it:
        adapter.step(np.full((2, 2), 0.3))
    result = run_script(tmp_path / "episode.py", f"import sys; sys.path.append({str(HERE)!r})\n" + it.value.program)
    lines = result.stdout.splitlines()
    assert len(lines) == 5 and "nan" in lines[4] and "nan" not in lines[3], result.stderr
    assert "action [0.3" in it.value.message
    first = weird_environments.Walk().reset(seed=episode_seed(keys(0, 0)))[0]
    assert lines[0] == f"({first!r}, {{}})"


def test_a_snapshot_of_other_slots_is_refused() -> None:
    small, large = GymnasiumAdapter("weird/Walk-v0", 1, 1), GymnasiumAdapter("weird/Walk-v0", 2, 1)
    with pytest.raises(UsageError, match=r"snapshot holds observations of shape \(1, 2\)"):
        large.restore(small.snapshot())
    small.close()
    large.close()


def test_a_factory_out_of_reach_runs_here_and_says_so_once() -> None:
    with pytest.warns(UserWarning, match=r"weird/Lambda-v0 runs in this process.*no name of an importable module"):
        adapter = GymnasiumAdapter("weird/Lambda-v0", 3, 2)
    adapter.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(lambda: GymnasiumAdapter("weird/Lambda-v0", 3, 2))


def test_options_that_cannot_be_sent_keep_the_task_here() -> None:
    with pytest.warns(UserWarning, match=r"weird/Scaled-v0 runs in this process.*its options cannot be sent to one"):
        adapter = GymnasiumAdapter("weird/Scaled-v0", 2, 2, scale=lambda dt: 2 * dt)
    assert adapter.spec.step_seconds == 0.5
    adapter.reset(keys(0, np.arange(2)))
    assert adapter.step(np.zeros((2, 2))).obs.shape == (2, 2)
    adapter.close()


def test_a_module_is_imported_before_its_id_is_looked_up() -> None:
    assert is_registered("weird_environments:weird/Walk-v0")
    assert not is_registered("weird_environments:weird/Absent-v0")
    assert "weird/Walk-v0" in registered_ids()
    adapter = registry.make("weird_environments:weird/Walk-v0", 2, 2)
    assert adapter.spec.task == "weird_environments:weird/Walk-v0"
    assert adapter.spec.step_seconds == 0.25
    adapter.close()  # type: ignore[union-attr]


MAIN = """
import sys
sys.path.insert(0, {here!r})
import gymnasium, numpy as np
from weird_environments import Walk
from workhorse.environments.gymnasium_adapter import GymnasiumAdapter
from workhorse.core.addresses import host_keys

class Mine(Walk):
    pass

gymnasium.register("Mine-v0", entry_point=Mine, max_episode_steps=9)
def main():
    adapter = GymnasiumAdapter("Mine-v0", 2, 2)
    adapter.reset(host_keys(0, "reset", 0, np.arange(2)))
    adapter.step(np.zeros((2, 2)))
    print(type(adapter._workers[0]).__name__, "jax" in sys.modules)
    adapter.close()
"""


def test_a_class_of_the_script_itself_is_found_by_the_workers(tmp_path: Path) -> None:
    script = MAIN.format(here=str(HERE)) + "if __name__ == '__main__':\n    main()\n"
    result = run_script(tmp_path / "train.py", script)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["RemoteGroup", "False"]


def test_a_script_without_a_main_guard_runs_in_its_own_process(tmp_path: Path) -> None:
    result = run_script(tmp_path / "train.py", MAIN.format(here=str(HERE)) + "main()\n")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["LocalGroup", "False"]
    assert "runs in this process" in result.stderr


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def until_gone(pids: list[int]) -> bool:
    for _ in range(50):
        if not any(map(is_alive, pids)):
            return True
        time.sleep(0.1)
    return False


def test_close_ends_the_workers() -> None:
    adapter = GymnasiumAdapter("weird/Walk-v0", 2, 2)
    pids = [worker.pid for worker in adapter._workers]  # type: ignore[union-attr]
    assert all(map(is_alive, pids))
    adapter.close()
    adapter.close()
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize("busy", [False, True])
def test_workers_end_when_their_parent_is_killed(tmp_path: Path, busy: bool) -> None:
    script = f"""
import os, signal, sys, threading, time
sys.path.insert(0, {str(HERE)!r})
import gymnasium, numpy as np, weird_environments
from workhorse.environments.gymnasium_adapter import GymnasiumAdapter
from workhorse.core.addresses import host_keys
adapter = GymnasiumAdapter("weird/Walk-v0", 2, 2)
print(*(worker.pid for worker in adapter._workers), flush=True)
if {busy}:
    adapter._workers[0].send("replay", (0, host_keys(0, "reset", 0), np.zeros((10**7, 2))))
    time.sleep(0.3)
os.kill(os.getpid(), signal.SIGKILL)
"""
    result = run_script(tmp_path / "killed.py", script)
    pids = [int(pid) for pid in result.stdout.split()]
    assert len(pids) == 2
    assert until_gone(pids)
