"""A slot whose simulation breaks ends by itself; the others do not notice."""

from pathlib import Path

import numpy as np
import pytest

from workhorse.core.errors import UsageError
from workhorse.environments.mujoco.task_options import model_path
from workhorse.environments.registry import TASKS

NAMES = [task.id for task in TASKS.values() if task.kind == "mujoco"]
SOME = ("HalfCheetah-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5")
OTHERS = np.array([0, 2, 3])


def check_failure(env, twin, broken, sound, before, reason) -> None:
    """Slot 1 of `broken` failed for `reason`, and the rest is what the undisturbed twin gave."""
    assert broken.measures["failed"].tolist() == [False, True, False, False]
    assert (broken.truncated[1], broken.terminated[1], broken.reward[1]) == (True, False, 0.0)
    assert np.array_equal(broken.next_obs[1], before)
    assert reason in env.failure_reason(1)
    assert env.failure_reason(0) == ""
    for ours, theirs in zip(broken[:5], sound[:5], strict=True):
        assert ours[OTHERS].tobytes() == theirs[OTHERS].tobytes()
    assert not sound.measures["failed"].any()
    assert twin.failure_reason(1) == ""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("part", "value", "reason"),
    [
        ("qpos", np.nan, "a position was NaN"),
        ("qvel", np.inf, "a velocity was NaN"),
        ("qvel", 1e11, "a velocity was"),
        ("action", np.nan, "an action was NaN"),
        ("action", -np.inf, "an action was NaN or infinite"),
    ],
)
def test_a_broken_slot_fails_alone(name, part, value, reason, build, keys, random_actions):
    env, twin = build(name, 4, 2), build(name, 4, 2)
    env.reset(keys(4))
    twin.reset(keys(4))
    actions = random_actions(env, 20)
    for t in range(3):
        before = env.step(actions[t]).next_obs
        twin.step(actions[t])
    given = actions[3].copy()
    if part == "action":
        given[1, -1] = value
    else:
        env._whole.phase[1, 1 if part == "qpos" else env.model.nq] = value
    broken, sound = env.step(given), twin.step(actions[3])
    check_failure(env, twin, broken, sound, before[1], reason)

    again = env.reset(keys(4, time=9)[1:2], np.array([1]))
    assert np.array_equal(again, twin.reset(keys(4, time=9)[1:2], np.array([1])))
    for t in range(4, 14):
        ours, theirs = env.step(actions[t]), twin.step(actions[t])
        assert all(a.tobytes() == b.tobytes() for a, b in zip(ours[:5], theirs[:5], strict=True))
        assert not ours.measures["failed"].any()


@pytest.mark.parametrize("name", SOME)
def test_a_failed_slot_begins_again_by_itself(name, build, keys, random_actions):
    env = build(name, 4)
    env.with_measures = True
    env.reset(keys(4))
    actions = random_actions(env, 3)
    actions[1, 2] = np.nan
    env.step(actions[0])
    fresh = build(name, 4).reset(keys(4, time=5))
    step = env.step(actions[1], reset_keys=keys(4, time=5))
    assert step.measures["failed"].tolist() == [False, False, True, False]
    assert np.array_equal(step.obs[2], fresh[2])
    assert np.isfinite(step.obs).all() and np.isfinite(step.next_obs).all() and np.isfinite(step.reward).all()
    assert all(np.isfinite(values).all() for values in step.measures.values())
    assert not env.step(actions[2]).measures["failed"].any()


