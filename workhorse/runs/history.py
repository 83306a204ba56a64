"""Time travel: compute any iteration of a run again, and find where two runs part.

Iterations are pure and everything drawn has an address, so a state that was not kept is computed again from one that
was, and the digest in the metrics proves that it is the same.

A run with a replay goes on from a state *and its replay*, which only the newest checkpoints, the start (an empty replay
is whole) and the first milestone of a fork have: most iterations are computed again from the start, which takes as long
as they took.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core.algorithm import Algorithm, Differentiable, State
from workhorse.core.digest import digest, flatten_arrays
from workhorse.core.errors import UsageError
from workhorse.core.machine import threads_or_cores
from workhorse.core.spec import EnvSpec
from workhorse.environments.registry import is_native
from workhorse.runs import checkpoint
from workhorse.runs.experts import make_run_loop
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.runs.metrics import read_metrics
from workhorse.runs.segments import PLACES, restore_segments
from workhorse.runs.tensors import DamagedFile
from workhorse.runs.train import plan_of
from workhorse.training.loop import Loop, Progress

__all__ = ["Difference", "History", "bisect", "kept_iterations", "opened"]

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
        """Refuse an iteration that the run did not reach.

        Raises:
            UsageError: it did not.
        """
        if not 0 <= iteration <= self.last_iteration:
            raise UsageError(
                f"--iteration must be in [0, {self.last_iteration}], the iterations of {self.folder.path}: got "
                f"{iteration}."
            )

    def at(self, iteration: int, observe: Observe = lambda progress, metrics: None) -> Progress:
        """The state after an iteration, to be looked at; computed where it was not kept, every digest checked.

        Args:
            iteration: at least 0 and at most the run's last.
            observe: is told of every iteration on the way.

        Raises:
            UsageError: the run did not come that far, or it does not come out as it did.
        """
        self.check(iteration)
        if iteration in kept_iterations(self.folder):
            with suppress(UsageError):  # damaged: computed again
                return self.kept(iteration)
        return self.to_go_on_from(iteration, observe)

    def to_go_on_from(self, iteration: int, observe: Observe = lambda progress, metrics: None) -> Progress:
        """The same as `at`, with the loop's replay as it was then: what `once_more` and a fork begin from."""
        self.check(iteration)
        progress = self._newest_before(iteration)
        while int(progress.iteration) < iteration:
            progress = self.once_more(progress, observe)
        return progress

    def _newest_before(self, iteration: int) -> Progress:
        """The newest whole state at or before an iteration, with its segments where the loop has any."""
        segments = self.loop.segments()
        for kept in reversed([kept for kept in kept_iterations(self.folder) if kept <= iteration]):
            for place in PLACES:
                if kept not in checkpoint.saved_iterations(self.folder, place):
                    continue
                with suppress(UsageError, DamagedFile, OSError):  # damaged, or without segments: an older one will do
                    if segments:
                        restore_segments(self.folder, self.loop, checkpoint.saved_meta(self.folder, kept, place))
                    return self.kept(kept)
        if self._digests and min(self._digests) > 1:
            what = f"state with its {' and '.join(segments)}" if segments else "state"
            raise UsageError(
                f"{self.folder.path} begins at iteration {min(self._digests)}, as a fork does, and keeps no whole "
                f"{what} at or before {iteration}: restore its milestones from a copy."
            )
        for name in segments.values():
            name.restore(0, ())
        return self.loop.start()

    def once_more(self, progress: Progress, observe: Observe = lambda progress, metrics: None) -> Progress:
        """The state an iteration later than one `to_go_on_from`, its digest checked.

        Raises:
            UsageError: it is not the run's.
        """
        after, metrics, _ = self.loop.iterate(progress)
        number, found = int(after.iteration), f"{digest(after.state):016x}"
        expected = self._digests.get(number)
        if expected is not None and expected != found:
            why = f"other versions or another kind of processor made it ({_made_by(self.manifest)})."
            if not is_native(self.manifest.task, self.manifest.task_options):
                notes = self.loop.notes()
                why = notes[0] if notes else f"{why[:-1]}, or the task is not deterministic (`workhorse check`)."
            raise UsageError(
                f"Iteration {number} of {self.folder.path} came out as {found}, but the run's was {expected}: {why}"
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
        loop = make_run_loop(replace(plan, seed=root), self.spec, threads_or_cores(threads), self.manifest)
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
    manifest = folder.manifest()
    plan = plan_of(manifest)
    spec = plan.spec()
    loop = make_run_loop(plan, spec, threads_or_cores(threads), manifest)
    try:
        yield History(folder, loop, spec)
    finally:
        loop.close()


class Difference(NamedTuple):
    """First difference of two runs.

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


def bisect(one: str | os.PathLike[str], other: str | os.PathLike[str], threads: int = 0) -> Difference | None:
    """Find the first iteration at which two runs differ, and the arrays that do; None where they agree to the end.

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
        before = [history.to_go_on_from(parted - 1) for history in (left, right)]
        after = [history.once_more(state) for history, state in zip((left, right), before, strict=True)]
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
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return f"{versions}; {' '.join(manifest.hardware.instruction_sets) or 'instruction sets unknown'}"
