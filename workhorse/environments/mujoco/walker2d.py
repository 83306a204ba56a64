"""Walker2d-v5: a two-legged planar robot walks without falling."""

from dataclasses import dataclass

from workhorse.environments.mujoco.model import Flags, Floats
from workhorse.environments.mujoco.planar_walker import PlanarWalker, PlanarWalkerOptions
from workhorse.environments.mujoco.task_options import interval, model_file

__all__ = ["Walker2d", "Walker2dOptions"]


@dataclass(frozen=True, kw_only=True)
class Walker2dOptions(PlanarWalkerOptions):
    """Options of `PlanarWalkerOptions`."""

    xml_file: str = model_file("walker2d_v5.xml")
    healthy_z_range: tuple[float, float] = interval(0.8, 2.0)
    healthy_angle_range: tuple[float, float] = interval(-1.0, 1.0)


class Walker2d(PlanarWalker):
    """Walk forward and stay up: 6 torques, each in [-1, 1]; 17 observations; a `PlanarWalker`.

    healthy = z and pitch are strictly inside their ranges
    """

    task = "Walker2d-v5"
    options_type = Walker2dOptions
    options: Walker2dOptions

    def is_healthy(self, phase: Floats) -> Flags:
        return self.is_upright(phase)
