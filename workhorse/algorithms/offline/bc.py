"""Behaviour cloning: do what the log did."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from workhorse.algorithms.offline.cloner import ClonedPolicy, Cloner
from workhorse.algorithms.replay_learner import ADAM
from workhorse.core.algorithm import Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.types import Moments, Transitions

__all__ = ["BC"]


class BCState(NamedTuple):
    """The whole state.

    Attributes:
        policy: that is taught.
        optimiser: its memory.
        observations, env_steps, updates: see `ReplayLearner`.
    """

    policy: ClonedPolicy
    optimiser: Any
    observations: Moments
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


@configuration
class BC(Cloner):
    """Supervised learning of the log's actions, of all of its episodes or of the best ones alone.

        policy:  mean l(s, a)

    with l of `Cloner`: the squared distance |tanh f(s) - a|^2 / A, or the cross entropy of choices. No reward is read,
    but for the choice of episodes: with `top_share` p it learns from the ceil(p E) of E episodes that returned most.

    Source: Pomerleau 1991, "Efficient training of artificial neural networks for autonomous navigation"; the best tenth
    as in Chen et al. 2021, "Decision transformer" (arXiv 2106.01345).
    """

    name = "bc"
    summary = "behaviour cloning: do what the log did"
    presets = {
        "filtered-bc": ("behaviour cloning of the best tenth of the log's episodes", {"top_share": 0.1}),
    }

    top_share: float = 1.0
    """Share of the log's episodes, those that returned most, that is learnt from."""

    def validate(self) -> None:
        super().validate()
        if not 0 < self.top_share <= 1:
            raise UsageError(f"BC.top_share must be in (0, 1]: got {self.top_share}.")

    def row_weights(
        self, episode_returns: Float[np.ndarray, "E"], lengths: Int[np.ndarray, "E"]
    ) -> Float[np.ndarray, "E"] | None:
        """Return 1 for the episodes that returned most, the earlier of equals, and 0 for the others."""
        if self.top_share == 1:
            return None
        count = math.ceil(self.top_share * len(episode_returns))
        weights = np.zeros(len(episode_returns))
        weights[np.argsort(-np.asarray(episode_returns), kind="stable")[:count]] = 1.0
        return weights

    def init(self, key: Key) -> BCState:
        policy = self.new_policy(key)
        return BCState(policy, ADAM.init(policy), **self.counters())  # type: ignore[arg-type]

    def learn(self, state: BCState, experience: Transitions, key: Key) -> tuple[BCState, Float[Array, "N"], Metrics]:
        """Do one update on a batch; no randomness is needed, and a row's priority is its loss."""
        obs, _ = self.both_seen(state, experience)
        policy, memory, losses, metrics = self.taught(
            state.policy, state.optimiser, obs, experience.action, experience.weight, self.learning_rate
        )
        after = state._replace(policy=policy, optimiser=memory, updates=state.updates + 1)
        return after, jnp.abs(losses), metrics
