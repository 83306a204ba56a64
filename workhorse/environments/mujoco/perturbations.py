"""Slots of one MuJoCo task with physics of their own: heavier, slipperier, weaker, side by side in one batch.

MuJoCo's batch keeps one model and lets fields of it differ between simulations (`mujoco.batch.Batch.expand`), so a
thousand changed tasks cost what a thousand equal ones cost.
"""

# pyright: reportAttributeAccessIssue=false
# (mujoco's compiled names have no stubs)
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.model import Floats

__all__ = ["Physics", "reset_spread", "set_physics", "without_effect"]


class Physics(NamedTuple):
    """Factors of one slot's physics; 1 is the task's own.

    Attributes:
        body_mass: of the mass *and the inertia* of every body, as if all were of a denser material. Armature, which
            stands for rotors in the joints, stays.
        friction: of all the friction coefficients of every geom. Two geoms rub with the larger of their coefficients,
            so the contact's scale only where all geoms' do.
        gravity: of the gravity vector.
        actuator_strength: of the force an actuator exerts for the same control and state, and of its bounds.
    """

    body_mass: float = 1.0
    friction: float = 1.0
    gravity: float = 1.0
    actuator_strength: float = 1.0


_FIELDS = {
    "body_mass": ("body_mass", "body_inertia"),
    "friction": ("geom_friction", "pair_friction"),
    "gravity": ("opt.gravity",),
    # force = gain * control + bias, gain and bias linear in their parameters for the types `without_effect` lets pass
    "actuator_strength": ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange"),
}
_LINEAR_GAINS = (int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtGain.mjGAIN_AFFINE))
_LINEAR_BIASES = (int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE))
_POSES = 8
"""Random poses at which gravity's pull on the joints is looked at."""


def set_physics(task: BatchTask, physics: Sequence[Physics]) -> None:
    """Give every slot its physics; what it had before is forgotten. Reset the slots afterwards.

    A slot computes the bits of a task whose `MjModel` was multiplied by hand, `mj_setConst` called where its masses
    were; with factors of 1, those of the task itself. *`task.model` and a renderer's picture stay the unchanged ones.*

    Args:
        task: of any number of slots.
        physics: one a slot.

    Example:
        >>> from workhorse.environments.mujoco.hopper import Hopper
        >>> task = Hopper(num_slots=2)
        >>> set_physics(task, [Physics(), Physics(gravity=0.5)])
        >>> task._simulations.expand("opt.gravity")[:, 2]
        array([-9.81 , -4.905])
    """
    if len(physics) != task.num_slots:
        raise ValueError(f"{task.task}: set_physics expects one Physics a slot, {task.num_slots}, got {len(physics)}.")
    heavier = np.zeros(task.num_slots, np.bool_)
    for factor, names in _FIELDS.items():
        factors = np.array([getattr(slot, factor) for slot in physics], np.float64)
        for name in names:
            own = _field(task.model, name)
            if not own.size:
                continue
            values = own * factors.reshape(-1, *[1] * own.ndim)
            rows = task._simulations.expand(name)
            if factor == "body_mass":
                heavier |= (rows != values).reshape(task.num_slots, -1).any(axis=1)
            rows[...] = values
    if heavier.any():  # of all the fields changed, mj_setConst reads these alone
        task._simulations.set_const(np.flatnonzero(heavier))


def reset_spread(task: BatchTask, keys: np.ndarray, spread: Floats) -> Floats:
    """Begin an episode in every slot, its deviation from the model's pose multiplied by the slot's spread.

    Each slot begins as in a task made with `reset_noise_scale` that many times its own: the same draws, further out.

    Args:
        task: with an option `reset_noise_scale`.
        keys: uint64 (B, 2), one address a slot.
        spread: factors of at least 0, (B,).

    Returns:
        The observations (B, D).
    """
    own = task.options
    obs = np.empty((task.num_slots, task.spec.observation.size))
    try:
        for factor in np.unique(spread):
            slots = np.flatnonzero(spread == factor)
            if factor != 1:
                task.options = dataclasses.replace(own, reset_noise_scale=float(factor * own.reset_noise_scale))
            obs[slots] = task.reset(keys[slots], slots)
            task.options = own
    finally:
        task.options = own
    return obs


def without_effect(task: BatchTask) -> dict[str, str]:
    """Return the changes that make no difference in this task, or cannot be made, each with the reason.

    Returns:
        By field of `Physics`, or "initial_state" for the spread of a reset.
    """
    model, reasons = task.model, {}
    if not _can_rub(model):
        reasons["friction"] = "no two of its geoms can touch with friction"
    if not model.opt.gravity.any():
        reasons["gravity"] = "its gravity is zero"
    elif not _gravity_pulls(model):
        reasons["gravity"] = "gravity pulls on none of its joints"
    gains, biases = np.isin(model.actuator_gaintype, _LINEAR_GAINS), np.isin(model.actuator_biastype, _LINEAR_BIASES)
    if not (gains & biases).all():
        reasons["actuator_strength"] = "the force of its actuators is not linear in their parameters"
    noise = getattr(task.options, "reset_noise_scale", None)
    if noise is None:
        reasons["initial_state"] = "its initial state sets the goal of the episode, which has no scale"
    elif noise == 0:
        reasons["initial_state"] = "its episodes all begin in the same state"
    return reasons


def _field(model: mujoco.MjModel, name: str) -> NDArray[Any]:
    holder, _, attribute = name.rpartition(".")
    return np.asarray(getattr(model.opt if holder else model, attribute))


def _can_rub(model: mujoco.MjModel) -> bool:
    """Tell whether two geoms may collide, by MuJoCo's filters, and resist sliding: condim above 1."""
    if int(model.opt.disableflags) & int(mujoco.mjtDisableBit.mjDSBL_CONTACT):
        return False
    if model.npair and (model.pair_dim > 1).any():
        return True
    body = model.body_weldid[model.geom_bodyid]
    parent = model.body_weldid[model.body_parentid[body]]
    mate = (model.geom_contype[:, None] & model.geom_conaffinity[None, :]) != 0
    neighbours = (parent[:, None] == body[None, :]) & (body[None, :] != 0) & (body[:, None] != 0)
    apart = body[:, None] != body[None, :]
    rubs = np.maximum(model.geom_condim[:, None], model.geom_condim[None, :]) > 1
    return bool(((mate | mate.T) & ~(neighbours | neighbours.T) & apart & rubs).any())


def _gravity_pulls(model: mujoco.MjModel) -> bool:
    """Tell whether gravity exerts a force along any joint, at some random pose."""
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    weight = float(model.body_mass.sum() * np.abs(model.opt.gravity).sum())
    for _ in range(_POSES):
        mujoco.mj_resetData(model, data)
        mujoco.mj_integratePos(model, data.qpos, rng.standard_normal(model.nv), 1.0)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        pull = np.zeros(model.nv)
        mujoco.mj_rne(model, data, 0, pull)  # at rest: gravity alone
        if np.abs(pull).max(initial=0.0) > 1e-9 * weight:
            return True
    return False
