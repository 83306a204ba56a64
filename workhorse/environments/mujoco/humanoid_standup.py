"""HumanoidStandup-v5: the humanoid, lying down, raises its head."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from workhorse.environments.mujoco.batch_task import BatchTask, Flags, Floats, Frame, Terms
from workhorse.environments.mujoco.task_options import count, flag, interval, limit, model_file, scale, weight

__all__ = ["HumanoidStandup", "HumanoidStandupOptions"]


@dataclass(frozen=True, kw_only=True)
class HumanoidStandupOptions:
    """Gymnasium's constructor options, by its names and with its defaults.

    Attributes:
        xml_file: the model.
        frame_skip: simulation steps an environment step.
        max_episode_steps: time limit in environment steps; None for none.
        uph_cost_weight: without effect, as in Gymnasium v5, which accepts it and never reads it.
        ctrl_cost_weight: cost of a unit of squared action.
        impact_cost_weight: cost of a unit of squared contact force.
        impact_cost_range: what the impact cost is clipped to.
        reset_noise_scale: half-width of the noise on positions and velocities.
        exclude_current_positions_from_observation: leave the torso's x and y out.
        include_cinert_in_observation: observe every body's inertia about the centre of mass.
        include_cvel_in_observation: observe every body's velocity about the centre of mass.
        include_qfrc_actuator_in_observation: observe the actuators' torques on the joints.
        include_cfrc_ext_in_observation: observe the contact forces on every body but the world.
    """

    xml_file: str = model_file("humanoidstandup.xml")
    frame_skip: int = count(5)
    max_episode_steps: int | None = limit(1000)
    uph_cost_weight: float = weight(1.0)
    ctrl_cost_weight: float = weight(0.1)
    impact_cost_weight: float = weight(0.5e-6)
    impact_cost_range: tuple[float, float] = interval(-math.inf, 10.0)
    reset_noise_scale: float = scale(1e-2)
    exclude_current_positions_from_observation: bool = flag(True)
    include_cinert_in_observation: bool = flag(True)
    include_cvel_in_observation: bool = flag(True)
    include_qfrc_actuator_in_observation: bool = flag(True)
    include_cfrc_ext_in_observation: bool = flag(True)


class HumanoidStandup(BatchTask):
    """Get up from the ground: 17 torques, each in [-0.4, 0.4]; 348 observations; 0.015 s a step.

        obs    = (qpos without the torso's x and y, qvel, cinert, cvel, qfrc_actuator, cfrc_ext)
        reward = z / 0.003 s - ctrl_cost_weight * |action|^2
                 - clip(impact_cost_weight * |cfrc_ext|^2, impact_cost_range) + 1

    z is the torso's height in m, and 0.003 s the simulator's time step, not the environment's. The last four parts of
    the observation are *as of one simulation step before the state*, because MuJoCo's derived fields lag behind by one;
    Gymnasium's do too. Never terminates, so the constant 1 buys nothing and `alive_bonus` is 0. The episode begins at
    the model's pose plus reset_noise_scale * U(-1, 1) on every position and velocity; contact forces are zero in its
    first observation.

    Source: Gymnasium v5 documentation, Humanoid Standup; Tassa, Erez and Todorov 2012, "Synthesis and stabilization of
    complex behaviors through online trajectory optimization".
    """

    task = "HumanoidStandup-v5"
    options_type = HumanoidStandupOptions
    least_sizes = (3, 6)
    options: HumanoidStandupOptions

    def prepare(self) -> None:
        options = self.options
        self._feels = options.include_cfrc_ext_in_observation or options.impact_cost_weight != 0
        observed = {
            "cinert": options.include_cinert_in_observation,
            "cvel": options.include_cvel_in_observation,
            "qfrc_actuator": options.include_qfrc_actuator_in_observation,
            "cfrc_ext": self._feels,
        }
        self.fields = ("ten_length", "ten_velocity", *(name for name, is_read in observed.items() if is_read))

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

    def judge(
        self, frame: Frame, actions: Floats, before: Floats, after: Floats, terms: Terms | None
    ) -> tuple[Floats, Flags]:
        options = self.options
        z = frame.phase[:, 2]
        up = z / self.model.opt.timestep
        ctrl_cost = options.ctrl_cost_weight * np.square(actions).sum(axis=1)
        impact_cost = np.zeros(len(actions))
        if self._feels:
            impact_cost = options.impact_cost_weight * np.square(frame.cfrc_ext).sum(axis=1)
        impact_cost = np.clip(impact_cost, *options.impact_cost_range)
        if terms is not None:
            terms.update(
                x_position=frame.phase[:, 0].copy(),
                y_position=frame.phase[:, 1].copy(),
                z_distance_from_origin=z - self.model.qpos0[2],
                tendon_length=frame.ten_length.copy(),
                tendon_velocity=frame.ten_velocity.copy(),
                reward_linup=up.copy(),
                reward_quadctrl=-ctrl_cost,
                reward_impact=-impact_cost,
            )
        return up - ctrl_cost - impact_cost + 1, np.zeros(len(actions), np.bool_)

    def begin(self, generator: np.random.Generator, qpos: Floats, qvel: Floats) -> None:
        noise = self.options.reset_noise_scale
        qpos += generator.uniform(-noise, noise, qpos.size)
        qvel += generator.uniform(-noise, noise, qvel.size)
