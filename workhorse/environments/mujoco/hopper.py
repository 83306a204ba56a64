"""Hopper-v5: a one-legged planar robot hops without falling."""

import math
from dataclasses import dataclass

from workhorse.environments.mujoco.model import Flags, Floats
from workhorse.environments.mujoco.planar_walker import PlanarWalker, PlanarWalkerOptions
from workhorse.environments.mujoco.task_options import interval, model_file

__all__ = ["Hopper", "HopperOptions"]


@dataclass(frozen=True, kw_only=True)
class HopperOptions(PlanarWalkerOptions):
    """Options of `PlanarWalkerOptions`, and one more.

    Attributes:
        healthy_state_range: open interval of every position and velocity but the root's x and z.
    """

    xml_file: str = model_file("hopper.xml")
    healthy_state_range: tuple[float, float] = interval(-100.0, 100.0)
    healthy_z_range: tuple[float, float] = interval(0.7, math.inf)
    healthy_angle_range: tuple[float, float] = interval(-0.2, 0.2)


class Hopper(PlanarWalker):
    """Hop forward and stay up: 3 torques, each in [-1, 1]; 11 observations; a `PlanarWalker`.

    healthy = z, pitch and all other positions and velocities are strictly inside their ranges
    """

    task = "Hopper-v5"
    options_type = HopperOptions
    options: HopperOptions

    def is_healthy(self, phase: Floats) -> Flags:
        low, high = self.options.healthy_state_range
        healthy, rest = self.is_upright(phase), phase[:, 2:]
        if low < rest.min(initial=math.inf) and rest.max(initial=-math.inf) < high:  # all slots at once, as a rule
            return healthy
        return healthy & ((low < rest) & (rest < high)).all(axis=1)
