"""Proximal policy optimisation: several epochs of minibatches on a clipped surrogate."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.algorithms.policy_gradient.batch import Batch, GradientState, flattened, sequences
from workhorse.algorithms.policy_gradient.measures import probability_ratio
from workhorse.algorithms.policy_gradient.policy_gradient import PLAIN, PolicyGradient
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.randomness import permutation
from workhorse.core.ranges import require_minibatches, require_non_negative, require_positive
from workhorse.networks.actor_critic import ActorCritic

__all__ = ["PPO", "clipped_surrogate", "clipped_value_loss"]


class _Learning(NamedTuple):
    """The networks and what the optimiser remembers, passed from minibatch to minibatch."""

    params: ActorCritic
    optimiser: Any


@configuration
class PPO(PolicyGradient):
    """Minimise a clipped surrogate by Adam, over `num_epochs` epochs of minibatches.

    The loss is

        -E[min(rho A, clip(rho, 1 - eps, 1 + eps) A)] + value_weight * L_V - entropy_weight * E[H],

    rho the probability ratio of the action taken, new policy over old, A its normalised advantage, and

        L_V = E[max((V - G)^2, (clip(V, V_old - v, V_old + v) - G)^2)] / 2,

    G the target A + V_old; without value clipping L_V = E[(V - G)^2] / 2.

    Source: Schulman et al. 2017, "Proximal policy optimization algorithms" (arXiv 1707.06347). The switches are those
    of Engstrom et al. 2020; value clipping is theirs of the code, not of the paper, and off here by default, because
    Andrychowicz et al. 2021 found that it hurts at any threshold.
    """

    name = "ppo"
    summary = "proximal policy optimisation, with its code-level optimisations"
    presets = {
        "ppo-m": ("ppo without the code-level optimisations of Engstrom et al.", PLAIN),
        "ppo-noclip": ("ppo without the clipped ratio", {"ratio_clip": None}),
    }

    ratio_clip: float | None = 0.2
    """Half-width eps of the interval that the ratio is clipped to; None for no clipping."""
    num_epochs: int = 10
    """Passes over the rollout."""
    minibatch_size: int = 64
    """Steps of a minibatch; the rollout must be a multiple of it."""
    value_weight: float = 0.5
    """Weight of the value's loss."""
    entropy_weight: float = 0.0
    """Weight of the policy's entropy."""
    recompute_advantages: bool = False
    """Compute advantages and targets anew before every epoch, with the value function as it is by then [A]."""
    value_clip: float | None = None
    """Half-width v of the interval around its old value in which the value may move [E1]; None for no bound."""

    def validate(self) -> None:
        super().validate()
        require_positive(
            "PPO",
            num_epochs=self.num_epochs,
            minibatch_size=self.minibatch_size,
            **({} if self.ratio_clip is None else {"ratio_clip": self.ratio_clip}),
            **({} if self.value_clip is None else {"value_clip": self.value_clip}),
        )
        require_non_negative("PPO", value_weight=self.value_weight, entropy_weight=self.entropy_weight)
        require_minibatches("PPO", self.num_envs * self.rollout_steps, self.minibatch_size)
        if self.normalise_advantages == "minibatch" and self.minibatch_size < 2:
            raise UsageError(
                "PPO.minibatch_size must be at least 2 where normalise_advantages is 'minibatch', because one "
                "advantage less its own mean is 0, so that nothing is learnt: got 1. Raise it, or normalise by 'batch'."
            )
        longer, shorter = sorted((self.rollout_steps, self.minibatch_size), reverse=True)
        if self.is_recurrent and longer % shorter:
            raise UsageError(
                f"PPO.minibatch_size must divide rollout_steps or be a multiple of it where policy is 'gru', whose "
                f"minibatches are sequences: got {self.minibatch_size} and {self.rollout_steps}."
            )

    def improve(
        self, state: GradientState, batch: Batch, rate: Float[Array, ""], key: Key
    ) -> tuple[ActorCritic, Any, dict[str, Array]]:
        length = min(self.rollout_steps, self.minibatch_size) if self.is_recurrent else 1
        count = batch.advantage.size // length

        def minibatch(steps: Batch, learning: _Learning, rows: Array) -> tuple[_Learning, dict[str, Array]]:
            part = jax.tree.map(lambda leaf: leaf[:, rows] if self.is_recurrent else leaf[rows], steps)
            params, optimiser, metrics = self.descend(self.batch_loss, learning.params, learning.optimiser, part, rate)
            return _Learning(params, optimiser), metrics

        def epoch(learning: _Learning, key: Key) -> tuple[_Learning, dict[str, Array]]:
            fresh = batch
            if self.recompute_advantages:
                value, _, advantage = self.estimates(learning.params, batch.obs, batch.transition, batch.memory)
                fresh = batch._replace(advantage=advantage, target=advantage + value)
            steps = sequences(fresh, length) if self.is_recurrent else flattened(fresh)
            steps = steps._replace(advantage=self.normalised(steps.advantage, "batch"))
            rows = permutation(key, count).reshape(-1, self.minibatch_size // length)
            return jax.lax.scan(partial(minibatch, steps), learning, rows)

        start = _Learning(state.params, state.optimiser)
        learning, metrics = jax.lax.scan(epoch, start, jax.random.split(key, self.num_epochs))
        return learning.params, learning.optimiser, jax.tree.map(jnp.mean, metrics)

    def measured(self, before: ActorCritic, after: ActorCritic, batch: Batch) -> dict[str, Array]:
        """Beside what the others measure, the share of steps whose ratio is outside the clip after the update."""
        found = super().measured(before, after, batch)
        if self.ratio_clip is not None:
            moved, _, flat = self.read(after, self.arranged(batch))
            ratio = probability_ratio(moved, flat.drawn, flat.log_prob)
            found["outside_clip"] = (jnp.abs(ratio - 1) > self.ratio_clip).mean()
        return found

    def batch_loss(self, params: ActorCritic, batch: Batch) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Return the loss of an arranged minibatch and its parts."""
        distribution, value, batch = self.read(params, batch)
        log_prob = jax.vmap(lambda one, drawn: one.log_prob(drawn))(distribution, batch.drawn)
        ratio = jnp.exp(log_prob - batch.log_prob)
        advantage = self.normalised(batch.advantage, "minibatch")
        surrogate = clipped_surrogate(ratio, advantage, self.ratio_clip).mean()
        value_loss = clipped_value_loss(value, batch.value, batch.target, self.value_clip)
        entropy = jax.vmap(lambda one: one.entropy())(distribution).mean()
        total = -surrogate + self.value_weight * value_loss.mean() - self.entropy_weight * entropy
        clip = jnp.inf if self.ratio_clip is None else self.ratio_clip
        return total, {
            "surrogate": surrogate,
            "value_loss": value_loss.mean(),
            "clipped_fraction": (jnp.abs(ratio - 1) > clip).mean(),
        }


def clipped_surrogate(ratio: Float[Array, "N"], advantage: Float[Array, "N"], clip: float | None) -> Float[Array, "N"]:
    """min(rho A, clip(rho, 1 - eps, 1 + eps) A); rho A without a clip.

    Example:
        >>> clipped_surrogate(jnp.array([1.5, 0.5]), jnp.array([1.0, 1.0]), 0.2).tolist()
        [1.2, 0.5]
    """
    if clip is None:
        return ratio * advantage
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def clipped_value_loss(
    value: Float[Array, "N"], before: Float[Array, "N"], target: Float[Array, "N"], clip: float | None
) -> Float[Array, "N"]:
    """Half the squared error of the value; the larger one of it and that of the value kept near its old self.

    Example:
        >>> clipped_value_loss(jnp.array([2.0]), jnp.array([0.0]), jnp.array([2.0]), 0.5).tolist()
        [1.125]
    """
    error = jnp.square(value - target)
    if clip is not None:
        near = before + jnp.clip(value - before, -clip, clip)
        error = jnp.maximum(error, jnp.square(near - target))
    return 0.5 * error
