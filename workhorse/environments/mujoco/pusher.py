"""Pusher-v5: a seven-joint arm pushes a cylinder to a goal."""

from dataclasses import dataclass

import numpy as np

from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.model import Floats, Frame, Judged, Terms
from workhorse.environments.mujoco.task_options import TaskOptions, limit, model_file, weight

__all__ = ["Pusher", "PusherOptions"]


@dataclass(frozen=True, kw_only=True)
class PusherOptions(TaskOptions):
    """Options of `TaskOptions`, and more.

    Attributes:
        reward_near_weight: cost of a metre between fingertip and cylinder.
        reward_dist_weight: cost of a metre between cylinder and goal.
        reward_control_weight: cost of a unit of squared action.
    """

    xml_file: str = model_file("pusher_v5.xml")
    max_episode_steps: int | None = limit(100)
    reward_near_weight: float = weight(0.5)
    reward_dist_weight: float = weight(1.0)
    reward_control_weight: float = weight(0.1)


class Pusher(BatchTask):
    """Push the cylinder to the goal: 7 torques, each in [-2, 2]; 23 observations; 0.05 s a step.

        obs    = (the arm's 7 angles, their velocities, fingertip, cylinder, goal: three coordinates each, m)
        reward = - reward_dist_weight * |cylinder - goal| - reward_control_weight * |action|^2
                 - reward_near_weight * |cylinder - fingertip|

    Positions of bodies are *as of one simulation step before the state*, because MuJoCo's derived fields lag behind by
    one; Gymnasium's are too. Never terminates. The episode begins with the arm at the model's pose, its velocities
    U(-0.005, 0.005), the goal at its place, and the cylinder at rest at (U(-0.3, 0), U(-0.2, 0.2)) m from the goal,
    drawn again until it is more than 0.17 m away.

    Source: Gymnasium v5 documentation, Pusher.
    """

    task = "Pusher-v5"
    options_type = PusherOptions
    least_sizes = (11, 11)
    bodies = ("tips_arm", "object", "goal")
    fields = ("xpos",)
    options: PusherOptions

    def prepare(self) -> None:
        self._tip, self._object, self._goal = (self.model.body(name).id for name in self.bodies)

    def observe(self, frame: Frame) -> Floats:
        nq, phase, xpos = self.model.nq, frame.phase, frame.xpos
        return np.concatenate(
            (phase[:, :7], phase[:, nq : nq + 7], xpos[:, self._tip], xpos[:, self._object], xpos[:, self._goal]),
            axis=1,
        )

    def judge(self, frame: Frame, actions: Floats, before: Floats, after: Floats, terms: Terms | None) -> Judged:
        options = self.options
        to_tip = frame.xpos[:, self._object] - frame.xpos[:, self._tip]
        to_goal = frame.xpos[:, self._object] - frame.xpos[:, self._goal]
        near = -np.sqrt(np.vecdot(to_tip, to_tip)) * options.reward_near_weight
        dist = -np.sqrt(np.vecdot(to_goal, to_goal)) * options.reward_dist_weight
        ctrl = -np.square(actions).sum(axis=1) * options.reward_control_weight
        if terms is not None:
            terms.update(reward_dist=dist, reward_ctrl=ctrl, reward_near=near)
        return dist + ctrl + near, np.zeros(len(actions), np.bool_)

    def begin(self, generator: np.random.Generator, qpos: Floats, qvel: Floats) -> None:
        cylinder = np.zeros(2)
        while np.linalg.norm(cylinder) <= 0.17:
            cylinder = np.array([generator.uniform(-0.3, 0.0), generator.uniform(-0.2, 0.2)])
        qpos[-4:-2] = cylinder
        qpos[-2:] = 0
        qvel += generator.uniform(-0.005, 0.005, qvel.size)
        qvel[-4:] = 0
