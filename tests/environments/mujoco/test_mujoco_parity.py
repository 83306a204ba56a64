"""Our slots and Gymnasium's environments, from equal states under equal actions: equal to the last bit.

The one exception is InvertedDoublePendulum's reward: Gymnasium squares scalars by libm's pow, NumPy squares arrays by
a product, and about one square in a thousand differs in its last bit.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from workhorse.environments.registry import TASKS, make

NAMES = [task.id for task in TASKS.values() if task.kind == "mujoco"]
LAST_BITS = {"InvertedDoublePendulum-v5": 1e-13}
FALLING = ("Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5", "InvertedPendulum-v5", "InvertedDoublePendulum-v5")
HIDE_ALL = {
    "include_cinert_in_observation": False,
    "include_cvel_in_observation": False,
    "include_qfrc_actuator_in_observation": False,
    "include_cfrc_ext_in_observation": False,
}
OPTION_SETS: dict[str, list[dict[str, Any]]] = {
    "HalfCheetah-v5": [
        {"forward_reward_weight": 0.3, "ctrl_cost_weight": 0.7, "reset_noise_scale": 0.3, "frame_skip": 2},
        {"exclude_current_positions_from_observation": False, "ctrl_cost_weight": -1.0},
    ],
    "Hopper-v5": [
        {"healthy_state_range": (-3.0, 3.0), "healthy_reward": 2.5, "frame_skip": 3, "forward_reward_weight": 0.2},
        {"healthy_angle_range": (-0.05, 0.1), "ctrl_cost_weight": 0.1},
        {"healthy_z_range": (1.15, 1.3), "exclude_current_positions_from_observation": False},
        {"terminate_when_unhealthy": False, "reset_noise_scale": 0.2},
    ],
    "Walker2d-v5": [
        {"healthy_z_range": (1.1, 1.3), "healthy_reward": 2.5, "frame_skip": 3, "forward_reward_weight": 0.2},
        {"healthy_angle_range": (-0.1, 0.2), "ctrl_cost_weight": 0.1, "xml_file": "walker2d.xml"},
        {"terminate_when_unhealthy": False, "reset_noise_scale": 0.2},
        {"exclude_current_positions_from_observation": False},
    ],
    "Swimmer-v5": [
        {"forward_reward_weight": 0.3, "ctrl_cost_weight": 0.7, "reset_noise_scale": 0.5, "frame_skip": 2},
        {"exclude_current_positions_from_observation": False},
    ],
    "Ant-v5": [
        {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0, "healthy_reward": 0.2, "frame_skip": 3},
        {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.1, "contact_force_range": (-20.0, 15.0)},
        {"main_body": "torso", "healthy_z_range": (0.4, 0.8), "forward_reward_weight": 2, "ctrl_cost_weight": 0.1},
        {"main_body": 5, "exclude_current_positions_from_observation": False, "reset_noise_scale": 0.3},
        {"contact_cost_weight": 0, "terminate_when_unhealthy": False, "healthy_z_range": (0.5, math.inf)},
    ],
    "Humanoid-v5": [
        {**HIDE_ALL, "contact_cost_weight": 0, "contact_cost_range": (0.5, 2.0), "healthy_reward": 1.0},
        {**HIDE_ALL, "frame_skip": 3, "forward_reward_weight": 0.5, "ctrl_cost_weight": 1.0},
        {"include_cinert_in_observation": False, "contact_cost_weight": 0.1, "contact_cost_range": (0.0, 50.0)},
        {"include_cvel_in_observation": False, "healthy_z_range": (1.3, 1.5), "reset_noise_scale": 0.1},
        {"include_qfrc_actuator_in_observation": False, "terminate_when_unhealthy": False},
        {"include_cfrc_ext_in_observation": False, "exclude_current_positions_from_observation": False},
    ],
    "HumanoidStandup-v5": [
        {**HIDE_ALL, "impact_cost_weight": 0, "impact_cost_range": (0.5, 2.0), "uph_cost_weight": 3.0},
        {"include_cinert_in_observation": False, "impact_cost_weight": 0.1, "impact_cost_range": (0.0, 50.0)},
        {"include_cvel_in_observation": False, "frame_skip": 2, "ctrl_cost_weight": 1.0},
        {"include_qfrc_actuator_in_observation": False, "reset_noise_scale": 0.1},
        {"include_cfrc_ext_in_observation": False, "exclude_current_positions_from_observation": False},
    ],
    "Reacher-v5": [{"reward_dist_weight": 0.3, "reward_control_weight": 2.0, "frame_skip": 5}],
    "Pusher-v5": [
        {"reward_near_weight": 2.0, "reward_dist_weight": 0.3, "reward_control_weight": 1.0, "frame_skip": 2},
        {"xml_file": "pusher.xml"},
    ],
    "InvertedPendulum-v5": [{"reset_noise_scale": 0.1, "frame_skip": 1}],
    "InvertedDoublePendulum-v5": [{"healthy_reward": 3.0, "reset_noise_scale": 0.02, "frame_skip": 2}],
}
VARIED = [(name, options) for name, sets in OPTION_SETS.items() for options in sets]


def compare_episodes(
    env: Any, twin: Any, keys: np.ndarray, actions: np.ndarray, tolerance: float = 0.0
) -> tuple[int, int]:
    """Run every slot to its end or through all actions, then replay each in Gymnasium.

    Returns how many episodes terminated and how many ran out of time.
    """
    env.with_measures = True
    first = env.reset(keys)
    phases = [env._whole.phase[slot].copy() for slot in range(env.num_slots)]
    steps, over = [], np.zeros(env.num_slots, np.bool_)
    for row in actions:
        steps.append(env.step(row))
        over |= steps[-1].terminated | steps[-1].truncated
        if over.all():
            break
    terminations = timeouts = 0
    for slot, phase in enumerate(phases):
        assert np.array_equal(twin.begin(phase), first[slot])
        for t, step in enumerate(steps):
            obs, reward, terminated, truncated, info = twin.env.step(actions[t, slot])
            assert np.array_equal(obs, step.next_obs[slot]), (slot, t)
            assert abs(reward - step.reward[slot]) <= tolerance, (slot, t)
            assert (terminated, truncated) == (step.terminated[slot], step.truncated[slot]), (slot, t)
            assert not step.measures["failed"][slot]
            info.pop("TimeLimit.truncated", None)
            assert set(info) == set(step.measures) - {"failed"}
            for name, value in info.items():
                # Gymnasium takes a norm by BLAS; it is not part of any reward
                slack = 1e-12 if name == "distance_from_origin" else tolerance
                assert np.abs(value - step.measures[name][slot]).max(initial=0) <= slack, (slot, t, name)
            if terminated or truncated:
                terminations += terminated
                timeouts += truncated
                break
    return terminations, timeouts


@pytest.mark.parametrize("name", NAMES)
def test_twenty_short_episodes_equal_gymnasium(name, build, twin_of, keys, random_actions):
    limit = 40
    env = build(name, 20, 2, max_episode_steps=limit)
    twin = twin_of(name, {"max_episode_steps": limit})
    terminations, timeouts = compare_episodes(
        env, twin, keys(20, root=1), random_actions(env, limit), LAST_BITS.get(name, 0.0)
    )
    assert terminations + timeouts >= 20
    if name in FALLING and name != "Ant-v5":
        assert terminations > 0
    else:
        assert timeouts > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_twenty_whole_episodes_equal_gymnasium(name, build, twin_of, keys, random_actions):
    env = build(name, 20, 2)
    twin = twin_of(name, {})
    steps = env.spec.max_episode_steps
    terminations, timeouts = compare_episodes(
        env, twin, keys(20, root=2), random_actions(env, steps), LAST_BITS.get(name, 0.0)
    )
    assert terminations + timeouts >= 20
    assert terminations > 0 if name in FALLING else timeouts == 20


@pytest.mark.parametrize(("name", "options"), VARIED)
def test_options_equal_gymnasium(name, options, build, twin_of, keys, random_actions):
    env = build(name, 4, 2, max_episode_steps=50, **options)
    twin = twin_of(name, {"max_episode_steps": 50, **options})
    compare_episodes(env, twin, keys(4, root=3), random_actions(env, 50), LAST_BITS.get(name, 0.0))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), VARIED)
def test_options_equal_gymnasium_over_whole_episodes(name, options, build, twin_of, keys, random_actions):
    env = build(name, 8, 2, **options)
    twin = twin_of(name, options)
    actions = random_actions(env, env.spec.max_episode_steps)
    compare_episodes(env, twin, keys(8, root=3), actions, LAST_BITS.get(name, 0.0))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_the_users_equals_gymnasium(name, build, twin_of, keys, random_actions, weak_gravity):
    options = {"xml_file": weak_gravity(TASK_XML[name]), "max_episode_steps": 20}
    env = build(name, 2, 1, **options)
    assert env.model.opt.gravity[2] == -7
    compare_episodes(env, twin_of(name, options), keys(2), random_actions(env, 20), LAST_BITS.get(name, 0.0))


TASK_XML = {
    name: next(field.default for field in dataclasses.fields(options) if field.name == "xml_file")
    for name in NAMES
    for options in [make(name, 1, 1).options_type]
}


@pytest.mark.parametrize("name", NAMES)
def test_the_option_sets_cover_every_option(name, build):
    known = {field.name for field in dataclasses.fields(build(name).options_type)}
    varied = {option for options in OPTION_SETS[name] for option in options} | {"max_episode_steps", "xml_file"}
    assert known == varied


@pytest.mark.parametrize("name", NAMES)
def test_options_are_gymnasiums(name, build, twin_of):
    """Same names and defaults as Gymnasium's constructor, but for what only concerns pictures."""
    import inspect

    parameters = inspect.signature(type(twin_of(name, {}).inner).__init__).parameters
    theirs = {p.name: p.default for p in parameters.values() if p.default is not p.empty}
    theirs.pop("default_camera_config")
    ours = dataclasses.asdict(build(name).options)
    assert ours.pop("max_episode_steps") == twin_of(name, {}).env.spec.max_episode_steps
    assert ours == theirs


