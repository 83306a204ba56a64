"""The loop that a run is a fold of: start, iterate, evaluate, and what its checkpoints hold.

`make_loop` chooses the loop by the type of experience that the algorithm consumes. A run asks a `Loop`, and nothing
else, for everything it does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import PyTree

from workhorse.core.algorithm import Algorithm, State
from workhorse.core.errors import UsageError
from workhorse.core.machine import describe_hardware
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import EnvSpec
from workhorse.core.types import Demonstrations, Linearisation, Returns, Rollout, Transitions

if TYPE_CHECKING:
    from workhorse.training.experts import OpenExpert
    from workhorse.training.plan import Plan

__all__ = ["Evaluation", "Failures", "Loop", "MakeLoop", "Message", "Progress", "Segments", "check_memory", "make_loop"]

Failures = tuple[str, ...]
"""One sentence for each simulation that broke."""

GoesOn = Callable[[int], bool]
"""From environment steps to a forecast: another iteration will follow at once."""


class Progress(NamedTuple):
    """Position of a run; saving it is the whole of a checkpoint.

    Attributes:
        state: of the algorithm.
        iteration: iterations done, int64.
        env_steps: training steps taken, int64.
        data: what the loop keeps between iterations: where its slots stand, cursors into its segments; or nothing.
    """

    state: State
    iteration: np.ndarray
    env_steps: np.ndarray
    data: PyTree = ()


class Evaluation(NamedTuple):
    """Noiseless episodes on the raw reward.

    Attributes:
        returns: undiscounted, float64 (E,).
        lengths: steps, int32 (E,).
        failures: a sentence for each episode whose simulation broke.
        measures: what else was measured, by the names of `runs/metrics.toml`: what planning cost.
    """

    returns: np.ndarray
    lengths: np.ndarray
    failures: Failures
    measures: Mapping[str, float] = MappingProxyType({})

    @property
    def steps(self) -> int:
        """Steps of the simulator, those of planning among them."""
        return int(self.lengths.sum() * (1 + self.measures.get("planning_steps_per_action", 0)))


class Message(NamedTuple):
    """Bytes of one kind between the coordinator of a cluster and a worker, in an iteration."""

    iteration: int
    worker: str
    purpose: str
    sent: int
    received: int


class Segments(Protocol):
    """Rows that a loop only appends: a replay buffer, a log.

    A checkpoint writes the rows that are new since the one before and never rewrites the others, so that its price is
    that of an iteration and not that of the buffer. Milestones leave them out.
    """

    def cursor(self, progress: Progress) -> tuple[int, int]:
        """Return the number of the first row that is still needed, and the number of rows ever appended."""
        ...

    def read(self, begin: int, end: int) -> dict[str, np.ndarray]:
        """Return rows `begin` to `end`, as arrays with a leading axis of that length."""
        ...

    def restore(self, begin: int, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        """Replace all rows by those of a checkpoint, part after part, the first of which has the number `begin`."""
        ...


class Loop(ABC):
    """Iterations of one algorithm on one task. Made by `make_loop`; closed by whoever made it.

    Attributes:
        algorithm: what learns.
        num_slots: environments side by side, part of the result's bits.
        is_distributed: other processes do the work.
        evaluates: whether the policy can be played; a log may come without its task.
        checkpoint_every_s: the least number of seconds between two checkpoints that the clock asks for.
    """

    algorithm: Algorithm
    num_slots: int
    is_distributed: bool = False
    evaluates: bool = True
    checkpoint_every_s: ClassVar[float] = 0.0

    @staticmethod
    def bytes_needed(algorithm: Algorithm) -> int:
        """Return the bytes that the loop's own data take at the least, beside the algorithm's state."""
        return 0

    def prepare(self) -> None:  # noqa: B027  most loops need nothing
        """Open what learning needs and evaluating does not, as a log, so that it is refused before any work."""

    @abstractmethod
    def start(self) -> Progress:
        """Return the progress before the first iteration."""

    @abstractmethod
    def iterate(
        self, progress: Progress, goes_on: GoesOn = lambda env_steps: False
    ) -> tuple[Progress, dict[str, float], Failures]:
        """Do one iteration.

        Args:
            progress: where the run stands.
            goes_on: tells, from environment steps, whether another iteration will follow at once, so that workers may
                begin it early. A forecast: nothing goes wrong where it is not kept.

        Returns:
            The progress after it, the iteration's metrics, and a sentence for each simulation that failed.
        """

    @abstractmethod
    def evaluate(self, progress: Progress, num_episodes: int) -> Evaluation:
        """Play noiseless episodes on the raw reward, to the task's own clock, from the addresses of "evaluate"."""

    def sample(self, progress: Progress, num_episodes: int) -> Evaluation:
        """Play episodes as `evaluate` does, with the same initial states, whose actions are drawn from the policy.

        Raises:
            UsageError: the policy has no randomness of its own.
        """
        raise UsageError(
            f"{self.algorithm.name} learns a policy without randomness of its own (noise on parameters or actions is "
            "part of its training), so that there is nothing to draw from: leave --stochastic out."
        )

    def observations(self, progress: Progress) -> np.ndarray | None:
        """Return what the slots are about to act on, (B, ...); None where the loop keeps no slots."""
        return None

    def segments(self) -> Mapping[str, Segments]:
        """Return the append-only data by name."""
        return {}

    def metrics(self) -> dict[str, float]:
        """Return what this iteration's work cost beyond the result: message bytes, waiting."""
        return {}

    def notes(self) -> Sequence[str]:
        """Return what the user should know of the task, the sentences since the last call."""
        return ()

    def messages(self) -> Sequence[Message]:
        """Return the messages since the last call; none on one machine."""
        return ()

    def core_seconds(self) -> Mapping[str, float] | None:
        """Return the seconds that cores of each kind were held since the last call; None for the run's own threads."""
        return None

    def close(self) -> None:  # noqa: B027  a loop may hold nothing
        """Free environments, threads and workers."""


