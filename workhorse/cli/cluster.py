"""Options of a run on a cluster, and how they become workers."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from workhorse.core.errors import UsageError

if TYPE_CHECKING:
    from workhorse.cli.display import Display
    from workhorse.distributed.cluster import Cluster
    from workhorse.training.learning import Learning
    from workhorse.training.plan import Plan

__all__ = ["ClusterOptions", "Notes", "recruiter"]


@dataclasses.dataclass
class ClusterOptions:
    """Options that choose where episodes run; they do not change the result."""

    cluster: str | None = None
    """Run the episodes on a Ray cluster: auto (the one this machine is in, else its own cores), local, or HOST:PORT."""
    workers: int | None = None
    """Workers of the cluster; by default as many as it has room for, also later."""
    worker_threads: int = 1
    """Simulation threads of a worker; each holds a core."""
    exchange: Literal["auto", "scalars", "parameters"] = "auto"
    """What workers are sent in an iteration; auto takes the fewer bytes."""


class Notes:
    """Passes sentences to the display; to standard error as long as there is none."""

    def __init__(self) -> None:
        self.observer: Display | None = None

    def __call__(self, sentence: str) -> None:
        if self.observer is None:
            print(sentence, file=sys.stderr)
        else:
            self.observer.noted(sentence)


def recruiter(options: ClusterOptions, note: Callable[[str], None]) -> Callable[[Plan, Learning], Cluster] | None:
    """Return a function that starts a run's workers on a cluster, connected already; None without --cluster.

    Raises:
        UsageError: options that need --cluster without it, numbers out of range, or a cluster that cannot be reached.
    """
    if options.cluster is None:
        for name in ("workers", "worker_threads", "exchange"):
            if getattr(options, name) != getattr(ClusterOptions, name):
                word = name.replace("_", "-")
                raise UsageError(f"--{word} is for runs on a cluster. Add --cluster auto, or leave it out.")
        return None
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers must be at least 1: got {options.workers}.")
    if options.worker_threads < 1:
        raise UsageError(f"--worker-threads must be at least 1: got {options.worker_threads}.")

    from workhorse.distributed.ray_transport import RayTransport, connect

    connect(options.cluster, note)  # before JAX starts its threads: Ray forks

    def recruit(plan: Plan, learning: Learning) -> Cluster:
        from workhorse.distributed.cluster import Cluster
        from workhorse.training.workforce import num_chunks

        transport = RayTransport(options.workers, options.worker_threads, note)
        cluster = Cluster(plan, learning, transport, options.exchange, note)
        algorithm = learning.algorithm
        chunks = num_chunks(algorithm.num_members * algorithm.episodes_per_member, cluster.num_slots)
        note(
            f"Exchange of {cluster.exchange}: a worker is sent {cluster.cost.scalars:,} bytes an iteration by scalars, "
            f"{cluster.cost.parameters:,} by parameters. {chunks} chunks of {cluster.num_slots} episodes, so at most "
            f"{chunks} workers have work; --slots makes smaller chunks."
        )
        return cluster

    return recruit
