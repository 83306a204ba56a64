"""Time travel: any iteration of a run again, where two runs part, and a run gone on with from there under a change.

Iterations are pure and everything drawn has an address, so a state that was not kept is computed again from one that
was, and the digest in the metrics proves that it is the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core.algorithm import Algorithm, Differentiable, State
from workhorse.core.digest import digest, flatten_arrays
from workhorse.core.errors import UsageError
from workhorse.core.spec import EnvSpec
from workhorse.runs import checkpoint
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.runs.metrics import read_metrics
from workhorse.runs.schedule import Schedule, annealed_steps
from workhorse.runs.segments import require_whole_history
from workhorse.runs.train import available_threads, plan_of
from workhorse.training.loop import Loop, Progress, make_loop
from workhorse.training.plan import Plan

__all__ = ["Difference", "Fork", "History", "bisect", "fork", "kept_iterations", "opened"]

ANNEALING = {"anneal_env_steps", "anneal_learning_rate"}

Observe = Callable[[Progress, Mapping[str, Any]], None]
"""Function that is told the progress after an iteration, and its metrics."""


def kept_iterations(folder: RunFolder) -> list[int]:
    """Iterations whose state is in the folder, oldest first: milestones and checkpoints."""
    found = {*checkpoint.saved_iterations(folder, "milestones"), *checkpoint.saved_iterations(folder)}
    return sorted(found)


class History:
    """The states of a run, those in its folder and those between them. Make one with `opened`.

    Attributes:
        folder, manifest: of the run.
        loop: does the run's iterations.
        spec: of the task.
    """

    def __init__(self, folder: RunFolder, loop: Loop, spec: EnvSpec) -> None:
        self.folder, self.manifest = folder, folder.manifest()
        self.loop, self.spec = loop, spec
        self._digests = _digests(folder)

    @property
    def last_iteration(self) -> int:
        """The newest iteration that the metrics know."""
        return max(self._digests, default=0)

    def digest_of(self, iteration: int) -> str:
        """Return the digest of a state, from the metrics; of the state before the first, computed."""
        return self._digests.get(iteration) or f"{digest(self.at(iteration).state):016x}"

    def kept(self, iteration: int) -> Progress:
        """The state after an iteration, from the folder.

        Raises:
            UsageError: it was not kept; the nearest that were are named.
        """
        places = ("milestones", "checkpoints")
        for place in places:
            if iteration in checkpoint.saved_iterations(self.folder, place):
                progress = checkpoint.load(self.folder, iteration, self.loop.start(), place)[0]
                self._prove(progress)
                return progress
        there = kept_iterations(self.folder)
        if not there:
            raise UsageError(
                f"{self.folder.path} keeps no state at all: its folders checkpoints and milestones are empty or gone. "
                "Restore them from a copy."
            )
        near = sorted(there, key=lambda kept: abs(kept - iteration))[:2]
        raise UsageError(
            f"{self.folder.path} keeps no state of iteration {iteration}: the nearest are "
            f"{' and '.join(map(str, sorted(near)))} of {', '.join(map(str, there))}. Choose one of them."
        )

    def measurable(self, iteration: int) -> Progress:
        """A state of the folder whose parameters are finite.

        Raises:
            UsageError: it was not kept, or the run had diverged.
        """
        progress = self.kept(iteration)
        if not _is_finite(self.loop.algorithm, progress.state):
            raise UsageError(
                f"Parameters of iteration {iteration} of {self.folder.path} are not finite: the run had diverged, and "
                "nothing can be measured of it. Choose an earlier iteration."
            )
        return progress

    def _prove(self, progress: Progress) -> None:
        """Raise a `UsageError` where a state is not the one that the metrics tell of."""
        number, found = int(progress.iteration), f"{digest(progress.state):016x}"
        expected = self._digests.get(number)
        if expected is not None and expected != found:
            raise UsageError(
                f"The state of iteration {number} in {self.folder.path} is {found}, but the metrics say {expected}: it "
                "is another run's, or one of them was changed. Restore both from a copy, or choose another iteration."
            )

    def check(self, iteration: int) -> None:
        """Whether the run came that far.

        Raises:
            UsageError: it did not.
        """
        if not 0 <= iteration <= self.last_iteration:
            raise UsageError(
                f"--iteration must be in [0, {self.last_iteration}], the iterations of {self.folder.path}: got "
                f"{iteration}."
            )

    def at(self, iteration: int, observe: Observe = lambda progress, metrics: None) -> Progress:
        """The state after an iteration, computed from the newest one kept before it; every digest is checked.

        Args:
            iteration: at least 0 and at most the run's last.
            observe: is told of every iteration on the way.

        Raises:
            UsageError: the run did not come that far, or it does not come out as it did.
        """
        self.check(iteration)
        progress = self._newest_before(iteration)
        if int(progress.iteration) < iteration:
            require_whole_history(self.loop, self.folder)
        while int(progress.iteration) < iteration:
            progress = self.once_more(progress, observe)
        return progress

    def _newest_before(self, iteration: int) -> Progress:
        """The newest whole state at or before an iteration."""
        for kept in reversed([kept for kept in kept_iterations(self.folder) if kept <= iteration]):
            try:
                return self.kept(kept)
            except UsageError:  # damaged: an older one will do
                continue
        if self._digests and min(self._digests) > 1:
            raise UsageError(
                f"{self.folder.path} begins at iteration {min(self._digests)}, as a fork does, and keeps no whole "
                f"state at or before {iteration}: restore its milestones from a copy."
            )
        return self.loop.start()

    def once_more(self, progress: Progress, observe: Observe = lambda progress, metrics: None) -> Progress:
        """The state an iteration later, its digest checked.

        Raises:
            UsageError: it is not the run's.
        """
        after, metrics, _ = self.loop.iterate(progress)
        number, found = int(after.iteration), f"{digest(after.state):016x}"
        expected = self._digests.get(number)
        if expected is not None and expected != found:
            raise UsageError(
                f"Iteration {number} of {self.folder.path} came out as {found}, but the run's was {expected}: other "
                f"versions or another kind of processor made it ({_made_by(self.manifest)})."
            )
        observe(after, metrics)
        return after

    @contextmanager
    def afresh(self, offset: int, threads: int = 0) -> Iterator[tuple[Loop, int]]:
        """Context manager: the run's loop under another seed, for experience that the run never had, and that seed.

        Args:
            offset: added to the run's seed, one for each use, so that no two share a draw.
            threads: simulation threads; 0 for one a core.
        """
        plan = plan_of(self.manifest)
        root = (plan.seed + offset) % 2**32
        loop = make_loop(replace(plan, seed=root), self.spec, threads or available_threads())
        try:
            yield loop, root
        finally:
            loop.close()


@contextmanager
def opened(path: str | os.PathLike[str], threads: int = 0) -> Iterator[History]:
    """A run's history. Its folder is read, never written.

    Raises:
        UsageError: the folder is no run.
    """
    folder = RunFolder.open(path)
    plan = plan_of(folder.manifest())
    spec = plan.spec()
    loop = make_loop(plan, spec, threads or available_threads())
    try:
        yield History(folder, loop, spec)
    finally:
        loop.close()


class Difference(NamedTuple):
    """Where two runs part.

    Attributes:
        iteration: the first after which the digests of their states differ.
        leaves: the leaves of the state that differ then, in the order of the state.
        largest: of each, the largest absolute difference; infinite where a number is not finite, NaN where shapes
            differ.
        earlier: leaves of the whole state that differed an iteration before: where slots stand, or where a run began.
    """

    iteration: int
    leaves: tuple[str, ...]
    largest: tuple[float, ...]
    earlier: tuple[str, ...]


def bisect(
    one: str | os.PathLike[str], other: str | os.PathLike[str], threads: int = 0, observe: Observe = lambda *_: None
) -> Difference | None:
    """The first iteration at which two runs differ, and what differs in it; None where they agree as far as both went.

    Raises:
        UsageError: a folder is no run, the runs keep states of other kinds, or one does not come out again as it did.
    """
    with opened(one, threads) as left, opened(other, threads) as right:
        kinds = [(history.manifest.algorithm, history.manifest.task) for history in (left, right)]
        leaves = [flatten_arrays({"state": history.loop.start().state}).keys() for history in (left, right)]
        if kinds[0][1] != kinds[1][1] or leaves[0] != leaves[1]:
            words = [f"{algorithm} on {task}" for algorithm, task in kinds]
            raise UsageError(
                f"{one} is {words[0]} and {other} {words[1]}: expected two runs of one task whose states keep the "
                "same things, which other algorithms or layers do not. Name two such runs."
            )
        common = sorted(left._digests.keys() & right._digests.keys())
        if not common:
            raise UsageError(f"{one} and {other} have no iteration in common, so that nothing can be compared.")
        parted = next((n for n in common if left._digests[n] != right._digests[n]), None)
        if parted is None:
            return None
        before = [history.at(parted - 1, observe) for history in (left, right)]
        after = [history.once_more(state, observe) for history, state in zip((left, right), before, strict=True)]
        leaves, largest = _different(*(flatten_arrays({"state": progress.state}) for progress in after))
        earlier, _ = _different(*(flatten_arrays(state) for state in before))
        return Difference(parted, leaves, largest, earlier)


def _different(
    one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    names, largest = [], []
    for name in [*one, *(name for name in other if name not in one)]:
        a, b = one.get(name), other.get(name)
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            names.append(name)
            largest.append(float("nan"))
        elif a.tobytes() != b.tobytes():
            names.append(name)
            apart = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
            largest.append(float("inf") if np.isnan(apart) else float(apart))
    return tuple(names), tuple(largest)


@dataclass(frozen=True)
class Fork:
    """Runs that go on from one state, in pairs of equal seeds: without the change, and with it.

    Attributes:
        unchanged, changed: run folders by seed.
    """

    unchanged: Mapping[int, RunFolder]
    changed: Mapping[int, RunFolder]


def fork(
    path: str | os.PathLike[str],
    iteration: int,
    settings: Mapping[str, Any],
    seeds: range,
    root: str | os.PathLike[str],
    *,
    env_steps: int | None = None,
    threads: int = 0,
    command: tuple[str, ...] = (),
) -> Fork:
    """New run folders whose state is that of an iteration of a run; `resume` trains them to their end.

    Args:
        path: the run.
        iteration: where to begin; computed again where its state was not kept.
        settings: options of the algorithm to change.
        seeds: new roots of randomness from there on: a pair of runs for each, so that what is compared differs by the
            change and not by luck.
        root: the folder for the runs.
        env_steps: their budget, the steps before the fork included; by default the run's own.
        threads: simulation threads.
        command: the command line, for the record.

    Raises:
        UsageError: an option is unknown or out of range, it changes the shape of the state, the iteration is none of
            the run's, or a run of that name exists.
    """
    with opened(path, threads) as history:
        progress = history.at(iteration)
        given = flatten_arrays(progress)
        plan, manifest = plan_of(history.manifest), history.manifest
        changed_plan = replace(plan, settings={**plan.settings, **settings})
        algorithm = changed_plan.make_algorithm(history.spec)
    budget = env_steps or manifest.env_steps
    if budget <= int(progress.env_steps):
        raise UsageError(
            f"--env-steps must be above the {int(progress.env_steps):,} steps of iteration {iteration}: got {budget:,}."
        )
    annealed = annealed_steps(manifest.settings)
    if budget > max(annealed, manifest.env_steps) and annealed and not settings.keys() & ANNEALING:
        raise UsageError(
            f"{history.folder.path} lets its learning rate fall to zero at {annealed:,} steps, so that nothing would "
            f"be learnt from there to {budget:,}: --set anneal_env_steps={budget} as well, or leave --env-steps out."
        )
    _check_same_shape(changed_plan, history.spec, given, settings, threads)
    with_change = {**manifest.settings, **{name: algorithm.settings()[name] for name in settings}}
    made: dict[str, dict[int, RunFolder]] = {"unchanged": {}, "changed": {}}
    for seed in seeds:
        for word, options in (("unchanged", manifest.settings), ("changed", with_change)):
            id = f"{history.folder.id}-i{iteration}-{word}-s{seed}"
            wanted = replace(manifest, id=id, seed=seed, settings=options, env_steps=budget, command=command)
            if (there := _begun(root, id, wanted)) is not None:
                made[word][seed] = there
                continue
            folder = RunFolder.create(root, id, task=manifest.task, algorithm=manifest.algorithm, seed=seed)
            folder.write_manifest(wanted)
            meta = {"meters": {}, "schedule": asdict(Schedule(evaluate_every=max(budget // 10, 1)))}
            checkpoint.save(folder, iteration, progress, meta)
            checkpoint.save(folder, iteration, progress, meta, "milestones")  # checkpoints are not kept for long
            made[word][seed] = folder
    return Fork(made["unchanged"], made["changed"])


def _begun(root: str | os.PathLike[str], id: str, wanted: Manifest) -> RunFolder | None:
    """The run of a fork that was made before, to be gone on with; None where there is none.

    Raises:
        UsageError: a run of that name was made otherwise.
    """
    place = Path(root) / id
    if not (place / "manifest.json").exists():
        return None
    there = RunFolder.open(place)
    found = there.manifest()
    if (found.settings, found.env_steps, found.seed) != (wanted.settings, wanted.env_steps, wanted.seed):
        raise UsageError(f"{place} is there, of a fork with other settings: move it away, or choose another --runs.")
    return there if kept_iterations(there) else None


def _check_same_shape(
    plan: Plan, spec: EnvSpec, given: Mapping[str, np.ndarray], settings: Iterable[str], threads: int
) -> None:
    loop = make_loop(plan, spec, threads or available_threads())
    try:
        wanted = flatten_arrays(loop.start())
    finally:
        loop.close()
    for name in wanted.keys() | given.keys():
        if name not in wanted or name not in given or wanted[name].shape != given[name].shape:
            if "environment" in name and name in wanted and name in given:
                continue  # a journal's length
            raise UsageError(
                f"{', '.join(settings)} would change the shape of the state ({name}), which a fork keeps: start a new "
                "run."
            )


def _is_finite(algorithm: Algorithm, state: State) -> bool:
    """Return False where a parameter is not finite: of what can be differentiated, else of what acts."""
    tree = algorithm.params(state) if isinstance(algorithm, Differentiable) else algorithm.actor(state)
    leaves = [leaf for leaf in jax.tree.leaves(tree) if not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)]
    return all(np.isfinite(leaf).all() for leaf in leaves)


def _digests(folder: RunFolder) -> dict[int, str]:
    if not folder.has_metrics:  # stopped before the first were written
        return {}
    metrics = read_metrics(folder)
    if "digest" not in metrics.columns:
        return {}
    return {int(n): str(found) for n, found in zip(metrics["iteration"], metrics["digest"], strict=True)}


def _made_by(manifest: Manifest) -> str:
    return ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
