"""The worked study of docs/studies.md, its tables and the pictures of its page: `python bench/studies.py`.

`python bench/studies.py STUDY` takes the results over from a study folder first.
`python bench/studies.py --case cluster` is another matter: eight runs on two nodes, one of which is killed.
"""

import argparse
import math
import shutil
import sys
import tempfile
from pathlib import Path

from workhorse.reports.study_page import write_study_report
from workhorse.reports.wording import MOST_POSSIBLE, interval_text
from workhorse.studies.across_tasks import aggregate_scores
from workhorse.studies.cells import CellSummary, summarise
from workhorse.studies.folder import StudyFolder
from workhorse.studies.loading import load_results
from workhorse.studies.results import StudyResults
from workhorse.studies.table import read_table, write_table
from workhorse.studies.verdicts import unequal_steps, verdicts

HERE = Path(__file__).parent
TABLE = HERE / "results" / "worked-study.parquet"
PAGE = HERE.parent / "docs" / "studies.md"
IMAGES = HERE.parent / "docs" / "images"
BEGIN, END = "<!-- made by bench/studies.py -->", "<!-- end of what bench/studies.py makes -->"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", type=Path)
    parser.add_argument("--case", choices=["cluster"], help="eight runs on two nodes in namespaces, one killed")
    parser.add_argument("--env-steps", type=int, default=200_000, help="of each run of the case")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "study-nodes.json", help="file for its result")
    arguments = parser.parse_args()
    if arguments.case == "cluster":
        from study_nodes import run_case

        sys.exit(run_case(arguments.env_steps, arguments.json))
    if arguments.study:
        write_table(load_results(StudyFolder.open(arguments.study)), TABLE)
    results = read_table(TABLE)
    write_tables(results)
    take_pictures(results)


def write_tables(results: StudyResults) -> None:
    cells = summarise(results)
    lines = [
        f"`{results.command}`, {results.created[:10]}, {results.machine}.",
        "",
        "| task | algorithm | return, mean | succeed | worst seed | grades | core-minutes a success |",
        "|---|---|---|---|---|---|---|",
        *map(cell_line, cells),
        "",
        f"Grades: reliability / robustness / cost, from A to E. {MOST_POSSIBLE}.",
        "",
        *(f"- {verdict.sentence}" for verdict in verdicts(results, cells)),
        *(f"- {sentence}" for sentence in unequal_steps(cells)),
        "",
        "| task | algorithm | what breaks it: least that is left | worst corner |",
        "|---|---|---|---|",
        *map(robustness_line, cells),
        "",
        *across_tasks(results),
        "",
        *(f"- {note}" for note in results.notes),
    ]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}")


def cell_line(cell: CellSummary) -> str:
    mean, success = cell.mean, cell.success
    assert mean is not None and success is not None
    price = 60 * cell.cost.core_hours_per_success
    grades = " / ".join(grade.text for grade in (cell.reliability_grade, cell.robustness_grade, cell.cost_grade))
    rate = f"{int(cell.successes.sum())} of {len(cell.runs)} [{success.low:.2f}, {success.high:.2f}]"
    return (
        f"| {cell.task} | {cell.variant} | {interval_text(mean, bounds=cell.bounds)} | {rate} | "
        f"{cell.worst:,.0f} | {grades} | {'none' if math.isinf(price) else f'{price:.2f}'} |"
    )


def robustness_line(cell: CellSummary) -> str:
    found = cell.robustness
    if found is None:
        return f"| {cell.task} | {cell.variant} | not tried | |"
    share = found.worst_share
    corner = f"{found.worst_corner}: {found.worst_corner_share:.2f}" if found.worst_corner else "none tried"
    left = f"{found.worst_artefact}: {share.value:.2f} [{share.low:.2f}, {share.high:.2f}]"
    return f"| {cell.task} | {cell.variant} | {left}{', breaks it' if found.breaks else ''} | {corner} |"


def across_tasks(results: StudyResults) -> list[str]:
    found = aggregate_scores(results)
    if isinstance(found, str):
        return [f"No number over all tasks ({found})."]
    return [
        f"Over the tasks, as (score - random) / (threshold - random): IQM of {one.variant} {one.iqm.value:.2f} "
        f"[{one.iqm.low:.2f}, {one.iqm.high:.2f}], {one.iqm.method}."
        for one in found
    ]


def take_pictures(results: StudyResults) -> None:
    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser_path is None:
        print(f"No pictures: none of {', '.join(BROWSERS)} is installed.")
        return
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page_file = write_study_report(results, Path(folder))
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for name, scheme, width, height in (
            ("study-light", "light", 1280, 1500),
            ("study-dark", "dark", 1280, 1500),
            ("study-phone", "light", 375, 900),
        ):
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
            )
            page.goto(page_file.as_uri())
            page.wait_for_selector(".js-plotly-plot svg.main-svg")
            if name == "study-dark":
                page.evaluate("document.querySelector('#learning').scrollIntoView()")
            page.wait_for_timeout(1000)
            page.screenshot(path=IMAGES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
