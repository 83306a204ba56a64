"""`workhorse worker --join ADDRESS`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from workhorse.cli.options import parse

__all__ = ["run"]


@dataclasses.dataclass
class WorkerOptions:
    """What `worker` takes."""

    join: str
    """The head of a Ray cluster, HOST:PORT."""
    cores: int | None = None
    """Cores to give; by default all that this process may use."""


def run(arguments: Sequence[str]) -> int:
    """Be a node of a cluster until stopped; the exit code."""
    options = parse(
        WorkerOptions,
        "worker",
        arguments,
        "Give this machine's cores to a Ray cluster. Runs that are under way there start workers on it by themselves; "
        "stop it at any time with Ctrl-C, and they go on without it.",
    )
    from workhorse.distributed.ray_transport import join

    return join(options.join, options.cores)
