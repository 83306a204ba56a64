"""Swimmer-v5: a three-link chain swims in a viscous plane."""

from dataclasses import dataclass

import numpy as np

from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.model import Floats, Frame, Judged, Terms
from workhorse.environments.mujoco.task_options import TaskOptions, count, flag, model_file, scale, weight

__all__ = ["Swimmer", "SwimmerOptions"]


@dataclass(frozen=True, kw_only=True)
class SwimmerOptions(TaskOptions):
    """Options of `TaskOptions`, and more.

    Attributes:
        forward_reward_weight: reward a metre per second forward.
        ctrl_cost_weight: cost of a unit of squared action.
        reset_noise_scale: half-width of the noise on positions and velocities.
        exclude_current_positions_from_observation: leave the front tip's x and y out.
    """

    xml_file: str = model_file("swimmer.xml")
    frame_skip: int = count(4)
    forward_reward_weight: float = weight(1.0)
    ctrl_cost_weight: float = weight(1e-4)
    reset_noise_scale: float = scale(0.1)
    exclude_current_positions_from_observation: bool = flag(True)


class Swimmer(BatchTask):
    """Swim along x: 2 torques, each in [-1, 1]; 8 observations; 0.04 s a step.

        obs    = (qpos without the front tip's x and y, qvel)
        reward = forward_reward_weight * (x' - x) / 0.04 s - ctrl_cost_weight * |action|^2

    x is the front tip's position in m. Never terminates. The episode begins at the model's pose plus
    reset_noise_scale * U(-1, 1) on every position and velocity.

    Source: Gymnasium v5 documentation, Swimmer; Coulom 2002, "Reinforcement learning using neural networks, with
    applications to motor control".
    """

    task = "Swimmer-v5"
    options_type = SwimmerOptions
    least_sizes = (2, 1)
    options: SwimmerOptions

    def observe(self, frame: Frame) -> Floats:
        return frame.phase[:, 2 * int(self.options.exclude_current_positions_from_observation) :].copy()

    def position(self, frame: Frame) -> Floats:
        return frame.phase[:, :2].copy()

    def judge(self, frame: Frame, actions: Floats, before: Floats, after: Floats, terms: Terms | None) -> Judged:
        velocity = (after - before) / self.step_seconds
        forward = self.options.forward_reward_weight * velocity[:, 0]
        cost = self.options.ctrl_cost_weight * np.square(actions).sum(axis=1)
        if terms is not None:
            terms.update(
                x_position=after[:, 0].copy(),
                y_position=after[:, 1].copy(),
                distance_from_origin=np.linalg.norm(after, axis=1),
                x_velocity=velocity[:, 0],
                y_velocity=velocity[:, 1],
                reward_forward=forward,
                reward_ctrl=-cost,
            )
        return forward - cost, np.zeros(len(actions), np.bool_)
