"""Is a run's value function worth anything? Against its own targets, against returns, and against the truth.

The truth about a state is the mean discounted return of the frozen policy from it, found by going back to that state
again and again, which the simulators can do to the bit. It has a standard error, and what that error adds to a squared
difference is taken off.

Source: Ilyas et al. 2020, "A closer look at deep policy gradients" (arXiv 1811.02553), section 2.2, whose relative
errors are against single returns, cut at the rollout's end: there a perfect value function has an error too. Here a
single return goes to the end of the horizon, far beyond the rollout's, and the truth is a mean over several of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.math import moments
from workhorse.runs.history import History
from workhorse.runs.train import plan_of
from workhorse.training.learning import actor_of

__all__ = [
    "LEAST_RETURNS",
    "PairErrors",
    "ValueStudy",
    "check_values",
    "explained",
    "horizon_of",
    "relative_error",
    "require_value_function",
    "study_values",
    "summarise",
]

LEAST_RETURNS = 4
"""Returns from each state, at least: their spread is averaged over states."""

TAIL = 1e-3
"""Weight of the first reward that is no longer waited for; the rest is completed by the value function."""

LEAST_AGES, MOST_AGED = 8, 2000
"""States are taken at the ends of so many rollouts at least; and of more only until so many steps have passed."""

OTHER_ROOT = 2**31 + 2**30
"""What is added to the run's seed for the addresses: fresh experience, and not that of the gradients' diagnosis."""


@dataclass(frozen=True)
class PairErrors:
    """What a value function that has just learnt is worth on the pairs of one rollout.

    Attributes:
        own_error: mean of |V - target| / |target|, against the targets that training uses, of every step.
        return_error, truth_error: the same against single returns and the truth, of the first step of every slot.
        own_explained: 1 - Var(target - V) / Var(target), of every step.
        return_explained, truth_explained: as those of a `ValueStudy`, of the first step of every slot.
    """

    own_error: float
    return_error: float
    truth_error: float
    own_explained: float
    return_explained: float
    truth_explained: float

    @staticmethod
    def of(value: np.ndarray, target: np.ndarray, returns: np.ndarray) -> PairErrors:
        """Of values and own targets (T, B), and many returns from the first of the steps (R, B)."""
        truth = AgainstTruth.of(value[0], returns)
        return PairErrors(
            relative_error(value, target),
            relative_error(value[0], returns),
            truth.relative_error,
            explained(value, target),
            explained(value[0], returns),
            truth.explained,
        )


class AgainstTruth(NamedTuple):
    """What values are worth beside the truth; names as in `ValueStudy`."""

    relative_error: float
    explained: float
    bias: float
    bias_error: float
    squared_error: float
    truth_spread: float
    return_spread: float

    @staticmethod
    def of(value: np.ndarray, returns: np.ndarray) -> AgainstTruth:
        """Of values (S,) of states from which many returns (R, S) are known."""
        truth, variance = returns.mean(0), returns.var(0, ddof=1)
        noise, error = variance / len(returns), value - truth
        squared = float(np.square(error).mean() - noise.mean())
        spread = float(truth.var(ddof=1) - noise.mean())
        told_apart = spread > 2 * noise.mean() * np.sqrt(2 / (len(truth) - 1))
        return AgainstTruth(
            relative_error(value, truth),
            1.0 - squared / spread if told_apart else float("nan"),
            float(error.mean()),
            float(error.std(ddof=1) / np.sqrt(len(error))),
            squared,
            float(np.sqrt(max(spread, 0.0))),
            float(np.sqrt(variance).mean()),
        )


@dataclass(frozen=True)
class ValueStudy:
    """What was found at one iteration, on states never trained on, of all ages that a clock allows.

    Attributes:
        iteration: whose policy and value function were frozen.
        states: how many; `returns` from each, `horizon` steps long; and as many returns from as many states of the
            rollout that is learnt from next.
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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; what is not finite is null."""
        return _plain(asdict(self))


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, dict):
            return _plain(value)
        return None if isinstance(value, float) and not np.isfinite(value) else value

    return {name: one(value) for name, value in record.items()}


def require_value_function(history: History, part: str) -> None:
    """Raise a `UsageError` where the run learns no value function."""
    if not plan_of(history.manifest).is_on_policy or history.manifest.settings.get("learned_baseline") is False:
        raise UsageError(
            f"{history.manifest.algorithm} of {history.folder.path} learns no value function: "
            f"`diagnose --only {part}` reads runs of a2c, ppo, trpo, and reinforce with its baseline."
        )


class _Plan(NamedTuple):
    """What the steps of a study are for.

    Attributes:
        ages: rollouts at whose ends the states are taken.
        before: steps of a slot before the first return.
        horizon, returns: steps of a return, and returns from each state, those learnt from and fresh ones.
    """

    ages: int
    before: int
    horizon: int
    returns: int


def check_values(history: History, env_steps: int) -> _Plan:
    """What so many steps are for.

    Raises:
        UsageError: the algorithm has no value function, the task cannot be put back, or the steps do not suffice.
    """
    require_value_function(history, "values")
    if history.spec.resume != "exact":
        raise UsageError(
            f"{history.spec.task} cannot be put back into a state, which the truth about a value takes: "
            "`diagnose --only values` reads runs on MuJoCo and JAX tasks."
        )
    algorithm = history.loop.algorithm
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
    return _Plan(ages, before, horizon, returns)


def study_values(
    history: History,
    iteration: int,
    *,
    env_steps: int = 1_000_000,
    threads: int = 0,
    progress: Callable[[int], None] = lambda env_steps: None,
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
    state, algorithm = history.measurable(iteration), history.loop.algorithm
    slots = algorithm.num_slots
    with history.afresh(OTHER_ROOT, threads) as (loop, _):
        actor = actor_of(algorithm, state.learner)
        fresh = _of_all_ages(loop, actor, state.slots, ages)  # away from what was trained on
        fresh, taught = (_with_a_whole_clock(stand) for stand in (fresh, state.slots))
        rollout, *_ = loop.rollouts.gather(actor, fresh, ages)
        lesson, params = _next_update(history, state)
        progress(before * slots)
        found = np.zeros((2, returns, slots))
        for group, (stand, steps) in enumerate(((fresh, rollout), (taught, lesson))):
            scale = _scale(algorithm, state.learner, steps)
            for number in range(returns):
                address = ages + 1 + group * returns + number
                found[group, number] = _returns(loop, algorithm, state.learner, actor, stand, scale, horizon, address)
                progress(horizon * slots)
    unseen, learnt = (
        _errors(_pairs(algorithm, state.learner, params, steps), group, algorithm.num_envs)
        for steps, group in zip((rollout, lesson), found, strict=True)
    )
    taken = (2 * returns * horizon + before) * slots
    value, target = (leaf[0] for leaf in _pairs(algorithm, state.learner, state.learner.params, rollout))
    return replace(summarise(iteration, value, target, found[0], horizon, taken), learnt=learnt, unseen=unseen)


def _errors(pairs: _Pairs, returns: np.ndarray, count: int) -> PairErrors:
    """Errors on the first slots, those that are trained on."""
    return PairErrors.of(pairs.value[:, :count], pairs.target[:, :count], returns[:, :count])


def summarise(
    iteration: int, value: np.ndarray, target: np.ndarray, returns: np.ndarray, horizon: int, env_steps: int
) -> ValueStudy:
    """What values (S,) are worth beside their targets (S,) and many returns from each state (R, S)."""
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


def relative_error(value: np.ndarray, target: np.ndarray) -> float:
    """Mean of |V - target| / |target|, where the target is not zero; NaN where it always is. Values are broadcast."""
    size = np.abs(target)
    return float((np.abs(value - target)[size > 0] / size[size > 0]).mean()) if (size > 0).any() else float("nan")


def explained(value: np.ndarray, target: np.ndarray) -> float:
    """1 - Var(target - V) / Var(target); NaN for a constant target."""
    spread = target.var()
    return float(1.0 - (target - value).var() / spread) if spread > 0 else float("nan")


def horizon_of(discount: float, length: int) -> int:
    """Steps until a reward weighs less than `TAIL`, in whole rollouts."""
    steps = np.log(TAIL) / np.log(discount) if 0 < discount < 1 else (1.0 if discount == 0 else np.inf)
    return length * int(np.ceil(min(steps, 100_000) / length))


def _ages(clock: int | None, length: int) -> int:
    """Rollouts at whose ends states are taken: as many as a clock has, up to where states of one age are rare."""
    return int(np.clip(-(-(clock or MOST_AGED) // length), LEAST_AGES, max(MOST_AGED // length, LEAST_AGES)))


def _of_all_ages(loop: Any, actor: Any, slots: Any, ages: int) -> Any:
    """Slots that stand at the ends of different rollouts: where all of them reset at once they would be of one age."""
    seen = []
    for number in range(ages):
        _, slots, _, _ = loop.rollouts.gather(actor, slots, number)
        seen.append(slots)
    count = len(np.asarray(slots.episode_length))
    chosen, each = np.arange(count) * ages // count, np.arange(count)

    def mixed(*leaves: Any) -> Any:
        if np.shape(leaves[0])[:1] != (count,):
            return leaves[0]  # what does not belong to a slot is the same in all
        return jnp.stack(leaves)[chosen, each] if isinstance(leaves[0], jax.Array) else np.stack(leaves)[chosen, each]

    return jax.tree.map(mixed, *seen)


def _with_a_whole_clock(slots: Any) -> Any:
    """The same slots near the beginning of their clock, so that no clock cuts what follows.

    A slot that has moved is put at step 1, not at 0: a task may treat its first step in a way of its own.
    """
    there = slots.environment
    if isinstance(there, dict):
        return slots._replace(environment={**there, "elapsed": np.minimum(there["elapsed"], 1)})
    return slots._replace(environment=there._replace(clock=jnp.minimum(there.clock, 1)))


def _next_update(history: History, state: Any) -> tuple[Any, Any]:
    """The rollout of the run's next update, and the parameters after it."""
    algorithm, iteration = history.loop.algorithm, int(state.iteration)
    rollout, *_ = history.loop.rollouts.gather(actor_of(algorithm, state.learner), state.slots, iteration)
    key = draw(root_key(history.loop.root), "update", iteration)
    return rollout, _updated(algorithm, state.learner, rollout, key)


