"""HalfCheetah-v5: a planar cheetah runs; it cannot fall out of the task."""

from dataclasses import dataclass

import numpy as np

from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.model import Floats, Frame, Judged, Terms
from workhorse.environments.mujoco.task_options import TaskOptions, flag, model_file, scale, weight

__all__ = ["HalfCheetah", "HalfCheetahOptions"]


@dataclass(frozen=True, kw_only=True)
class HalfCheetahOptions(TaskOptions):
    """Options of `TaskOptions`, and more.

    Attributes:
        forward_reward_weight: reward a metre per second forward.
        ctrl_cost_weight: cost of a unit of squared action.
        reset_noise_scale: half-width of the noise on positions, standard deviation of that on velocities.
        exclude_current_positions_from_observation: leave the root's x out.
    """

    xml_file: str = model_file("half_cheetah.xml")
    forward_reward_weight: float = weight(1.0)
    ctrl_cost_weight: float = weight(0.1)
    reset_noise_scale: float = scale(0.1)
    exclude_current_positions_from_observation: bool = flag(True)


class HalfCheetah(BatchTask):
    """Run forward: 6 torques, each in [-1, 1]; 17 observations; 0.05 s a step.

        obs    = (qpos without the root's x, qvel)
        reward = forward_reward_weight * (x' - x) / 0.05 s - ctrl_cost_weight * |action|^2

    x is the root's position in m. Never terminates. The episode begins at the model's pose plus
    reset_noise_scale * U(-1, 1) on every position and reset_noise_scale * N(0, 1) on every velocity.

    Source: Gymnasium v5 documentation, HalfCheetah; Wawrzynski 2009, "A cat-like robot real-time learning to run".
    """

    task = "HalfCheetah-v5"
    options_type = HalfCheetahOptions
    normal_velocities = True
    options: HalfCheetahOptions

    def observe(self, frame: Frame) -> Floats:
        return frame.phase[:, int(self.options.exclude_current_positions_from_observation) :].copy()

    def position(self, frame: Frame) -> Floats:
        return frame.phase[:, 0].copy()

    def judge(self, frame: Frame, actions: Floats, before: Floats, after: Floats, terms: Terms | None) -> Judged:
        velocity = (after - before) / self.step_seconds
        forward = self.options.forward_reward_weight * velocity
        cost = self.options.ctrl_cost_weight * np.square(actions).sum(axis=1)
        if terms is not None:
            terms.update(x_position=after.copy(), x_velocity=velocity, reward_forward=forward, reward_ctrl=-cost)
        return forward - cost, np.zeros(len(actions), np.bool_)
