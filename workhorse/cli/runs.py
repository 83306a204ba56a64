"""`workhorse runs`."""

import dataclasses
from collections.abc import Sequence

from workhorse.cli.options import parse
from workhorse.runs.folder import list_runs

__all__ = ["run"]


@dataclasses.dataclass
class RunsOptions:
    """List the runs in a folder, newest first."""

    runs: str = "runs"
    """Folder of the runs."""


def run(arguments: Sequence[str]) -> int:
    """List the runs in a folder, newest first, and return the exit code."""
    folder = parse(RunsOptions, arguments).runs
    rows = list_runs(folder)
    if not rows:
        print(f"No runs in {folder}. `workhorse train TASK` makes one.")
        return 0
    width = max(len(row.id) for row in rows)
    print(f"{'run':<{width}}  {'status':<11}  {'steps':>11}  {'return':>9}  age")
    for row in rows:
        steps = "-" if row.env_steps is None else f"{row.env_steps:,}"
        result = "-" if row.last_return is None else f"{row.last_return:.1f}"
        print(f"{row.id:<{width}}  {row.status:<11}  {steps:>11}  {result:>9}  {_age(row.age_s)}")
    return 0


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
