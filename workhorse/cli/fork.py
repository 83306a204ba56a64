"""`workhorse fork RUN --iteration N --set NAME=VALUE`."""

import dataclasses
from collections.abc import Sequence

import tyro

from workhorse.cli.options import Count, parse, parse_task_options
from workhorse.cli.places import RunPath
from workhorse.core.errors import UsageError

__all__ = ["run"]


@dataclasses.dataclass
class ForkOptions:
    """Continue a run from an iteration with a changed option, and compare with runs without the change."""

    run: tyro.conf.Positional[RunPath]
    """The run folder, as in runs/<id>."""
    iteration: int
    """Start from the state after this iteration."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An option of the algorithm to change, such as discount=.98; may be repeated."""
    seeds: int = 10
    """Number of pairs of runs, one with the change and one without, from seed 0 on."""
    env_steps: Count | None = None
    """Budget of each run, including the steps before the fork; by default the budget of the original run."""
    runs: str = "runs"
    """Folder for the new runs."""
    threads: int = 0
    """Simulation threads; 0 uses one for each core."""
    trust: bool = False
    """Run code of a run from elsewhere: the modules of its task and algorithm. Remembered for the run."""


def run(arguments: Sequence[str]) -> int:
    """Continue from one state with and without a change, compare, and return the exit code."""
    options = parse(ForkOptions, arguments)
    settings = parse_task_options(options.set, "A change by --set", "discount=.98")
    if not settings:
        raise UsageError("Expected a change such as --set discount=.98: got none.")
    if options.seeds < 1:
        raise UsageError(f"--seeds must be at least 1: got {options.seeds}.")
    from workhorse.runs.trust import open_run

    open_run(options.run, options.trust)
    import numpy as np

    from workhorse.runs import train
    from workhorse.runs.fork import fork
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
            if summary.episode_return is None:
                raise UsageError(f"{folder.path} cannot be played, so that the two halves cannot be compared.")
            scores.append(summary.episode_return.value)
        differences.append(scores[1] - scores[0])
        print(f"seed {seed}: {scores[0]:.4g} unchanged, {scores[1]:.4g} with {change}", flush=True)
    found = mean_interval(np.array(differences))
    apart = f" [{found.low:.4g}, {found.high:.4g}]" if np.isfinite(found.low) else ""
    print(
        f"{change} from iteration {options.iteration} on changes the return by {found.value:.4g}{apart}, the mean "
        "difference over pairs of runs."
    )
    return 0
