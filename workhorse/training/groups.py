"""Several runs on one pure task in one process: ordinary runs, in a thread each, that share their compiled programs.

They may differ by seed, and where the algorithm is an argument of its programs (see `workhorse.training.rollouts`) by
float settings too. What is compiled is compiled once for all, which is most of what a short run on a small task costs.
Each run calls the program of one run, as many at a time as there are threads. So a run's bits are those of the run
alone, always, and it may be resumed alone.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np

from workhorse.core.algorithm import Algorithm, OffPolicy
from workhorse.core.machine import describe_hardware
from workhorse.core.spec import EnvSpec
from workhorse.environments import registry as environments
from workhorse.environments.protocol import HostEnv
from workhorse.training.loop import (
    Evaluation,
    Failures,
    GoesOn,
    Loop,
    MakeLoop,
    Message,
    Progress,
    Segments,
    make_loop,
)
from workhorse.training.plan import Plan
from workhorse.training.replay_arrays import check_replay_memory

__all__ = ["RunGroup", "together"]

Result = TypeVar("Result")


class RunGroup:
    """Runs whose threads take turns on the cores of this process.

    Args:
        plans: a plan for each run, by number: the seed, where runs differ by nothing else.
        threads: runs that compute at the same time.
        stop: once set, the next iteration of every run raises `KeyboardInterrupt` in that run's thread: it saves its
            state and ends as stopped by the user.

    Raises:
        ValueError: there is no plan, a task is not a pure JAX environment, or plans differ in more than they may.
        UsageError: the replays of all runs together do not fit into memory.
    """

    def __init__(self, plans: Mapping[int, Plan], *, threads: int = 1, stop: threading.Event | None = None) -> None:
        if not plans:
            raise ValueError("A group must have at least one run.")
        self.numbers = tuple(plans)
        self.stop = stop or threading.Event()
        self._plans = dict(plans)
        self.spec = _pure_spec(next(iter(plans.values())))
        algorithms = {number: plan.make_algorithm(self.spec) for number, plan in plans.items()}
        self._check_alike(algorithms)
        if isinstance(first := algorithms[self.numbers[0]], OffPolicy):
            check_replay_memory(first, len(plans))
        self._turns = threading.Semaphore(threads)
        self._compiling = threading.Lock()
        self._is_compiled = False
        self._shares = _Shares()

    @contextlib.contextmanager
    def member(self, number: int) -> Iterator[MakeLoop]:
        """Context manager: a run joins the group, and leaves it even after an error.

        Yields:
            The `make_loop` for `start` or `resume`.

        Raises:
            ValueError: no run of the group has that number; or, when the run begins, its plan is not the group's.
        """
        if number not in self._plans:
            raise ValueError(f"Run {number} is not of this group: its runs are {list(self.numbers)}.")
        self._compile()
        self._shares.enter(number)

        def make(plan: Plan, spec: EnvSpec, threads: int) -> Loop:
            ours, loop = self._plans[number], make_loop(plan, spec, 1)
            given, wanted = (
                (one.task, dict(one.task_options), one.seed, repr(one.make_algorithm(spec))) for one in (plan, ours)
            )
            if given != wanted:
                raise ValueError(f"Run {number} must have the plan that the group was made with: {ours}.")
            return _Member(self, number, loop)

        try:
            yield make
        finally:
            self._shares.leave(number)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Context manager: wait for one of the threads' places.

        Raises:
            KeyboardInterrupt: `stop` is set.
        """
        with self._turns:
            if self.stop.is_set():
                raise KeyboardInterrupt
            yield

    def core_seconds(self, number: int) -> dict[str, float]:
        """Return the run's share of what the process took since it was asked last, by kind of core."""
        return {describe_hardware().cpu: self._shares.taken(number)}

    def _compile(self) -> None:
        """Compile everything with throwaway work, once, before threads would do so side by side."""
        with self._compiling:
            if self._is_compiled:
                return
            loop = make_loop(self._plans[self.numbers[0]], self.spec, 1)
            progress, _, _ = loop.iterate(loop.start())
            loop.evaluate(progress, 1)
            loop.close()
            self._is_compiled = True

    def _check_alike(self, algorithms: Mapping[int, Algorithm]) -> None:
        first, *others = self.numbers
        plan, algorithm = self._plans[first], algorithms[first]
        for number in others:
            other = self._plans[number]
            for name in ("task", "task_options", "algorithm", "slots"):
                if getattr(plan, name) != getattr(other, name):
                    raise ValueError(
                        f"Runs of a group must have the same {name}: {getattr(plan, name)!r} of run {first}, "
                        f"{getattr(other, name)!r} of run {number}."
                    )
            if jax.tree.structure(algorithm) != jax.tree.structure(algorithms[number]):
                raise ValueError(
                    f"Runs of a group may differ in float settings only, but {algorithms[number]} of run {number} "
                    f"makes another program than {algorithm} of run {first}."
                )


