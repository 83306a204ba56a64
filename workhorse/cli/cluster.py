"""The options of a run on a cluster, and what they come to."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from workhorse.core.errors import UsageError

if TYPE_CHECKING:
    from workhorse.core.spec import EnvSpec
    from workhorse.display.run_display import Display
    from workhorse.training.loop import Loop, MakeLoop
    from workhorse.training.plan import Plan

__all__ = ["ClusterOptions", "Notes", "loop_maker"]

MOST_WORKER_THREADS = 1024


@dataclasses.dataclass
class ClusterOptions:
    """Options of the cluster that plays the episodes; none of them changes the result."""

    cluster: str | None = None
    """Run the episodes on a Ray cluster: auto (the one this machine is in, else its own cores), local, or HOST:PORT."""
    workers: int | None = None
    """Workers of the cluster; by default one on every node, also on those that join later."""
    worker_threads: int = 0
    """Simulation threads of a worker; each holds a core. 0: a worker a node, with all of its cores."""
    exchange: Literal["auto", "scalars", "parameters"] = "auto"
    """Messages to workers in an iteration; auto takes the kind of fewer bytes."""


class Notes:
    """Passes sentences to the display; to standard error as long as there is none."""

    def __init__(self) -> None:
        self.observer: Display | None = None

    def __call__(self, sentence: str) -> None:
        if self.observer is None:
            print(sentence, file=sys.stderr)
        else:
            self.observer.noted(sentence)


def loop_maker(options: ClusterOptions, note: Callable[[str], None], algorithms: Sequence[str]) -> MakeLoop | None:
    """Return what makes a run's loop on the cluster, connected to it already; None where no cluster was asked for.

    Args:
        options: the options of the cluster.
        note: is told what a user should know.
        algorithms: names of those that will run there.

    Raises:
        UsageError: options that need --cluster without it, numbers out of range, an algorithm that learns on one
            machine, or a cluster that cannot be reached.
    """
    if options.cluster is None:
        for name in ("workers", "worker_threads", "exchange"):
            if getattr(options, name) != getattr(ClusterOptions, name):
                word = name.replace("_", "-")
                raise UsageError(f"--{word} is for runs on a cluster. Add --cluster auto, or leave it out.")
        return None
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers must be at least 1: got {options.workers}.")
    if not 0 <= options.worker_threads <= MOST_WORKER_THREADS:
        raise UsageError(
            f"--worker-threads must be at least 1 and at most {MOST_WORKER_THREADS:,}, and no more than the cores of a "
            f"machine, or 0 for all of them: got {options.worker_threads}."
        )

    from workhorse.algorithms import registry
    from workhorse.core.types import Returns
    from workhorse.distributed.ray_transport import RayTransport, connect

    for name in algorithms:
        if registry.algorithm_class(name).consumes is not Returns:
            raise UsageError(
                f"{name} learns on one machine: --cluster plays the episodes of populations. Leave it out."
            )
    connect(options.cluster, note)  # before JAX starts its threads: Ray forks

    def make(plan: Plan, spec: EnvSpec, threads: int) -> Loop:
        from workhorse.core.algorithm import Population
        from workhorse.distributed.cluster import Cluster
        from workhorse.training.episodes import num_chunks
        from workhorse.training.evolve import Evolve
        from workhorse.training.loop import check_memory
        from workhorse.training.population import PopulationPrograms

        algorithm = plan.make_algorithm(spec)
        assert isinstance(algorithm, Population)
        check_memory(plan, algorithm, Evolve.bytes_needed(algorithm))
        programs = PopulationPrograms(algorithm, plan.seed)
        transport = RayTransport(options.workers, options.worker_threads, note)
        cluster = Cluster(plan, programs, transport, options.exchange, note, threads)
        chunks = num_chunks(algorithm.num_members * algorithm.episodes_per_member, cluster.num_slots)
        note(
            f"Exchange of {cluster.exchange}: a worker is sent {cluster.cost.scalars:,} bytes an iteration by scalars, "
            f"{cluster.cost.parameters:,} by parameters. {chunks} chunks of {cluster.num_slots} episodes, so at most "
            f"{chunks} of all workers' lanes have work; --slots makes smaller chunks."
        )
        return Evolve(programs, cluster)

    return make
