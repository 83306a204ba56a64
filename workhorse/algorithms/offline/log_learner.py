"""Base of every algorithm that learns from a log: actions in [-1, 1], observations scaled by what the log holds."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from workhorse.algorithms.replay_learner import ReplayLearner
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError

__all__ = ["LogLearner"]


@configuration
class LogLearner(ReplayLearner):
    """Settings of algorithms that learn from a log, by `workhorse offline LOG`.

    Before the first update the loop shows the whole log to `observe` once: the moments in it are those of every
    observation that is learnt from, and stay. The policy artefact holds them. The options about acting (`num_envs` to
    `replay_capacity`) have an effect only where a run goes on in the task, with `workhorse train --log`.
    """

    needs_log: ClassVar[bool] = True

    normalise_observations: bool = True
    """Centre and scale observations by the moments of those in the log."""
    log_share: float = 0.5
    """Share of each batch that is drawn from the log, where a run goes on in the task."""

    def validate(self) -> None:
        super().validate()
        if not 0 <= self.log_share <= 1:
            raise UsageError(f"{type(self).__name__}.log_share must be in [0, 1]: got {self.log_share}.")

    def row_weights(
        self, episode_returns: Float[np.ndarray, "E"], lengths: Int[np.ndarray, "E"]
    ) -> Float[np.ndarray, "E"] | None:
        """Return a weight of each of the log's episodes, those with weight 0 are not learnt from; None to use all.

        The loop asks once, before training, about the episodes that are not held out.

        Args:
            episode_returns: undiscounted.
            lengths: steps.
        """
        return None
