"""What a run's value function does for its gradients, and what the best one would do.

One set of steps of a frozen policy, one return G_t for each of them, and gradients of E[(G - b) log pi] that differ by
the baseline b alone. Every baseline leaves the mean of the gradient; what it changes is the variance:

    none       b = 0
    constant   b = the mean return: all that normalising the advantages takes off without a value function
    agent      b = V(o), the run's value function
    true       b = V*(o), a fresh network of the same architecture, fitted to returns of the frozen policy

G is the sum of the rewards that followed in the slot, in the rollouts after it too, for as long as the budget allows up
to the horizon; where a clock or the last of these rollouts cut it, the agent's value completes it, the same for every
baseline. The same is measured of what the run really estimates, with its trace and cut at every rollout's end: there
`none` and `constant` are its targets, `agent` its advantages, and `true` the same with V* in place of V throughout.

Source: Ilyas et al. 2020, "A closer look at deep policy gradients" (arXiv 1811.02553), figure 4. Differs from it: the
paper's "zero" normalises its returns, which is `constant` here; its V* saw 5 million pairs, here half the budget; all
baselines see the same steps, so that differences are paired. Advantages are centred, but not divided by their
deviation, which changes no cosine and would hide the variance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, permutation, root_key
from workhorse.core.types import Rollout
from workhorse.diagnostics.gradients import (
    ESTIMATES,
    ScoreSums,
    SumsBySize,
    check_estimates,
    frozen_rollouts,
    score_sums,
    sizes_up_to,
    with_fixed_scale,
)
from workhorse.diagnostics.values import explained, horizon_of, relative_error, require_value_function
from workhorse.math.returns import lambda_returns
from workhorse.networks.mlp import MLP
from workhorse.runs.history import History
from workhorse.statistics.gradient_quality import Concentration, Pairing, concentration, paired

__all__ = [
    "BASELINES",
    "BaselineRow",
    "BaselineStep",
    "BaselineStudy",
    "Fitted",
    "check_baselines",
    "fit_value",
    "study_baselines",
]

BASELINES = ("none", "constant", "agent", "true")
"""From the least that is known of a state to the most."""

RETURNS = ("whole", "own")
"""Returns as they were, of which only the baseline differs; and the run's own advantages."""

MOST_SAMPLES = 10_000
"""Steps of the largest estimate, about: as far as the paper's figure goes."""

OTHER_ROOT = 2**31 + 2**29
"""What is added to the run's seed for the addresses: fresh experience, and not that of the other diagnoses."""

LEARNING_RATE, EPOCHS, PATIENCE = 1e-3, 30, 8
"""Of the fit of V*: Adam's rate, falling to zero over the epochs; it stops after so many without a better error."""

MINIBATCH, LEAST_UPDATES = 512, 256
"""Pairs of a minibatch, fewer where an epoch would have fewer updates than this."""

VALIDATION = 8
"""One rollout in so many judges the fit and is not fitted to."""


@dataclass(frozen=True)
class BaselineRow:
    """Gradients of one size with one baseline.

    Attributes:
        returns: one of `RETURNS`.
        baseline: one of `BASELINES`.
        samples: steps of each estimate.
        concentration: of the estimates among each other.
        variance: trace of the covariance of the estimates, times their samples, in scaled rewards squared.
    """

    returns: str
    baseline: str
    samples: int
    concentration: Concentration
    variance: float


@dataclass(frozen=True)
class BaselineStep:
    """What a baseline gains on another, on the same experience.

    Attributes:
        returns, samples: as in a row.
        baseline, other: the first beside the second.
        pairing: the difference of their cosines and the ratio of their variances.
    """

    returns: str
    samples: int
    baseline: str
    other: str
    pairing: Pairing


