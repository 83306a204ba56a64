"""Several on-policy runs on one pure task in one process: ordinary runs, in a thread each, that share their programs.

They differ by seed, by float settings, or by both. What is compiled is compiled once for all, and runs in one of two
ways:

- *shared*: each run calls the program of one run, as many at a time as there are threads. The bits are those of a run
  alone, always, and a run of the group may be resumed alone.
- *vectorised*: up to `width` runs meet, and one call does an iteration of each, `vmap` over the runs. A run's bits then
  are not those of a run alone, because the compiler orders sums differently in a program with one more axis; they
  depend on `width`, and neither on what the other runs of the call do nor on the number of threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core.machine import describe_hardware
from workhorse.core.randomness import root_key
from workhorse.core.spec import EnvSpec
from workhorse.environments.protocol import JaxEnv
from workhorse.training.evolve import Evaluation
from workhorse.training.on_policy import Learnt, OnPolicy, Progress, iteration_program
from workhorse.training.plan import EVALUATION_SLOTS, Plan
from workhorse.training.seeds import Rendezvous, Shares, pure_env

__all__ = ["WIDTH", "RolloutSeeds", "on_accelerator"]

WIDTH = 5
"""Runs of one vectorised call on a processor: a small network's learning is bound by arithmetic well before that. On an
accelerator all runs go in one call."""


def on_accelerator() -> bool:
    """Whether JAX's programs run on something else than the processor."""
    return jax.default_backend() != "cpu"


