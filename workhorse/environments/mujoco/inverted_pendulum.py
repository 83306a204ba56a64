"""InvertedPendulum-v5: a cart balances one pole."""

from dataclasses import dataclass

import numpy as np

from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.model import Floats, Frame, Judged, Terms
from workhorse.environments.mujoco.task_options import TaskOptions, count, model_file, scale

__all__ = ["InvertedPendulum", "InvertedPendulumOptions"]


@dataclass(frozen=True, kw_only=True)
class InvertedPendulumOptions(TaskOptions):
    """Options of `TaskOptions`, and more.

    Attributes:
        reset_noise_scale: half-width of the noise on positions and velocities.
    """

    xml_file: str = model_file("inverted_pendulum.xml")
    frame_skip: int = count(2)
    reset_noise_scale: float = scale(0.01)


class InvertedPendulum(BatchTask):
    """Keep the pole up: 1 force in [-3, 3]; 4 observations; 0.04 s a step.

        obs    = (cart's position, pole's angle, their velocities)
        reward = 1 where the angle is within 0.2 rad of upright, else 0

    Terminates where the reward is 0. `alive_bonus` is 0, for survival is not a bonus here but all there is to earn:
    without it nothing would be left to learn from. The episode begins at the model's pose plus
    reset_noise_scale * U(-1, 1) on every position and velocity.

    Source: Gymnasium v5 documentation, Inverted Pendulum; Barto, Sutton and Anderson 1983, "Neuronlike adaptive
    elements that can solve difficult learning control problems". A non-finite state, which ends Gymnasium's episode as
    terminated, is a failure.
    """

    task = "InvertedPendulum-v5"
    options_type = InvertedPendulumOptions
    least_sizes = (2, 1)
    options: InvertedPendulumOptions

    def observe(self, frame: Frame) -> Floats:
        return frame.phase.copy()

    def judge(self, frame: Frame, actions: Floats, before: Floats, after: Floats, terms: Terms | None) -> Judged:
        terminated = np.abs(frame.phase[:, 1]) > 0.2
        reward = (~terminated).astype(np.float64)
        if terms is not None:
            terms.update(reward_survive=reward.copy())
        return reward, terminated
