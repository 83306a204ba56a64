"""Reinforcement learning with prior data: SAC that acts in the task and draws half of each batch from a log."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.algorithms.offline.ensemble_sac import EnsembleSAC
from workhorse.core.algorithm import Key, State
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.types import Transitions

__all__ = ["RLPD"]


@configuration
class RLPD(EnsembleSAC):
    """SAC with many normalised critics and many updates a step, half of each batch from a log.

        y = r + gamma (1 - terminated) (min_{i in Z} Q'_i(s', a') - alpha log pi(a'|s')),   a' ~ pi(.|s'),  |Z| = 2
        critics:  mean (Q_i(s, a) - y)^2, summed over i
        policy:   mean (alpha log pi(a|s) - mean_i Q_i(s, a)),   a ~ pi(.|s), in every `policy_every`-th update

    Z is drawn anew for every update. The hidden units of critics are normalised over the layer, which keeps values of
    actions that nobody has tried within bounds; nothing else holds the policy to the log.

    It is for `workhorse train TASK --log LOG`. On a log alone it is the naive way with better critics.

    Source: Ball et al. 2023, "Efficient online reinforcement learning with offline data" (arXiv 2302.02948).
    """

    name = "rlpd"
    summary = "SAC in the task with many critics and updates, half of each batch from a log"

    layer_norm: bool = True
    """Normalise hidden units of critics over the layer."""
    num_smallest: int = 2
    """Target critics, drawn anew for every update, of which the smallest value is taken."""
    entropy_backup: bool = True
    """Count the entropy of the successor's action in the target."""
    target_entropy: float | None = None
    """Entropy H* of the policy, in nats, that the temperature steers to; None for minus half the components."""
    replay_ratio: float = 5120.0
    """Samples trained on for each environment step after the warm-up, whatever the number of slots."""
    policy_every: int = 20
    """Updates of the critics for one of the policy and the temperature."""
    normalise_observations: bool = False
    """Centre and scale observations by the moments of those in the log."""

    def validate(self) -> None:
        super().validate()
        if not 1 <= self.num_smallest <= self.num_critics:
            raise UsageError(
                f"RLPD.num_smallest must be from 1 to num_critics, here {self.num_critics}: got {self.num_smallest}."
            )

    @property
    def wanted_entropy(self) -> Float[Array, ""]:
        return jnp.asarray(-0.5 * self.action_size if self.target_entropy is None else self.target_entropy, jnp.float32)

    def climbed(self, critics: Any, obs: Float[Array, "N D"], action: Float[Array, "N A"]) -> Float[Array, "N"]:
        """Return the mean of all critics' values, which the policy climbs."""
        return critics.values(obs, action).mean(0)

    def target(
        self, state: State, experience: Transitions, next_obs: Float[Array, "N D"], key: Key
    ) -> Float[Array, "N"]:
        """Return y, from scaled successors and some of the target critics."""
        some = jax.random.permutation(jax.random.fold_in(key, 1), self.num_critics)[: self.num_smallest]
        state = state._replace(targets=state.targets.members(some))
        if not self.entropy_backup:
            state = state._replace(log_temperature=jnp.float32(-jnp.inf))
        return super().target(state, experience, next_obs, key)

    def entropy_bonus(self, state: State, obs: Array, key: Key) -> Float[Array, ""]:
        return super().entropy_bonus(state, obs, key) if self.entropy_backup else jnp.zeros((), jnp.float32)