@dataclass(frozen=True)
class BaselineStudy:
    """What was found at one iteration.

    Attributes:
        iteration: whose policy and value function were frozen.
        estimates: K.
        own_samples: steps of the run's own rollout.
        env_steps: steps taken for all of it.
        fitted_pairs: states and returns that V* was fitted to, those that judged the fit not counted.
        epochs: passes over them, both fits together.
        lookahead: steps for which the return of every step is followed at least, where the episode goes on.
        judged_pairs: fresh states and returns that the next four are of.
        agent_explained, true_explained: share of the variance of returns that the value function and V* explain.
        agent_error, true_error: their mean of |V - return| / |return|.
        rows: a row for every kind of return, baseline and size.
        steps: for every kind of return and size, each baseline beside the one before it, and beside none.
    """

    iteration: int
    estimates: int
    own_samples: int
    env_steps: int
    fitted_pairs: int
    epochs: int
    lookahead: int
    judged_pairs: int
    agent_explained: float
    true_explained: float
    agent_error: float
    true_error: float
    rows: tuple[BaselineRow, ...]
    steps: tuple[BaselineStep, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; what is not finite is null."""
        record: dict[str, Any] = {
            field.name: _finite(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name not in ("rows", "steps")
        }
        for name, inner in (("rows", "concentration"), ("steps", "pairing")):
            record[name] = [_flat(row, inner) for row in getattr(self, name)]
        return record


def _flat(row: Any, inner: str) -> dict[str, Any]:
    own = {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name != inner}
    return {name: _finite(value) for name, value in (own | getattr(row, inner)._asdict()).items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


class _Plan(NamedTuple):
    """How the steps are spent, in rollouts.

    Attributes:
        fitted, judging: of V*'s fit, and of the judgement when it stops.
        used, ahead: of each estimate's gradient, and after them, for their returns.
    """

    fitted: int
    judging: int
    used: int
    ahead: int


def check_baselines(history: History, env_steps: int, estimates: int) -> _Plan:
    """What so many steps are for.

    Raises:
        UsageError: the algorithm has no value function, or the estimates or the steps are too few.
    """
    require_value_function(history, "baselines")
    check_estimates(estimates)
    return _planned(history.loop.algorithm, env_steps, estimates)


def study_baselines(
    history: History,
    iteration: int,
    *,
    env_steps: int = 1_000_000,
    estimates: int = ESTIMATES,
    threads: int = 0,
    progress: Callable[[int], None] = lambda env_steps: None,
) -> BaselineStudy:
    """Measure what baselines do for the gradients of a run at one iteration.

    Args:
        history: the run.
        iteration: whose networks are frozen; its state must have been kept.
        env_steps: to be taken at most, half of them for the fit of V* and half for the gradients.
        estimates: K, at least 3.
        threads: simulation threads.
        progress: is told how many steps were just taken.

    Raises:
        UsageError: the algorithm has no value function, the state was not kept, or the steps do not suffice.
    """
    plan = check_baselines(history, env_steps, estimates)
    state, algorithm = history.measurable(iteration), history.loop.algorithm
    own = algorithm.rollout_steps * algorithm.num_envs
    sizes = sizes_up_to(own, algorithm.num_envs, plan.used * own)
    with history.afresh(OTHER_ROOT, threads) as (loop, root):
        stream = frozen_rollouts(algorithm, state.learner, loop.rollouts, state.slots, progress)
        learner = with_fixed_scale(algorithm, state.learner, next(stream))
        fitted = fit_value(algorithm, learner, stream, plan.fitted, plan.judging, draw(root_key(root), "init"))
        found = [_estimate(algorithm, learner, fitted.value, stream, plan, sizes) for _ in range(estimates)]
    gradients = {name: np.stack([each.gradients[name] for each in found]) for name in found[0].gradients}
    agent, true, whole = (np.concatenate(part) for part in zip(*(each.judged for each in found), strict=True))
    rollouts = 1 + plan.fitted + plan.judging + estimates * (plan.used + plan.ahead)
    return BaselineStudy(
        iteration,
        estimates,
        own,
        rollouts * algorithm.rollout_steps * algorithm.num_slots,
        fitted.pairs,
        fitted.epochs,
        plan.ahead * algorithm.rollout_steps,
        len(whole),
        explained(agent, whole),
        explained(true, whole),
        relative_error(agent, whole),
        relative_error(true, whole),
        tuple(_row(name, stacked) for name, stacked in gradients.items()),
        _steps(gradients, sizes),
    )


def _planned(algorithm: Any, env_steps: int, estimates: int) -> _Plan:
    """Half the rollouts for V*, half for the gradients; of an estimate's at least half to look ahead, if there are two.

    Raises:
        UsageError: the steps do not suffice.
    """
    length = algorithm.rollout_steps
    taken, own = length * algorithm.num_slots, length * algorithm.num_envs
    half = env_steps // taken // 2
    if half < estimates:
        raise UsageError(
            f"--budget must be at least {2 * estimates * taken:,} steps for the baselines, {estimates} estimates of "
            f"one rollout and as much for the true value, or {6 * taken:,} with --estimates 3: got {env_steps:,}."
        )
    each = half // estimates
    used = max(min(round(MOST_SAMPLES / own), each // 2), 1)
    judging = max(half // VALIDATION, 1)
    return _Plan(half - judging - 1, judging, used, min(each - used, horizon_of(algorithm.discount, length) // length))


# --- experience ---


class _Trajectory(NamedTuple):
    """Consecutive rollouts as one, axes (T, B), cut at clocks and at the very end only.

    Attributes:
        obs: scaled.
        reward, discount, going_on: what `lambda_returns` takes.
        value, next_value: by the agent; the second counts at cuts only.
        cut: where a return is completed.
        cut_obs: what came next there, scaled, (C, D).
    """

    obs: Any
    reward: Any
    discount: Any
    going_on: Any
    value: Any
    next_value: Any
    cut: Any
    cut_obs: Any


@jax.jit
def _read(algorithm: Any, learner: Any, rollout: Rollout) -> Any:
    """A rollout as it is learnt from; whether each episode goes on; the agent's values of what came next, (T, B)."""
    batch, _, _ = algorithm.batch(learner, rollout)
    going_on = 1.0 - (rollout.terminated | rollout.truncated).astype(jnp.float32)
    return batch, going_on, algorithm.values(learner.params, batch.transition.next_obs)


def _trajectory(algorithm: Any, learner: Any, rollouts: Iterator[Rollout]) -> _Trajectory:
    """Of rollouts, each following the one before."""
    pieces = []
    for rollout in rollouts:
        batch, going_on, next_value = _read(algorithm, learner, rollout)
        then = batch.transition
        cut = (np.asarray(going_on) == 0) & (np.asarray(then.discount) > 0)
        kept = (batch.obs, then.reward, then.discount, going_on, batch.value, next_value)
        pieces.append((*map(np.asarray, kept), cut, np.asarray(then.next_obs)[cut]))
    last_obs, last_cut = np.asarray(then.next_obs)[-1], cut[-1]
    columns = [np.concatenate(column) for column in zip(*pieces, strict=True)]
    found = _Trajectory(*columns)
    open_end = ~last_cut & (found.discount[-1] > 0)  # the slots whose episode goes on after the last rollout
    found.going_on[-1], found.cut[-1] = 0.0, last_cut | open_end
    before = len(found.cut_obs) - last_cut.sum()  # rows are in the order of time, then of slots
    return found._replace(cut_obs=np.concatenate([found.cut_obs[:before], last_obs[found.cut[-1]]]))


@jax.jit
def _returns(reward: Any, discount: Any, next_value: Any, going_on: Any) -> Any:
    """Discounted rewards to the end of the episode, completed where it was cut, (T, B)."""
    return jax.vmap(lambda_returns, in_axes=1, out_axes=1)(reward, discount, next_value, going_on)


def _whole_returns(trajectory: _Trajectory, next_value: Any) -> np.ndarray:
    return np.asarray(_returns(trajectory.reward, trajectory.discount, next_value, trajectory.going_on))


# --- the true value ---


class Fitted(NamedTuple):
    """V*, and what it was made from.

    Attributes:
        value: the network.
        pairs: states and returns it was fitted to.
        epochs: passes over them.
    """

    value: MLP
    pairs: int
    epochs: int


def fit_value(algorithm: Any, learner: Any, stream: Iterator[Rollout], fitted: int, judging: int, key: Any) -> Fitted:
    """Fit a fresh value network, of the run's architecture and scaled observations, to returns of the frozen policy.

    Minimises the squared error on minibatches by Adam, and keeps the epoch with the least error on later rollouts. Done
    twice: the first time what a clock or the last rollout cut off is completed by the agent's value, the second time,
    going on from there, by the first fit's, so that as little as may be of the agent's value is left in it.

    Args:
        algorithm, learner: of the run, its rewards on a fixed scale.
        stream: rollouts of its policy.
        fitted, judging: how many rollouts to fit, and how many to judge by.
        key: of the fresh network and of the minibatches.
    """
    learnt, judge = (
        _trajectory(algorithm, learner, (next(stream) for _ in range(count))) for count in (fitted, judging)
    )
    value = algorithm.init(draw(key, "init")).params.value
    epochs, completed = 0, [part.next_value for part in (learnt, judge)]
    for round_number in range(2):
        pairs = [
            (jnp.asarray(part.obs.reshape(-1, part.obs.shape[-1])), jnp.asarray(_whole_returns(part, after).ravel()))
            for part, after in zip((learnt, judge), completed, strict=True)
        ]
        value, count = _fitted(value, pairs[0], pairs[1], draw(key, "update", round_number), is_fresh=round_number == 0)
        epochs += int(count)
        completed = [_completed(algorithm, learner, value, part) for part in (learnt, judge)]
    return Fitted(value, learnt.reward.size, epochs)


def _completed(algorithm: Any, learner: Any, value: MLP, trajectory: _Trajectory) -> np.ndarray:
    """Values of what came next at the cuts, by another network, (T, B); 0 elsewhere, where they do not count."""
    found = np.zeros_like(trajectory.next_value)
    found[trajectory.cut] = np.asarray(algorithm.values(learner.params._replace(value=value), trajectory.cut_obs))
    return found


class _Epochs(NamedTuple):
    """How far a fit has come."""

    value: Any
    optimiser: Any
    best: Any
    best_error: Any
    best_epoch: Any
    epoch: Any


@jax.jit
def _fitted(value: MLP, pairs: Any, judging: Any, key: Any, is_fresh: Any) -> tuple[MLP, Any]:
    """The network that fits best, and the passes made: one program. A fresh one is taken to be in units of targets."""
    (obs, target), (judged_obs, judged_target) = pairs, judging
    mean, spread = target.mean(), target.std()
    spread = jnp.where(spread > 0, spread, 1.0)
    value = _affine(value, jnp.where(is_fresh, 1.0, 1.0 / spread), jnp.where(is_fresh, 0.0, -mean / spread))
    target, judged_target = (target - mean) / spread, (judged_target - mean) / spread
    size = min(max(len(target) // LEAST_UPDATES, 1), MINIBATCH)
    updates = len(target) // size
    optimiser = optax.adam(optax.linear_schedule(LEARNING_RATE, 0.0, EPOCHS * updates))

    def error(value: MLP, obs: Any, target: Any) -> Any:
        return jnp.square(jax.vmap(value)(obs)[:, 0] - target).mean()

    def minibatch(carry: Any, rows: Any) -> tuple[Any, None]:
        value, memory = carry
        gradient = jax.grad(error)(value, obs[rows], target[rows])
        step, memory = optimiser.update(gradient, memory)
        return (optax.apply_updates(value, step), memory), None

    def epoch(state: _Epochs) -> _Epochs:
        order = permutation(jax.random.fold_in(key, state.epoch), len(target))
        rows = order[: updates * size].reshape(updates, size)
        (value, memory), _ = jax.lax.scan(minibatch, (state.value, state.optimiser), rows)
        found, number = error(value, judged_obs, judged_target), state.epoch + 1
        is_better = found < state.best_error
        best = jax.tree.map(lambda new, old: jnp.where(is_better, new, old), value, state.best)
        return _Epochs(
            value,
            memory,
            best,
            jnp.where(is_better, found, state.best_error),
            jnp.where(is_better, number, state.best_epoch),
            number,
        )

    def goes_on(state: _Epochs) -> Any:
        return (state.epoch < EPOCHS) & (state.epoch - state.best_epoch < PATIENCE)

    zero = jnp.zeros((), jnp.int32)
    first = error(value, judged_obs, judged_target)
    as_tree: Any = value  # optax's types know no modules
    last = jax.lax.while_loop(goes_on, epoch, _Epochs(value, optimiser.init(as_tree), value, first, zero, zero))
    return _affine(last.best, spread, mean), last.epoch


def _affine(value: MLP, scale: Any, offset: Any) -> MLP:
    """The network whose output is multiplied and moved."""
    return dataclasses.replace(
        value,
        weights=(*value.weights[:-1], value.weights[-1] * scale),
        biases=(*value.biases[:-1], value.biases[-1] * scale + offset),
    )


# --- gradients ---


class _Estimate(NamedTuple):
    """One estimate of every gradient.

    Attributes:
        gradients: by kind of return, baseline and size.
        judged: values of the agent, values of V*, and returns of its steps, (N,).
    """

    gradients: dict[tuple[str, str, int], np.ndarray]
    judged: tuple[np.ndarray, np.ndarray, np.ndarray]


def _estimate(
    algorithm: Any, learner: Any, value: MLP, stream: Iterator[Rollout], plan: _Plan, sizes: Sequence[int]
) -> _Estimate:
    """From the next rollouts: those whose gradient is taken, and those after them for the returns."""
    rollouts = [next(stream) for _ in range(plan.used + plan.ahead)]
    trajectory = _trajectory(algorithm, learner, iter(rollouts))
    whole = _whole_returns(trajectory, trajectory.next_value)
    length = algorithm.rollout_steps
    own = length * algorithm.num_envs
    sums = {(kind, name): SumsBySize(sizes, own, length) for kind in RETURNS for name in ("none", "agent", "true")}
    values = []
    for number, rollout in enumerate(rollouts[: plan.used]):
        returns = whole[number * length : (number + 1) * length]
        batch, weighed, by_value = _weighed(algorithm, learner, value, rollout, returns)
        values.append(by_value)
        for name, advantage in weighed.items():
            sums[name].add(score_sums(algorithm, learner.params, batch._replace(advantage=advantage)))
    agent, true = (np.concatenate(part, dtype=np.float64).ravel() for part in zip(*values, strict=True))
    used = whole[: plan.used * length, : algorithm.num_envs].astype(np.float64).ravel()
    return _Estimate(_gradients(sums, sizes), (agent, true, used))


@jax.jit
def _weighed(algorithm: Any, learner: Any, value: MLP, rollout: Rollout, returns: Any) -> Any:
    """The batch (T, B) of the slots trained on, what weighs its scores by each baseline, values by the agent and V*."""
    batch = algorithm.batch(learner, rollout)[0]
    true = algorithm.batch(learner._replace(params=learner.params._replace(value=value)), rollout)[0]
    weighed = {
        ("whole", "none"): returns,
        ("whole", "agent"): returns - batch.value,
        ("whole", "true"): returns - true.value,
        ("own", "none"): batch.target,
        ("own", "agent"): batch.advantage,
        ("own", "true"): true.advantage,
    }
    return jax.tree.map(lambda leaf: leaf[:, : algorithm.num_envs], (batch, weighed, (batch.value, true.value)))


def _gradients(sums: dict[tuple[str, str], SumsBySize], sizes: Sequence[int]) -> dict[tuple[str, str, int], np.ndarray]:
    found = {}
    for kind in RETURNS:
        of: dict[str, tuple[str, Callable[[ScoreSums], np.ndarray]]] = {
            "none": ("none", ScoreSums.raw),
            "constant": ("none", ScoreSums.centred),
            "agent": ("agent", ScoreSums.centred),
            "true": ("true", ScoreSums.centred),
        }
        for name in BASELINES:
            source, gradient = of[name]
            found |= {(kind, name, size): gradient(sums[kind, source].found[size]) for size in sizes}
    return found


def _row(name: tuple[str, str, int], estimates: np.ndarray) -> BaselineRow:
    kind, baseline, size = name
    variance = size * float(estimates.var(0, ddof=1).sum())
    return BaselineRow(kind, baseline, size, concentration(estimates, size), variance)


def _steps(gradients: dict[tuple[str, str, int], np.ndarray], sizes: Sequence[int]) -> tuple[BaselineStep, ...]:
    neighbours = [(one, other) for other, one in pairwise(BASELINES)]
    pairs = [*neighbours, *((name, "none") for name in BASELINES[2:])]
    return tuple(
        BaselineStep(kind, size, one, other, paired(gradients[kind, one, size], gradients[kind, other, size]))
        for kind in RETURNS
        for size in sizes
        for one, other in pairs
    )
