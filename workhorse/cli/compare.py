"""`workhorse compare STUDY_A STUDY_B`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from workhorse.cli.options import parse
from workhorse.cli.places import StudyPath

__all__ = ["run"]


@dataclasses.dataclass
class CompareOptions:
    """Compare two studies on the tasks that both have.

    A difference is reported only if a test confirms it; otherwise you learn how many more seeds are needed.
    """

    study: tyro.conf.Positional[StudyPath]
    """A study folder, or its table (results.parquet)."""
    other_study: tyro.conf.Positional[StudyPath]
    """The other study."""
    variant: str | None = None
    """Compare only this variant; by default all that both studies have, or the only one of each."""
    any_version: bool = False
    """Compare even if the studies were made with different versions of JAX or MuJoCo."""


def run(arguments: Sequence[str]) -> int:
    """Compare two studies and return the exit code."""
    options = parse(CompareOptions, arguments)
    from rich.console import Console

    from workhorse.display.study_display import cell_table, table_notes
    from workhorse.studies.between import compare_studies
    from workhorse.studies.loading import read_study
    from workhorse.studies.verdicts import unequal_steps

    found = compare_studies(
        read_study(Path(options.study)), read_study(Path(options.other_study)), options.variant, options.any_version
    )
    Console().print(cell_table(found.cells))
    for note in table_notes(found.cells):
        print(note)
    for verdict in found.verdicts:
        print(verdict.sentence)
    for note in (*unequal_steps(found.cells), *found.notes):
        print(note)
    return 0
