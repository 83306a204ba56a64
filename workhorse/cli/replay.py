"""`workhorse replay RUN --iteration N`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, SupportsInt

import tyro

from workhorse.cli.options import parse
from workhorse.cli.places import RunPath

__all__ = ["run"]


class HasIteration(Protocol):
    """State of a run after an iteration, of whatever kind of loop."""

    @property
    def iteration(self) -> SupportsInt: ...


@dataclasses.dataclass
class ReplayOptions:
    """Repeat an iteration of a run and check that the result is identical."""

    run: tyro.conf.Positional[RunPath]
    """The run folder, as in runs/<id>."""
    iteration: int
    """Iteration to repeat, starting from the newest state kept before it that can be gone on from."""
    threads: int = 0
    """Simulation threads; 0 uses one for each core."""
    trust: bool = False
    """Run code of a run from elsewhere: the modules of its task and algorithm. Remembered for the run."""


def run(arguments: Sequence[str]) -> int:
    """Repeat an iteration, check its digest, print its metrics, and return the exit code."""
    options = parse(ReplayOptions, arguments)
    from workhorse.runs.trust import open_run

    open_run(options.run, options.trust)
    from workhorse.runs.history import opened

    measured: dict[str, object] = {}

    def keep(progress: HasIteration, metrics: Mapping[str, object]) -> None:
        measured.clear()
        measured.update(metrics)
        measured["iteration"] = int(progress.iteration)

    with opened(options.run, options.threads) as history:
        history.check(options.iteration)
        before = history.to_go_on_from(max(options.iteration - 1, 0))
        if options.iteration:
            history.once_more(before, keep)
        expected = history.digest_of(options.iteration)
    proof = "identical" if options.iteration else "the state before the first iteration"
    print(f"iteration {options.iteration} of {options.run}: digest {expected}, {proof}")
    width = max(map(len, measured), default=0)
    for name, value in measured.items():
        print(f"  {name:<{width}}  {value:.6g}" if isinstance(value, float) else f"  {name:<{width}}  {value}")
    return 0
