"""`workhorse resume RUN`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tyro

from workhorse.cli.cluster import ClusterOptions, Notes, loop_maker
from workhorse.cli.options import Count, parse

__all__ = ["run"]


@dataclasses.dataclass
class ResumeOptions(ClusterOptions):
    """What `resume` takes."""

    run: tyro.conf.Positional[str] = tyro.MISSING
    """The run folder, as in runs/<id>."""
    env_steps: Count | None = None
    """A new budget in environment steps; by default the run's own."""
    threads: int = 0
    """Simulation threads, no part of the result; 0 for one a core."""
    quiet: bool = False
    """Print nothing but the last line."""


def run(arguments: Sequence[str]) -> int:
    """Go on with a run; the exit code."""
    options = parse(
        ResumeOptions,
        "resume",
        arguments,
        "Go on with a run from its newest whole checkpoint: the same bits as if it had never stopped.",
    )
    from pathlib import Path

    from workhorse.core.errors import UsageError
    from workhorse.runs.folder import RunFolder

    if (Path(options.run) / "study.json").is_file():
        raise UsageError(f"{options.run} is a study, not a run: `workhorse study {options.run}` goes on with it.")
    RunFolder.open(options.run)
    notes = Notes()
    make = loop_maker(options, notes)

    from workhorse.cli.display import display_for
    from workhorse.runs import train

    observer = notes.observer = display_for(options.quiet, None)
    with observer:
        folder, summary = train.resume(
            options.run, env_steps=options.env_steps, threads=options.threads, observer=observer, make=make
        )
    observer.finished(folder, summary)
    return 0
