"""`workhorse worker --join ADDRESS`."""

import dataclasses
from collections.abc import Sequence

from workhorse.cli.options import parse

__all__ = ["run"]


@dataclasses.dataclass
class WorkerOptions:
    """Give this machine's cores to a Ray cluster.

    Runs in progress there start workers on it automatically. Stop it at any time with Ctrl-C; the runs continue without
    it.
    """

    join: str
    """The head of a Ray cluster, HOST:PORT."""
    cores: int | None = None
    """Cores to give; by default all that this process may use."""


def run(arguments: Sequence[str]) -> int:
    """Join a cluster as a node until stopped; return the exit code."""
    options = parse(WorkerOptions, arguments)
    from workhorse.distributed.ray_transport import join

    return join(options.join, options.cores)
