"""Fresh experience of a run's frozen policy, which every measurement begins with, and the steps it is made of."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from workhorse.algorithms.policy_gradient.policy_gradient import Batch, GradientState, PolicyGradient
from workhorse.core.algorithm import Algorithm, Key, OnPolicy, State
from workhorse.core.errors import UsageError
from workhorse.core.randomness import root_key
from workhorse.core.types import Moments, Rollout
from workhorse.runs.history import History
from workhorse.training.loop import Loop
from workhorse.training.on_policy import OnPolicyLoop
from workhorse.training.rollouts import Collector, Slots, actor_of

__all__ = [
    "Experience",
    "ToldSteps",
    "fresh_experience",
    "frozen_rollouts",
    "on_policy",
    "policy_gradient_of",
    "policy_step",
    "remembers",
    "training_batch",
    "with_fixed_scale",
]

ToldSteps = Callable[[int], None]
"""Function that is told the number of environment steps just taken."""


class Experience(NamedTuple):
    """Fresh rollouts of a frozen policy.

    Attributes:
        state: of the algorithm; that of a policy gradient has its rewards on the scale of the first rollout.
        rollouts: of its policy, without an end, each from where the one before left the slots.
        root: of all that is drawn.
    """

    state: State
    rollouts: Iterator[Rollout]
    root: int


def on_policy(loop: Loop) -> OnPolicyLoop:
    """Return a loop that was found to be on-policy before, typed."""
    assert isinstance(loop, OnPolicyLoop)
    return loop


def policy_gradient_of(history: History, part: str, refusal: str) -> PolicyGradient:
    """Return a run's algorithm, for a part that reads single steps of a policy gradient.

    Args:
        history: the run.
        part: name on the command line.
        refusal: end of the sentence that begins "ALGORITHM of FOLDER".

    Raises:
        UsageError: the algorithm is another, or its policy remembers earlier steps.
    """
    algorithm = history.loop.algorithm
    if not isinstance(history.loop, OnPolicyLoop) or not isinstance(algorithm, PolicyGradient):
        raise UsageError(f"{history.manifest.algorithm} of {history.folder.path} {refusal}")
    if remembers(algorithm):  # log pi(a | o) of a stored step would need what came before it
        raise UsageError(
            f"The policy of {history.folder.path} remembers earlier steps, and `diagnose --only {part}` reads every "
            "step by itself: choose a run whose policy is linear or mlp."
        )
    return algorithm


def remembers(algorithm: Algorithm) -> bool:
    """Return True where acting depends on earlier steps, as with a recurrent policy."""

    def begun(key: Key) -> object:
        return algorithm.begin(algorithm.actor(algorithm.init(key)), jnp.int32(0))

    return bool(jax.tree.leaves(jax.eval_shape(begun, root_key(0))))


@contextmanager
def fresh_experience(
    history: History,
    iteration: int,
    offset: int,
    threads: int = 0,
    progress: ToldSteps = lambda env_steps: None,
    first: int = 0,
) -> Iterator[Experience]:
    """Context manager: experience of the policy of an iteration that the run never had.

    Args:
        history: a run whose loop is on-policy.
        iteration: whose policy acts; its state must have been kept.
        offset: added to the run's seed, one for each part, so that no two parts share a draw.
        threads: simulation threads.
        progress: is told the steps of every rollout.
        first: address of the first rollout.

    Raises:
        UsageError: the state was not kept, or the run had diverged.
    """
    there = history.measurable(iteration)
    with history.afresh(offset, threads) as (loop, root):
        loop = on_policy(loop)
        stream = frozen_rollouts(loop.algorithm, there.state, loop.collector, there.data.slots, progress, first)
        state = there.state
        if isinstance(loop.algorithm, PolicyGradient):  # the others' scales, if they have any, are their own affair
            scaling = next(stream)
            state, stream = with_fixed_scale(loop.algorithm, state, scaling), chain([scaling], stream)
        yield Experience(state, stream, root)


def frozen_rollouts(
    algorithm: OnPolicy,
    state: State,
    collector: Collector,
    slots: Slots,
    progress: ToldSteps = lambda env_steps: None,
    first: int = 0,
) -> Iterator[Rollout]:
    """Yield rollouts of the frozen policy without an end, from addresses `first` on; the slots go on."""
    actor, number = actor_of(algorithm, state), first
    while True:
        rollout, slots, _, _ = collector.collect(actor, slots, number)
        number += 1
        progress(algorithm.rollout_steps * algorithm.num_slots)
        yield rollout


def with_fixed_scale(algorithm: PolicyGradient, state: GradientState, rollout: Rollout) -> GradientState:
    """Return a state whose scale of rewards is that after this rollout, and hardly moves with any later one.

    Otherwise rewards of different rollouts would be in slightly different units: very different ones at the start.
    """
    sums = _sums_of_rewards(algorithm, state, rollout)
    # Sums merged later weigh a billionth of these.
    return state._replace(sums=sums._replace(count=sums.count * 1e9, deviation=sums.deviation * 1e9))


@jax.jit
def _sums_of_rewards(algorithm: PolicyGradient, state: GradientState, rollout: Rollout) -> Moments:
    return algorithm.batch(state, rollout)[1]


@jax.jit
def training_batch(algorithm: PolicyGradient, state: GradientState, rollout: Rollout) -> Batch:
    """Return the steps of the slots that are trained on, (T, B)."""
    return jax.tree.map(lambda leaf: leaf[:, : algorithm.num_envs], algorithm.batch(state, rollout)[0])


@jax.jit
def policy_step(algorithm: PolicyGradient, state: GradientState, batch: Batch, key: Key) -> Float[Array, "d"]:
    """Return how far the algorithm moves the policy on a batch, (d,)."""
    params, _, _ = algorithm.improve(state, batch, algorithm.annealed(state), key)
    return ravel_pytree(params.policy)[0] - ravel_pytree(state.params.policy)[0]
