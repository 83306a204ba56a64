"""Base of Hopper and Walker2d: a planar robot with legs moves forward and must not fall."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.model import Flags, Floats, Frame, Judged, Terms
from workhorse.environments.mujoco.task_options import TaskOptions, count, flag, scale, weight

__all__ = ["PlanarWalker", "PlanarWalkerOptions"]


@dataclass(frozen=True, kw_only=True)
class PlanarWalkerOptions(TaskOptions):
    """Options of `TaskOptions`, and more.

    Attributes:
        forward_reward_weight: reward a metre per second forward.
        ctrl_cost_weight: cost of a unit of squared action.
        healthy_reward: reward a step spent healthy.
        terminate_when_unhealthy: whether being unhealthy ends the episode.
        healthy_z_range: open interval of the torso's height, m.
        healthy_angle_range: open interval of the torso's pitch, rad.
        reset_noise_scale: half-width of the noise on positions and velocities.
        exclude_current_positions_from_observation: leave the root's x out.
    """

    frame_skip: int = count(4)
    forward_reward_weight: float = weight(1.0)
    ctrl_cost_weight: float = weight(1e-3)
    healthy_reward: float = weight(1.0)
    terminate_when_unhealthy: bool = flag(True)
    healthy_z_range: tuple[float, float]
    healthy_angle_range: tuple[float, float]
    reset_noise_scale: float = scale(5e-3)
    exclude_current_positions_from_observation: bool = flag(True)


class PlanarWalker(BatchTask):
    """Move forward and stay up, in 0.008 s a step.

        obs     = (qpos without the root's x, qvel clipped to [-10, 10])
        reward  = forward_reward_weight * (x' - x) / 0.008 s + healthy_reward * [healthy]
                  - ctrl_cost_weight * |action|^2

    x is the root's position in m. Terminates where not healthy, if terminate_when_unhealthy. The episode begins at the
    model's pose plus reset_noise_scale * U(-1, 1) on every position and velocity.

    Source: Gymnasium v5 documentation; Erez, Tassa and Todorov 2011, "Infinite-horizon model predictive control for
    periodic tasks with contacts".
    """

    least_sizes = (3, 1)
    options: PlanarWalkerOptions

    @abstractmethod
    def is_healthy(self, phase: Floats) -> Flags:
        """Tell which slots have not fallen."""

    def is_upright(self, phase: Floats) -> Flags:
        """Tell in which slots the torso's height and pitch are strictly inside their ranges."""
        low_z, high_z = self.options.healthy_z_range
        low_angle, high_angle = self.options.healthy_angle_range
        z, angle = phase[:, 1], phase[:, 2]
        return (low_z < z) & (z < high_z) & (low_angle < angle) & (angle < high_angle)

    @property
    def alive_bonus(self) -> float:
        return self.options.healthy_reward

    def observe(self, frame: Frame) -> Floats:
        first = int(self.options.exclude_current_positions_from_observation)
        obs = frame.phase[:, first:].copy()
        velocity = obs[:, self.model.nq - first :]
        np.minimum(np.maximum(velocity, -10.0, out=velocity), 10.0, out=velocity)
        return obs

    def position(self, frame: Frame) -> Floats:
        return frame.phase[:, 0].copy()

    def judge(self, frame: Frame, actions: Floats, before: Floats, after: Floats, terms: Terms | None) -> Judged:
        options = self.options
        velocity = (after - before) / self.step_seconds
        forward = options.forward_reward_weight * velocity
        healthy = self.is_healthy(frame.phase)
        survive = healthy * options.healthy_reward
        cost = options.ctrl_cost_weight * np.square(actions).sum(axis=1)
        if terms is not None:
            terms.update(
                x_position=after.copy(),
                z_distance_from_origin=frame.phase[:, 1] - self.model.qpos0[1],
                x_velocity=velocity,
                reward_forward=forward,
                reward_ctrl=-cost,
                reward_survive=survive,
            )
        return forward + survive - cost, ~healthy & options.terminate_when_unhealthy
