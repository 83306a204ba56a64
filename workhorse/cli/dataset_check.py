"""`workhorse dataset check LOG`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from workhorse.cli.check import finding_row
from workhorse.cli.dataset_files import TableOptions
from workhorse.cli.options import parse

__all__ = ["check"]


@dataclasses.dataclass
class DatasetCheckOptions(TableOptions):
    """Look for faults of a log that would spoil what is learnt from it, and say what it can support.

    Where the task is known, and is one of Workhorse's own or named by --task, some random steps of it are compared with
    the log. The exit code is 0 where no fault was found, else 2.
    """

    threads: int = 0
    """Simulation threads; 0 uses one for each core."""


def check(arguments: Sequence[str]) -> int:
    """Check a log, print what was found, and return the exit code."""
    options: Any = parse(DatasetCheckOptions, arguments)
    from workhorse.api.datasets import check as check_log
    from workhorse.data.opening import open_dataset
    from workhorse.data.table_columns import Columns

    columns = Columns(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Columns)})
    dataset = open_dataset(options.log, columns)
    print(f"{options.log}  {dataset.num_steps:,} steps in {dataset.num_episodes:,} episodes\n")
    faults = 0
    for finding in check_log(dataset, task=options.task or None, threads=options.threads):
        faults += finding.verdict == "stop"
        print(finding_row(finding.topic, finding.verdict, finding.text), flush=True)
    print()
    if faults:
        print(f"{faults} fault{'s' if faults > 1 else ''}: mend the log before anything is learnt from it.")
        return 2
    print("No fault was found.")
    return 0
