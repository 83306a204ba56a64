"""`workhorse replay RUN --iteration N`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tyro

from workhorse.cli.options import parse

__all__ = ["run"]


@dataclasses.dataclass
class ReplayOptions:
    """What `replay` takes."""

    run: tyro.conf.Positional[str]
    """The run folder, as in runs/<id>."""
    iteration: int
    """The iteration to run again; it is reached from the newest state kept before it."""
    threads: int = 0
    """Simulation threads; 0 for one a core."""


def run(arguments: Sequence[str]) -> int:
    """Run an iteration again, prove that it is the same one, and print what it measured; the exit code."""
    options = parse(
        ReplayOptions, "replay", arguments, "Run an iteration of a run again, and check that it comes out as it did."
    )
    from workhorse.runs.folder import RunFolder

    RunFolder.open(options.run)
    from workhorse.runs.history import opened

    measured: dict[str, Any] = {}

    def keep(progress: Any, metrics: Mapping[str, Any]) -> None:
        measured.clear()
        measured.update(metrics)
        measured["iteration"] = int(progress.iteration)

    with opened(options.run, options.threads) as history:
        history.check(options.iteration)
        before = history.at(max(options.iteration - 1, 0))
        if options.iteration:
            history.once_more(before, keep)
        expected = history.digest_of(options.iteration)
    proof = "the same again" if options.iteration else "the state that the first iteration begins with"
    print(f"iteration {options.iteration} of {options.run}: digest {expected}, {proof}")
    width = max(map(len, measured), default=0)
    for name, value in measured.items():
        print(f"  {name:<{width}}  {value:.6g}" if isinstance(value, float) else f"  {name:<{width}}  {value}")
    return 0
