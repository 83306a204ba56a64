"""Are a run's gradients gradients? Independent estimates from one frozen policy, and how far they agree.

The protocol of Ilyas et al. 2020, "A closer look at deep policy gradients" (arXiv 1811.02553), section 2.1: K estimates
of the gradient of E[rho A] at the policy of an iteration, A normalised over the estimate's steps, from 100 steps to a
million; the mean cosine of pairs, and the cosine to the best estimate there is. The same of the steps that the
algorithm really takes on so much experience.

Differs from the paper: A is the run's own, with its discount, trace, reward scale and value function; an estimate's
steps are those of the run's slots, which go on from where the run left them; the reference of an estimate is the mean
of all *other* estimates at the largest size, so that none is compared with itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Rollout
from workhorse.runs.history import History
from workhorse.runs.train import plan_of
from workhorse.statistics.gradient_quality import Concentration, concentration, cosines_to
from workhorse.training.learning import actor_of
from workhorse.training.on_policy import Rollouts, Slots

__all__ = [
    "ESTIMATES",
    "Estimates",
    "GradientStudy",
    "ScoreSums",
    "SizeRow",
    "SumsBySize",
    "frozen_rollouts",
    "independent_estimates",
    "policy_step",
    "score_sums",
    "sizes_up_to",
    "study_gradients",
    "training_batch",
    "with_fixed_scale",
]

ESTIMATES = 10
"""Independent estimates, K."""

STEP_SIZES = (1, 4, 16)
"""Rollouts of which the algorithm's own step is measured: each is a program of its own, which takes long to compile."""

OTHER_ROOT = 2**31
"""What is added to the run's seed for the addresses of a diagnosis: fresh experience, and the same whenever asked."""


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
    """What was found at one iteration.

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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; an infinite noise scale is null."""
        record = asdict(self)
        record["noise_scale"] = _finite(self.noise_scale)
        for name in ("gradients", "steps"):
            record[name] = [
                {
                    "samples": row.samples,
                    "to_reference": _finite(row.to_reference),
                    **{key: _finite(value) for key, value in row.concentration._asdict().items()},
                }
                for row in getattr(self, name)
            ]
        return record


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


class Estimates(NamedTuple):
    """K independent estimates of each size in steps, (K, d), flat as `ravel_pytree` has the policy.

    Attributes:
        gradients: of the policy's gradient.
        steps: of how far the algorithm moves the policy.
    """

    gradients: Mapping[int, np.ndarray]
    steps: Mapping[int, np.ndarray]


class ScoreSums(NamedTuple):
    """Sums over steps, of which the gradient with normalised advantages is made for any number of them.

    Attributes:
        weighed: of A grad log pi, (d,).
        plain: of grad log pi, (d,).
        advantage, square: of A and A^2.
        count: of steps.
    """

    weighed: Any
    plain: Any
    advantage: Any
    square: Any
    count: Any

    def plus(self, other: ScoreSums) -> ScoreSums:
        pairs = zip(self, other, strict=True)
        return ScoreSums(*(np.asarray(one, np.float64) + np.asarray(more, np.float64) for one, more in pairs))

    def raw(self) -> np.ndarray:
        """E[A g], with g = grad log pi."""
        return self.weighed / np.maximum(self.count, 1.0)

    def centred(self) -> np.ndarray:
        """E[A g] - E[A] E[g]: advantages less their mean, in their own units."""
        count = np.maximum(self.count, 1.0)
        return (self.weighed - self.advantage / count * self.plain) / count

    def gradient(self) -> np.ndarray:
        """(E[A g] - E[A] E[g]) / sd(A): advantages normalised."""
        count = np.maximum(self.count, 1.0)
        mean = self.advantage / count
        deviation = np.sqrt(np.maximum(self.square / count - mean**2, 0.0)) + 1e-8
        return self.centred() / deviation


