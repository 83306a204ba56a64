"""Show the progress of a run: a live line in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from workhorse.advice.line import rival_line
from workhorse.algorithms.recipes import Recipe
from workhorse.display.fitting import DECORATION, Part, bar, fitted
from workhorse.display.time_left import TimeLeft
from workhorse.reports.wording import cost_texts, duration_text, interval_text, number_text, steps_text
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.runs.train import Observer, Summary
from workhorse.statistics.gradient_quality import GradientMeter
from workhorse.studies.folder import StudyFolder

__all__ = ["Display", "Lines", "LiveDisplay", "can_redraw", "display_for"]

PLAIN_LINE_EVERY_S = 5.0


def display_for(quiet: bool, recipe: Recipe | None) -> Display:
    """Return the display that fits the terminal or the notebook."""
    if quiet:
        return Display(recipe, silent=True)
    from workhorse.display.notebook import NotebookDisplay, in_notebook  # it builds on this module

    if in_notebook():
        return NotebookDisplay(recipe)
    return LiveDisplay(recipe) if can_redraw() else Display(recipe)


def can_redraw() -> bool:
    """Tell whether standard output is a terminal whose lines can be drawn again in place."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


class Lines:
    """Plain lines about the work in a folder; on leaving they say how to go on with it after an interruption."""

    stopped: str
    """Sentence after Ctrl-C; {} stands for the folder."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._folder: RunFolder | StudyFolder | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None and isinstance(error, KeyboardInterrupt):
            self._say(self.stopped.format(os.fspath(self._folder.path)), always=True)
        elif self._folder is not None and isinstance(error, Exception):
            error.run_folder = self._folder.path  # type: ignore[attr-defined]

    def noted(self, sentence: str) -> None:
        print(sentence, file=sys.stderr)

    def _say(self, line: str, always: bool = False) -> None:
        if always or not self._silent:
            print(line, flush=True)


class Display(Lines, Observer):
    """Display of plain lines, one every few seconds, for logs and pipes."""

    stopped = "Stopped; the state is saved. Continue with: workhorse resume {}"

    def __init__(self, recipe: Recipe | None, silent: bool = False) -> None:
        super().__init__(silent)
        self._recipe = recipe
        self._last_line = 0.0
        self._budget = 0
        self._row: Mapping[str, Any] = {}
        self._evaluated: tuple[float, int] | None = None
        self._return: tuple[float, int] | None = None
        self._meter: GradientMeter | None = None
        self._time_left: TimeLeft | None = None
        self._doing, self._since, self._has_evaluated = "", 0.0, False
        self._unit = "steps"

    def started(self, folder: RunFolder, manifest: Manifest, row: Mapping[str, Any]) -> None:
        self._folder, self._budget, self._row = folder, row["budget"], row
        self._unit = "updates" if manifest.counts_updates else "steps"
        self._time_left = TimeLeft(row["env_steps"], row["budget"], row["schedule"], time.monotonic())
        verb = f"Continuing at iteration {row['iteration']:,}" if row["resumed"] else "Training"
        self._say(
            f"{verb}: {manifest.task} by {manifest.algorithm}, seed {manifest.seed}, {self._budget:,} {self._unit}"
        )
        if manifest.sources is not None and manifest.sources.log:
            self._say(f"Log {manifest.sources.log}, digest {manifest.sources.log_digest[:12]}")
        if manifest.recipe:
            self._say(f"Recipe {manifest.recipe}: {manifest.recipe_source}")
        elif not row["resumed"]:
            self._say("No recipe is known for this task and algorithm: the algorithm's defaults are used.")
        where = f"{manifest.threads} threads" if manifest.threads else "a cluster"
        self._say(f"Run folder {folder.path}, {where}, {manifest.slots} slots")
        if row["env_steps"] < self._budget:
            self._do("compiling")

    def evaluating(self, episodes: int, last: bool) -> None:
        assert self._time_left is not None
        self._time_left.evaluating(time.monotonic())
        compiling = "" if self._has_evaluated else "compiling and "
        self._do(f"{compiling}evaluating {episodes:,} episodes", tell=last)
        self._has_evaluated = True

    def iterated(self, row: Mapping[str, Any]) -> None:
        self._note(row)
        if time.monotonic() - self._last_line >= PLAIN_LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._say(self._line(row))

    def _do(self, what: str, tell: bool = True) -> None:
        """Say what the run does that takes its time and is no iteration."""
        self._doing, self._since = what, time.monotonic()
        if what and tell:
            self._say(f"{what[0].upper()}{what[1:]} ...")

    def _note(self, row: Mapping[str, Any]) -> None:
        """Keep the last return and evaluation, which not every row has, and add to the gradient's quality."""
        self._row, self._doing = row, ""
        length = row.get("evaluation_length", row.get("episode_length", math.nan))
        if self._time_left is not None:
            self._time_left.iterated(row["env_steps"], float(length), time.monotonic())
        if "evaluation_return" in row:
            self._evaluated = row["evaluation_return"], row["env_steps"]
        if math.isfinite(row.get("training_return", math.nan)):
            self._return = row["training_return"], row["env_steps"]
        if "gradient_signal" in row:
            self._meter = self._meter or GradientMeter(row["steps"])
            self._meter.add(row["gradient_signal"], row["gradient_noise"])

    def finished(self, folder: RunFolder, summary: Summary) -> None:
        """Print the last lines of a run."""
        simulated = "-" if summary.simulated_s is None else duration_text(summary.simulated_s)
        speed = summary.env_steps / max(summary.training_s, 1e-9)
        cost = cost_texts(summary.ledger)
        found = "not measured: no task was given to play in, see --evaluate-on"
        if summary.episode_return is not None:
            found = (
                f"{interval_text(summary.episode_return)}  (mean of {len(summary.episode_returns)} episodes without "
                f"noise, 95 % {summary.episode_return.method})"
            )
        lines = [
            f"return         {found}",
            f"{self._unit:<14} {summary.env_steps:,} trained, {summary.evaluation_steps:,} steps evaluated",
            f"simulated      {simulated}",
            f"wall time      {cost['wall time']}  ({speed:,.0f} {self._unit}/s while training)",
            f"core time      {cost['core time']}",
            f"money          {cost['money']}",
        ]
        if summary.traffic:
            sent, received = summary.traffic.sent, summary.traffic.received
            lines.append(
                f"traffic        {sent:,.0f} bytes to and {received:,.0f} from each worker an iteration, "
                f"{summary.traffic.workers:.1f} workers"
            )
        if summary.failed_episodes:
            lines.append(f"broken         {summary.failed_episodes} episodes whose simulation failed")
        manifest = folder.manifest()
        if summary.episode_return is not None:
            rival = rival_line(manifest.task, manifest.task_options, summary.episode_return.value)
            lines.append(f"rival          {rival}")
        lines.append(f"policy         {folder.policy}")
        for line in lines:
            self._say(line)
        if self._silent:
            known = summary.episode_return
            print(f"{folder.path}  return {interval_text(known) if known is not None else 'not measured'}")

    def _line(self, row: Mapping[str, Any]) -> str:
        return "  ".join(part.text for line in self._parts(row) for part in line if part.text)

    def _parts(self, row: Mapping[str, Any]) -> list[list[Part]]:
        """Return what the two progress lines have; the rank says what is left out first on a narrow screen."""
        env_steps = row["env_steps"]
        speed = f"{row['steps_per_second']:,.0f} {self._unit}/s" if "steps_per_second" in row else ""
        return [
            [
                Part(f"{min(env_steps / self._budget, 1):4.0%}", 3),
                Part(self._known("evaluated", self._evaluated, env_steps), 0, "bold green"),
                Part(self._known("return", self._return, env_steps), 2, "cyan"),
                Part(self._ahead(), 1),
            ],
            [
                Part(f"{env_steps:,} of {steps_text(self._budget)} {self._unit}", 5),
                Part(speed, 4),
                Part(f"iteration {row['iteration']:,}" if row["iteration"] else "", 6),
                Part(self._meter.sentence if self._meter else "", 7, "dim"),
            ],
        ]

    def _known(self, name: str, value: tuple[float, int] | None, env_steps: int) -> str:
        """Return a number, with the steps it was measured at where that was not just now."""
        if value is None:
            return ""
        number, at = value
        return f"{name} {number_text(number)}" + ("" if at == env_steps else f" at {steps_text(at)}")

    def _ahead(self) -> str:
        """Return what is being done, or the time left."""
        now = time.monotonic()
        if self._doing:
            return f"{self._doing}, {duration_text(round(now - self._since))}"
        left = self._time_left.seconds(now) if self._time_left is not None else None
        return "" if left is None else f"{duration_text(left)} left"


class LiveDisplay(Display):
    """Display of at most two lines that stay in place, as wide as the terminal allows."""

    def __init__(self, recipe: Recipe | None, console: Console | None = None) -> None:
        super().__init__(recipe)
        self._live = Live(console=console or Console(), get_renderable=self._shown, transient=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        super().__exit__(kind, error, trace)

    def started(self, folder: RunFolder, manifest: Manifest, row: Mapping[str, Any]) -> None:
        super().started(folder, manifest, row)
        self._live.start()

    def iterated(self, row: Mapping[str, Any]) -> None:
        self._note(row)

    def noted(self, sentence: str) -> None:
        self._live.console.print(Text(sentence, style="yellow"))

    def finished(self, folder: RunFolder, summary: Summary) -> None:
        self._live.stop()
        super().finished(folder, summary)

    def _do(self, what: str, tell: bool = True) -> None:
        super()._do(what, tell=False)

    def _shown(self) -> Group:
        if not self._row:
            return Group()
        width = self._live.console.width
        first, second = self._parts(self._row)
        line = bar(self._row["env_steps"] / self._budget, width)
        return Group(*fitted([[Part(line, DECORATION, "green"), *first], second], width))
