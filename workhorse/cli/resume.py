"""`workhorse resume RUN`."""

import dataclasses
from collections.abc import Sequence

import tyro

from workhorse.cli.cluster import ClusterOptions, Notes, loop_maker
from workhorse.cli.options import Count, parse
from workhorse.cli.places import AnyFolder

__all__ = ["run"]


@dataclasses.dataclass
class ResumeOptions(ClusterOptions):
    """Continue a run from its newest complete checkpoint. The result is identical to an uninterrupted run."""

    run: tyro.conf.Positional[AnyFolder] = tyro.MISSING
    """The run folder, as in runs/<id>."""
    env_steps: Count | None = None
    """New budget in environment steps; by default the run's budget."""
    threads: int = 0
    """Simulation threads, which do not affect the numbers; 0 uses one for each core."""
    quiet: bool = False
    """Print only the last line."""


def run(arguments: Sequence[str]) -> int:
    """Continue a run and return the exit code."""
    options = parse(ResumeOptions, arguments)
    from pathlib import Path

    from workhorse.core.errors import UsageError
    from workhorse.runs.folder import RunFolder

    if (Path(options.run) / "study.json").is_file():
        raise UsageError(f"{options.run} is a study, not a run: use `workhorse study {options.run}`.")
    RunFolder.open(options.run)
    notes = Notes()
    make = loop_maker(options, notes)

    from workhorse.display.run_display import display_for
    from workhorse.runs import train

    observer = notes.observer = display_for(options.quiet, None)
    with observer:
        folder, summary = train.resume(
            options.run, env_steps=options.env_steps, threads=options.threads, observer=observer, make=make
        )
    observer.finished(folder, summary)
    return 0
