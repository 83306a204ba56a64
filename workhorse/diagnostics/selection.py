"""Choose among policies by a log alone, and say what the choice is worth where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import log_ndtr, ndtr, ndtri

from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete
from workhorse.data.dataset import CHUNK, Dataset
from workhorse.data.opening import check_learnable
from workhorse.diagnostics.behaviour import behaviour_log_prob
from workhorse.diagnostics.fitted_evaluation import FittedValues, FixedPolicySteps, fit_values
from workhorse.environments.bounds import value_bounds
from workhorse.runs.folder import RunFolder
from workhorse.runs.metrics import read_metrics
from workhorse.runs.policy import Policy
from workhorse.statistics.intervals import Interval
from workhorse.statistics.off_policy_estimates import (
    ESTIMATORS,
    Estimate,
    PlayedEpisodes,
    Ranking,
    estimate,
    padded,
    ranking,
)

__all__ = ["FITTED", "OWN", "Candidate", "Selection", "TargetPolicy", "folders", "select", "target_log_prob"]

FITTED, OWN = "fitted Q", "own values"
"""Names of two further estimators: fitted Q evaluation, and what a run's own critic says on held-out steps."""

DRAWS = 8
"""Draws of the target policy over which the value of a state is averaged."""


@dataclass(frozen=True)
class Candidate:
    """A run whose policy is judged.

    Attributes:
        name: the run's folder.
        estimates: of the discounted return, by estimator; `own values` has no interval.
        twins: how far the two networks of fitted Q evaluation are apart, on average over starts.
        truth: mean undiscounted return of its last evaluation in the task; None where it was never played.
    """

    name: str
    estimates: dict[str, Estimate]
    twins: float
    truth: float | None = None


@dataclass(frozen=True)
class Selection:
    """What a log says of some policies.

    Attributes:
        log: its name.
        discount: gamma of all estimates.
        candidates: in the order that they were named in.
        rankings: how well each estimator's order agrees with the truth; empty where that is not known of all.
        notes: a sentence each, of what the numbers rest on.
    """

    log: str
    discount: float
    candidates: tuple[Candidate, ...]
    rankings: dict[str, Ranking] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def chosen(self, estimator: str = FITTED) -> Candidate:
        """Return the candidate with the highest estimate."""
        return max(self.candidates, key=lambda one: one.estimates[estimator].interval.value)


class TargetPolicy(NamedTuple):
    """Density around a policy's own actions, in vectors of half the range of an action.

    A Gaussian of standard deviation `width` around the action, cut at -1 and 1; among choices, the policy's own with
    probability 1 - width, and else any.
    """

    width: float
    is_choice: bool


def target_log_prob(
    target: TargetPolicy, chosen: Float[np.ndarray, "N A"], action: Float[np.ndarray, "N A"]
) -> Float[np.ndarray, "N"]:
    """Return the log density of actions where the policy's own are `chosen`.

    Example:
        >>> choices = np.eye(2)
        >>> np.exp(target_log_prob(TargetPolicy(0.1, True), choices, choices[::-1])).round(3).tolist()
        [0.05, 0.05]
    """
    if target.is_choice:
        same = (chosen * action).sum(1)
        return np.log(target.width / action.shape[1] + (1 - target.width) * same)
    away = (action - chosen) / target.width
    low, high = ((edge - chosen) / target.width for edge in (-1.0, 1.0))
    mass = np.where(low > 0, log_ndtr(-low), np.log(np.maximum(ndtr(high) - ndtr(low), 1e-300)))
    return (-0.5 * np.square(away) - 0.5 * math.log(2 * math.pi) - math.log(target.width) - mass).sum(1)