@pytest.mark.parametrize("name", NAMES)
def test_the_spec_is_gymnasiums(name, build, twin_of):
    env, twin = build(name), twin_of(name, {})
    spec = env.spec
    assert spec.task == name
    assert spec.observation.size == twin.env.observation_space.shape[0]
    assert spec.action.low == tuple(map(float, twin.env.action_space.low))
    assert spec.action.high == tuple(map(float, twin.env.action_space.high))
    assert spec.step_seconds == twin.inner.dt
    assert spec.max_episode_steps == twin.env.spec.max_episode_steps
    assert (spec.resume, spec.options) == ("exact", ())
    bonus = {"Hopper": 1, "Walker2d": 1, "Ant": 1, "Humanoid": 5, "InvertedDoublePendulum": 10}
    assert spec.alive_bonus == bonus.get(name.removesuffix("-v5"), 0)
    assert hash(spec) == hash(build(name).spec)


def test_a_step_may_be_terminated_and_truncated(build, keys):
    """As Gymnasium's TimeLimit gives them: the pole falls on the very step at which the clock ends."""
    env = build("InvertedPendulum-v5", 1)
    push = np.full((1, 1), 3.0)
    env.reset(keys(1))
    fall = 1
    while not env.step(push).terminated[0]:
        fall += 1
    env = build("InvertedPendulum-v5", 1, max_episode_steps=fall)
    env.reset(keys(1))
    steps = [env.step(push) for _ in range(fall)]
    assert [(bool(s.terminated[0]), bool(s.truncated[0])) for s in steps] == [(False, False)] * (fall - 1) + [
        (True, True)
    ]


