"""Several seeds of one pure task in one process: ordinary runs, in a thread each, that share their compiled programs.

The programs are compiled once for all seeds, which is most of what a short run on a small task costs. They run in one
of two ways:

- *shared*: each run's chunk is a call of the program of one seed. The bits are those of a run alone, always.
- *vectorised*: the runs meet, and one call runs a chunk of each, `vmap` over the seed axis. A run's bits may differ
  from those of a run alone in the last place, because the compiler fuses a program with one more axis differently; see
  `SeedsGather` for what was measured. Which of the runs take part, and what they do, changes no bit of the others.

Which is faster depends on the task, the policy and the processor: `measure` says.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core.machine import describe_hardware
from workhorse.core.types import Returns
from workhorse.environments import registry as environments
from workhorse.environments.protocol import HostEnv, JaxEnv
from workhorse.training.evolve import Evolve
from workhorse.training.gather import Episodes, JaxGather, Lanes, Work, addressed, found_episodes, whole_episodes
from workhorse.training.learning import Learning
from workhorse.training.plan import Plan, local_workforce
from workhorse.training.workforce import Local, Workforce

__all__ = [
    "Group",
    "Measured",
    "Recruit",
    "Rendezvous",
    "SeedsGather",
    "Shares",
    "Way",
    "faster",
    "measure",
    "predicted",
    "pure_env",
    "together",
]

Result = TypeVar("Result")
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Recruit = Callable[[Plan, Learning], Workforce]
Way = Literal["vectorised", "shared", "processes"]

NOTICED_S = 0.05
"""Seconds after which a run that waits for the others looks whether it was told to stop."""


class SeedsGather:
    """Runs the chunks of several seeds' runs, whose threads come to it with one chunk each at a time.

    Vectorised against alone, measured on an x86 processor with AVX-512 over the classic tasks: with a linear policy,
    lengths and returns of a chunk are equal to the bit, and so is everything else except the observation moments of
    Pendulum-v1 (relative difference below 1e-6); CartPole-v1's runs are equal to the bit throughout, and Pendulum-v1's
    returns agree to 3e-8 after 200,000 steps of openai-es with its default settings. With `mlp` on
    Pendulum-v1 a difference in the last place is enough for another trajectory: no tolerance can be promised. Shared,
    everything is equal to the bit.

    Args:
        plan: what the runs have in common; its own seed is of no account.
        seeds: every seed that will take part. Vectorised, chunks wait until each has come, or has left for good.
        vectorised: one program for all seeds, or one seed's program shared by all, a chunk at a time.
        stop: once set, the next chunk of every run raises `KeyboardInterrupt` in that run's thread, and so does every
            chunk that waits: a run saves its state and ends as stopped by the user.

    Raises:
        ValueError: the task is not a pure JAX environment, the algorithm does not learn from whole episodes, or the
            seeds are not distinct.
    """

    def __init__(
        self, plan: Plan, seeds: Sequence[int], *, vectorised: bool = True, stop: threading.Event | None = None
    ) -> None:
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"The seeds of a group must be distinct, and at least one: got {list(seeds)}.")
        self.seeds = tuple(seeds)
        self.stop = stop or threading.Event()
        self._plan = plan
        env = pure_env(plan)
        self.algorithm = plan.learning(env.spec).algorithm
        if self.algorithm.consumes is not Returns:
            raise ValueError(
                f"Seeds can share a program only where the algorithm learns from whole episodes, but {plan.algorithm} "
                f"reads {self.algorithm.consumes.__name__}. Run one process a seed."
            )
        self.num_slots = plan.num_slots(self.algorithm)
        self._alone = JaxGather(self.algorithm, env, self.num_slots, 0)
        self._one_at_a_time = threading.Lock()
        self._rendezvous = Rendezvous(_Vectorised(self.algorithm, env, self.seeds), self.seeds, self.stop)
        self.vectorised = vectorised
        self._shares = Shares()

    @contextlib.contextmanager
    def member(self, seed: int) -> Iterator[Recruit]:
        """A seed's part in the group, as `recruit` for `start` or `resume`; left on the way out, whatever happened.

        Raises:
            ValueError: the seed is not one of the group's; or, when the run begins, its plan is not the group's.
        """
        if seed not in self.seeds:
            raise ValueError(f"Seed {seed} is not of this group: its seeds are {list(self.seeds)}.")
        self._rendezvous.join(seed)
        self._shares.enter(seed)

        def recruit(plan: Plan, learning: Learning) -> Workforce:
            self._check(plan, learning, seed)
            return _Member(learning, Lanes([_Seat(self, seed)]), lambda: self._shares.taken(seed))

        try:
            yield recruit
        finally:
            self._rendezvous.leave(seed)
            self._shares.leave(seed)

    def run(self, seed: int, actor: Any, work: Work) -> Episodes:
        """A chunk of a seed's run.

        Raises:
            KeyboardInterrupt: `stop` is set.
            Exception: what the program raised; in a vectorised round, every run that took part raises it.
        """
        if self.vectorised:
            return self._rendezvous.meet(seed, (actor, work))
        gather = self._alone.rooted(seed)
        with self._one_at_a_time:
            if self.stop.is_set():
                raise KeyboardInterrupt
            return gather(actor, work)

    def _check(self, plan: Plan, learning: Learning, seed: int) -> None:
        ours = (self._plan.task, dict(self._plan.task_options), self.num_slots, seed)
        theirs = (plan.task, dict(plan.task_options), plan.num_slots(learning.algorithm), plan.seed)
        for name, wanted, given in zip(("task", "task options", "slots", "seed"), ours, theirs, strict=True):
            if wanted != given:
                raise ValueError(f"Every run of the group of seed {seed} must have {name} {wanted!r}: got {given!r}.")
        # equal values are not enough: the integer 1 and the float 1.0 may make different programs
        if repr(learning.algorithm) != repr(self.algorithm):
            raise ValueError(
                f"Every run of the group must have the same algorithm and settings: expected {self.algorithm}, got "
                f"{learning.algorithm} for seed {seed}."
            )


def pure_env(plan: Plan) -> JaxEnv:
    """The task's environment, which runs of one process can share a program on.

    Raises:
        ValueError: it is stepped on the host.
    """
    env = environments.make(plan.task, 1, 1, **plan.task_options)
    if isinstance(env, HostEnv):
        env.close()
        raise ValueError(
            f"Seeds can share a program only where the task is a pure JAX environment, but {plan.task} is stepped "
            "on the host. Run one process a seed."
        )
    return env


class Group(Protocol):
    """Runs that take part in something together, by number; for seeds the number is the seed."""

    seeds: tuple[int, ...]
    stop: threading.Event

    def member(self, seed: int) -> contextlib.AbstractContextManager[Any]:
        """A run's part, as what finds it its work; left on the way out, whatever happened."""
        ...


