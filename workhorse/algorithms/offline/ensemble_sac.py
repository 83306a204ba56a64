"""SAC with any number of critics, which is what edac and rlpd have in common."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from workhorse.algorithms.actor_critic.sac import SAC, SACState
from workhorse.algorithms.offline.log_learner import LogLearner
from workhorse.algorithms.replay_learner import ADAM, adam_step
from workhorse.core.algorithm import Key, Metrics, State
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.networks.ensemble import Ensemble

__all__ = ["EnsembleSAC"]


@configuration
class EnsembleSAC(LogLearner, SAC):
    """SAC whose target is the smallest value of `num_critics` target critics, and whose policy climbs the smallest.

    `critics` and `targets` of its state are ensembles.
    """

    num_critics: int = 10
    """Critics."""
    layer_norm: bool = False
    """Normalise hidden units of critics over the layer."""

    def validate(self) -> None:
        super().validate()
        if self.num_critics < 2:
            raise UsageError(f"{type(self).__name__}.num_critics must be at least 2: got {self.num_critics}.")

    def init(self, key: Key) -> SACState:
        begun = SAC.init(self, key)
        sizes = (self.spec.observation.size + self.action_size, *self.hidden, 1)
        critics: Any = Ensemble.uniform(jax.random.fold_in(key, 1), self.num_critics, sizes, self.layer_norm)
        of_policy, _, of_temperature = begun.optimisers
        return begun._replace(
            critics=critics, targets=critics, optimisers=(of_policy, ADAM.init(critics), of_temperature)
        )

    def pessimistic(self, critics: Any, obs: Float[Array, "N D"], action: Float[Array, "N A"]) -> Float[Array, "N"]:
        return critics.values(obs, action).min(0)

    def regulariser(
        self, critics: Ensemble, obs: Float[Array, "N D"], action: Float[Array, "N A"]
    ) -> tuple[Float[Array, ""], Metrics]:
        """Return what the critics' step lowers beside their squared errors, nothing here, and metrics of it."""
        return jnp.zeros((), jnp.float32), {}

    def _critics(
        self, state: State, obs: Array, action: Array, target: Array, weight: Array
    ) -> tuple[Any, Any, Float[Array, "N"], Metrics]:
        """Return the critics after a step, the optimiser's memory, each transition's mean error, and metrics."""

        def loss(critics: Ensemble) -> tuple[Array, tuple[Array, Metrics]]:
            value = critics.values(obs, action)
            beside, metrics = self.regulariser(critics, obs, action)
            return (weight * jnp.square(value - target)).mean(1).sum() + beside, (value, metrics)

        gradient, (value, metrics) = jax.grad(loss, has_aux=True)(state.critics)
        critics, memory = adam_step(state.critics, gradient, state.optimisers[1], self.learning_rate)
        metrics |= {
            "value": value.mean(), "value_max": value.max(), "target": target.mean(),
            "critic_loss": jnp.square(value - target).mean(), "critic_gradient_norm": optax.tree.norm(gradient),
            "critic_spread": value.std(0).mean(),
        }  # fmt: skip
        return critics, memory, jnp.abs(value - target).mean(0), metrics
