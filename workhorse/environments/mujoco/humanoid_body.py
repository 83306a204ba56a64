"""Base of Humanoid and HumanoidStandup: one body, and its observation."""

from dataclasses import dataclass

import numpy as np

from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.model import Floats, Frame
from workhorse.environments.mujoco.task_options import TaskOptions, flag, scale, weight

__all__ = ["HumanoidBody", "HumanoidBodyOptions"]


@dataclass(frozen=True, kw_only=True)
class HumanoidBodyOptions(TaskOptions):
    """Options of `TaskOptions`, and more.

    Attributes:
        ctrl_cost_weight: cost of a unit of squared action.
        reset_noise_scale: half-width of the noise on positions and velocities.
        exclude_current_positions_from_observation: leave the torso's x and y out.
        include_cinert_in_observation: observe every body's inertia about the centre of mass.
        include_cvel_in_observation: observe every body's velocity about the centre of mass.
        include_qfrc_actuator_in_observation: observe the actuators' torques on the joints.
        include_cfrc_ext_in_observation: observe the contact forces on every body but the world.
    """

    ctrl_cost_weight: float = weight(0.1)
    reset_noise_scale: float = scale(1e-2)
    exclude_current_positions_from_observation: bool = flag(True)
    include_cinert_in_observation: bool = flag(True)
    include_cvel_in_observation: bool = flag(True)
    include_qfrc_actuator_in_observation: bool = flag(True)
    include_cfrc_ext_in_observation: bool = flag(True)


class HumanoidBody(BatchTask):
    """Task of a humanoid: 17 torques, each in [-0.4, 0.4]; 348 observations; 0.015 s a step.

        obs = (qpos without the torso's x and y, qvel, cinert, cvel, qfrc_actuator, cfrc_ext)

    The last four parts of the observation are *as of one simulation step before the state*, because MuJoCo's derived
    fields lag behind by one; Gymnasium's do too. The world's body and the six degrees of freedom of the root are left
    out of those parts. The episode begins at the model's pose plus reset_noise_scale * U(-1, 1) on every position and
    velocity; contact forces are zero in its first observation.

    Source: Gymnasium v5 documentation; Tassa, Erez and Todorov 2012, "Synthesis and stabilization of complex behaviors
    through online trajectory optimization".
    """

    least_sizes = (3, 6)
    options: HumanoidBodyOptions

    def body_fields(self, feels: bool) -> tuple[str, ...]:
        """Return the MjData fields that are read; `feels`: contact forces are needed, observed or not."""
        options = self.options
        observed = {
            "cinert": options.include_cinert_in_observation,
            "cvel": options.include_cvel_in_observation,
            "qfrc_actuator": options.include_qfrc_actuator_in_observation,
            "cfrc_ext": feels or options.include_cfrc_ext_in_observation,
        }
        return ("ten_length", "ten_velocity", *(name for name, is_read in observed.items() if is_read))

    def contact_cost(self, frame: Frame, weight: float, limits: tuple[float, float]) -> Floats:
        """Return the clipped cost of squared contact forces, (n,)."""
        cost = np.zeros(len(frame.phase))
        if "cfrc_ext" in self.fields:
            cost = weight * np.square(frame.cfrc_ext).sum(axis=1)
        return np.clip(cost, *limits)

    def observe(self, frame: Frame) -> Floats:
        options = self.options
        parts = [frame.phase[:, 2 * int(options.exclude_current_positions_from_observation) :]]
        if options.include_cinert_in_observation:
            parts.append(frame.cinert[:, 10:])
        if options.include_cvel_in_observation:
            parts.append(frame.cvel[:, 6:])
        if options.include_qfrc_actuator_in_observation:
            parts.append(frame.qfrc_actuator[:, 6:])
        if options.include_cfrc_ext_in_observation:
            parts.append(frame.cfrc_ext[:, 6:])
        return np.concatenate(parts, axis=1)
