"""`workhorse report RUN | STUDY`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from workhorse.cli.options import parse

__all__ = ["run"]


@dataclasses.dataclass
class ReportOptions:
    """What `report` takes."""

    folder: tyro.conf.Positional[str]
    """A run folder, a study folder, or the table of a study (results.parquet)."""
    output: str | None = None
    """For a table: the folder that the page is written to; by default the table's."""


def run(arguments: Sequence[str]) -> int:
    """Write a page; the exit code."""
    options = parse(
        ReportOptions, "report", arguments, "Write the page of a run or a study as one HTML file that needs no network."
    )
    from workhorse.core.errors import UsageError
    from workhorse.runs.files import writing
    from workhorse.studies.folder import StudyFolder, is_study

    place = Path(options.folder)
    if options.output is not None and not place.is_file():
        raise UsageError("--output is for the table of a study; the page of a folder is written into it.")
    if is_study(place):
        from workhorse.reports.study_page import write_study_report
        from workhorse.studies.loading import load_results

        page = write_study_report(load_results(StudyFolder.open(place)), place)
    elif place.is_file():
        from workhorse.reports.study_page import write_study_report
        from workhorse.studies.table import read_table

        results, folder = read_table(place), Path(options.output or place.parent)
        with writing("the report", folder):
            folder.mkdir(parents=True, exist_ok=True)
        page = write_study_report(results, folder)
    else:
        from workhorse.reports.run_page import write_run_report

        page = write_run_report(place)
    print(page)
    return 0