MakeLoop = Callable[["Plan", EnvSpec, int], Loop]
"""From a plan, its task's spec and a number of threads to a loop: `make_loop`, or that of a group or a cluster."""


def make_loop(plan: Plan, spec: EnvSpec, threads: int, open_expert: OpenExpert | None = None) -> Loop:
    """Return the loop of a plan on this machine, its settings checked.

    Args:
        plan: what is to be run.
        spec: of the plan's task.
        threads: simulation threads.
        open_expert: opens the expert that the plan's sources name, once learning begins.

    Raises:
        UsageError: an unknown option, a value out of range, spaces that the algorithm cannot take, or more memory than
            the machine has.
    """
    from workhorse.training.demonstrated import DemonstratedOnPolicy
    from workhorse.training.evolve import Evolve  # the loops build on this module
    from workhorse.training.imitation import ImitationLoop
    from workhorse.training.linear_control import LinearControl
    from workhorse.training.off_policy import OffPolicyLoop
    from workhorse.training.offline import OfflineLoop
    from workhorse.training.on_policy import OnPolicyLoop
    from workhorse.training.plan_ahead import PlanAhead

    algorithm = plan.make_algorithm(spec)
    if plan.sources is not None and plan.sources.use == "offline":
        check_memory(plan, algorithm, 0)
        return OfflineLoop.on_this_machine(plan, algorithm, threads)
    if getattr(algorithm, "needs_log", False) and plan.sources is None:
        raise UsageError(
            f"{plan.algorithm} learns from a log, and none is given: `workhorse offline LOG --algorithm "
            f"{plan.algorithm}` learns from it alone, and --log LOG lets a run in the task begin with it."
        )
    if getattr(algorithm, "needs_expert", False):
        if plan.sources is None:
            raise UsageError(
                f"{plan.algorithm} asks an expert, and none is given: `workhorse imitate {plan.task} --expert RUN "
                f"--algorithm {plan.algorithm}` names one."
            )
        check_memory(plan, algorithm, 0)
        return ImitationLoop.on_this_machine(plan, algorithm, threads, open_expert)
    if algorithm.consumes is Returns:
        check_memory(plan, algorithm, Evolve.bytes_needed(algorithm))
        return Evolve.on_this_machine(plan, algorithm, threads)
    if getattr(algorithm, "needs_demonstrations", False):
        if plan.sources is None or not plan.sources.log:
            raise UsageError(
                f"{plan.algorithm} learns from demonstrations, and none are given: `workhorse imitate {plan.task} "
                f"--expert RUN --algorithm {plan.algorithm}`, or --log LOG instead of --expert."
            )
        check_memory(plan, algorithm, OnPolicyLoop.bytes_needed(algorithm))
        return DemonstratedOnPolicy.of(plan, OnPolicyLoop.on_this_machine(plan, algorithm, threads))
    if algorithm.consumes is Rollout:
        check_memory(plan, algorithm, OnPolicyLoop.bytes_needed(algorithm))
        return OnPolicyLoop.on_this_machine(plan, algorithm, threads)
    if algorithm.consumes is Transitions:
        return OffPolicyLoop.on_this_machine(plan, algorithm, threads)
    if algorithm.consumes is Linearisation:
        return LinearControl.on_this_machine(plan, algorithm, threads)
    if algorithm.consumes is Demonstrations:
        check_memory(plan, algorithm, 0)
        return PlanAhead.on_this_machine(plan, algorithm, threads)
    raise TypeError(f"{type(algorithm).__name__} consumes {algorithm.consumes}, for which there is no loop.")


def check_memory(plan: Plan, algorithm: Algorithm, data_bytes: int) -> None:
    """Raise a `UsageError` where a machine of this memory could not even hold the state and the loop's data."""
    leaves = jax.tree.leaves(jax.eval_shape(algorithm.init, draw(root_key(0), "init")))
    needed = data_bytes + sum(leaf.size * leaf.dtype.itemsize for leaf in leaves if hasattr(leaf.dtype, "itemsize"))
    there = describe_hardware().memory_bytes
    if there and needed > there:
        raise UsageError(
            f"{plan.algorithm} needs {needed / 2**30:,.0f} GiB at the least for its parameters and a rollout, but this "
            f"machine has {there / 2**30:,.0f} GiB: lower hidden, num_envs or rollout_steps."
        )
