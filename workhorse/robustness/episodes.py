"""Play one episode in every slot of a batch: the loop that floors and variations share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workhorse.environments.protocol import HostEnv

__all__ = ["Act", "Earned", "play"]

Act = Callable[[NDArray[np.float64], int, NDArray[np.intp]], tuple[np.ndarray, NDArray[np.bool_]]]
"""(observations of all slots, time, slots still playing) to the actions of those slots, and which of them the policy
cannot choose: their episodes end as broken."""


class Earned(NamedTuple):
    """Returns of episodes, one row each.

    Attributes:
        returns: undiscounted sums of raw rewards, (episodes,), up to the step in which the simulation broke, if it did.
        lengths: steps, (episodes,).
        broken: True where the simulation broke or the policy could not act on what it saw, (episodes,).
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    broken: NDArray[np.bool_]

    @staticmethod
    def zeros(count: int) -> Earned:
        """Return rows for `count` episodes that have not begun."""
        return Earned(np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.bool_))


def play(env: HostEnv, obs: np.ndarray, act: Act, limits: NDArray[np.int64]) -> Earned:
    """Step every slot until its episode ends or has had its limit of steps.

    Args:
        env: has just been reset.
        obs: what the reset returned, (B, D).
        act: chooses the actions.
        limits: most steps of each slot's episode, (B,).
    """
    count = len(obs)
    found, obs = Earned.zeros(count), np.array(obs, np.float64)
    living, time = np.arange(count), 0
    while len(living):
        actions, refused = act(obs, time, living)
        step = env.step(actions, living)
        time += 1
        found.returns[living] += np.where(refused, 0.0, step.reward)
        found.lengths[living] = time
        found.broken[living] = step.measures["failed"] | refused
        obs[living] = step.next_obs
        ended = step.terminated | step.truncated | refused | (time >= limits[living])
        if ended.any():
            living = living[~ended]
    return found