class RolloutSeeds:
    """Does the iterations of several runs, whose threads come to it with one iteration each at a time.

    Args:
        plans: a plan for each run, by number: the seed, where runs differ by nothing else. They may differ in seed and
            float settings.
        vectorised: iterations of several runs in one call, or one run's program shared by all.
        threads: calls that run at the same time.
        width: runs of a vectorised call.
        stop: once set, the next iteration of every run raises `KeyboardInterrupt` in that run's thread: it saves its
            state and ends as stopped by the user.

    Raises:
        ValueError: there is no plan, a task is not a pure JAX environment, or plans differ in more than they may.
    """

    def __init__(
        self,
        plans: Mapping[int, Plan],
        *,
        vectorised: bool = False,
        threads: int = 1,
        width: int | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        if not plans:
            raise ValueError("A group must have at least one run.")
        self.seeds = tuple(plans)
        self.stop = stop or threading.Event()
        self.vectorised = vectorised
        self._plans = dict(plans)
        self._env = pure_env(next(iter(plans.values())))
        self.spec = self._env.spec
        self._algorithms = {number: plan.learning(self.spec).algorithm for number, plan in plans.items()}
        self._check_alike()
        self._turns = threading.Semaphore(threads)
        self._compiling = threading.Lock()
        self._is_compiled = False
        self._shares = Shares()
        self._processor = describe_hardware().cpu
        size = width or (len(plans) if on_accelerator() else WIDTH)
        rows = [self.seeds[first : first + size] for first in range(0, len(plans), size)]
        self._size = min(size, len(plans))
        self._rounds = {
            number: meeting
            for row in rows
            for meeting in [Rendezvous(self._iterations, row, self.stop)]
            for number in row
        }

    @contextlib.contextmanager
    def member(self, seed: int) -> Iterator[Callable[[Plan, EnvSpec], OnPolicy]]:
        """A run's part in the group, as `on_policy` for `start` or `resume`; left on the way out, whatever happened.

        Raises:
            ValueError: no run of the group has that number; or, when the run begins, its plan is not the group's.
        """
        if seed not in self._plans:
            raise ValueError(f"Run {seed} is not of this group: its runs are {list(self.seeds)}.")
        self._compile()
        self._rounds[seed].join(seed)
        self._shares.enter(seed)

        def on_policy(plan: Plan, spec: EnvSpec) -> OnPolicy:
            loop = plan.on_policy(spec, 1)
            ours = self._plans[seed]
            theirs = (plan.task, dict(plan.task_options), plan.seed, repr(loop.algorithm))
            if theirs != (ours.task, dict(ours.task_options), ours.seed, repr(self._algorithms[seed])):
                raise ValueError(f"Run {seed} must have the plan that the group was made with: {ours}.")
            return _Member(self, seed, loop)

        try:
            yield on_policy
        finally:
            self.leave(seed)
            self._shares.leave(seed)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """One of the threads' places.

        Raises:
            KeyboardInterrupt: `stop` is set.
        """
        with self._turns:
            if self.stop.is_set():
                raise KeyboardInterrupt
            yield

    def meet(self, seed: int, row: tuple[Any, ...]) -> Learnt:
        """A run's part of the next vectorised iteration, from what goes into it."""
        return self._rounds[seed].meet(seed, row)

    def leave(self, seed: int) -> None:
        """The others need not wait for this run any more."""
        self._rounds[seed].leave(seed)

    def core_seconds(self, seed: int) -> dict[str, float]:
        """The run's share of what the process took since it was asked last, by kind of core."""
        return {self._processor: self._shares.taken(seed)}

    def _iterations(self, asked: Mapping[int, tuple[Any, ...]]) -> dict[int, Learnt]:
        """One call for the runs that came; the places of others hold a copy, so that the program is always the same."""
        numbers = list(asked)
        rows = [asked[number] for number in numbers]
        rows += [rows[0]] * (self._size - len(rows))
        with self.turn():
            learned, ended, measured = iterations(self._env, rows)
            ended, measured = jax.device_get((ended, measured))
        return {
            number: Learnt(*learned[place], *jax.tree.map(lambda leaf, at=place: leaf[at], (ended, measured)))
            for place, number in enumerate(numbers)
        }

    def _compile(self) -> None:
        """Compile everything with throwaway work, once, before threads would do so side by side."""
        with self._compiling:
            if self._is_compiled:
                return
            number = self.seeds[0]
            loop = self._plans[number].on_policy(self.spec, 1)
            with ThreadPoolExecutor(1) as pool:
                begun = pool.submit(lambda: loop.evaluate(loop.start(), EVALUATION_SLOTS))
                self._iterate_once(loop)
                begun.result()
            self._is_compiled = True

    def _iterate_once(self, loop: OnPolicy) -> None:
        """An iteration of zeros, shaped as a run's: its program is the longest to compile and waits for no other."""
        nothing = jax.tree.map(_zeros, jax.eval_shape(loop.start))
        row = _row(loop.algorithm, loop.root, nothing)
        if self.vectorised:
            jax.block_until_ready(iterations(self._env, [row] * self._size))
        else:
            loop.iterate(nothing)

    def _check_alike(self) -> None:
        first, *others = self.seeds
        plan, algorithm = self._plans[first], self._algorithms[first]
        for number in others:
            other = self._plans[number]
            for name in ("task", "task_options", "algorithm"):
                if getattr(plan, name) != getattr(other, name):
                    raise ValueError(
                        f"Runs of a group must have the same {name}: {getattr(plan, name)!r} of run {first}, "
                        f"{getattr(other, name)!r} of run {number}."
                    )
            if jax.tree.structure(algorithm) != jax.tree.structure(self._algorithms[number]):
                raise ValueError(
                    f"Runs of a group may differ in float settings only, but {self._algorithms[number]} of run "
                    f"{number} makes another program than {algorithm} of run {first}."
                )


class _Member(OnPolicy):
    """The loop of one run of a group."""

    def __init__(self, group: RolloutSeeds, seed: int, loop: OnPolicy) -> None:
        super().__init__(loop.algorithm, loop.root, loop.rollouts, loop.lanes)
        self._group, self._seed = group, seed

    def iterate(
        self, progress: Progress, goes_on: Callable[[int], bool] = lambda env_steps: False
    ) -> tuple[Progress, dict[str, Any], tuple[str, ...]]:
        if not self._group.vectorised:
            with self._group.turn():
                return super().iterate(progress, goes_on)
        return self._after(progress, self._group.meet(self._seed, _row(self.algorithm, self.root, progress)))

    def evaluate(self, progress: Progress, num_episodes: int) -> Evaluation:
        with self._group.turn():
            return super().evaluate(progress, num_episodes)

    def core_seconds(self) -> dict[str, float]:
        return self._group.core_seconds(self._seed)

    def close(self) -> None:
        # the run is over, though its thread may still write: the others need not wait for that
        self._group.leave(self._seed)
        super().close()


def _zeros(leaf: jax.ShapeDtypeStruct) -> Any:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
    return jnp.zeros(leaf.shape, leaf.dtype) if is_key else np.zeros(leaf.shape, leaf.dtype)


def _row(algorithm: Any, root: int, progress: Progress) -> tuple[Any, ...]:
    """What goes into a run's iteration."""
    return algorithm, progress.learner, progress.slots, root_key(root), np.uint32(progress.iteration)


@partial(jax.jit, static_argnums=0)
def iterations(env: JaxEnv, rows: Sequence[tuple[Any, ...]]) -> tuple[list[tuple[Any, Any]], Any, Any]:
    """An iteration of each run: (learner, slots) of each, and the episodes that ended and the metrics, (runs, ...)."""
    # single precision, as a float setting has in the program of one run
    algorithms = [jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), row[0]) for row in rows]
    given = [(algorithm, *row[1:]) for algorithm, row in zip(algorithms, rows, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *given)
    learners, slots, ended, measured = jax.vmap(partial(iteration_program, env))(*stacked)
    learned = [jax.tree.map(lambda leaf, at=at: leaf[at], (learners, slots)) for at in range(len(rows))]
    return learned, ended, measured
