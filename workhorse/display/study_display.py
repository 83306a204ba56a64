"""Show the progress of a study in the terminal, and the table of its results."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from workhorse.display.fitting import DECORATION, Part, bar, fitted
from workhorse.display.run_display import Lines, can_redraw
from workhorse.reports.study_cards import is_cut
from workhorse.reports.wording import MOST_POSSIBLE, duration_text
from workhorse.studies.cells import CellSummary
from workhorse.studies.dispatch import StudyObserver
from workhorse.studies.folder import StudyFolder

__all__ = ["LiveStudyDisplay", "StudyDisplay", "cell_table", "study_display_for", "table_notes"]

LINE_EVERY_S = 10.0
MOST_SHOWN = 8
"""Runs under way that are shown one by one."""
LEAST_SHARE = 0.05
"""Share of a run below which nothing is said of the time left: it would be of compilation."""


def study_display_for(quiet: bool) -> StudyDisplay:
    """Return the display that fits the terminal."""
    if quiet:
        return StudyDisplay(silent=True)
    return LiveStudyDisplay() if can_redraw() else StudyDisplay()


class StudyDisplay(Lines, StudyObserver):
    """Display of plain lines: one for each run that ends, and one every few seconds in between."""

    stopped = "Stopped; every run is saved. Continue with: workhorse study {}"

    def __init__(self, silent: bool = False) -> None:
        super().__init__(silent)
        self._jobs = self._ended = self._crashed = 0
        self._under_way: dict[str, _UnderWay] = {}
        self._last_line = self._begun = time.monotonic()
        self._rated_from: tuple[float, float] | None = None

    def began(self, folder: StudyFolder, jobs: int, done: int) -> None:
        self._folder, self._jobs, self._ended = folder, jobs, done
        plan = folder.plan
        verb = f"Continuing, {done} of {jobs} runs have ended" if done else f"{jobs} runs"
        self._say(f"Study {folder.path}: {verb}; {', '.join(plan.algorithms)} on {', '.join(plan.tasks)}")

    def added(self, jobs: int, why: str) -> None:
        self._jobs += jobs
        self.noted(f"{jobs} more runs: {why}.")

    def doing(self, id: str, what: str) -> None:
        if what:
            self._under_way[id] = self._under_way.get(id, _UnderWay())._replace(doing=what, since=time.monotonic())
        else:
            self._under_way.pop(id, None)

    def progressed(self, id: str, env_steps: int, of: int, value: float | None) -> None:
        self._under_way[id] = _UnderWay(min(env_steps / of, 1.0), value)
        if self._rated_from is None:  # what came before was start-up and compilation
            self._rated_from = time.monotonic(), self._done()
        self.waited()

    def waited(self) -> None:
        if self._under_way and time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            states = [f"{id} {state.text}" for id, state in list(self._under_way.items())[:MOST_SHOWN]]
            more = len(self._under_way) - len(states)
            states += [f"{more} more"] if more else []
            self._say(f"{self._ended} of {self._jobs} runs{self._left()}: " + "; ".join(states))

    def ended(self, id: str, variant: str, task: str, record: Mapping[str, Any]) -> None:
        self._under_way.pop(id, None)
        self._ended += 1
        self._crashed += record["outcome"] == "crashed"
        self._last_line = time.monotonic()
        how = f"return {record['score']:.1f}" if record["score"] is not None else f"{record['outcome'].upper()}: "
        self._say(f"{self._ended} of {self._jobs}  {id}  {how}{record['reason']}{self._left()}")

    def _left(self) -> str:
        """Return the time left, from the runs that have ended and the parts of those under way."""
        if self._rated_from is None or self._jobs <= self._ended:
            return ""
        (begun, before), done = self._rated_from, self._done()
        if done - before < LEAST_SHARE or self._jobs - done < LEAST_SHARE:
            return ""
        left = (time.monotonic() - begun) / (done - before) * (self._jobs - done)
        return f", {duration_text(left)} left"

    def _done(self) -> float:
        """Return the number of runs that have ended, with the parts of those under way."""
        return self._ended + sum(state.share for state in self._under_way.values())


class _UnderWay(NamedTuple):
    """What is known of a run that goes on: the part of its steps that it has taken, its return, what it is at."""

    share: float = 0.0
    value: float | None = None
    doing: str = ""
    since: float = 0.0

    @property
    def text(self) -> str:
        """A few words."""
        known = [f"{self.share:.0%}" if self.share else "", "" if self.value is None else f"return {self.value:.1f}"]
        if self.doing:
            known.append(f"{self.doing}, {duration_text(round(time.monotonic() - self.since))}")
        return " ".join(word for word in known if word)


class LiveStudyDisplay(StudyDisplay):
    """Display of one line for the study and one for each running run; ended runs are listed above them."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console or Console()
        self._live = Live(get_renderable=self._shown, console=self._console, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        super().__exit__(kind, error, trace)

    def noted(self, sentence: str) -> None:
        self._console.print(Text(sentence, style="yellow"))

    def waited(self) -> None:
        """Nothing: the lines are drawn again by themselves."""

    def _say(self, line: str, always: bool = False) -> None:
        self._console.print(Text(line))

    def _shown(self) -> Group:
        width = self._console.width
        shown = [
            [
                Part(bar(self._done() / max(self._jobs, 1), width), DECORATION, "green"),
                Part(f"{self._ended} of {self._jobs} runs", 0, "bold"),
                Part(f"{self._crashed} crashed" if self._crashed else "", 1, "red"),
                Part(self._left().removeprefix(", "), 2),
                Part(f"{duration_text(round(time.monotonic() - self._begun))} so far", 3),
            ]
        ]
        for id, state in list(self._under_way.items())[:MOST_SHOWN]:
            room = max(width // 2, 12)
            name = id if len(id) <= room else f"{id[: room // 2 - 1]}\N{HORIZONTAL ELLIPSIS}{id[-(room - room // 2) :]}"
            shown.append([Part(f"  {name}", 0), Part(state.text, 1)])
        lines = [line for row in shown if self._jobs for line in fitted([row], width)]
        more = len(self._under_way) - MOST_SHOWN
        return Group(*lines, *([Text(f"  and {more} more")] if more > 0 else []))


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
