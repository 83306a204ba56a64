"""Agreement of a run's gradient estimates: independent ones of one frozen policy, and the cosines between them.

The protocol of Ilyas et al. 2020, "A closer look at deep policy gradients" (arXiv 1811.02553), section 2.1: K estimates
of the gradient of E[rho A] at the policy of an iteration, A normalised over the estimate's steps, from 100 steps to a
million; the mean cosine of pairs, and the cosine to the best estimate there is. The same of the steps that the
algorithm really takes on that much experience.

Differs from the paper: A is the run's own, with its discount, trace, reward scale and value function; an estimate's
steps are those of the run's slots, which go on from where the run left them; the reference of an estimate is the mean
of all *other* estimates at the largest size, so that none is compared with itself.

Of a policy gradient whose steps can be read one by one, estimates of any number of steps come from sums over slots. Of
any other `Differentiable` algorithm that learns from rollouts, a recurrent policy among them, they are means of the
gradients of its own objective "policy" on whole rollouts, each normalised by itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from workhorse.algorithms.policy_gradient.policy_gradient import Batch, GradientState, PolicyGradient
from workhorse.core.algorithm import Algorithm, Differentiable, Key, OnPolicy, State
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Rollout
from workhorse.diagnostics.experience import (
    ToldSteps,
    fresh_experience,
    on_policy,
    policy_step,
    remembers,
    training_batch,
)
from workhorse.diagnostics.scores import SumsBySize, score_sums, sizes_up_to
from workhorse.runs.history import History
from workhorse.statistics.gradient_quality import Concentration, concentration, cosines_to
from workhorse.training.on_policy import OnPolicyLoop

__all__ = [
    "ESTIMATES",
    "Estimates",
    "GradientStudy",
    "SizeRow",
    "check_estimates",
    "check_gradients",
    "independent_estimates",
    "study_gradients",
]

ESTIMATES = 10
"""Independent estimates, K."""

STEP_SIZES = (1, 4, 16)
"""Rollouts of which the algorithm's own step is measured: each is a program of its own, which takes long to compile."""

OTHER_ROOT = 2**31
"""Added to the run's seed for the addresses: fresh experience, and the same at every call."""


@dataclass(frozen=True)
class SizeRow:
    """Estimates of one size.

    Attributes:
        samples: steps of each estimate.
        concentration: of the estimates among each other.
        to_reference: mean cosine to the reference.
    """

    samples: int
    concentration: Concentration
    to_reference: float


@dataclass(frozen=True)
class GradientStudy:
    """Agreement of gradients and of steps at one iteration.

    Attributes:
        iteration: whose policy was frozen.
        estimates: K.
        own_samples: steps of the run's own rollout, the relevant size.
        reference_samples, step_reference_samples: steps that the references of each estimate were made of, that of the
            gradient and that of the step.
        env_steps: steps taken for all of it, held-out ones included.
        parameters: of the policy.
        gradients: a row for every size, the gradient.
        steps: a row for some sizes, the step the algorithm takes; none where it takes none, its rate annealed to zero.
        noise_scale: B in samples, of the size whose estimate of it is the best: the largest.
    """

    iteration: int
    estimates: int
    own_samples: int
    reference_samples: int
    step_reference_samples: int
    env_steps: int
    parameters: int
    gradients: tuple[SizeRow, ...]
    steps: tuple[SizeRow, ...]
    noise_scale: float


class Estimates(NamedTuple):
    """K independent estimates of each size in steps, (K, d), flat as `ravel_pytree` has the policy.

    Attributes:
        gradients: of the policy's gradient.
        steps: of how far the algorithm moves the policy.
    """

    gradients: Mapping[int, np.ndarray]
    steps: Mapping[int, np.ndarray]