class SumsBySize:
    """Sums of one estimate as it grows: over whole slots of its first rollout, then over whole rollouts.

    Attributes:
        found: the sums of each size that was reached.
    """

    def __init__(self, sizes: Sequence[int], own: int, length: int) -> None:
        """For estimates of those sizes, of rollouts of `own` steps, `length` of each slot."""
        self.found: dict[int, ScoreSums] = {}
        self._sizes, self._own, self._length = sizes, own, length
        self._total: ScoreSums | None = None
        self._rollouts = 0

    def add(self, by_slot: ScoreSums) -> None:
        """Add a rollout's sums of each slot, (B, ...)."""
        by_slot = ScoreSums(*map(np.asarray, by_slot))
        if self._total is None:
            running = jax.tree.map(lambda leaf: np.cumsum(leaf, 0, dtype=np.float64), by_slot)
            for size in self._sizes:
                if size < self._own:
                    self.found[size] = ScoreSums(*(leaf[size // self._length - 1] for leaf in running))
        whole = ScoreSums(*(leaf.sum(0, dtype=np.float64) for leaf in by_slot))
        self._total = whole if self._total is None else self._total.plus(whole)
        self._rollouts += 1
        if self._rollouts * self._own in self._sizes:
            self.found[self._rollouts * self._own] = self._total


def sizes_up_to(own: int, slots: int, most: int) -> list[int]:
    """Sizes of estimates: whole slots of one rollout from 100 steps on, then whole rollouts, about three a decade.

    Example:
        >>> sizes_up_to(2048, 64, 100_000)
        [96, 224, 480, 992, 2048, 4096, 10240, 22528, 47104]
    """
    length = own // slots
    wanted = np.geomspace(100, most, max(int(np.ceil(3 * np.log10(most / 100))), 1) + 1)
    found = {max(round(size / length), 1) * length for size in wanted if size < 0.75 * own}
    found |= {max(round(size / own), 1) * own for size in wanted if size >= own} | {own}
    return sorted(size for size in found if size <= max(most, own))


def check_gradients(history: History, env_steps: int, estimates: int) -> int:
    """Rollouts of each estimate.

    Raises:
        UsageError: the run's algorithm has no gradient, or the estimates or the steps are too few.
    """
    if not plan_of(history.manifest).is_on_policy:
        raise UsageError(
            f"{history.manifest.algorithm} of {history.folder.path} estimates no gradient of a policy's actions: "
            "`diagnose` reads runs of reinforce, a2c, ppo and trpo."
        )
    check_estimates(estimates)
    taken = history.loop.algorithm.rollout_steps * history.loop.algorithm.num_slots
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
    progress: Callable[[int], None] = lambda env_steps: None,
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
    state, algorithm = history.measurable(iteration), history.loop.algorithm
    own, taken = algorithm.rollout_steps * algorithm.num_envs, algorithm.rollout_steps * algorithm.num_slots
    sizes = sizes_up_to(own, algorithm.num_envs, rollouts * own)
    step_sizes = [size * own for size in STEP_SIZES if size <= rollouts]
    with history.afresh(OTHER_ROOT, threads) as (loop, root):
        stream = frozen_rollouts(algorithm, state.learner, loop.rollouts, state.slots, progress)
        first = next(stream)
        learner = with_fixed_scale(algorithm, state.learner, first)
        stream = chain([first], stream)
        gradients, steps = independent_estimates(
            algorithm, learner, stream, estimates, sizes=sizes, step_sizes=step_sizes, root=root
        )
    largest = gradients[sizes[-1]]
    references = (largest.sum(0) - largest) / (estimates - 1)
    rows = tuple(_row(size, gradients[size], references) for size in sizes)
    widest = steps[step_sizes[-1]]
    step_references = (widest.sum(0) - widest) / (estimates - 1)
    moves = widest.any()  # not where annealing has come to its end
    step_rows = tuple(_row(size, steps[size], step_references) for size in step_sizes) if moves else ()
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


def _row(size: int, estimates: np.ndarray, references: np.ndarray) -> SizeRow:
    return SizeRow(size, concentration(estimates, size), float(cosines_to(estimates, references).mean()))


def frozen_rollouts(
    algorithm: Any,
    learner: Any,
    rollouts: Rollouts,
    slots: Slots,
    progress: Callable[[int], None] = lambda env_steps: None,
    first: int = 0,
) -> Iterator[Rollout]:
    """Rollouts of the frozen policy, one after the other, without an end, with addresses from `first` on; the slots go
    on.
    """
    actor, number = actor_of(algorithm, learner), first
    while True:
        rollout, slots, _, _ = rollouts.gather(actor, slots, number)
        number += 1
        progress(algorithm.rollout_steps * algorithm.num_slots)
        yield rollout


def with_fixed_scale(algorithm: Any, learner: Any, rollout: Rollout) -> Any:
    """A learner whose scale of rewards is that after this rollout, and hardly moves with any later one.

    Otherwise rewards of different rollouts would be in slightly different units: very different ones at the start.
    """
    sums = _sums_of_rewards(algorithm, learner, rollout)
    heavy = sums._replace(count=sums.count * 1e9, deviation=sums.deviation * 1e9)
    return learner._replace(sums=heavy)


@jax.jit
def _sums_of_rewards(algorithm: Any, learner: Any, rollout: Rollout) -> Any:
    return algorithm.batch(learner, rollout)[1]


def independent_estimates(
    algorithm: Any,
    learner: Any,
    rollouts: Iterator[Rollout],
    count: int,
    *,
    sizes: Sequence[int],
    step_sizes: Sequence[int] = (),
    root: int = 0,
) -> Estimates:
    """`count` estimates of the gradient of E[rho A] and of the algorithm's step, no two from the same experience.

    In expectation, up to 1 / samples, a gradient is

        E[A grad log pi] / sd(A)

    over the steps of slots that go on: how often a state counts is how often it is visited, *not discounted*, while A
    has the algorithm's discount, trace and value function.

    Args:
        algorithm: a policy gradient.
        learner: its state, of which nothing changes.
        rollouts: of the learner's policy; so many are taken as the largest size needs, for each estimate.
        count: K.
        sizes: of gradients, in steps: whole slots of one rollout, or whole rollouts.
        step_sizes: of steps: whole rollouts.
        root: of what the steps draw.
    """
    own = algorithm.rollout_steps * algorithm.num_envs
    gradients: dict[int, list[np.ndarray]] = {size: [] for size in sizes}
    steps: dict[int, list[np.ndarray]] = {size: [] for size in step_sizes}
    needed = -(-max((*sizes, *step_sizes)) // own)
    for number in range(count):
        taken = (next(rollouts) for _ in range(needed))
        _estimate(algorithm, learner, taken, gradients, steps, draw(root_key(root), "update", number))
    return Estimates(*({size: np.stack(found) for size, found in kind.items()} for kind in (gradients, steps)))


def _estimate(
    algorithm: Any,
    learner: Any,
    rollouts: Iterator[Rollout],
    gradients: dict[int, list[np.ndarray]],
    steps: dict[int, list[np.ndarray]],
    key: Any,
) -> None:
    """One estimate of every size, added to the lists."""
    own = algorithm.rollout_steps * algorithm.num_envs
    sums = SumsBySize(list(gradients), own, algorithm.rollout_steps)
    kept: list[Any] = []
    for number, rollout in enumerate(rollouts, start=1):
        batch = training_batch(algorithm, learner, rollout)
        sums.add(score_sums(algorithm, learner.params, batch))
        size = number * own
        if size <= max(steps, default=0):
            kept.append(batch)
        if size in steps:
            together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1), *kept)
            steps[size].append(np.asarray(policy_step(algorithm, learner, together, key)))
    for size, found in sums.found.items():
        gradients[size].append(found.gradient())


@jax.jit
def training_batch(algorithm: Any, learner: Any, rollout: Rollout) -> Any:
    """The steps of the slots that are trained on, (T, B)."""
    return jax.tree.map(lambda leaf: leaf[:, : algorithm.num_envs], algorithm.batch(learner, rollout)[0])


@jax.jit
def score_sums(algorithm: Any, params: Any, batch: Any) -> ScoreSums:
    """The sums of each slot, (B, ...)."""

    def of_slot(part: Any) -> ScoreSums:
        def scores(policy: Any) -> Any:
            distribution = jax.vmap(policy)(part.obs)
            return jax.vmap(lambda one, drawn: one.log_prob(drawn))(distribution, part.drawn)

        _, pull = jax.vjp(scores, params.policy)

        def flat(weights: Any) -> Any:
            return ravel_pytree(pull(weights)[0])[0]

        weight = part.weight
        advantage = part.advantage * weight
        square = (advantage * part.advantage).sum()
        return ScoreSums(flat(advantage), flat(weight), advantage.sum(), square, weight.sum())

    return jax.vmap(of_slot, in_axes=1)(batch)


@jax.jit
def policy_step(algorithm: Any, learner: Any, batch: Any, key: Any) -> Any:
    """How far the algorithm moves the policy on a batch, (d,)."""
    params, _, _ = algorithm.improve(learner, batch, algorithm.annealed(learner), key)
    return ravel_pytree(params.policy)[0] - ravel_pytree(learner.params.policy)[0]
