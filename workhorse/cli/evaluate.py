"""`workhorse evaluate RUN`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tyro

from workhorse.cli.options import parse

__all__ = ["run"]


@dataclasses.dataclass
class EvaluateOptions:
    """What `evaluate` takes."""

    run: tyro.conf.Positional[str]
    """The run folder, as in runs/<id>."""
    episodes: int = 100
    """Noiseless episodes on the raw reward."""
    seed: int | None = None
    """Root of the initial states; by default the run's own seed."""
    threads: int = 0
    """Simulation threads; 0 for one a core."""


def run(arguments: Sequence[str]) -> int:
    """Measure a run's policy and print what came out; the exit code."""
    options = parse(
        EvaluateOptions, "evaluate", arguments, "Measure a run's policy, without noise and on the raw reward."
    )
    from workhorse.runs.folder import RunFolder

    RunFolder.open(options.run)
    from workhorse.reports.wording import interval_text
    from workhorse.runs import train

    folder, found, interval = train.evaluate_run(
        options.run, episodes=options.episodes, seed=options.seed, threads=options.threads, noted=print
    )
    print(f"return {interval_text(interval)} over {len(found.returns)} episodes of {folder.path}")
    print(
        f"  spread {found.returns.std():.1f}, worst {found.returns.min():.1f}, best {found.returns.max():.1f}, ", end=""
    )
    print(f"length {found.lengths.mean():.1f}")
    for failure in found.failures:
        print(f"  a simulation broke: {failure}")
    return 0