@pytest.mark.parametrize("name", ["Hopper-v5", "Walker2d-v5"])
def test_each_bound_of_health_is_gymnasiums(name, build, twin_of):
    """Every coordinate by itself at, inside and outside every bound."""
    ranges = {"healthy_z_range": (0.7, 1.6), "healthy_angle_range": (-0.4, 0.5)}
    if name == "Hopper-v5":
        ranges["healthy_state_range"] = (-0.3, 0.2)
    env, twin = build(name, **ranges), twin_of(name, ranges).inner
    nq = env.model.nq
    bounds = [bound for pair in ranges.values() for bound in pair]
    values = [near for bound in bounds for near in (bound, np.nextafter(bound, -9), np.nextafter(bound, 9))]
    phases = np.zeros((nq + env.model.nv, len(values), nq + env.model.nv))
    phases[:, :, 1] = 1.0
    for coordinate in range(len(phases)):
        phases[coordinate, :, coordinate] = values
    expected = []
    for phase in phases.reshape(-1, phases.shape[-1]):
        twin.data.qpos[:], twin.data.qvel[:] = phase[:nq], phase[nq:]
        expected.append(bool(twin.is_healthy))
    assert env.is_healthy(phases.reshape(-1, phases.shape[-1])).tolist() == expected
    assert 0 < sum(expected) < len(expected)
    assert [bool(env.is_healthy(phase[None])[0]) for phase in phases.reshape(-1, phases.shape[-1])] == expected
