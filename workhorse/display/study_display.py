"""Show the progress of a study in the terminal, and the table of its results."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from workhorse.display.run_display import Lines
from workhorse.reports.study_cards import is_cut
from workhorse.reports.wording import MOST_POSSIBLE, duration_text
from workhorse.studies.cells import CellSummary
from workhorse.studies.dispatch import StudyObserver
from workhorse.studies.folder import StudyFolder

__all__ = ["LiveStudyDisplay", "StudyDisplay", "cell_table", "study_display_for", "table_notes"]

LINE_EVERY_S = 10.0


def study_display_for(quiet: bool) -> StudyDisplay:
    """Return the display that fits the terminal."""
    if quiet:
        return StudyDisplay(silent=True)
    return LiveStudyDisplay() if sys.stdout.isatty() else StudyDisplay()


class StudyDisplay(Lines, StudyObserver):
    """Display of plain lines: one for each run that ends, and one every few seconds in between."""

    stopped = "Stopped; every run is saved. Continue with: workhorse study {}"

    def __init__(self, silent: bool = False) -> None:
        super().__init__(silent)
        self._jobs = self._ended = self._crashed = 0
        self._under_way: dict[str, tuple[int, int, float | None]] = {}
        self._last_line = self._begun = time.monotonic()
        self._ended_before = 0

    def began(self, folder: StudyFolder, jobs: int, done: int) -> None:
        self._folder, self._jobs, self._ended, self._ended_before = folder, jobs, done, done
        plan = folder.plan
        verb = f"Continuing, {done} of {jobs} runs have ended" if done else f"{jobs} runs"
        self._say(f"Study {folder.path}: {verb}; {', '.join(plan.algorithms)} on {', '.join(plan.tasks)}")

    def added(self, jobs: int, why: str) -> None:
        self._jobs += jobs
        self.noted(f"{jobs} more runs: {why}.")

    def progressed(self, id: str, env_steps: int, of: int, value: float | None) -> None:
        self._under_way[id] = (env_steps, of, value)
        if time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._say(f"{self._ended} of {self._jobs} runs; " + "; ".join(map(self._state, self._under_way)))

    def ended(self, id: str, variant: str, task: str, record: Mapping[str, Any]) -> None:
        self._under_way.pop(id, None)
        self._ended += 1
        self._crashed += record["outcome"] == "crashed"
        self._last_line = time.monotonic()
        how = f"return {record['score']:.1f}" if record["score"] is not None else f"{record['outcome'].upper()}: "
        self._say(f"{self._ended} of {self._jobs}  {id}  {how}{record['reason']}{self._left()}")

    def _state(self, id: str) -> str:
        env_steps, of, value = self._under_way[id]
        return f"{id} {env_steps / of:.0%}" + ("" if value is None else f" return {value:.1f}")

    def _left(self) -> str:
        done = self._ended - self._ended_before
        left = (time.monotonic() - self._begun) / max(done, 1) * (self._jobs - self._ended)
        return f"  {duration_text(left)} left" if self._jobs > self._ended else ""


class LiveStudyDisplay(StudyDisplay):
    """Display of one bar for the study and one for each running run; ended runs are listed above them."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console()
        self._whole = Progress(
            TextColumn("runs"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._each = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[shown]}"),
        )
        self._total: TaskID | None = None
        self._bars: dict[str, TaskID] = {}
        self._live = Live(Group(self._whole, self._each), console=self._console, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        super().__exit__(kind, error, trace)

    def began(self, folder: StudyFolder, jobs: int, done: int) -> None:
        super().began(folder, jobs, done)
        self._total = self._whole.add_task("study", total=jobs, completed=done, left="")

    def added(self, jobs: int, why: str) -> None:
        super().added(jobs, why)
        if self._total is not None:
            self._whole.update(self._total, total=self._jobs)

    def progressed(self, id: str, env_steps: int, of: int, value: float | None) -> None:
        if id not in self._bars:
            self._bars[id] = self._each.add_task(id, total=of, shown="")
        shown = "" if value is None else f"return {value:.1f}"
        self._each.update(self._bars[id], completed=min(env_steps, of), shown=shown)

    def ended(self, id: str, variant: str, task: str, record: Mapping[str, Any]) -> None:
        if id in self._bars:
            self._each.remove_task(self._bars.pop(id))
        super().ended(id, variant, task, record)
        if self._total is not None:
            self._whole.update(self._total, completed=self._ended, left=self._left())

    def noted(self, sentence: str) -> None:
        self._console.print(Text(sentence, style="yellow"))

    def _say(self, line: str, always: bool = False) -> None:
        self._console.print(Text(line))


def cell_table(cells: tuple[CellSummary, ...]) -> Group:
    """Return a table for each task: return, success, worst seed, grades and cost of every variant."""
    return Group(*(_task_table(task, [cell for cell in cells if cell.task == task]) for task in _tasks(cells)))


def table_notes(cells: tuple[CellSummary, ...]) -> list[str]:
    """Return what the marks in the table mean, a line each."""
    doubts = dict.fromkeys(cell.doubt for cell in cells if cell.doubt)
    notes = [f"* less sure than 95 %: {'; '.join(doubts)}"] if doubts else []
    return [*notes, *([MOST_POSSIBLE] if any(map(is_cut, cells)) else [])]


def _tasks(cells: tuple[CellSummary, ...]) -> list[str]:
    return list(dict.fromkeys(cell.task for cell in cells))


def _task_table(task: str, cells: list[CellSummary]) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="dim",
        title=task,
        title_justify="left",
        title_style="bold",
    )
    table.add_column("", min_width=10)
    for name in ("return", "succeed", "worst", "crash", "grades", "core-h"):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in cells:
        table.add_row(
            cell.variant,
            _return_text(cell),
            _success_text(cell),
            f"{cell.worst:.4g}",
            str(cell.num_crashed),
            "/".join(g.letter or "-" for g in (cell.reliability_grade, cell.robustness_grade, cell.cost_grade)),
            f"{sum(run.core_hours for run in cell.runs):.2g}",
        )
    return table


def _return_text(cell: CellSummary) -> str:
    if cell.mean is None:
        return f"{cell.scores.mean():.4g} (of {len(cell.runs)})"
    value, low, high, _ = cell.mean
    marks = [
        f"{end:.4g}{word if end == bound != value else ''}"
        for end, bound, word in zip((low, high), cell.bounds, (" min", " max"), strict=True)
    ]
    return f"{value:.4g} [{marks[0]}, {marks[1]}]{'*' if cell.doubt else ''}"


def _success_text(cell: CellSummary) -> str:
    if cell.success is None:
        return "-"
    low, high = (f"{end:.2f}".removeprefix("0") for end in (cell.success.low, cell.success.high))
    return f"{int(cell.successes.sum())} of {len(cell.runs)} [{low}, {high}]"
