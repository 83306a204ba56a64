"""What every host environment promises: independent slots, exact snapshots, honest observations."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from workhorse.core.errors import UsageError
from workhorse.environments.protocol import HostEnv
from workhorse.environments.registry import TASKS

NAMES = [task.id for task in TASKS.values() if task.kind == "mujoco"]
SOME = ("HalfCheetah-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5", "InvertedDoublePendulum-v5")


def as_bytes(step) -> list[bytes]:
    return [np.asarray(part).tobytes() for part in (*step[:5], step.measures["failed"])]


def rows_of(step, rows) -> list[bytes]:
    return [np.asarray(part)[rows].tobytes() for part in step[:5]]


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_types(name, build, keys, random_actions):
    env = build(name, 3)
    assert isinstance(env, HostEnv)
    obs = env.reset(keys(3))
    step = env.step(random_actions(env, 1)[0], reset_keys=keys(3, time=1))
    size = env.spec.observation.size
    for array in (obs, step.obs, step.next_obs):
        assert array.shape == (3, size) and array.dtype == np.float64
    assert step.reward.shape == (3,) and step.reward.dtype == np.float64
    for array in (step.terminated, step.truncated, step.measures["failed"]):
        assert array.shape == (3,) and array.dtype == np.bool_
    assert set(step.measures) == {"failed"}


@pytest.mark.parametrize("name", NAMES)
def test_equal_keys_give_equal_episodes_in_any_slot(name, build, keys, random_actions):
    env, twin = build(name, 4), build(name, 4)
    order = np.array([2, 0, 3, 1])
    first, moved = env.reset(keys(4)), twin.reset(keys(4)[order])
    assert np.array_equal(first[order], moved)
    for actions in random_actions(env, 10):
        step, permuted = env.step(actions), twin.step(actions[order])
        assert rows_of(step, order) == rows_of(permuted, slice(None))


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_threads_changes_nothing(name, build, keys, random_actions):
    single, double = build(name, 5, 1), build(name, 5, 2)
    assert np.array_equal(single.reset(keys(5)), double.reset(keys(5)))
    for t, actions in enumerate(random_actions(single, 30)):
        again = keys(5, time=t + 1)
        assert as_bytes(single.step(actions, reset_keys=again)) == as_bytes(double.step(actions, reset_keys=again))


@pytest.mark.parametrize("name", NAMES)
def test_stepping_some_slots_equals_stepping_all(name, build, keys, random_actions):
    """In any order, and the slots left out stay as they are."""
    whole, parts = build(name, 5, 2), build(name, 5, 2)
    whole.reset(keys(5))
    parts.reset(keys(5)[[4, 1]], np.array([4, 1]))
    parts.reset(keys(5)[[0, 2, 3]], np.array([0, 2, 3]))
    for t, actions in enumerate(random_actions(whole, 25)):
        again = keys(5, time=t + 1)
        expected = whole.step(actions, reset_keys=again)
        for slots in (np.array([3, 0]), np.array([1, 4, 2])):
            step = parts.step(actions[slots], slots, again[slots])
            assert rows_of(step, slice(None)) == rows_of(expected, slots)
    assert np.array_equal(whole.snapshot()["state"], parts.snapshot()["state"])


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Humanoid-v5"])
def test_no_slots_at_all_is_an_empty_step(name, build, keys):
    env = build(name, 2)
    env.reset(keys(2))
    before = env.snapshot()
    none = np.zeros(0, np.int64)
    step = env.step(np.zeros((0, env.model.nu)), none)
    assert step.next_obs.shape == (0, env.spec.observation.size)
    assert env.reset(np.zeros((0, 2), np.uint64), none).shape == step.next_obs.shape
    assert all(np.array_equal(before[array], env.snapshot()[array]) for array in before)


@pytest.mark.parametrize("name", NAMES)
def test_an_ended_slot_begins_again_with_its_key(name, build, keys, random_actions):
    """`obs` is the reset observation of the row's key, `next_obs` the true successor; others are as without."""
    auto, manual = build(name, 3, max_episode_steps=7), build(name, 3, max_episode_steps=7)
    auto.reset(keys(3))
    manual.reset(keys(3))
    ends = 0
    for t, actions in enumerate(random_actions(auto, 20)):
        again = keys(3, time=t + 1)
        step, plain = auto.step(actions, reset_keys=again), manual.step(actions)
        assert np.array_equal(step.next_obs, plain.next_obs)
        assert np.array_equal(plain.obs, plain.next_obs)
        ended = np.flatnonzero(step.terminated | step.truncated)
        expected = plain.next_obs.copy()
        if len(ended):
            ends += 1
            expected[ended] = manual.reset(again[ended], ended)
            assert not np.array_equal(step.obs[ended], step.next_obs[ended])
        assert np.array_equal(step.obs, expected)
    assert ends >= 2


