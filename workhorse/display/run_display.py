"""Show the progress of a run: a live line in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from workhorse.algorithms.recipes import Recipe
from workhorse.reports.wording import cost_texts, duration_text, interval_text
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.runs.train import Observer, Summary
from workhorse.statistics.gradient_quality import GradientMeter
from workhorse.studies.folder import StudyFolder

__all__ = ["Display", "Lines", "LiveDisplay", "display_for"]

PLAIN_LINE_EVERY_S = 5.0


def display_for(quiet: bool, recipe: Recipe | None) -> Display:
    """Return the display that fits the terminal or the notebook."""
    if quiet:
        return Display(recipe, silent=True)
    from workhorse.display.notebook import NotebookDisplay, in_notebook  # it builds on this module

    if in_notebook():
        return NotebookDisplay(recipe)
    return LiveDisplay(recipe) if sys.stdout.isatty() else Display(recipe)


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
        self._first_steps = 0
        self._begun = 0.0
        self._evaluated: float | None = None
        self._return: float | None = None
        self._meter: GradientMeter | None = None

    def started(self, folder: RunFolder, manifest: Manifest, row: Mapping[str, Any]) -> None:
        self._folder, self._budget = folder, row["budget"]
        self._first_steps, self._begun = row["env_steps"], time.monotonic()
        verb = f"Continuing at iteration {row['iteration']:,}" if row["resumed"] else "Training"
        self._say(f"{verb}: {manifest.task} by {manifest.algorithm}, seed {manifest.seed}, {self._budget:,} steps")
        if manifest.recipe:
            self._say(f"Recipe {manifest.recipe}: {manifest.recipe_source}")
        elif not row["resumed"]:
            self._say("No recipe is known for this task and algorithm: the algorithm's defaults are used.")
        where = f"{manifest.threads} threads" if manifest.threads else "a cluster"
        self._say(f"Run folder {folder.path}, {where}, {manifest.slots} slots")

    def iterated(self, row: Mapping[str, Any]) -> None:
        self._note(row)
        if time.monotonic() - self._last_line >= PLAIN_LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._say(self._line(row))

    def _note(self, row: Mapping[str, Any]) -> None:
        """Keep the last return and evaluation, which not every row has, and add to the gradient's quality."""
        self._evaluated = row.get("evaluation_return", self._evaluated)
        if math.isfinite(row["training_return"]):
            self._return = row["training_return"]
        if "gradient_signal" in row:
            self._meter = self._meter or GradientMeter(row["steps"])
            self._meter.add(row["gradient_signal"], row["gradient_noise"])

    def finished(self, folder: RunFolder, summary: Summary) -> None:
        """Print the last lines of a run."""
        simulated = "-" if summary.simulated_s is None else duration_text(summary.simulated_s)
        speed = summary.env_steps / max(summary.training_s, 1e-9)
        cost = cost_texts(summary.ledger)
        lines = [
            f"return         {interval_text(summary.episode_return)}  "
            f"(mean of {len(summary.episode_returns)} episodes without noise, 95 % {summary.episode_return.method})",
            f"steps          {summary.env_steps:,} trained, {summary.evaluation_steps:,} evaluated",
            f"simulated      {simulated}",
            f"wall time      {cost['wall time']}  ({speed:,.0f} steps/s while training)",
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
        lines.append(f"policy         {folder.policy}")
        for line in lines:
            self._say(line)
        if self._silent:
            print(f"{folder.path}  return {interval_text(summary.episode_return)}")

    def _line(self, row: Mapping[str, Any]) -> str:
        parts = [
            f"iteration {row['iteration']:,}",
            f"steps {row['env_steps']:,} of {self._budget:,}",
            f"{row['steps_per_second']:,.0f} steps/s",
        ]
        if self._return is not None:
            parts.append(f"return {self._return:.1f}")
        if self._evaluated is not None:
            parts.append(f"evaluated {self._evaluated:.1f}")
        if self._meter:
            parts.append(self._meter.sentence)
        parts.append(f"left {self._left(row)}")
        return "  ".join(parts)

    def _left(self, row: Mapping[str, Any]) -> str:
        done = row["env_steps"] - self._first_steps
        rate = done / max(time.monotonic() - self._begun, 1e-9)
        return duration_text(max(self._budget - row["env_steps"], 0) / max(rate, 1e-9))


class LiveDisplay(Display):
    """Display of one line that stays in place: bar, iteration, steps, speed, training return, evaluation, time left."""

    def __init__(self, recipe: Recipe | None) -> None:
        super().__init__(recipe)
        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            _Field("iteration", "iteration {:,}"),
            _Field("env_steps", "{:,} steps"),
            _Field("steps_per_second", "{:,.0f}/s"),
            _Field("training_return", "return {:.1f}", "cyan"),
            _Field("evaluated", "evaluated {:.1f}", "bold green"),
            _Field("meter", "{}", "dim"),
            _Field("left", "{}"),
            console=Console(),
            transient=True,
        )
        self._task = self._progress.add_task("train", total=1.0, start=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        super().__exit__(kind, error, trace)

    def started(self, folder: RunFolder, manifest: Manifest, row: Mapping[str, Any]) -> None:
        super().started(folder, manifest, row)
        self._progress.update(self._task, total=self._budget, completed=row["env_steps"])
        self._progress.start()

    def iterated(self, row: Mapping[str, Any]) -> None:
        self._note(row)
        shown = {name: row[name] for name in ("iteration", "env_steps", "steps_per_second")}
        shown |= {"training_return": self._return, "meter": self._meter and self._meter.sentence}
        ahead = f"{self._left(row)} left" if row["env_steps"] < self._budget else "evaluating the policy"
        shown |= {"evaluated": self._evaluated, "left": ahead}
        self._progress.update(self._task, completed=min(row["env_steps"], self._budget), **shown)

    def noted(self, sentence: str) -> None:
        self._progress.console.print(Text(sentence, style="yellow"))


class _Field(ProgressColumn):
    """Column with a number of the newest iteration; blank until there is one."""

    def __init__(self, name: str, form: str, style: str = "") -> None:
        super().__init__()
        self._name, self._form, self._style = name, form, style

    def render(self, task: Task) -> Text:
        value = task.fields.get(self._name)
        return Text("" if value is None else self._form.format(value), style=self._style)
