"""`workhorse evaluate RUN`."""

import dataclasses
from collections.abc import Sequence

import tyro

from workhorse.cli.options import parse
from workhorse.cli.places import RunPath

__all__ = ["run"]


@dataclasses.dataclass
class EvaluateOptions:
    """Evaluate a run's policy on new episodes, with its likeliest actions and the task's own reward."""

    run: tyro.conf.Positional[RunPath]
    """The run folder, as in runs/<id>."""
    episodes: int = 100
    """Number of episodes."""
    seed: int | None = None
    """Seed of the initial states; by default the run's seed."""
    threads: int = 0
    """Simulation threads; 0 uses one for each core."""
    trust: bool = False
    """Run code of a run from elsewhere: the modules of its task and algorithm. Remembered for the run."""
    stochastic: bool = False
    """Draw actions from the policy, as in training, instead of taking the likeliest."""


def run(arguments: Sequence[str]) -> int:
    """Evaluate a run's policy, print the returns, and return the exit code."""
    options = parse(EvaluateOptions, arguments)
    from workhorse.runs.trust import open_run

    open_run(options.run, options.trust)
    from workhorse.reports.wording import interval_text
    from workhorse.runs import train
    from workhorse.runs.metric_words import describe

    folder, found, interval = train.evaluate_run(
        options.run,
        episodes=options.episodes,
        seed=options.seed,
        threads=options.threads,
        stochastic=options.stochastic,
        noted=print,
    )
    drawn = ", actions drawn" if options.stochastic else ""
    print(f"return {interval_text(interval)} over {len(found.returns)} episodes of {folder.path}{drawn}")
    print(
        f"  spread {found.returns.std():.1f}, worst {found.returns.min():.1f}, best {found.returns.max():.1f}, ", end=""
    )
    print(f"length {found.lengths.mean():.1f}")
    for name, value in found.measures.items():
        print(f"  {describe(name).title.lower()} {value:,.4g}")
    for failure in found.failures:
        print(f"  a simulation broke: {failure}")
    return 0