def together(group: Group, run: Callable[[int, Any], Result]) -> dict[int, Result | BaseException]:
    """Every seed's run in a thread of its own: what it returned, or what it raised.

    Args:
        group: what the runs gather with.
        run: does one seed's run from begin to end, given (seed, recruit).

    Raises:
        KeyboardInterrupt: in the main thread, after all runs were told to stop and have ended.
    """
    outcomes: dict[int, Result | BaseException] = {}

    def one(seed: int) -> None:
        try:
            with group.member(seed) as recruit:
                outcomes[seed] = run(seed, recruit)
        except BaseException as error:
            outcomes[seed] = error

    threads = [threading.Thread(target=one, args=(seed,), name=f"seed-{seed}") for seed in group.seeds]
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
    return {seed: outcomes[seed] for seed in group.seeds}


class _Seat:
    """The `Gather` of one seed's run."""

    def __init__(self, group: SeedsGather, seed: int) -> None:
        self.num_slots = group.num_slots
        self._group = group
        self._seed = seed

    def __call__(self, actor: Any, work: Work, stop: threading.Event | None = None) -> Episodes:
        return self._group.run(self._seed, actor, work)

    def close(self) -> None:
        # the run is over, though its thread may still write: the others need not wait for that
        self._group._rendezvous.leave(self._seed)


class _Member(Local):
    """A run's lanes, charged with the run's share of the process."""

    def __init__(self, learning: Learning, lanes: Lanes, taken: Callable[[], float]) -> None:
        super().__init__(learning, lanes)
        self._taken = taken
        self._processor = describe_hardware().cpu

    def core_seconds(self) -> Mapping[str, float]:
        return {self._processor: self._taken()}


