"""`workhorse compare STUDY_A STUDY_B`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from workhorse.cli.options import parse

__all__ = ["run"]


@dataclasses.dataclass
class CompareOptions:
    """What `compare` takes."""

    study: tyro.conf.Positional[str]
    """A study folder, or the table of one (results.parquet)."""
    other_study: tyro.conf.Positional[str]
    """The other."""
    variant: str | None = None
    """Compare this variant alone; by default every one that both studies have, or the only one of each."""
    any_version: bool = False
    """Compare even where the versions of what computes differ."""


def run(arguments: Sequence[str]) -> int:
    """Compare two studies; the exit code."""
    options = parse(
        CompareOptions,
        "compare",
        arguments,
        "Compare two studies on the tasks they share. Nothing is called better unless the test says so; otherwise you "
        "are told how many seeds are missing.",
    )
    from rich.console import Console

    from workhorse.cli.study_display import cell_table
    from workhorse.studies.between import compare_studies
    from workhorse.studies.loading import read_study

    found = compare_studies(
        read_study(Path(options.study)), read_study(Path(options.other_study)), options.variant, options.any_version
    )
    Console().print(cell_table(found.cells))
    for verdict in found.verdicts:
        print(verdict.sentence)
    for note in found.notes:
        print(note)
    return 0