@pytest.mark.parametrize("name", NAMES)
def test_returned_arrays_belong_to_the_caller(name, build, keys, random_actions):
    env, twin = build(name, 3), build(name, 3)
    env.with_measures = twin.with_measures = True
    kept = [env.reset(keys(3))]
    twin.reset(keys(3))
    copies = [kept[0].copy()]
    for t, actions in enumerate(random_actions(env, 12)):
        again = keys(3, time=t + 1)
        step = env.step(actions, reset_keys=again)
        arrays = [*step[:5], *step.measures.values()]
        kept += arrays
        copies += [array.copy() for array in arrays]
        scribbled = twin.step(actions, reset_keys=again)
        assert as_bytes(scribbled) == as_bytes(step)
        for array in (*scribbled[:5], *scribbled.measures.values()):
            array[...] = 1
    broken = np.full_like(actions, np.nan)
    assert as_bytes(env.step(broken)) == as_bytes(twin.step(broken))  # gives the last observation back
    assert all(np.array_equal(array, copy) for array, copy in zip(kept, copies, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_snapshot_goes_on_with_the_same_bits(name, build, keys, random_actions):
    """At another number of threads, in an environment that has lived another life and failed in it."""
    env, other = build(name, 4, 1, max_episode_steps=30), build(name, 4, 2, max_episode_steps=30)
    env.reset(keys(4))
    other.reset(keys(4, root=9))
    actions = random_actions(env, 70)
    for t in range(20):
        env.step(actions[t], reset_keys=keys(4, time=t + 1))
        other.step(np.full_like(actions[t], np.nan) if t == 19 else actions[-t])
    saved = env.snapshot()
    taken = {name: array.copy() for name, array in saved.items()}
    expected = [as_bytes(env.step(actions[t], reset_keys=keys(4, time=t + 1))) for t in range(20, 70)]
    assert all(np.array_equal(taken[name], array) for name, array in saved.items())
    for restored in (env, other):
        restored.restore(saved)
        assert [as_bytes(restored.step(actions[t], reset_keys=keys(4, time=t + 1))) for t in range(20, 70)] == expected


CONTINUE = """
import sys
import numpy as np
from workhorse.core.addresses import host_keys
from workhorse.environments.registry import make
for name in sys.argv[2:]:
    given = np.load(f"{sys.argv[1]}/{name}.npz")
    env = make(name, 4, 2, max_episode_steps=30)
    env.restore({key: given[key] for key in given.files if key != "actions"})
    steps = [env.step(a, reset_keys=host_keys(0, "reset", np.arange(4), t)) for t, a in enumerate(given["actions"])]
    np.savez(f"{sys.argv[1]}/{name}-after.npz", *[np.stack(parts) for parts in zip(*[step[:5] for step in steps])])
    env.close()
"""


def test_a_restored_snapshot_goes_on_in_a_new_process(build, keys, random_actions, tmp_path):
    expected = {}
    for name in NAMES:
        env = build(name, 4, 1, max_episode_steps=30)
        env.reset(keys(4))
        actions = random_actions(env, 70)
        for t in range(20):
            env.step(actions[t], reset_keys=keys(4, root=1, time=t))
        np.savez(tmp_path / f"{name}.npz", actions=actions[20:], **env.snapshot())
        steps = [env.step(a, reset_keys=keys(4, time=t)) for t, a in enumerate(actions[20:])]
        expected[name] = [np.stack(parts) for parts in zip(*[step[:5] for step in steps], strict=True)]
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", CONTINUE, str(tmp_path), *NAMES]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    for name in NAMES:
        after = np.load(tmp_path / f"{name}-after.npz")
        for part, array in zip(after.files, expected[name], strict=True):
            assert after[part].tobytes() == array.tobytes(), (name, part)


def test_a_snapshot_of_something_else_is_refused(build):
    env = build("HalfCheetah-v5", 3)
    saved = env.snapshot()
    with pytest.raises(UsageError, match=r"Hopper-v5\.restore expects a snapshot of Hopper-v5"):
        build("Hopper-v5", 3).restore(saved)
    with pytest.raises(UsageError, match="expects a snapshot of HalfCheetah-v5"):
        build("HalfCheetah-v5", 3, frame_skip=2).restore(saved)
    with pytest.raises(UsageError, match=r"expects state as float64 \(4, 91\), got float64 \(3, 91\)"):
        build("HalfCheetah-v5", 4).restore(saved)
    with pytest.raises(UsageError, match="expects elapsed as int64"):
        env.restore({**saved, "elapsed": saved["elapsed"].astype(np.float32)})
    with pytest.raises(UsageError, match=r"expects last_obs as .* got nothing"):
        env.restore({name: array for name, array in saved.items() if name != "last_obs"})
    with pytest.raises(UsageError, match="got one of ''"):
        env.restore({})
    assert all(np.array_equal(array, env.snapshot()[name]) for name, array in saved.items())


@pytest.mark.parametrize("name", SOME)
def test_a_slot_can_be_drawn(name, build, keys, random_actions):
    import mujoco

    env = build(name, 3)
    env.reset(keys(3))
    for actions in random_actions(env, 5):
        env.step(actions)
    model, data = env.mujoco_state(1)
    row = np.concatenate((data.qpos, data.qvel))
    assert np.array_equal(row, env._whole.phase[1])
    assert data.time == pytest.approx(5 * env.spec.step_seconds)
    positions = data.xpos.copy()
    mujoco.mj_kinematics(model, data)
    assert np.abs(positions).sum() > 0 and np.array_equal(positions, data.xpos)


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Ant-v5"])
def test_a_closed_environment_says_so(name, build, keys):
    env = build(name, 2)
    env.close()
    env.close()
    for use in (lambda: env.reset(keys(2)), lambda: env.step(np.zeros((2, env.model.nu))), env.snapshot):
        with pytest.raises(RuntimeError, match=f"This {name} is closed"):
            use()


def test_wrong_shapes_are_refused(build, keys):
    env = build("HalfCheetah-v5", 3)
    with pytest.raises(ValueError, match=r"expects actions of shape \(3, 6\), got \(6,\)"):
        env.step(np.zeros(6))
    with pytest.raises(ValueError, match=r"reset expects keys of shape \(3, 2\), got \(2, 2\)"):
        env.reset(keys(2))
    for slots in ([0, 0], [3], [-1]):
        with pytest.raises(ValueError, match="slots must be distinct and below 3"):
            env.step(np.zeros((len(slots), 6)), np.array(slots))
    with pytest.raises(ValueError, match="slots must be a vector of integers"):
        env.step(np.zeros((2, 6)), np.array([True, False]))