def _drawn(target: TargetPolicy, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw an action at each step."""
    if target.is_choice:
        other = np.eye(chosen.shape[1])[rng.integers(0, chosen.shape[1], len(chosen))]
        return np.where((rng.uniform(size=len(chosen)) < target.width)[:, None], other, chosen)
    low, high = (ndtr((edge - chosen) / target.width) for edge in (-1.0, 1.0))
    level = low + rng.uniform(size=chosen.shape) * (high - low)
    return np.clip(chosen + target.width * ndtri(np.clip(level, 1e-12, 1 - 1e-12)), -1.0, 1.0)


@dataclass(frozen=True)
class _Log:
    """The log as estimators read it: scaled observations, actions as vectors, the density of what was done."""

    dataset: Dataset
    obs: np.ndarray
    next_obs: np.ndarray
    action: np.ndarray
    log_prob: np.ndarray
    returns: np.ndarray
    bounds: tuple[float, float]
    notes: tuple[str, ...]


def select(
    log: Dataset, runs: Sequence[RunFolder], *, discount: float = 0.99, width: float = 0.1, updates: int = 20_000,
    seed: int = 0, told: Callable[[str], None] = lambda sentence: None,
) -> Selection:  # fmt: skip
    """Estimate what the policies of some runs would earn, from a log alone.

    Args:
        log: of episodes of any policy on the task.
        runs: whose policies are judged, one or more.
        discount: gamma.
        width: of the density around a policy's actions that importance sampling needs, see `TargetPolicy`.
        updates: of fitted Q evaluation.
        seed: of all draws.
        told: is told of what is being done.

    Raises:
        UsageError: the log or a policy cannot be used; nothing was computed.
    """
    if not 0 <= discount < 1:
        raise UsageError(f"discount must be in [0, 1): got {discount:g}.")
    if not 0 < width < 1:
        raise UsageError(f"width must be in (0, 1), in halves of the range of an action: got {width:g}.")
    if not runs:
        raise UsageError("Expected the folder of at least one run behind the log, got none.")
    check_learnable(log)
    policies = [_policy(log, run) for run in runs]
    told("reading the log")
    read = _read(log, discount, seed)
    target = TargetPolicy(width, isinstance(log.action_space, Discrete))
    candidates = []
    for run, policy in zip(runs, policies, strict=True):
        told(f"judging {run.id}")
        candidates.append(_judged(read, run, policy, target, discount, updates, seed))
    notes = (*read.notes, *_notes(log, target, discount))
    return Selection(log.card.name, discount, tuple(candidates), _rankings(candidates), notes)


def _policy(log: Dataset, run: RunFolder) -> Policy:
    policy = Policy.load(run.path)
    if not isinstance(log.action_space, Box | Discrete):
        raise UsageError(f"`workhorse select` judges actions in a box or one choice, not {log.action_space}.")
    if policy.is_recurrent:
        raise UsageError(f"The policy of {run.path} remembers earlier steps, which `workhorse select` cannot judge.")
    same = policy.action == log.action_space
    if isinstance(policy.action, Box) and isinstance(log.action_space, Box):
        same = policy.action.shape == log.action_space.shape
    if not same or policy.observation.shape != log.observation.shape:
        raise UsageError(
            f"The policy of {run.path} acts on {policy.observation.shape} with {policy.action}, but the log "
            f"{log.card.name} has {log.observation.shape} and {log.action_space}: name runs on the log's own task."
        )
    return policy


def _read(log: Dataset, discount: float, seed: int) -> _Log:
    obs, following = log.obs.reshape(log.num_steps, -1), log.next_obs(np.arange(log.num_steps))
    mean, scale = obs.mean(0, dtype=np.float64), obs.std(0, dtype=np.float64)
    scale = np.where(scale > 1e-8, scale, 1.0)
    now, after = (((part.reshape(len(part), -1) - mean) / scale).astype(np.float32) for part in (obs, following))
    action, notes = _vectors(log, np.asarray(log.action)), []
    is_choice = isinstance(log.action_space, Discrete)
    if log.log_prob is not None and np.isfinite(log.log_prob).all():
        log_prob = np.asarray(log.log_prob, np.float64)
        if not is_choice:  # a density of vectors is larger by what half a range measures
            log_prob = log_prob + np.log(_half(log)).sum()
    else:
        log_prob = behaviour_log_prob(now, action, is_choice=is_choice, seed=seed)
        kind = "softmax" if is_choice else "Gaussian"
        notes.append(f"The log does not hold the density of its actions: a {kind} was fitted to them instead.")
    task = value_bounds(log.card.task, log.card.task_options, discount)
    least, most = float(np.min(log.reward)), float(np.max(log.reward))
    later = 1 / (1 - discount)
    bounds = (min(least, least * later) if task[0] is None else task[0], max(most, most * later))
    return _Log(log, now, after, action, log_prob, log.returns_to_go(discount), bounds, tuple(notes))


def _half(log: Dataset) -> np.ndarray:
    space = log.action_space
    assert isinstance(space, Box)
    half = (np.asarray(space.high) - np.asarray(space.low)) / 2
    if not np.isfinite(half).all():
        raise UsageError(f"`workhorse select` needs actions with bounds, but those of {log.card.name} have none.")
    return half


def _vectors(log: Dataset, action: np.ndarray) -> np.ndarray:
    """Return actions as vectors: choices one-hot, others in halves of their range from the middle."""
    space = log.action_space
    if isinstance(space, Discrete):
        return np.eye(space.count, dtype=np.float32)[action]
    assert isinstance(space, Box)
    middle = (np.asarray(space.high) + np.asarray(space.low)) / 2
    return ((action.reshape(len(action), -1) - middle) / _half(log)).astype(np.float32)


def _chosen(log: Dataset, policy: Policy, obs: np.ndarray) -> np.ndarray:
    """Return a policy's actions at observations, as vectors."""
    parts = [policy.choose(obs[begin : begin + CHUNK])[0] for begin in range(0, len(obs), CHUNK)]
    return _vectors(log, np.concatenate(parts))


def _judged(
    read: _Log, run: RunFolder, policy: Policy, target: TargetPolicy, discount: float, updates: int, seed: int
) -> Candidate:
    log = read.dataset
    numbers = np.arange(log.num_steps)
    chosen, after = _chosen(log, policy, log.obs), _chosen(log, policy, log.next_obs(numbers))
    gamma = np.where(np.asarray(log.terminated), 0.0, discount)
    steps = FixedPolicySteps(read.obs, read.action, np.asarray(log.reward), gamma, read.next_obs, after)
    values = fit_values(steps, read.returns, read.bounds, seed=seed, updates=updates)
    rng = np.random.default_rng([seed, 1])
    ratio = target_log_prob(target, chosen, read.action) - read.log_prob
    at_state = np.mean([values(read.obs, _drawn(target, chosen, rng)) for _ in range(DRAWS)], axis=0)
    columns = (ratio, np.asarray(log.reward, np.float64), values(read.obs, read.action), at_state)
    episodes = PlayedEpisodes(*(padded(column, log.begins) for column in columns))
    found = {FITTED: _fitted_estimate(values, read.obs[log.begins], chosen[log.begins], rng)}
    found |= {name: estimate(episodes, name, discount, np.random.default_rng([seed, 2])) for name in ESTIMATORS}
    own = _own_value(run)
    if own is not None:
        found[OWN] = Estimate(Interval(own, math.nan, math.nan, "none"), math.nan)
    both = values.both(read.obs[log.begins], chosen[log.begins]).mean(1)
    status = run.status()
    return Candidate(
        str(run.path), found, float(abs(both[0] - both[1])), None if status is None else status.last_return
    )


def _fitted_estimate(values: FittedValues, obs: np.ndarray, action: np.ndarray, rng: np.random.Generator) -> Estimate:
    """Return the mean value of the starts, with a bootstrap interval over them: *not* over errors of the networks."""
    starts = values(obs, action)
    drawn = starts[rng.integers(0, len(starts), (1000, len(starts)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(
        Interval(float(starts.mean()), float(low), float(high), "bootstrap over starts"), float(len(starts))
    )


def _own_value(run: RunFolder) -> float | None:
    """Return what a run's own critic claimed of its policy at last; None where it has none."""
    if not run.has_metrics:
        return None
    metrics = read_metrics(run.path)
    if "policy_value" not in metrics.columns:
        return None
    value = metrics["policy_value"].drop_nulls().tail(1).to_list()
    return float(value[0]) if value and math.isfinite(value[0]) else None


def _rankings(candidates: Sequence[Candidate]) -> dict[str, Ranking]:
    truths = [one.truth for one in candidates]
    if len(candidates) < 2 or any(truth is None for truth in truths):
        return {}
    truth = np.array(truths, np.float64)
    names = [name for name in (FITTED, *ESTIMATORS, OWN) if all(name in one.estimates for one in candidates)]
    return {
        name: ranking(np.array([one.estimates[name].interval.value for one in candidates]), truth) for name in names
    }


def _notes(log: Dataset, target: TargetPolicy, discount: float) -> tuple[str, ...]:
    kind = (
        f"the policy's choice with probability {1 - target.width:g}, and else any"
        if target.is_choice
        else f"a Gaussian around the policy's action, {target.width:g} of half its range wide and cut at the bounds"
    )
    return (
        f"Policies act without noise, which has no density: importance sampling and the doubly robust estimates judge "
        f"{kind}.",
        f"Estimates are of the return discounted by {discount:g}; those of fitted Q go on where a clock cuts the "
        f"log's episodes, after {int(log.lengths.max()):,} steps at most. Truths are undiscounted.",
        "Intervals are 95 %, over the log's episodes: that of fitted Q does not hold the error of its networks.",
    )


def folders(paths: Sequence[str | Path]) -> list[RunFolder]:
    """Return the run folders at these paths, each named once.

    Raises:
        UsageError: one is no run, or is named twice.
    """
    found = [RunFolder.open(path) for path in paths]
    names = [one.path.resolve() for one in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is named twice: name each run once.")
    return found
