"""REINFORCE: the score of every action times the return that followed it, less a baseline or not."""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.algorithms.policy_gradient.batch import Batch, GradientState
from workhorse.algorithms.policy_gradient.policy_gradient import PolicyGradient
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.types import Moments, Rollout
from workhorse.networks.actor_critic import ActorCritic

__all__ = ["Reinforce"]


@configuration
class Reinforce(PolicyGradient):
    """One step of the optimiser along the score-function gradient of every rollout.

    The loss is  -E[log pi(a | o) (G - b)] + E[(V - G)^2] / 2, with G the discounted rewards to the end of the episode
    and b = V(o) with `learned_baseline`, else b = 0.

    With the baseline, an episode that the clock or the end of the rollout cut is completed by the value of what came
    next. Without one nothing is known of what came next: *steps of an episode that did not end within the rollout are
    not learnt from*, and the clock counts as an end, so that returns are those of the episode as it was. Make
    `rollout_steps` several episodes long; a rollout in which no episode ended moves nothing.

    Source: Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning".
    """

    name = "reinforce"
    summary = "scores of actions times the return that followed"

    num_envs: int = 8
    """Slots trained on, side by side."""
    rollout_steps: int = 512
    """Steps of each slot an iteration."""
    learning_rate: float = 1e-3
    """Step size of the optimiser, before annealing."""
    measure_gradients: bool = False
    """Measure how far parts of the rollout agree on the gradient: *half as much again as the one step there is*."""
    trace: float = 1.0
    """Weight of later errors in an advantage, lambda: 1, for returns are whole here; nothing else is allowed."""
    learned_baseline: bool = True
    """Take a learned value off the return, which leaves the gradient's mean and lowers its variance."""
    normalise_advantages: Literal["minibatch", "batch", "none"] = "batch"
    """Centre what weighs the scores, which is a constant baseline, and divide by its standard deviation: in the rollout
    (either word), or not."""

    def validate(self) -> None:
        super().validate()
        if self.trace != 1:
            raise UsageError(
                f"Reinforce.trace must be 1, for its returns are whole: got {self.trace}. Leave it out, or take a2c."
            )

    def batch(self, state: GradientState, rollout: Rollout) -> tuple[Batch, Moments, Float[Array, "B"]]:
        if self.learned_baseline:
            found, sums, so_far = super().batch(state, rollout)
            return found._replace(advantage=found.monte_carlo - found.value, target=found.monte_carlo), sums, so_far
        ends = rollout._replace(terminated=rollout.terminated | rollout.truncated)  # nothing is known of what follows
        found, sums, so_far = super().batch(state, ends)
        weight = jnp.flip(jnp.cumsum(jnp.flip(ends.terminated, 0), 0), 0) > 0  # an end is still to come
        return (
            found._replace(advantage=found.monte_carlo, target=found.monte_carlo, weight=weight.astype(jnp.float32)),
            sums,
            so_far,
        )

    def improve(
        self, state: GradientState, batch: Batch, rate: Float[Array, ""], key: Key
    ) -> tuple[ActorCritic, Any, dict[str, Array]]:
        params, optimiser, metrics = self.descend(
            self.batch_loss, state.params, state.optimiser, self.arranged(batch), rate
        )
        if self.learned_baseline:
            return params, optimiser, metrics
        anything = batch.weight.sum() > 0  # else Adam's memory alone would move the policy
        before = (state.params, state.optimiser)
        params, optimiser = jax.tree.map(partial(jnp.where, anything), (params, optimiser), before)
        return params, optimiser, metrics

    def measured(self, before: ActorCritic, after: ActorCritic, batch: Batch) -> dict[str, Array]:
        """Measure what the others do, but nothing of a value function where there is none."""
        found = super().measured(before, after, batch)
        if self.learned_baseline:
            return found
        return {name: value for name, value in found.items() if not name.startswith("explained_variance")}

    def batch_loss(self, params: ActorCritic, batch: Batch) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The loss of a rollout (N,) and its parts, over the steps that are learnt from."""
        distribution, value, batch = self.read(params, batch)
        log_prob = jax.vmap(lambda one, drawn: one.log_prob(drawn))(distribution, batch.drawn)
        count = jnp.maximum(batch.weight.sum(), 1.0)
        advantage = self._weighed(batch, count)
        surrogate = (batch.weight * log_prob * advantage).sum() / count
        error = jnp.square(value - batch.target)
        value_loss = 0.5 * (batch.weight * error).sum() / count if self.learned_baseline else jnp.zeros(())
        share = batch.weight.mean()
        return -surrogate + value_loss, {"surrogate": surrogate, "value_loss": value_loss, "learnt_share": share}

    def _weighed(self, batch: Batch, count: Float[Array, ""]) -> Float[Array, "N"]:
        """Advantages, normalised over the steps that are learnt from."""
        if self.normalise_advantages == "none":
            return batch.advantage
        mean = (batch.weight * batch.advantage).sum() / count
        variance = (batch.weight * jnp.square(batch.advantage - mean)).sum() / count
        return (batch.advantage - mean) / (jnp.sqrt(variance) + 1e-8)
