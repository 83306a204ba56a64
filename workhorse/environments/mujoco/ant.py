"""Ant-v5: a four-legged robot walks in space."""

from dataclasses import dataclass

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.model import Floats, Frame, Judged, Terms
from workhorse.environments.mujoco.task_options import TaskOptions, body, flag, interval, model_file, scale, weight

__all__ = ["Ant", "AntOptions"]


@dataclass(frozen=True, kw_only=True)
class AntOptions(TaskOptions):
    """Options of `TaskOptions`, and more.

    Attributes:
        forward_reward_weight: reward a metre per second forward.
        ctrl_cost_weight: cost of a unit of squared action.
        contact_cost_weight: cost of a unit of squared, clipped contact force.
        healthy_reward: reward a step spent healthy.
        main_body: the body whose speed is rewarded, by name or number.
        terminate_when_unhealthy: whether being unhealthy ends the episode.
        healthy_z_range: closed interval of the torso's height, m.
        contact_force_range: what contact forces are clipped to.
        reset_noise_scale: half-width of the noise on positions, standard deviation of that on velocities.
        exclude_current_positions_from_observation: leave the torso's x and y out.
        include_cfrc_ext_in_observation: observe the clipped contact forces on every body but the world.
    """

    xml_file: str = model_file("ant.xml")
    forward_reward_weight: float = weight(1.0)
    ctrl_cost_weight: float = weight(0.5)
    contact_cost_weight: float = weight(5e-4)
    healthy_reward: float = weight(1.0)
    main_body: int | str = body(1)
    terminate_when_unhealthy: bool = flag(True)
    healthy_z_range: tuple[float, float] = interval(0.2, 1.0)
    contact_force_range: tuple[float, float] = interval(-1.0, 1.0)
    reset_noise_scale: float = scale(0.1)
    exclude_current_positions_from_observation: bool = flag(True)
    include_cfrc_ext_in_observation: bool = flag(True)


class Ant(BatchTask):
    """Walk along x and stay up: 8 torques, each in [-1, 1]; 105 observations; 0.05 s a step.

        force   = clip(cfrc_ext, contact_force_range)
        obs     = (qpos without the torso's x and y, qvel, force on every body but the world)
        reward  = forward_reward_weight * (x' - x) / 0.05 s + healthy_reward * [healthy]
                  - ctrl_cost_weight * |action|^2 - contact_cost_weight * |force|^2
        healthy = the torso's height is inside its range

    x is the main body's position in m, *as of one simulation step before the state*, because MuJoCo's derived fields
    lag behind by one; Gymnasium's does too. Terminates where not healthy, if terminate_when_unhealthy. The episode
    begins at the model's pose plus reset_noise_scale * U(-1, 1) on every position and reset_noise_scale * N(0, 1) on
    every velocity; contact forces are zero in its first observation.

    Source: Gymnasium v5 documentation, Ant; Schulman et al. 2016, "High-dimensional continuous control using
    generalized advantage estimation". A non-finite state, which ends Gymnasium's episode as terminated, is a failure.
    """

    task = "Ant-v5"
    options_type = AntOptions
    normal_velocities = True
    least_sizes = (3, 1)
    options: AntOptions

    @property
    def alive_bonus(self) -> float:
        return self.options.healthy_reward

    def prepare(self) -> None:
        options = self.options
        self._feels = options.include_cfrc_ext_in_observation or options.contact_cost_weight != 0
        self.fields = ("xpos", "cfrc_ext") if self._feels else ("xpos",)
        try:
            self._main_body = self.model.body(options.main_body).id
        except (KeyError, IndexError):
            names = ", ".join(self.model.body(index).name for index in range(self.model.nbody))
            raise UsageError(
                f"Ant-v5.main_body must be one of the model's bodies ({names}), by name or by its number from 0 to "
                f"{self.model.nbody - 1}, got {options.main_body!r}."
            ) from None

    def contact_forces(self, frame: Frame) -> Floats:
        """Clipped forces and torques on every body, (n, nbody * 6)."""
        low, high = self.options.contact_force_range
        force = np.maximum(frame.cfrc_ext, low)
        return np.minimum(force, high, out=force)

    def observe(self, frame: Frame) -> Floats:
        phase = frame.phase[:, 2 * int(self.options.exclude_current_positions_from_observation) :]
        if not self.options.include_cfrc_ext_in_observation:
            return phase.copy()
        return np.concatenate((phase, self.contact_forces(frame)[:, 6:]), axis=1)

    def position(self, frame: Frame) -> Floats:
        return frame.xpos[:, self._main_body, :2].copy()

    def judge(self, frame: Frame, actions: Floats, before: Floats, after: Floats, terms: Terms | None) -> Judged:
        options = self.options
        velocity = (after - before) / self.step_seconds
        forward = velocity[:, 0] * options.forward_reward_weight
        low, high = options.healthy_z_range
        z = frame.phase[:, 2]
        healthy = (low <= z) & (z <= high)
        survive = healthy * options.healthy_reward
        ctrl_cost = options.ctrl_cost_weight * np.square(actions).sum(axis=1)
        contact_cost = np.zeros(len(actions))
        if self._feels:
            contact_cost = options.contact_cost_weight * np.square(self.contact_forces(frame)).sum(axis=1)
        if terms is not None:
            origin = frame.phase[:, :2]
            terms.update(
                x_position=origin[:, 0].copy(),
                y_position=origin[:, 1].copy(),
                distance_from_origin=np.linalg.norm(origin, axis=1),
                x_velocity=velocity[:, 0],
                y_velocity=velocity[:, 1],
                reward_forward=forward,
                reward_ctrl=-ctrl_cost,
                reward_contact=-contact_cost,
                reward_survive=survive,
            )
        return forward + survive - (ctrl_cost + contact_cost), ~healthy & options.terminate_when_unhealthy
