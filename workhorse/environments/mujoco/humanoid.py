"""Humanoid-v5: a 17-actuator humanoid walks without falling."""

import math
from dataclasses import dataclass

import numpy as np

from workhorse.environments.mujoco.humanoid_body import HumanoidBody, HumanoidBodyOptions
from workhorse.environments.mujoco.model import Floats, Frame, Judged, Terms
from workhorse.environments.mujoco.task_options import flag, interval, model_file, weight

__all__ = ["Humanoid", "HumanoidOptions"]


@dataclass(frozen=True, kw_only=True)
class HumanoidOptions(HumanoidBodyOptions):
    """Options of `HumanoidBodyOptions`, and more.

    Attributes:
        forward_reward_weight: reward a metre per second forward.
        contact_cost_weight: cost of a unit of squared contact force.
        contact_cost_range: what the contact cost is clipped to.
        healthy_reward: reward a step spent healthy.
        terminate_when_unhealthy: whether being unhealthy ends the episode.
        healthy_z_range: open interval of the torso's height, m.
    """

    xml_file: str = model_file("humanoid.xml")
    forward_reward_weight: float = weight(1.25)
    contact_cost_weight: float = weight(5e-7)
    contact_cost_range: tuple[float, float] = interval(-math.inf, 10.0)
    healthy_reward: float = weight(5.0)
    terminate_when_unhealthy: bool = flag(True)
    healthy_z_range: tuple[float, float] = interval(1.0, 2.0)


class Humanoid(HumanoidBody):
    """Walk along x and stay up, in the body of `HumanoidBody`.

        reward  = forward_reward_weight * (x' - x) / 0.015 s + healthy_reward * [healthy]
                  - ctrl_cost_weight * |action|^2 - clip(contact_cost_weight * |cfrc_ext|^2, contact_cost_range)
        healthy = the torso's height is strictly inside its range

    x is the centre of mass in m, *as of one simulation step before the state*. Terminates where not healthy, if
    terminate_when_unhealthy.
    """

    task = "Humanoid-v5"
    options_type = HumanoidOptions
    options: HumanoidOptions

    @property
    def alive_bonus(self) -> float:
        return self.options.healthy_reward

    def prepare(self) -> None:
        self._mass: Floats = self.model.body_mass.copy()
        self._total_mass = self._mass.sum()
        self.fields = ("xipos", *self.body_fields(feels=self.options.contact_cost_weight != 0))

    def position(self, frame: Frame) -> Floats:
        """Return the centre of mass, (n, 2)."""
        return np.einsum("b,nbj->nj", self._mass, frame.xipos)[:, :2] / self._total_mass

    def judge(self, frame: Frame, actions: Floats, before: Floats, after: Floats, terms: Terms | None) -> Judged:
        options = self.options
        velocity = (after - before) / self.step_seconds
        forward = options.forward_reward_weight * velocity[:, 0]
        low, high = options.healthy_z_range
        z = frame.phase[:, 2]
        healthy = (low < z) & (z < high)
        survive = healthy * options.healthy_reward
        ctrl_cost = options.ctrl_cost_weight * np.square(actions).sum(axis=1)
        contact_cost = self.contact_cost(frame, options.contact_cost_weight, options.contact_cost_range)
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