class _Vectorised:
    """A chunk of each seed in one call; the seeds that have none have idle slots, so the program is always the same."""

    def __init__(self, algorithm: Any, env: Any, seeds: Sequence[int]) -> None:
        self._seeds = seeds
        self.programs = {explore: jax.jit(_over_seeds(algorithm, env, explore)) for explore in (False, True)}

    def __call__(self, asked: Mapping[int, tuple[Any, Work]]) -> dict[int, Episodes]:
        found: dict[int, Episodes] = {}
        for explore, program in self.programs.items():
            rows = {
                seed: addressed(actor, work, seed) for seed, (actor, work) in asked.items() if work.explore == explore
            }
            if rows:
                given = jax.device_get(program([rows.get(seed, _idle(rows)) for seed in self._seeds]))
                for seed in rows:
                    place = self._seeds.index(seed)
                    found[seed] = found_episodes(asked[seed][1], *jax.tree.map(lambda leaf, s=place: leaf[s], given))
        return found


def _over_seeds(algorithm: Any, env: Any, explore: bool) -> Callable[[list[Any]], Any]:
    one = jax.vmap(whole_episodes(algorithm, env, explore))

    def run(rows: list[Any]) -> Any:
        return one(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows))

    return run


def _idle(rows: Mapping[int, tuple[Any, ...]]) -> tuple[Any, ...]:
    actor, members, *rest = next(iter(rows.values()))
    nobody = np.full_like(members, -1)
    return actor, nobody, nobody, *rest[1:]


class Rendezvous(Generic[Asked, Answer]):
    """Rounds that everyone present takes part in. Nobody waits for one who has left."""

    def __init__(
        self, run: Callable[[Mapping[int, Asked]], Mapping[int, Answer]], expected: Sequence[int], stop: threading.Event
    ) -> None:
        self.run = run
        self._stop = stop
        self._changed = threading.Condition()
        self._present = set(expected)
        self._asked: dict[int, Asked] = {}
        self._answers: dict[int, Answer | BaseException] = {}
        self._running = False

    def join(self, seed: int) -> None:
        with self._changed:
            self._present.add(seed)

    def leave(self, seed: int) -> None:
        with self._changed:
            self._present.discard(seed)
            self._asked.pop(seed, None)
            self._answers.pop(seed, None)
            self._changed.notify_all()

    def meet(self, seed: int, asked: Asked) -> Answer:
        """Hand in one's part, wait for the others, and get what came of it."""
        with self._changed:
            self._present.add(seed)
            self._answers.pop(seed, None)
            self._asked[seed] = asked
            self._changed.notify_all()
            while seed not in self._answers:
                if self._stop.is_set():
                    self._asked.pop(seed, None)
                    raise KeyboardInterrupt
                if not self._running and self._present <= self._asked.keys():
                    self._hold_round()
                else:
                    self._changed.wait(NOTICED_S)
            answer = self._answers.pop(seed)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _hold_round(self) -> None:
        """Run what was handed in, in this thread; the lock is let go meanwhile."""
        asked, self._asked, self._running = self._asked, {}, True
        self._changed.release()
        found: Mapping[int, Answer | BaseException] = {}
        try:
            found = self.run(asked)
        except BaseException as error:
            found = dict.fromkeys(asked, error)
        finally:
            self._changed.acquire()
            self._running = False
            self._answers.update({seed: answer for seed, answer in found.items() if seed in self._present})
            self._changed.notify_all()


