"""Worth of a run's value function for its gradients, beside the best one and beside none.

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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from workhorse.algorithms.policy_gradient.policy_gradient import Batch, GradientState, PolicyGradient
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Rollout
from workhorse.diagnostics.experience import ToldSteps, fresh_experience
from workhorse.diagnostics.gradients import ESTIMATES, check_estimates
from workhorse.diagnostics.scores import ScoreSums, SumsBySize, score_sums, sizes_up_to
from workhorse.diagnostics.value_errors import explained, relative_error
from workhorse.diagnostics.value_fit import fit_value, trajectory_of, whole_returns
from workhorse.diagnostics.values import horizon_of, with_value_function
from workhorse.networks.mlp import MLP
from workhorse.runs.history import History
from workhorse.statistics.gradient_quality import Concentration, Pairing, concentration, paired

__all__ = ["BASELINES", "BaselineRow", "BaselineStep", "BaselineStudy", "check_baselines", "study_baselines"]

BASELINES = ("none", "constant", "agent", "true")
"""In the order of what they know of a state."""

RETURNS = ("whole", "own")
"""Returns as they were, of which only the baseline differs; and the run's own advantages."""

MOST_SAMPLES = 10_000
"""Steps of the largest estimate, about: as far as the paper's figure goes."""

OTHER_ROOT = 2**31 + 2**29
"""Added to the run's seed for the addresses: fresh experience, and not that of another diagnosis."""

VALIDATION = 8
"""One rollout in this number judges the fit and is not fitted to."""


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
    """Gain of a baseline on another, on the same experience.

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
    """Gradients by baseline at one iteration, and the quality of both value functions.

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


class Allotment(NamedTuple):
    """Rollouts that each purpose is given.

    Attributes:
        fitted, judging: of V*'s fit, and of the judgement when it stops.
        used, ahead: of each estimate's gradient, and after them, for their returns.
    """

    fitted: int
    judging: int
    used: int
    ahead: int


def check_baselines(history: History, env_steps: int, estimates: int) -> Allotment:
    """Return the rollouts for each purpose.

    Raises:
        UsageError: the algorithm has no value function, or the estimates or the steps are too few.
    """
    algorithm = with_value_function(history, "baselines")
    check_estimates(estimates)
    return _allotted(algorithm, env_steps, estimates)


def study_baselines(
    history: History,
    iteration: int,
    *,
    env_steps: int = 1_000_000,
    estimates: int = ESTIMATES,
    threads: int = 0,
    progress: ToldSteps = lambda env_steps: None,
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
    algorithm = with_value_function(history, "baselines")
    own = algorithm.rollout_steps * algorithm.num_envs
    sizes = sizes_up_to(own, algorithm.num_envs, plan.used * own)
    with fresh_experience(history, iteration, OTHER_ROOT, threads, progress) as (state, stream, root):
        next(stream)  # set the scale of rewards
        fitted = fit_value(algorithm, state, stream, plan.fitted, plan.judging, draw(root_key(root), "init"))
        found = [_estimate(algorithm, state, fitted.value, stream, plan, sizes) for _ in range(estimates)]
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


def _allotted(algorithm: PolicyGradient, env_steps: int, estimates: int) -> Allotment:
    """Give half the rollouts to V* and half to the gradients, at least half of an estimate's to look ahead.

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
    return Allotment(
        half - judging - 1, judging, used, min(each - used, horizon_of(algorithm.discount, length) // length)
    )


class _Estimate(NamedTuple):
    """One estimate of every gradient.

    Attributes:
        gradients: by kind of return, baseline and size.
        judged: values of the agent, values of V*, and returns of its steps, (N,).
    """

    gradients: dict[tuple[str, str, int], np.ndarray]
    judged: tuple[np.ndarray, np.ndarray, np.ndarray]


def _estimate(
    algorithm: PolicyGradient,
    state: GradientState,
    value: MLP,
    stream: Iterator[Rollout],
    plan: Allotment,
    sizes: Sequence[int],
) -> _Estimate:
    """Make an estimate from the next rollouts: those whose gradient is taken, and those after them for the returns."""
    rollouts = [next(stream) for _ in range(plan.used + plan.ahead)]
    trajectory = trajectory_of(algorithm, state, iter(rollouts))
    whole = whole_returns(trajectory, trajectory.next_value)
    length = algorithm.rollout_steps
    own = length * algorithm.num_envs
    # "constant" needs no sums of its own: it is "none" with the mean taken off.
    sums = {(kind, name): SumsBySize(sizes, own, length) for kind in RETURNS for name in ("none", "agent", "true")}
    values = []
    for number, rollout in enumerate(rollouts[: plan.used]):
        returns = whole[number * length : (number + 1) * length]
        batch, weighed, by_value = _weighed(algorithm, state, value, rollout, returns)
        values.append(by_value)
        for name, advantage in weighed.items():
            sums[name].add(score_sums(algorithm, state.params, batch._replace(advantage=advantage)))
    agent, true = (np.concatenate(part, dtype=np.float64).ravel() for part in zip(*values, strict=True))
    used = whole[: plan.used * length, : algorithm.num_envs].astype(np.float64).ravel()
    return _Estimate(_gradients(sums, sizes), (agent, true, used))


@jax.jit
def _weighed(
    algorithm: PolicyGradient, state: GradientState, value: MLP, rollout: Rollout, returns: Array
) -> tuple[Batch, dict[tuple[str, str], Array], tuple[Array, Array]]:
    """Return the batch (T, B) of the slots trained on, its advantages by baseline, and values by the agent and V*."""
    batch = algorithm.batch(state, rollout)[0]
    true = algorithm.batch(state._replace(params=state.params._replace(value=value)), rollout)[0]
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
    # Times the samples, so that sizes compare: the variance of a mean falls as 1 / N.
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
