"""Initial states: Gymnasium's distributions, drawn from the slot's key alone."""

import numpy as np
import pytest

from workhorse.core.addresses import host_generator
from workhorse.environments.registry import TASKS

NAMES = [task.id for task in TASKS.values() if task.kind == "mujoco"]
DRAWS = 4000
UNIFORM = {
    "HalfCheetah-v5": 0.1, "Hopper-v5": 5e-3, "Walker2d-v5": 5e-3, "Swimmer-v5": 0.1, "Ant-v5": 0.1,
    "Humanoid-v5": 1e-2, "HumanoidStandup-v5": 1e-2, "InvertedPendulum-v5": 0.01, "InvertedDoublePendulum-v5": 0.1,
}  # fmt: skip
NORMAL_VELOCITIES = ("HalfCheetah-v5", "Ant-v5", "InvertedDoublePendulum-v5")


@pytest.fixture
def drawn(build, keys):
    """Deviations of qpos and qvel from the model's defaults, (DRAWS, nq) and (DRAWS, nv), without the simulator."""

    def draw(name, **options):
        env = build(name, 1, **options)
        nq, nv = env.model.nq, env.model.nv
        qpos, qvel = np.tile(env.model.qpos0, (DRAWS, 1)), np.zeros((DRAWS, nv))
        for row, key in enumerate(keys(DRAWS)):
            env.begin(env._generator_of(key), qpos[row], qvel[row])
        assert qpos.shape == (DRAWS, nq)
        return qpos - env.model.qpos0, qvel

    return draw


def check_uniform(values: np.ndarray, low: float, high: float) -> None:
    width = high - low
    assert values.min() >= low and values.max() <= high
    assert values.min() < low + 0.01 * width and values.max() > high - 0.01 * width
    assert np.abs(values.mean(axis=0) - (low + high) / 2).max() < 5 * width / np.sqrt(12 * DRAWS)
    assert np.abs(values.std(axis=0) / (width / np.sqrt(12)) - 1).max() < 0.05


def check_normal(values: np.ndarray, deviation: float) -> None:
    assert np.abs(values.mean(axis=0)).max() < 5 * deviation / np.sqrt(DRAWS)
    assert np.abs(values.std(axis=0) / deviation - 1).max() < 0.06
    beyond = (np.abs(values) > 2 * deviation).mean()
    assert 0.035 < beyond < 0.056  # 0.0455 for a normal, 0 for a uniform


@pytest.mark.parametrize("name", UNIFORM)
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_noise_is_gymnasiums(name, factor, drawn):
    noise = UNIFORM[name] * factor
    qpos, qvel = drawn(name) if factor == 1 else drawn(name, reset_noise_scale=noise)
    check_uniform(qpos, -noise, noise)
    if name in NORMAL_VELOCITIES:
        check_normal(qvel, noise)
    else:
        check_uniform(qvel, -noise, noise)
    both = np.concatenate((qpos, qvel), axis=1)
    assert np.abs(np.corrcoef(both.T) - np.eye(both.shape[1])).max() < 6 / np.sqrt(DRAWS)


def test_the_reachers_goal_is_uniform_in_its_disc(drawn, build):
    qpos, qvel = drawn("Reacher-v5")
    check_uniform(qpos[:, :2], -0.1, 0.1)
    check_uniform(qvel[:, :2], -0.005, 0.005)
    assert (qvel[:, 2:] == 0).all()
    goal = build("Reacher-v5").model.qpos0[2:] + qpos[:, 2:]
    radius = np.hypot(*goal.T)
    assert radius.max() < 0.2
    check_uniform(radius[:, None] ** 2, 0.0, 0.04)  # an area's share grows as the square of the radius


def test_the_pushers_cylinder_keeps_its_distance(drawn):
    qpos, qvel = drawn("Pusher-v5")
    assert (qpos[:, :-4] == 0).all() and (qpos[:, -2:] == 0).all()
    cylinder = qpos[:, -4:-2]
    assert np.hypot(*cylinder.T).min() > 0.17 and np.hypot(*cylinder.T).min() < 0.175
    assert cylinder[:, 0].min() >= -0.3 and cylinder[:, 0].max() <= 0
    assert np.abs(cylinder[:, 1]).max() <= 0.2
    check_uniform(cylinder[cylinder[:, 0] < -0.17][:, 1:], -0.2, 0.2)
    check_uniform(qvel[:, :-4], -0.005, 0.005)
    assert (qvel[:, -4:] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_reset_draws_what_its_keys_generator_gives(name, build, keys):
    """The quick re-keying of one generator gives the draws of a new one, whatever was drawn before."""
    env = build(name, 3)
    obs = env.reset(keys(3))
    for slot, key in enumerate(keys(3)):
        qpos, qvel = env.model.qpos0.copy(), np.zeros(env.model.nv)
        env.begin(host_generator(key), qpos, qvel)
        assert np.array_equal(env._whole.phase[slot], np.concatenate((qpos, qvel)))
    env._generator.integers(5, dtype=np.uint32)  # leaves half a word in the generator
    assert np.array_equal(env.reset(keys(3)), obs)
    assert len(np.unique(obs, axis=0)) == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_reset_forgets_the_former_episode(name, build, keys, random_actions):
    used, new = build(name, 3), build(name, 3)
    used.reset(keys(3, root=5))
    for actions in random_actions(used, 25, seed=4):
        used.step(actions)
    assert np.array_equal(used.reset(keys(3)), new.reset(keys(3)))
    for actions in random_actions(used, 10):
        ours, theirs = used.step(actions), new.step(actions)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(ours[:5], theirs[:5], strict=True))
    mine, other = used.snapshot(), new.snapshot()
    assert all(np.array_equal(mine[array], other[array]) for array in mine)