@jax.jit
def _updated(algorithm: Any, learner: Any, rollout: Any, key: Any) -> Any:
    return algorithm.update(learner, rollout, key)[0].params


class _Pairs(NamedTuple):
    """Values and own targets of a rollout's steps, (T, B)."""

    value: np.ndarray
    target: np.ndarray


def _pairs(algorithm: Any, learner: Any, params: Any, rollout: Any) -> _Pairs:
    """Values by `params` and own targets by the learner, of all slots."""
    return _Pairs(*(np.asarray(leaf, np.float64) for leaf in _computed_pairs(algorithm, learner, params, rollout)))


@jax.jit
def _computed_pairs(algorithm: Any, learner: Any, params: Any, rollout: Any) -> tuple[Any, Any]:
    batch, _, _ = algorithm.batch(learner, rollout)
    return algorithm.values(params, batch.obs), batch.target


@jax.jit
def _scale(algorithm: Any, learner: Any, rollout: Any) -> Any:
    """What rewards of a rollout are multiplied by."""
    _, sums, _ = algorithm.batch(learner, rollout)
    return moments.inverse_scale(sums, constant_below=0.0)[0] if algorithm.scale_rewards else jnp.ones(())


def _returns(
    loop: Any, algorithm: Any, learner: Any, actor: Any, stand: Any, scale: Any, horizon: int, number: int
) -> np.ndarray:
    """A discounted return from where each slot stands, (B,), with fresh noise for every `number`."""
    total, weight = np.zeros(algorithm.num_slots), np.ones(algorithm.num_slots)
    pieces = horizon // algorithm.rollout_steps
    for piece in range(pieces):
        rollout, stand, _, _ = loop.rollouts.gather(actor, stand, number * pieces + piece)
        values = np.asarray(_successors(algorithm, learner, actor, rollout.next_obs), np.float64)
        reward = np.asarray(rollout.reward, np.float64) * float(scale)
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
        if not weight.any():
            break
    return total


@jax.jit
def _successors(algorithm: Any, learner: Any, actor: Any, next_obs: Any) -> Any:
    """Values of what came next, (T, B)."""
    scaled = jax.vmap(jax.vmap(lambda obs: algorithm.scaled(actor, obs)))(next_obs)
    return algorithm.values(learner.params, scaled)
