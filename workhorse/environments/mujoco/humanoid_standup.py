"""HumanoidStandup-v5: the humanoid, lying down, raises its head."""

import math
from dataclasses import dataclass

import numpy as np

from workhorse.environments.mujoco.humanoid_body import HumanoidBody, HumanoidBodyOptions
from workhorse.environments.mujoco.model import Floats, Frame, Judged, Terms
from workhorse.environments.mujoco.task_options import interval, model_file, weight

__all__ = ["HumanoidStandup", "HumanoidStandupOptions"]


@dataclass(frozen=True, kw_only=True)
class HumanoidStandupOptions(HumanoidBodyOptions):
    """Options of `HumanoidBodyOptions`, and more.

    Attributes:
        uph_cost_weight: without effect, as in Gymnasium v5, which accepts it and never reads it.
        impact_cost_weight: cost of a unit of squared contact force.
        impact_cost_range: what the impact cost is clipped to.
    """

    xml_file: str = model_file("humanoidstandup.xml")
    uph_cost_weight: float = weight(1.0)
    impact_cost_weight: float = weight(0.5e-6)
    impact_cost_range: tuple[float, float] = interval(-math.inf, 10.0)


class HumanoidStandup(HumanoidBody):
    """Get up from the ground, in the body of `HumanoidBody`.

        reward = z / 0.003 s - ctrl_cost_weight * |action|^2
                 - clip(impact_cost_weight * |cfrc_ext|^2, impact_cost_range) + 1

    z is the torso's height in m, and 0.003 s the simulator's time step, not the environment's. Never terminates, so the
    constant 1 buys nothing and `alive_bonus` is 0.
    """

    task = "HumanoidStandup-v5"
    options_type = HumanoidStandupOptions
    options: HumanoidStandupOptions

    def prepare(self) -> None:
        self.fields = self.body_fields(feels=self.options.impact_cost_weight != 0)

    def judge(self, frame: Frame, actions: Floats, before: Floats, after: Floats, terms: Terms | None) -> Judged:
        options = self.options
        z = frame.phase[:, 2]
        up = z / self.model.opt.timestep
        ctrl_cost = options.ctrl_cost_weight * np.square(actions).sum(axis=1)
        impact_cost = self.contact_cost(frame, options.impact_cost_weight, options.impact_cost_range)
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
