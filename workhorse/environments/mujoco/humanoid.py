"""Humanoid-v5: a 17-actuator humanoid walks without falling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from workhorse.environments.mujoco.batch_task import BatchTask, Flags, Floats, Frame, Terms
from workhorse.environments.mujoco.task_options import count, flag, interval, limit, model_file, scale, weight

__all__ = ["Humanoid", "HumanoidOptions"]


@dataclass(frozen=True, kw_only=True)
class HumanoidOptions:
    """Gymnasium's constructor options, by its names and with its defaults.

    Attributes:
        xml_file: the model.
        frame_skip: simulation steps an environment step.
        max_episode_steps: time limit in environment steps; None for none.
        forward_reward_weight: reward a metre per second forward.
        ctrl_cost_weight: cost of a unit of squared action.
        contact_cost_weight: cost of a unit of squared contact force.
        contact_cost_range: what the contact cost is clipped to.
        healthy_reward: reward a step spent healthy.
        terminate_when_unhealthy: whether being unhealthy ends the episode.
        healthy_z_range: open interval of the torso's height, m.
        reset_noise_scale: half-width of the noise on positions and velocities.
        exclude_current_positions_from_observation: leave the torso's x and y out.
        include_cinert_in_observation: observe every body's inertia about the centre of mass.
        include_cvel_in_observation: observe every body's velocity about the centre of mass.
        include_qfrc_actuator_in_observation: observe the actuators' torques on the joints.
        include_cfrc_ext_in_observation: observe the contact forces on every body but the world.
    """

    xml_file: str = model_file("humanoid.xml")
    frame_skip: int = count(5)
    max_episode_steps: int | None = limit(1000)
    forward_reward_weight: float = weight(1.25)
    ctrl_cost_weight: float = weight(0.1)
    contact_cost_weight: float = weight(5e-7)
    contact_cost_range: tuple[float, float] = interval(-math.inf, 10.0)
    healthy_reward: float = weight(5.0)
    terminate_when_unhealthy: bool = flag(True)
    healthy_z_range: tuple[float, float] = interval(1.0, 2.0)
    reset_noise_scale: float = scale(1e-2)
    exclude_current_positions_from_observation: bool = flag(True)
    include_cinert_in_observation: bool = flag(True)
    include_cvel_in_observation: bool = flag(True)
    include_qfrc_actuator_in_observation: bool = flag(True)
    include_cfrc_ext_in_observation: bool = flag(True)


class Humanoid(BatchTask):
    """Walk along x and stay up: 17 torques, each in [-0.4, 0.4]; 348 observations; 0.015 s a step.

        obs     = (qpos without the torso's x and y, qvel, cinert, cvel, qfrc_actuator, cfrc_ext)
        reward  = forward_reward_weight * (x' - x) / 0.015 s + healthy_reward * [healthy]
                  - ctrl_cost_weight * |action|^2 - clip(contact_cost_weight * |cfrc_ext|^2, contact_cost_range)
        healthy = the torso's height is strictly inside its range

    x is the centre of mass in m. It and the last four parts of the observation are *as of one simulation step before
    the state*, because MuJoCo's derived fields lag behind by one; Gymnasium's do too. The world's body and the six
    degrees of freedom of the root are left out of those parts. Terminates where not healthy, if
    terminate_when_unhealthy. The episode begins at the model's pose plus reset_noise_scale * U(-1, 1) on every position
    and velocity; contact forces are zero in its first observation.

    Source: Gymnasium v5 documentation, Humanoid; Tassa, Erez and Todorov 2012, "Synthesis and stabilization of complex
    behaviors through online trajectory optimization".
    """

    task = "Humanoid-v5"
    options_type = HumanoidOptions
    least_sizes = (3, 6)
    options: HumanoidOptions

    @property
    def alive_bonus(self) -> float:
        return self.options.healthy_reward

    def prepare(self) -> None:
        options = self.options
        self._feels = options.include_cfrc_ext_in_observation or options.contact_cost_weight != 0
        self._mass: Floats = self.model.body_mass.copy()
        self._total_mass = self._mass.sum()
        observed = {
            "cinert": options.include_cinert_in_observation,
            "cvel": options.include_cvel_in_observation,
            "qfrc_actuator": options.include_qfrc_actuator_in_observation,
            "cfrc_ext": self._feels,
        }
        self.fields = ("xipos", "ten_length", "ten_velocity", *(name for name, is_read in observed.items() if is_read))

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

    def position(self, frame: Frame) -> Floats:
        """The centre of mass, (n, 2)."""
        return np.einsum("b,nbj->nj", self._mass, frame.xipos)[:, :2] / self._total_mass

    def judge(
        self, frame: Frame, actions: Floats, before: Floats, after: Floats, terms: Terms | None
    ) -> tuple[Floats, Flags]:
        options = self.options
        velocity = (after - before) / self.step_seconds
        forward = options.forward_reward_weight * velocity[:, 0]
        low, high = options.healthy_z_range
        z = frame.phase[:, 2]
        healthy = (low < z) & (z < high)
        survive = healthy * options.healthy_reward
        ctrl_cost = options.ctrl_cost_weight * np.square(actions).sum(axis=1)
        contact_cost = np.zeros(len(actions))
        if self._feels:
            contact_cost = options.contact_cost_weight * np.square(frame.cfrc_ext).sum(axis=1)
        contact_cost = np.clip(contact_cost, *options.contact_cost_range)
        if terms is not None:
            origin = frame.phase[:, :2]
            terms.update(
                x_position=origin[:, 0].copy(),
                y_position=origin[:, 1].copy(),
                tendon_length=frame.ten_length.copy(),
                tendon_velocity=frame.ten_velocity.copy(),
                distance_from_origin=np.linalg.norm(origin, axis=1),
                x_velocity=velocity[:, 0],
                y_velocity=velocity[:, 1],
                reward_survive=survive,
                reward_forward=forward,
                reward_ctrl=-ctrl_cost,
                reward_contact=-contact_cost,
            )
        return forward + survive - (ctrl_cost + contact_cost), ~healthy & options.terminate_when_unhealthy

    def begin(self, generator: np.random.Generator, qpos: Floats, qvel: Floats) -> None:
        noise = self.options.reset_noise_scale
        qpos += generator.uniform(-noise, noise, qpos.size)
        qvel += generator.uniform(-noise, noise, qvel.size)