@pytest.mark.parametrize("name", SOME)
def test_a_failure_among_some_slots_only(name, build, keys, random_actions):
    env = build(name, 4)
    first = env.reset(keys(4))
    env._whole.phase[3, 0] = np.nan
    slots = np.array([3, 1])
    step = env.step(random_actions(env, 1)[0][slots], slots)
    assert step.measures["failed"].tolist() == [True, False]
    assert np.array_equal(step.next_obs[0], first[3])
    assert env.failure_reason(3) != "" and env.failure_reason(1) == ""


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Ant-v5"])
def test_numbers_too_large_to_add_up_are_no_failure(name, build, keys):
    """The quick check sums everything; a sum that overflows must not condemn anybody."""
    env = build(name, 4, ctrl_cost_weight=2e307)
    env.reset(keys(4))
    step = env.step(np.ones((4, env.model.nu)))
    with np.errstate(over="ignore"):
        assert np.isfinite(step.reward).all() and np.isinf(step.reward.sum())
    assert not step.measures["failed"].any()


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Ant-v5"])
def test_an_infinite_reward_is_a_failure(name, build, keys):
    env = build(name, 4, ctrl_cost_weight=1e308)
    env.reset(keys(4))
    actions = np.zeros((4, env.model.nu))
    actions[1] = 1.0
    step = env.step(actions)
    assert step.measures["failed"].tolist() == [False, True, False, False]
    assert env.failure_reason(1) == "the reward was NaN or infinite"


def forgetful(path: Path, memory: str) -> str:
    """One of Gymnasium's models, written to `path` with almost no memory."""
    path.write_text(Path(model_path(path.name)).read_text().replace("</mujoco>", f'<size memory="{memory}"/></mujoco>'))
    return str(path)


@pytest.mark.parametrize(
    ("name", "xml", "memory", "height", "depth"),
    [("HalfCheetah-v5", "half_cheetah.xml", "4K", 1, 5.1), ("Ant-v5", "ant.xml", "16K", 2, 5.6)],
)
def test_an_error_of_the_simulator_is_a_failure(
    name, xml, memory, height, depth, build, keys, random_actions, tmp_path
):
    """A model with almost no memory: the slot that touches the ground raises, those in the air do not."""
    env, twin = build(name, 4, 2, xml_file=forgetful(tmp_path / xml, memory)), build(name, 4, 2)
    actions = random_actions(env, 2)

    def fly(*envs, slots=slice(None)) -> None:
        for each in envs:
            each._simulations.state[slots] = each._default_row
            each._position[slots] = 0
            each._whole.phase[slots, height] += 5

    fly(env, twin)
    env._whole.phase[1, height] -= depth
    before = env._last_obs[1].copy()
    check_failure(env, twin, env.step(actions[0]), twin.step(actions[0]), before, "MuJoCo raised: mj_stackAlloc")

    slot = np.array([1])
    for each in (env, twin):
        fly(each, slots=slot)  # a reset would touch the ground
    ours, theirs = env.step(actions[1]), twin.step(actions[1])
    assert not ours.measures["failed"].any()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(ours[:5], theirs[:5], strict=True))

    env._whole.phase[1, height] -= depth
    some = env.step(actions[1][[3, 1]], np.array([3, 1]))
    assert some.measures["failed"].tolist() == [False, True]


def test_an_error_of_the_simulator_where_an_episode_begins_names_the_slot(build, keys, tmp_path):
    """With 4K, HalfCheetah touches the ground in about half of its resets, and then MuJoCo raises."""
    path = forgetful(tmp_path / "half_cheetah.xml", "4K")
    env = build("HalfCheetah-v5", 4, 2, xml_file=path, reset_noise_scale=0, max_episode_steps=2)
    height, actions = 2, np.zeros((4, env.model.nu))
    message = r"MuJoCo raised where slot {} began an episode: mj_stackAlloc.*half_cheetah.xml"

    def begin_at(metres: float, *slots: int) -> None:
        env._default_row[height] = metres
        env.reset(keys(4)[list(slots)], np.array(slots))

    with pytest.raises(UsageError, match=message.format(2)):
        begin_at(-0.1, 2)
    begin_at(5.0, 0, 1, 2, 3)
    env.step(actions)
    begin_at(5.0, 0, 1, 2)  # so that only slot 3 is at its clock's end
    env._default_row[height] = -0.1
    with pytest.raises(UsageError, match=message.format(3)):
        env.step(actions, reset_keys=keys(4))