def check_gradients(history: History, env_steps: int, estimates: int) -> int:
    """Return the rollouts of each estimate.

    Raises:
        UsageError: the run's algorithm has no gradient, or the estimates or the steps are too few.
    """
    loop = history.loop
    if not isinstance(loop, OnPolicyLoop) or not isinstance(loop.algorithm, Differentiable):
        raise UsageError(
            f"{history.manifest.algorithm} of {history.folder.path} estimates no gradient of a policy's actions: "
            "`diagnose` reads runs of reinforce, a2c, ppo and trpo."
        )
    check_estimates(estimates)
    taken = loop.algorithm.rollout_steps * loop.algorithm.num_slots
    if env_steps < estimates * taken:
        raise UsageError(
            f"--budget must be at least {estimates * taken:,} steps for the gradients, {estimates} estimates of one "
            f"rollout, or {3 * taken:,} with --estimates 3: got {env_steps:,}."
        )
    return env_steps // taken // estimates


def check_estimates(estimates: int) -> None:
    """Raise a `UsageError` where there are too few to say how far they agree."""
    if estimates < 3:
        raise UsageError(f"--estimates must be at least 3, or there is no interval: got {estimates}.")


def study_gradients(
    history: History,
    iteration: int,
    *,
    env_steps: int = 1_000_000,
    estimates: int = ESTIMATES,
    threads: int = 0,
    progress: ToldSteps = lambda env_steps: None,
) -> GradientStudy:
    """Measure the gradients of a run at one iteration.

    Args:
        history: the run.
        iteration: whose policy is frozen; its state must have been kept.
        env_steps: to be taken at most, for all estimates together.
        estimates: K, at least 3.
        threads: simulation threads.
        progress: is told how many steps were just taken.

    Raises:
        UsageError: the run's algorithm has no gradient, the state was not kept, or the steps do not suffice.
    """
    rollouts = check_gradients(history, env_steps, estimates)
    algorithm = on_policy(history.loop).algorithm
    own, taken = algorithm.rollout_steps * algorithm.num_envs, algorithm.rollout_steps * algorithm.num_slots
    sizes = sizes_up_to(own, algorithm.num_envs, rollouts * own)
    step_sizes = [size * own for size in STEP_SIZES if size <= rollouts]
    if not _reads_steps(algorithm):
        sizes, step_sizes = [size for size in sizes if size >= own], [own]
    with fresh_experience(history, iteration, OTHER_ROOT, threads, progress) as (state, stream, root):
        gradients, steps = independent_estimates(
            algorithm, state, stream, estimates, sizes=sizes, step_sizes=step_sizes, root=root
        )
    largest, widest = gradients[sizes[-1]], steps[step_sizes[-1]]
    rows = _rows(gradients, sizes)
    step_rows = _rows(steps, step_sizes) if widest.any() else ()  # not where annealing has come to its end
    return GradientStudy(
        iteration,
        estimates,
        own,
        sizes[-1] * (estimates - 1),
        step_sizes[-1] * (estimates - 1),
        estimates * rollouts * taken,
        largest.shape[1],
        rows,
        step_rows,
        rows[-1].concentration.noise_scale,
    )


def _rows(found: Mapping[int, np.ndarray], sizes: Sequence[int]) -> tuple[SizeRow, ...]:
    """Return a row for every size; the reference of an estimate is the mean of all others at the last size."""
    largest = found[sizes[-1]]
    # Without itself: an estimate that is part of its reference would agree with it by that part alone.
    references = (largest.sum(0) - largest) / (len(largest) - 1)
    return tuple(
        SizeRow(size, concentration(found[size], size), float(cosines_to(found[size], references).mean()))
        for size in sizes
    )


