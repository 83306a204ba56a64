"""InvertedDoublePendulum-v5: a cart balances two poles in a chain."""

from dataclasses import dataclass

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.model import Floats, Frame, Judged, Terms
from workhorse.environments.mujoco.task_options import TaskOptions, model_file, scale, weight

__all__ = ["InvertedDoublePendulum", "InvertedDoublePendulumOptions"]


@dataclass(frozen=True, kw_only=True)
class InvertedDoublePendulumOptions(TaskOptions):
    """Options of `TaskOptions`, and more.

    Attributes:
        healthy_reward: reward a step that does not terminate.
        reset_noise_scale: half-width of the noise on positions, standard deviation of that on velocities.
    """

    xml_file: str = model_file("inverted_double_pendulum.xml")
    healthy_reward: float = weight(10.0)
    reset_noise_scale: float = scale(0.1)


class InvertedDoublePendulum(BatchTask):
    """Keep the tip up: 1 force in [-1, 1]; 9 observations; 0.05 s a step.

        obs    = (cart's x, sin of both angles, cos of both angles, the 3 velocities and the cart's constraint force,
                  these four clipped to [-10, 10])
        reward = healthy_reward * [not terminated] - 0.01 tip_x^2 - (tip_z - 2)^2 - 0.001 v_1^2 - 0.005 v_2^2

    The tip, in m, and the constraint force are *as of one simulation step before the state*, because MuJoCo's derived
    fields lag behind by one; Gymnasium's are too. v are the poles' velocities, rad/s. Terminates where tip_z <= 1. The
    episode begins at the model's pose plus reset_noise_scale * U(-1, 1) on every position and
    reset_noise_scale * N(0, 1) on every velocity.

    Source: Gymnasium v5 documentation, Inverted Double Pendulum. Rewards differ from Gymnasium's by a few units in the
    last place at times: it squares scalars by pow, arrays are squared by a product.
    """

    task = "InvertedDoublePendulum-v5"
    options_type = InvertedDoublePendulumOptions
    normal_velocities = True
    least_sizes = (3, 3)
    fields = ("site_xpos", "qfrc_constraint")
    options: InvertedDoublePendulumOptions

    @property
    def alive_bonus(self) -> float:
        return self.options.healthy_reward

    def prepare(self) -> None:
        if self.model.nsite < 1:
            raise UsageError(
                f"InvertedDoublePendulum-v5.xml_file must have a site, the poles' tip, got none in "
                f"{self.options.xml_file!r}."
            )

    def observe(self, frame: Frame) -> Floats:
        nq = self.model.nq
        angle = frame.phase[:, 1:nq].copy()
        clipped = np.concatenate((frame.phase[:, nq:], frame.qfrc_constraint[:, :1]), axis=1)
        np.minimum(np.maximum(clipped, -10.0, out=clipped), 10.0, out=clipped)
        return np.concatenate((frame.phase[:, :1], np.sin(angle), np.cos(angle), clipped), axis=1)

    def judge(self, frame: Frame, actions: Floats, before: Floats, after: Floats, terms: Terms | None) -> Judged:
        nq = self.model.nq
        tip_x, tip_z = frame.site_xpos[:, 0, 0], frame.site_xpos[:, 0, 2]
        first, second = frame.phase[:, nq + 1], frame.phase[:, nq + 2]
        terminated = tip_z <= 1
        distance = 0.01 * tip_x**2 + (tip_z - 2) ** 2
        speed = 1e-3 * first**2 + 5e-3 * second**2
        survive = self.options.healthy_reward * ~terminated
        if terms is not None:
            terms.update(reward_survive=survive, distance_penalty=-distance, velocity_penalty=-speed)
        return survive - distance - speed, terminated
