"""Reacher-v5: a two-link arm reaches a random point."""

from dataclasses import dataclass

import numpy as np

from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.model import Floats, Frame, Judged, Terms
from workhorse.environments.mujoco.task_options import TaskOptions, count, limit, model_file, weight

__all__ = ["Reacher", "ReacherOptions"]


@dataclass(frozen=True, kw_only=True)
class ReacherOptions(TaskOptions):
    """Options of `TaskOptions`, and more.

    Attributes:
        reward_dist_weight: cost of a metre between fingertip and target.
        reward_control_weight: cost of a unit of squared action.
    """

    xml_file: str = model_file("reacher.xml")
    frame_skip: int = count(2)
    max_episode_steps: int | None = limit(50)
    reward_dist_weight: float = weight(1.0)
    reward_control_weight: float = weight(1.0)


class Reacher(BatchTask):
    """Bring the fingertip to the target: 2 torques, each in [-1, 1]; 10 observations; 0.02 s a step.

        gap    = fingertip - target, m
        obs    = (cos of both joints, sin of both joints, target's x and y, both joints' velocities, gap's x and y)
        reward = - reward_dist_weight * |gap| - reward_control_weight * |action|^2

    The gap is *as of one simulation step before the state*, because MuJoCo's derived fields lag behind by one;
    Gymnasium's does too. Never terminates. The episode begins with joints at the model's pose plus U(-0.1, 0.1), joint
    velocities U(-0.005, 0.005), and the target uniform in the disc of radius 0.2 m.

    Source: Gymnasium v5 documentation, Reacher.
    """

    task = "Reacher-v5"
    options_type = ReacherOptions
    least_sizes = (4, 4)
    bodies = ("fingertip", "target")
    fields = ("xpos",)
    options: ReacherOptions

    def prepare(self) -> None:
        self._fingertip, self._target = (self.model.body(name).id for name in self.bodies)

    def observe(self, frame: Frame) -> Floats:
        nq = self.model.nq
        angle = frame.phase[:, :2].copy()
        gap = frame.xpos[:, self._fingertip, :2] - frame.xpos[:, self._target, :2]
        return np.concatenate(
            (np.cos(angle), np.sin(angle), frame.phase[:, 2:nq], frame.phase[:, nq : nq + 2], gap), axis=1
        )

    def judge(self, frame: Frame, actions: Floats, before: Floats, after: Floats, terms: Terms | None) -> Judged:
        gap = frame.xpos[:, self._fingertip] - frame.xpos[:, self._target]
        dist = -np.sqrt(np.vecdot(gap, gap)) * self.options.reward_dist_weight
        ctrl = -np.square(actions).sum(axis=1) * self.options.reward_control_weight
        if terms is not None:
            terms.update(reward_dist=dist, reward_ctrl=ctrl)
        return dist + ctrl, np.zeros(len(actions), np.bool_)

    def begin(self, generator: np.random.Generator, qpos: Floats, qvel: Floats) -> None:
        qpos += generator.uniform(-0.1, 0.1, qpos.size)
        goal = generator.uniform(-0.2, 0.2, 2)
        while np.linalg.norm(goal) >= 0.2:
            goal = generator.uniform(-0.2, 0.2, 2)
        qpos[-2:] = goal
        qvel += generator.uniform(-0.005, 0.005, qvel.size)
        qvel[-2:] = 0
