"""`workhorse bisect RUN_A RUN_B`."""

import dataclasses
import math
from collections.abc import Sequence

import tyro

from workhorse.cli.options import parse
from workhorse.cli.places import RunPath

__all__ = ["run"]

SHOWN = 10


@dataclasses.dataclass
class BisectOptions:
    """Find the first iteration at which two runs differ, and in which arrays."""

    first_run: tyro.conf.Positional[RunPath]
    """A run folder."""
    second_run: tyro.conf.Positional[RunPath]
    """Another run folder."""
    threads: int = 0
    """Simulation threads; 0 uses one for each core."""
    trust: bool = False
    """Run code of runs from elsewhere: the modules of their tasks and algorithms. Remembered for the runs."""


def run(arguments: Sequence[str]) -> int:
    """Print the first difference of two runs and return the exit code."""
    options = parse(BisectOptions, arguments)
    from workhorse.runs.trust import open_run

    for path in (options.first_run, options.second_run):
        open_run(path, options.trust)
    from workhorse.runs.history import bisect

    found = bisect(options.first_run, options.second_run, options.threads)
    if found is None:
        print(f"{options.first_run} and {options.second_run} agree in every iteration that both have.")
        return 0
    print(f"{options.first_run} and {options.second_run} differ first after iteration {found.iteration}.")
    for name, largest in list(zip(found.leaves, found.largest, strict=True))[:SHOWN]:
        words = "another shape" if math.isnan(largest) else f"largest difference {largest:.3g}"
        print(f"  {name}  {'not finite' if math.isinf(largest) else words}")
    if len(found.leaves) > SHOWN:
        print(f"  and {len(found.leaves) - SHOWN} more arrays of the state")
    if found.earlier:
        print(f"  One iteration earlier, these already differed: {', '.join(found.earlier[:SHOWN])}.")
    return 0