class Shares:
    """What the process holds, split evenly among the runs that are under way.

    It holds one core all the time, and more for as long as its threads compute side by side: the clock's seconds or
    the processor's, whichever are more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, float] = {}
        self._clock, self._processor = time.monotonic(), time.process_time()

    def enter(self, seed: int) -> None:
        with self._lock:
            self._pass_time()
            self._held.setdefault(seed, 0.0)

    def leave(self, seed: int) -> None:
        with self._lock:
            self._pass_time()
            self._held.pop(seed, None)

    def taken(self, seed: int) -> float:
        """Seconds since it was asked last, or since the run entered."""
        with self._lock:
            self._pass_time()
            held = self._held.get(seed, 0.0)
            if held:
                self._held[seed] = 0.0
            return held

    def _pass_time(self) -> None:
        clock, processor = time.monotonic(), time.process_time()
        passed = max(clock - self._clock, processor - self._processor)
        self._clock, self._processor = clock, processor
        for seed in self._held:
            self._held[seed] += passed / len(self._held)


class Measured(NamedTuple):
    """Seconds of the clock on this machine, of S seeds.

    Attributes:
        num_seeds: S.
        vectorised_s, shared_s: an iteration of all S seeds in one process, either way.
        alone_s: an iteration of one seed in a process of its own.
        compile_vectorised_s, compile_shared_s, compile_alone_s: the first iteration and evaluation, over and above
            later ones. *A process that starts also imports its libraries, some seconds more.*
    """

    num_seeds: int
    vectorised_s: float
    shared_s: float
    alone_s: float
    compile_vectorised_s: float
    compile_shared_s: float
    compile_alone_s: float


def measure(plan: Plan, num_seeds: int, iterations: int = 5) -> Measured:
    """Time the first iterations of fresh learners, all ways; nothing is written.

    *Early episodes may be shorter, or longer, than later ones*: compare the ways, do not rely on the times.

    Raises:
        ValueError: as `SeedsGather`.
    """
    seeds = range(num_seeds)
    vectorised = _time_group(SeedsGather(plan, seeds), plan, iterations)
    shared = _time_group(SeedsGather(plan, seeds, vectorised=False), plan, iterations)
    learning = plan.learning(plan.spec())
    alone = _time_loop(learning, local_workforce(plan, learning, 1), iterations)
    return Measured(num_seeds, vectorised[1], shared[1], alone[1], vectorised[0], shared[0], alone[0])


def predicted(measured: Measured, cores: int, iterations: int, num_seeds: int | None = None) -> dict[Way, float]:
    """Seconds until all seeds have done so many iterations: in one process either way, or a process a seed and core.

    Example:
        >>> measured = Measured(10, 0.02, 0.03, 0.004, 15.0, 12.0, 10.0)
        >>> predicted(measured, cores=2, iterations=1000)
        {'vectorised': 35.0, 'shared': 42.0, 'processes': 70.0}
    """
    seeds = num_seeds or measured.num_seeds
    rounds = -(-seeds // cores)
    scale = seeds / measured.num_seeds
    return {
        "vectorised": measured.compile_vectorised_s + scale * iterations * measured.vectorised_s,
        "shared": measured.compile_shared_s + scale * iterations * measured.shared_s,
        "processes": rounds * (measured.compile_alone_s + iterations * measured.alone_s),
    }


def faster(measured: Measured, cores: int, iterations: int, num_seeds: int | None = None) -> Way:
    """The way with the least predicted time.

    Example:
        >>> measured = Measured(10, 0.02, 0.03, 0.004, 15.0, 12.0, 10.0)
        >>> faster(measured, cores=2, iterations=1000), faster(measured, cores=10, iterations=1000)
        ('vectorised', 'processes')
    """
    seconds = predicted(measured, cores, iterations, num_seeds)
    return min(seconds, key=lambda way: seconds[way])


def _time_group(group: SeedsGather, plan: Plan, iterations: int) -> tuple[float, float]:
    """(seconds to compile, seconds an iteration) of the slowest seed."""

    def one(seed: int, recruit: Recruit) -> tuple[float, float]:
        own = replace(plan, seed=seed)
        learning = own.learning(group.algorithm.spec)
        return _time_loop(learning, recruit(own, learning), iterations)

    found = []
    for outcome in together(group, one).values():
        if isinstance(outcome, BaseException):
            raise outcome
        found.append(outcome)
    return max(first for first, _ in found), max(each for _, each in found)


def _time_loop(learning: Learning, workforce: Workforce, iterations: int) -> tuple[float, float]:
    """(seconds to compile, seconds an iteration)."""
    try:
        loop = Evolve(learning, workforce)
        begun = time.perf_counter()
        progress, _, _ = loop.iterate(loop.start())
        loop.evaluate(progress, workforce.num_slots)
        first = time.perf_counter() - begun
        begun = time.perf_counter()
        for _ in range(iterations):
            progress, _, _ = loop.iterate(progress)
        each = (time.perf_counter() - begun) / iterations
        return max(first - 2 * each, 0.0), each
    finally:
        workforce.close()