def independent_estimates(
    algorithm: OnPolicy,
    state: State,
    rollouts: Iterator[Rollout],
    count: int,
    *,
    sizes: Sequence[int],
    step_sizes: Sequence[int] = (),
    root: int = 0,
) -> Estimates:
    """Return `count` estimates of the gradient of E[rho A] and of the algorithm's step, no two from one experience.

    In expectation, up to 1 / samples, a gradient is

        E[A grad log pi] / sd(A)

    over the steps of slots that go on: how often a state counts is how often it is visited, *not discounted*, while A
    has the algorithm's discount, trace and value function.

    Args:
        algorithm: a policy gradient, or another `Differentiable`.
        state: its state, of which nothing changes.
        rollouts: of the state's policy; each estimate takes as many as its largest size needs.
        count: K.
        sizes: of gradients, in steps: whole slots of one rollout, or whole rollouts; the latter alone where the
            algorithm's steps cannot be read one by one.
        step_sizes: of steps: whole rollouts; one of them where the algorithm's steps cannot be read one by one.
        root: of what the steps draw.
    """
    own = algorithm.rollout_steps * algorithm.num_envs
    needed = -(-max((*sizes, *step_sizes)) // own)
    found: list[tuple[dict[int, np.ndarray], dict[int, np.ndarray]]] = []
    for number in range(count):
        taken = (next(rollouts) for _ in range(needed))
        key = draw(root_key(root), "update", number)
        if isinstance(algorithm, PolicyGradient) and _reads_steps(algorithm):
            found.append(_by_scores(algorithm, state, taken, sizes, step_sizes, key))
        else:
            found.append(_by_loss(algorithm, state, taken, sizes, step_sizes, key))
    gradients, steps = (
        {size: np.stack([one[size] for one in kind]) for size in kind[0]} for kind in zip(*found, strict=True)
    )
    return Estimates(gradients, steps)


def _reads_steps(algorithm: Algorithm) -> bool:
    return isinstance(algorithm, PolicyGradient) and not remembers(algorithm)


def _by_scores(
    algorithm: PolicyGradient,
    state: GradientState,
    rollouts: Iterator[Rollout],
    sizes: Sequence[int],
    step_sizes: Sequence[int],
    key: Key,
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Return one estimate of every size, and one step of every size."""
    own = algorithm.rollout_steps * algorithm.num_envs
    sums = SumsBySize(sizes, own, algorithm.rollout_steps)
    kept: list[Batch] = []
    steps: dict[int, np.ndarray] = {}
    for number, rollout in enumerate(rollouts, start=1):
        batch = training_batch(algorithm, state, rollout)
        sums.add(score_sums(algorithm, state.params, batch))
        size = number * own
        if size <= max(step_sizes, default=0):
            kept.append(batch)
        if size in step_sizes:
            # As more slots side by side: the algorithm's minibatches then mix them all.
            together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1), *kept)
            steps[size] = np.asarray(policy_step(algorithm, state, together, key))
    return {size: found.gradient() for size, found in sums.found.items()}, steps


def _by_loss(
    algorithm: OnPolicy,
    state: State,
    rollouts: Iterator[Rollout],
    sizes: Sequence[int],
    step_sizes: Sequence[int],
    key: Key,
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Return the same of whole rollouts, from nothing but the algorithm's objective and its update."""
    assert isinstance(algorithm, Differentiable)
    own = algorithm.rollout_steps * algorithm.num_envs
    gradients: dict[int, np.ndarray] = {}
    steps: dict[int, np.ndarray] = {}
    total = np.zeros(())
    for number, rollout in enumerate(rollouts, start=1):
        total = total + np.asarray(_ascent(algorithm, state, rollout, key), np.float64)
        if number * own in sizes:
            gradients[number * own] = total / number
        if number == 1 and own in step_sizes:  # an update takes one rollout of the run's size and no other
            steps[own] = np.asarray(_moved(algorithm, state, rollout, key))
    return gradients, steps


@jax.jit
def _ascent(algorithm: Differentiable, state: State, rollout: Rollout, key: Key) -> Float[Array, "d"]:
    """Return minus the gradient of the objective "policy" with respect to the policy's parameters."""
    params = algorithm.params(state)

    def of_policy(policy: object) -> Float[Array, ""]:
        return -algorithm.loss("policy", {**params, "policy": policy}, state, rollout, key)[0]

    gradient: Any = jax.grad(of_policy)(params["policy"])
    return ravel_pytree(gradient)[0]


@jax.jit
def _moved(algorithm: Differentiable, state: State, rollout: Rollout, key: Key) -> Float[Array, "d"]:
    """Return how far an update moves the policy."""
    after, _ = algorithm.update(state, rollout, key)
    before, moved = (ravel_pytree(algorithm.params(one)["policy"])[0] for one in (state, after))
    return moved - before
