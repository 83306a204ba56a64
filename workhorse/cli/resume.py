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
    trust: bool = False
    """Run code of a run from elsewhere: the modules of its task and algorithm. Remembered for the run."""
    wandb: str | None = None
    """Send metrics on to this project of Weights & Biases, to the same run there if the run was begun with it."""
    quiet: bool = False
    """Print only the last line."""


def run(arguments: Sequence[str]) -> int:
    """Continue a run and return the exit code."""
    options = parse(ResumeOptions, arguments)
    from pathlib import Path

    from workhorse.core.errors import UsageError
    from workhorse.runs.trust import open_run

    if (Path(options.run) / "study.json").is_file():
        raise UsageError(f"{options.run} is a study, not a run: use `workhorse study {options.run}`.")
    run_folder = open_run(options.run, options.trust)
    notes = Notes()
    algorithms = [run_folder.manifest().algorithm] if options.cluster else []
    make = loop_maker(options, notes, algorithms)

    from workhorse.display.run_display import display_for
    from workhorse.runs import train
    from workhorse.runs.wandb_log import sent_to_wandb, wandb_project

    observer = notes.observer = display_for(options.quiet, None)
    with observer, sent_to_wandb(options.wandb, observer) as told:
        if options.wandb is None and (project := wandb_project(run_folder)):
            observer.noted(f"Not sent to Weights & Biases, where this run began: add --wandb {project} to go on there.")
        folder, summary = train.resume(
            options.run, env_steps=options.env_steps, threads=options.threads, observer=told, make=make
        )
    observer.finished(folder, summary)
    return 0
