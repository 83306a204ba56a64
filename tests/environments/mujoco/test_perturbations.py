"""Slots with physics of their own: bit for bit a model changed by hand, and nominal slots untouched by neighbours."""

# pyright: reportAttributeAccessIssue=false
# (mujoco's compiled names have no stubs)
from pathlib import Path

import mujoco
import numpy as np
import pytest

from workhorse.environments.mujoco import batch_task
from workhorse.environments.mujoco.contact_batch import ContactBatch
from workhorse.environments.mujoco.perturbations import Physics, reset_spread, set_physics, without_effect
from workhorse.environments.mujoco.task_options import model_path
from workhorse.environments.registry import TASKS, make

NAMES = [task.id for task in TASKS.values() if task.kind == "mujoco"]
CHANGES = (
    Physics(body_mass=0.5),
    Physics(friction=0.3),
    Physics(gravity=0.7),
    Physics(actuator_strength=1.3),
    Physics(body_mass=2.0, friction=1.7, gravity=1.3, actuator_strength=0.6),
)


def change_by_hand(model, physics):
    model.body_mass[:] *= physics.body_mass
    model.body_inertia[:] *= physics.body_mass
    model.geom_friction[:] *= physics.friction
    model.opt.gravity[:] *= physics.gravity
    model.actuator_gainprm[:] *= physics.actuator_strength
    mujoco.mj_setConst(model, mujoco.MjData(model))


@pytest.fixture
def by_hand(monkeypatch, build):
    """A one-slot task whose MjModel was changed before any simulation was made of it."""

    def made(task, physics):
        load = batch_task.load_model

        def changed(*arguments):
            model = load(*arguments)
            change_by_hand(model, physics)
            return model

        with monkeypatch.context() as patch:
            patch.setattr(batch_task, "load_model", changed)
            return build(task, 1)

    return made


def journey(env, key, actions, slot):
    """What a slot shows and earns from a reset on, its actions alike in every slot."""
    shown = [env.reset(np.tile(key, (env.num_slots, 1)))[slot]]
    for action in actions:
        step = env.step(np.tile(action, (env.num_slots, 1)))
        shown.append(np.append(step.next_obs[slot], (step.reward[slot], step.terminated[slot])))
    return np.concatenate(shown)


@pytest.mark.parametrize("name", ["Hopper-v5", "Ant-v5", "Humanoid-v5"])
def test_a_perturbed_slot_is_a_model_changed_by_hand(name, build, by_hand, keys, random_actions):
    env = build(name, len(CHANGES) + 1)
    set_physics(env, [Physics(), *CHANGES])
    key, actions = keys(1)[0], random_actions(env, 30)[:, 0]
    nominal = journey(env, key, actions, 0)
    for slot, physics in enumerate(CHANGES, start=1):
        perturbed = journey(env, key, actions, slot)
        assert np.array_equal(perturbed, journey(by_hand(name, physics), key, actions, 0)), physics
        assert not np.array_equal(perturbed, nominal), f"{physics} changed nothing"


@pytest.mark.parametrize("name", NAMES)
def test_a_nominal_slot_is_the_task_itself(name, build, keys, random_actions):
    env, alone = build(name, 3), build(name, 1)
    set_physics(env, [Physics(2.0, 2.0, 0.5, 0.5), Physics(), Physics(0.5, 0.5, 2.0, 2.0)])
    key, actions = keys(1)[0], random_actions(alone, 20)[:, 0]
    assert np.array_equal(journey(env, key, actions, 1), journey(alone, key, actions, 0))


def test_physics_can_be_taken_back(build, keys, random_actions):
    env, alone = build("Hopper-v5", 1), build("Hopper-v5", 1)
    key, actions = keys(1)[0], random_actions(alone, 20)[:, 0]
    set_physics(env, [Physics(1.7, 0.5, 0.7, 1.3)])
    set_physics(env, [Physics()])
    assert np.array_equal(journey(env, key, actions, 0), journey(alone, key, actions, 0))


