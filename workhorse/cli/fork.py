"""`workhorse fork RUN --iteration N --set NAME=VALUE`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tyro

from workhorse.cli.options import Count, parse, parse_task_options
from workhorse.core.errors import UsageError

__all__ = ["run"]


@dataclasses.dataclass
class ForkOptions:
    """What `fork` takes."""

    run: tyro.conf.Positional[str]
    """The run folder, as in runs/<id>."""
    iteration: int
    """Where to begin: the state after this iteration."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An option of the algorithm to change, as discount=.98; may be given several times."""
    seeds: int = 10
    """Pairs of runs, with the change and without, from seed 0 on."""
    env_steps: Count | None = None
    """Budget of each, the steps before the fork included; by default the run's own."""
    runs: str = "runs"
    """The folder for the new runs."""
    threads: int = 0
    """Simulation threads; 0 for one a core."""


def run(arguments: Sequence[str]) -> int:
    """Go on from one state with and without a change, and compare; the exit code."""
    options = parse(
        ForkOptions, "fork", arguments, "Go on from an iteration of a run under a change, beside runs without it."
    )
    settings = parse_task_options(options.set, "What --set changes", "discount=.98")
    if not settings:
        raise UsageError("Expected what to change, as in --set discount=.98: got nothing.")
    if options.seeds < 1:
        raise UsageError(f"--seeds must be at least 1: got {options.seeds}.")
    from workhorse.runs.folder import RunFolder

    RunFolder.open(options.run)
    import numpy as np

    from workhorse.runs import train
    from workhorse.runs.history import fork
    from workhorse.statistics.intervals import mean_interval

    made = fork(
        options.run,
        options.iteration,
        settings,
        range(options.seeds),
        options.runs,
        env_steps=options.env_steps,
        threads=options.threads,
        command=("workhorse", "fork", *arguments),
    )
    change = ", ".join(f"{name} {value}" for name, value in settings.items())
    differences = []
    for seed in made.changed:
        scores = []
        for folder in (made.unchanged[seed], made.changed[seed]):
            _, summary = train.resume(folder.path, threads=options.threads)
            scores.append(summary.episode_return.value)
        differences.append(scores[1] - scores[0])
        print(f"seed {seed}: {scores[0]:.4g} as it was, {scores[1]:.4g} with {change}", flush=True)
    found = mean_interval(np.array(differences))
    apart = f" [{found.low:.4g}, {found.high:.4g}]" if np.isfinite(found.low) else ""
    print(f"{change} from iteration {options.iteration} on changes the return by {found.value:.4g}{apart}, paired.")
    return 0
