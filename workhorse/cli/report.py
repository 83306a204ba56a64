"""`workhorse report RUN | STUDY`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from workhorse.cli.options import parse
from workhorse.cli.places import AnyFolder

__all__ = ["run"]


@dataclasses.dataclass
class ReportOptions:
    """Write the report of a run or a study, one HTML file that works offline."""

    folder: tyro.conf.Positional[AnyFolder]
    """A run folder, a study folder, or a study's table (results.parquet)."""
    output: str | None = None
    """Folder for the report of a table; by default the table's folder."""


def run(arguments: Sequence[str]) -> int:
    """Write a report and return the exit code."""
    options = parse(ReportOptions, arguments)
    from workhorse.core.errors import UsageError
    from workhorse.core.files import writing
    from workhorse.studies.folder import StudyFolder, is_study

    place = Path(options.folder)
    if options.output is not None and not place.is_file():
        raise UsageError("--output is for the table of a study; the report of a folder is written into the folder.")
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

        page = write_run_report(place, print)
    print(page)
    return 0
