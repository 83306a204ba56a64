"""Quality of a run's value function: against its own targets, against single returns, and against the truth.

The truth about a state is the mean discounted return of the frozen policy from it, found by going back to that state
again and again, which the simulators can do to the bit. It has a standard error, which adds to a squared difference and
is taken off again.

Source: Ilyas et al. 2020, "A closer look at deep policy gradients" (arXiv 1811.02553), section 2.2, whose relative
errors are against single returns, cut at the rollout's end: there a perfect value function has an error too. Here a
single return goes to the end of the horizon, far beyond the rollout's, and the truth is a mean over several of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from workhorse.algorithms.policy_gradient.policy_gradient import GradientState, PolicyActor, PolicyGradient
from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Rollout
from workhorse.diagnostics.experience import ToldSteps, on_policy, policy_gradient_of
from workhorse.diagnostics.value_errors import AgainstTruth, PairErrors, explained, relative_error
from workhorse.math import moments
from workhorse.networks.actor_critic import ActorCritic
from workhorse.runs.history import History
from workhorse.training.loop import Progress
from workhorse.training.rollouts import Collector, Slots, actor_of

__all__ = [
    "LEAST_RETURNS",
    "ValueStudy",
    "check_values",
    "horizon_of",
    "study_values",
    "summarise",
    "with_value_function",
]

LEAST_RETURNS = 4
"""Returns from each state, at least: their spread is averaged over states."""

TAIL = 1e-3
"""Weight of the first reward that is no longer waited for; the rest is completed by the value function."""

LEAST_AGES, MOST_AGED = 8, 2000
"""Rollouts, at least, at whose ends states are taken; of more only until this number of steps has passed."""

OTHER_ROOT = 2**31 + 2**30
"""Added to the run's seed for the addresses: fresh experience, and not that of another diagnosis."""


@dataclass(frozen=True)
class ValueStudy:
    """Errors of a value function at one iteration, on states never trained on, of all ages that a clock allows.

    Attributes:
        iteration: whose policy and value function were frozen.
        states: number of states; `returns` from each, `horizon` steps long; and as many returns from as many states
            of the rollout that is learnt from next.
        env_steps: steps taken for all of it.
        own_error: mean of |V - target| / |target|, the target the one that training would use.
        return_error: the same against single returns to the end of the horizon, a mean over all of them.
        truth_error: the same against the truth.
        own_explained, return_explained: 1 - Var(target - V) / Var(target).
        truth_explained: 1 - E[(V - truth)^2] / Var(truth), free of what the error of the truth adds; a constant offset
            counts. NaN where the truth does not spread by more than its error would.
        bias, bias_error: mean of V - truth, in scaled rewards, and its standard error over states.
        squared_error: E[(V - truth)^2], free of what the error of the truth adds.
        truth_spread: standard deviation of the truth over states.
        return_spread: standard deviation of the returns from one state, a mean over states.
        learnt: errors of the value function *one update later* on the rollout of that very update.
        unseen: of the same value function on a fresh rollout of the same size and policy, whose slots are of all ages,
            as `states` are; those of `learnt` are where the run's slots stood. Targets are those of the update, returns
            and truth those of the policy before it.
    """

    iteration: int
    states: int
    returns: int
    horizon: int
    env_steps: int
    own_error: float
    return_error: float
    truth_error: float
    own_explained: float
    return_explained: float
    truth_explained: float
    bias: float
    bias_error: float
    squared_error: float
    truth_spread: float
    return_spread: float
    learnt: PairErrors | None = None
    unseen: PairErrors | None = None


def with_value_function(history: History, part: str) -> PolicyGradient:
    """Return a run's algorithm, for a part that measures its value function.

    Raises:
        UsageError: the run learns no value function, or its policy remembers earlier steps.
    """
    refusal = (
        f"learns no value function: `diagnose --only {part}` reads runs of a2c, ppo, trpo, and reinforce with its "
        "baseline."
    )
    if history.manifest.settings.get("learned_baseline") is False:  # reinforce keeps a value network even then
        raise UsageError(f"{history.manifest.algorithm} of {history.folder.path} {refusal}")
    return policy_gradient_of(history, part, refusal)


class ValuePlan(NamedTuple):
    """Purposes of a study's steps.

    Attributes:
        ages: rollouts at whose ends the states are taken.
        before: steps of a slot before the first return.
        horizon, returns: steps of a return, and returns from each state, those learnt from and fresh ones.
    """

    ages: int
    before: int
    horizon: int
    returns: int


