"""The state of a policy gradient, and its rollouts as they are learnt from."""

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int

from workhorse.core.types import Moments
from workhorse.networks.actor_critic import ActorCritic, StochasticPolicy

__all__ = [
    "Acted",
    "PolicyActor",
    "Batch",
    "GradientState",
    "Memory",
    "Transition",
    "flattened",
    "sequences",
]


class GradientState(NamedTuple):
    """The whole state.

    Attributes:
        params: policy and value networks.
        optimiser: what the optimiser remembers.
        observations: moments of the observations acted on, float64.
        sums: moments of the discounted sums of rewards, float64 (1,): what rewards are scaled by.
        sum_so_far: the discounted sum so far in each slot's episode, float32 (B,).
        env_steps: training steps seen, for annealing.
        iteration: updates made.
        value_memory: of a recurrent value function in each slot, (B, H); nothing where there is none.
        extra: what an algorithm that builds on a policy gradient keeps beside it.
    """

    params: ActorCritic
    optimiser: Any
    observations: Moments
    sums: Moments
    sum_so_far: Float[Array, "B"]
    env_steps: Int[Array, ""]
    iteration: Int[Array, ""]
    value_memory: Any = ()
    extra: Any = ()


class PolicyActor(NamedTuple):
    """The policy, and how observations are scaled: all that acting needs."""

    policy: StochasticPolicy
    mean: Float[Array, "D"]
    inverse_scale: Float[Array, "D"]


class Acted(NamedTuple):
    """The draw before it was clipped to the bounds, and its log probability."""

    drawn: Array
    log_prob: Float[Array, ""]


class Transition(NamedTuple):
    """Consequences of each step, of which advantages are computed; axes as those of `Batch`.

    Attributes:
        reward: scaled and clipped.
        discount: of what comes next; 0 where the task terminated.
        next_obs: scaled.
        going_on: 0 where the episode or the rollout ended, else 1.
    """

    reward: Float[Array, "..."]
    discount: Float[Array, "..."]
    next_obs: Float[Array, "... D"]
    going_on: Float[Array, "..."]


class Memory(NamedTuple):
    """Memory of recurrent networks where each step begins, axes as those of `Batch`.

    Attributes:
        policy, value: of the two networks, (..., H).
        fresh: an episode begins at this step.
    """

    policy: Float[Array, "... H"]
    value: Float[Array, "... H"]
    fresh: Bool[Array, "..."]


class Batch(NamedTuple):
    """Steps ready to learn from, leading axes (T, B) or (N,); always (T, B) where networks are recurrent.

    Attributes:
        obs: scaled observations.
        drawn: actions as drawn.
        log_prob: under the policy that acted.
        advantage: not normalised.
        target: of the value.
        value: as it was before the update.
        monte_carlo: discounted rewards to the end of the episode, completed by the value where it was cut.
        weight: 1, or 0 for a step that must not be learnt from.
        transition: what followed.
        memory: a `Memory` where networks are recurrent, else nothing.
    """

    obs: Float[Array, "... D"]
    drawn: Array
    log_prob: Float[Array, "..."]
    advantage: Float[Array, "..."]
    target: Float[Array, "..."]
    value: Float[Array, "..."]
    monte_carlo: Float[Array, "..."]
    weight: Float[Array, "..."]
    transition: Transition
    memory: Any = ()


def flattened(batch: Batch) -> Batch:
    """Return a batch with its two leading axes as one."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)


def sequences(batch: Batch, length: int) -> Batch:
    """Cut a batch (T, B) into sequences of `length` steps of a slot, (length, T B / length), each with its memory."""

    def cut(leaf: Array) -> Array:
        apart = leaf.reshape(-1, length, *leaf.shape[1:]).swapaxes(0, 1)
        return apart.reshape(length, -1, *leaf.shape[2:])

    return jax.tree.map(cut, batch)