@pytest.mark.parametrize("name", ["Hopper-v5", "Ant-v5"])
def test_threads_change_no_bit(name, build, keys, random_actions):
    found = []
    for threads in (1, 3):
        env = build(name, 8, threads)
        set_physics(env, [Physics(body_mass=1 + slot / 10, gravity=1 - slot / 10) for slot in range(8)])
        env.reset(keys(8))
        found.append([env.step(action).next_obs for action in random_actions(env, 20)])
    assert np.array_equal(*found)


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "InvertedDoublePendulum-v5", "Ant-v5"])
def test_a_spread_reset_is_that_of_a_task_with_more_noise(name, build, keys):
    env, own = build(name, 3), make(name).options.reset_noise_scale  # type: ignore[union-attr]
    found = reset_spread(env, keys(3), np.array([5.0, 1.0, 0.0]))
    for slot, factor in enumerate((5.0, 1.0, 0.0)):
        assert np.array_equal(found[slot], build(name, 3, reset_noise_scale=factor * own).reset(keys(3))[slot])
    assert env.options.reset_noise_scale == own, "the option was not put back"


def test_a_servo_gets_stronger_and_keeps_its_target(build, keys, tmp_path):
    text = Path(model_path("inverted_pendulum.xml")).read_text()
    servo = '<position ctrllimited="true" ctrlrange="-3 3" kp="20" kv="2" forcerange="-40 40" joint="slider"/>'
    before, after = text.split("<actuator>")[0], text.split("</actuator>")[1]
    file = tmp_path / "servo.xml"
    file.write_text(f"{before}<actuator>{servo}</actuator>{after}")
    env = build("InvertedPendulum-v5", 2, xml_file=str(file))
    set_physics(env, [Physics(), Physics(actuator_strength=0.5)])
    force = env._simulations.bind("qfrc_actuator")
    env.reset(np.tile(keys(1), (2, 1)))
    for target in (1.0, 3.0):  # 3 is beyond what its bound on the force lets it pull with
        env._ctrl[:] = target
        env._simulations.forward()
        assert force[0, 0] > 15 and force[1, 0] == pytest.approx(force[0, 0] / 2, rel=1e-12)
    assert force[0, 0] == 40


def test_what_makes_no_difference_is_told(build):
    assert without_effect(build("Hopper-v5")) == {}
    assert set(without_effect(build("Swimmer-v5"))) == {"friction", "gravity"}
    assert without_effect(build("Pusher-v5"))["gravity"] == "its gravity is zero"
    assert without_effect(build("Reacher-v5"))["gravity"] == "gravity pulls on none of its joints"
    assert "initial_state" in without_effect(build("Reacher-v5"))
    assert "same state" in without_effect(build("Hopper-v5", reset_noise_scale=0))["initial_state"]


@pytest.mark.parametrize("name", ["Swimmer-v5", "Reacher-v5", "Pusher-v5", "InvertedPendulum-v5"])
def test_what_is_told_to_make_no_difference_makes_none(name, build, keys, random_actions):
    env, told = build(name, 2), without_effect(build(name))
    changes = {factor: 3.0 for factor in told if factor in Physics._fields}
    assert changes
    set_physics(env, [Physics(), Physics(**changes)])
    key, actions = keys(1)[0], random_actions(env, 20)[:, 0]
    first, second = (journey(env, key, actions, slot) for slot in (0, 1))
    assert np.allclose(first, second, rtol=0, atol=1e-9)


def test_as_many_physics_as_slots(build):
    with pytest.raises(ValueError, match="one Physics a slot, 3, got 1"):
        set_physics(build("Hopper-v5", 3), [Physics()])


def test_a_contact_batch_expands_fields_of_the_model_alone():
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><body><geom size='1'/></body></worldbody></mujoco>")
    batch = ContactBatch(model, 2, 1)
    assert batch.expand("opt.gravity").shape == (2, 3) and batch.expand("body_mass") is batch.expand("body_mass")
    for name in ("qpos", "nonsense", "body_parentid"):
        with pytest.raises(ValueError, match=f"{name} is not a float64 field of MjModel"):
            batch.expand(name)
    batch.close()
    with pytest.raises(RuntimeError, match="closed"):
        batch.expand("geom_friction")