class _Member(Loop):
    """The loop of one run of a group: it computes in its turn, and is charged its share of the process."""

    def __init__(self, group: RunGroup, number: int, loop: Loop) -> None:
        self.algorithm, self.num_slots = loop.algorithm, loop.num_slots
        self.checkpoint_every_s = loop.checkpoint_every_s  # type: ignore[misc]
        self._group, self._number, self._loop = group, number, loop

    def start(self) -> Progress:
        return self._loop.start()

    def iterate(
        self, progress: Progress, goes_on: GoesOn = lambda env_steps: False
    ) -> tuple[Progress, dict[str, float], Failures]:
        with self._group.turn():
            return self._loop.iterate(progress, goes_on)

    def evaluate(self, progress: Progress, num_episodes: int) -> Evaluation:
        with self._group.turn():
            return self._loop.evaluate(progress, num_episodes)

    def sample(self, progress: Progress, num_episodes: int) -> Evaluation:
        with self._group.turn():
            return self._loop.sample(progress, num_episodes)

    def observations(self, progress: Progress) -> np.ndarray | None:
        return self._loop.observations(progress)

    def segments(self) -> Mapping[str, Segments]:
        return self._loop.segments()

    def metrics(self) -> dict[str, float]:
        return self._loop.metrics()

    def notes(self) -> Sequence[str]:
        return self._loop.notes()

    def messages(self) -> Sequence[Message]:
        return self._loop.messages()

    def core_seconds(self) -> dict[str, float]:
        return self._group.core_seconds(self._number)

    def close(self) -> None:
        self._loop.close()


def together(group: RunGroup, run: Callable[[int, MakeLoop], Result]) -> dict[int, Result | BaseException]:
    """Do every run of a group in a thread of its own.

    Args:
        group: the runs.
        run: does one run from begin to end, given its number and what makes its loop.

    Returns:
        What each run returned, or what it raised.

    Raises:
        KeyboardInterrupt: in the main thread, after all runs were told to stop and have ended.
    """
    outcomes: dict[int, Result | BaseException] = {}

    def one(number: int) -> None:
        try:
            with group.member(number) as make:
                outcomes[number] = run(number, make)
        except BaseException as error:
            outcomes[number] = error

    threads = [threading.Thread(target=one, args=(number,), name=f"run-{number}") for number in group.numbers]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        group.stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        raise
    return {number: outcomes[number] for number in group.numbers}


def _pure_spec(plan: Plan) -> EnvSpec:
    env = environments.make(plan.task, 1, 1, **plan.task_options)
    if isinstance(env, HostEnv):
        env.close()
        raise ValueError(
            f"Runs can share a program only where the task is a pure JAX environment, but {plan.task} is "
            "stepped on the host. Run one process a seed."
        )
    return env.spec


class _Shares:
    """Account of the cores that the process holds, split evenly among the runs that are under way.

    It holds one core all the time, and more for as long as its threads compute side by side: the clock's seconds or
    the processor's, whichever are more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, float] = {}
        self._clock, self._processor = time.monotonic(), time.process_time()

    def enter(self, number: int) -> None:
        with self._lock:
            self._pass_time()
            self._held.setdefault(number, 0.0)

    def leave(self, number: int) -> None:
        with self._lock:
            self._pass_time()
            self._held.pop(number, None)

    def taken(self, number: int) -> float:
        """Return the seconds since it was asked last, or since the run entered."""
        with self._lock:
            self._pass_time()
            held = self._held.get(number, 0.0)
            if held:
                self._held[number] = 0.0
            return held

    def _pass_time(self) -> None:
        clock, processor = time.monotonic(), time.process_time()
        passed = max(clock - self._clock, processor - self._processor)
        self._clock, self._processor = clock, processor
        for number in self._held:
            self._held[number] += passed / len(self._held)