def check_values(history: History, env_steps: int) -> ValuePlan:
    """Return the purposes of the steps.

    Raises:
        UsageError: the algorithm has no value function, the task cannot be put back, or the steps do not suffice.
    """
    algorithm = with_value_function(history, "values")
    if history.spec.resume != "exact":
        raise UsageError(
            f"{history.spec.task} cannot be put back into a state, which the truth about a value takes: "
            "`diagnose --only values` reads runs on MuJoCo and JAX tasks."
        )
    length, slots = algorithm.rollout_steps, algorithm.num_slots
    horizon, ages = horizon_of(algorithm.discount, length), _ages(history.spec.max_episode_steps, length)
    before = (ages + 2) * length
    returns = (env_steps // slots - before) // (2 * horizon)
    if returns < LEAST_RETURNS:
        needed = (2 * LEAST_RETURNS * horizon + before) * slots
        raise UsageError(
            f"--budget must be at least {needed:,} steps for the values, {LEAST_RETURNS} returns of {horizon:,} steps "
            f"from each of {slots} states learnt from and {slots} fresh ones: got {env_steps:,}."
        )
    return ValuePlan(ages, before, horizon, returns)


def study_values(
    history: History,
    iteration: int,
    *,
    env_steps: int = 1_000_000,
    threads: int = 0,
    progress: ToldSteps = lambda env_steps: None,
) -> ValueStudy:
    """Measure the value function of a run at one iteration.

    Args:
        history: the run.
        iteration: whose networks are frozen; its state must have been kept.
        env_steps: to be taken at most.
        threads: simulation threads.
        progress: is told how many steps were just taken.

    Raises:
        UsageError: the algorithm has no value function, the task cannot be put back, the state was not kept, or the
            steps do not suffice.
    """
    ages, before, horizon, returns = check_values(history, env_steps)
    algorithm, there = with_value_function(history, "values"), history.measurable(iteration)
    state: GradientState = there.state
    stood: Slots = there.data.slots
    slots = algorithm.num_slots
    with history.afresh(OTHER_ROOT, threads) as (loop, _):
        collector, actor = on_policy(loop).collector, actor_of(algorithm, state)
        fresh = _of_all_ages(collector, actor, stood, ages)  # away from what was trained on
        fresh, taught = (_with_a_whole_clock(stand) for stand in (fresh, stood))
        rollout = collector.collect(actor, fresh, ages).rollout
        lesson, params = _next_update(history, algorithm, there)
        progress(before * slots)
        found = np.zeros((2, returns, slots))
        for group, (stand, steps) in enumerate(((fresh, rollout), (taught, lesson))):
            scale = float(_scale(algorithm, state, steps))
            for number in range(returns):
                address = ages + 1 + group * returns + number  # beyond those of the rollouts above
                found[group, number] = _returns(collector, algorithm, state, stand, scale, horizon, address)
                progress(horizon * slots)
    unseen, learnt = (
        _errors(_pairs(algorithm, state, params, steps), group, algorithm.num_envs)
        for steps, group in zip((rollout, lesson), found, strict=True)
    )
    taken = (2 * returns * horizon + before) * slots
    value, target = (leaf[0] for leaf in _pairs(algorithm, state, state.params, rollout))
    return replace(summarise(iteration, value, target, found[0], horizon, taken), learnt=learnt, unseen=unseen)


def _errors(pairs: ValuePairs, returns: np.ndarray, count: int) -> PairErrors:
    """Return the errors on the first slots, those that are trained on."""
    return PairErrors.of(pairs.value[:, :count], pairs.target[:, :count], returns[:, :count])


def summarise(
    iteration: int, value: np.ndarray, target: np.ndarray, returns: np.ndarray, horizon: int, env_steps: int
) -> ValueStudy:
    """Compare values (S,) with their own targets (S,) and with many returns from each state (R, S)."""
    truth = AgainstTruth.of(value, returns)
    return ValueStudy(
        iteration,
        len(value),
        len(returns),
        horizon,
        env_steps,
        relative_error(value, target),
        relative_error(value, returns),
        truth.relative_error,
        explained(value, target),
        explained(value, returns),
        *truth[1:],
    )


def horizon_of(discount: float, length: int) -> int:
    """Return the steps until a reward weighs less than `TAIL`, in whole rollouts."""
    steps = np.log(TAIL) / np.log(discount) if 0 < discount < 1 else (1.0 if discount == 0 else np.inf)
    return length * int(np.ceil(min(steps, 100_000) / length))


def _ages(clock: int | None, length: int) -> int:
    """Return the rollouts at whose ends states are taken: all of a clock's, until states of one age are rare."""
    return int(np.clip(-(-(clock or MOST_AGED) // length), LEAST_AGES, max(MOST_AGED // length, LEAST_AGES)))


def _of_all_ages(collector: Collector, actor: PolicyActor, slots: Slots, ages: int) -> Slots:
    """Return slots that stand at the ends of different rollouts: after a common reset they would be of one age."""
    seen = []
    for number in range(ages):
        slots = collector.collect(actor, slots, number).slots
        seen.append(slots)
    count = len(np.asarray(slots.episode_length))
    # Slot b from rollout b * ages / B: every age is taken about equally often.
    chosen, each = np.arange(count) * ages // count, np.arange(count)

    def mixed(*leaves: np.ndarray | Array) -> np.ndarray | Array:
        if np.shape(leaves[0])[:1] != (count,):
            return leaves[0]  # what does not belong to a slot is the same in all
        return jnp.stack(leaves)[chosen, each] if isinstance(leaves[0], jax.Array) else np.stack(leaves)[chosen, each]

    return jax.tree.map(mixed, *seen)


def _with_a_whole_clock(slots: Slots) -> Slots:
    """Return the same slots near the beginning of their clock, so that no clock cuts what follows.

    A slot that has moved is put at step 1, not at 0: a task may treat its first step in a way of its own.
    """
    there = slots.environment
    if isinstance(there, dict):
        return slots._replace(environment={**there, "elapsed": np.minimum(there["elapsed"], 1)})
    return slots._replace(environment=there._replace(clock=jnp.minimum(there.clock, 1)))


def _next_update(history: History, algorithm: PolicyGradient, there: Progress) -> tuple[Rollout, ActorCritic]:
    """Return the rollout of the run's next update, and the parameters after it."""
    loop, iteration = on_policy(history.loop), int(there.iteration)
    rollout = loop.collector.collect(actor_of(algorithm, there.state), there.data.slots, iteration).rollout
    return rollout, _updated(algorithm, there.state, rollout, draw(root_key(loop.root), "update", iteration))


@jax.jit
def _updated(algorithm: PolicyGradient, state: GradientState, rollout: Rollout, key: Key) -> ActorCritic:
    return algorithm.update(state, rollout, key)[0].params


class ValuePairs(NamedTuple):
    """Values and own targets of a rollout's steps, (T, B)."""

    value: np.ndarray
    target: np.ndarray


def _pairs(algorithm: PolicyGradient, state: GradientState, params: ActorCritic, rollout: Rollout) -> ValuePairs:
    """Return values by `params` and own targets by the state, of all slots."""
    return ValuePairs(*(np.asarray(leaf, np.float64) for leaf in _computed_pairs(algorithm, state, params, rollout)))


@jax.jit
def _computed_pairs(
    algorithm: PolicyGradient, state: GradientState, params: ActorCritic, rollout: Rollout
) -> tuple[Float[Array, "T B"], Float[Array, "T B"]]:
    batch, _, _ = algorithm.batch(state, rollout)
    return algorithm.values(params, batch.obs), batch.target


@jax.jit
def _scale(algorithm: PolicyGradient, state: GradientState, rollout: Rollout) -> Float[Array, ""]:
    """Return the factor that the rewards of a rollout are multiplied by."""
    _, sums, _ = algorithm.batch(state, rollout)
    return moments.inverse_scale(sums, constant_below=0.0)[0] if algorithm.scale_rewards else jnp.ones(())


def _returns(
    collector: Collector,
    algorithm: PolicyGradient,
    state: GradientState,
    stand: Slots,
    scale: float,
    horizon: int,
    number: int,
) -> np.ndarray:
    """Return a discounted return from where each slot stands, (B,), with fresh noise for every `number`."""
    actor = actor_of(algorithm, state)
    total, weight = np.zeros(algorithm.num_slots), np.ones(algorithm.num_slots)
    pieces = horizon // algorithm.rollout_steps
    for piece in range(pieces):
        rollout, stand, _, _ = collector.collect(actor, stand, number * pieces + piece)
        values = np.asarray(_successors(algorithm, state, actor, rollout.next_obs), np.float64)
        reward = np.asarray(rollout.reward, np.float64) * scale
        if algorithm.reward_clip is not None:
            reward = np.clip(reward, -algorithm.reward_clip, algorithm.reward_clip)
        terminated, truncated = np.asarray(rollout.terminated), np.asarray(rollout.truncated)
        for time in range(len(reward)):
            total += weight * reward[time]
            weight = np.where(terminated[time], 0.0, weight * algorithm.discount)
            cut = truncated[time] & ~terminated[time]
            total += np.where(cut, weight * values[time], 0.0)
            weight = np.where(cut, 0.0, weight)
        if piece == pieces - 1:
            total += weight * values[-1]
        if not weight.any():  # every slot's episode is over: nothing counts any more
            break
    return total


@jax.jit
def _successors(
    algorithm: PolicyGradient, state: GradientState, actor: PolicyActor, next_obs: Float[Array, "T B ..."]
) -> Float[Array, "T B"]:
    """Return the values of the successors, (T, B)."""
    scaled = jax.vmap(jax.vmap(lambda obs: algorithm.scaled(actor, obs)))(next_obs)
    return algorithm.values(state.params, scaled)
