"""Report of one run."""

import json
import math
import os
import shlex
from pathlib import Path
from typing import NamedTuple

import polars as pl

from workhorse.reports.diagnosis_figures import (
    VALUE_HEAD,
    baseline_agreement,
    baseline_records,
    gradient_agreement,
    gradient_records,
    value_rows,
)
from workhorse.reports.figure import Figure
from workhorse.reports.landscape_figures import landscape_records, landscape_summary, plane, side_view
from workhorse.reports.markup import Markup, definitions, escape, paragraph, sentences, table
from workhorse.reports.page import Page
from workhorse.reports.reading import RUN_WORDS, reading
from workhorse.reports.run_figures import last_episodes, other_metrics, returns_over_training, speed_and_length
from workhorse.reports.study_page import reproduce
from workhorse.reports.videos import newest_video, video
from workhorse.reports.wording import (
    cost_texts,
    count_text,
    interval_text,
    number_text,
    steps_text,
)
from workhorse.runs.cost import Ledger
from workhorse.runs.folder import RunFolder, Status
from workhorse.runs.manifest import Manifest
from workhorse.runs.metrics import read_metrics
from workhorse.runs.warnings import read_warnings
from workhorse.statistics.intervals import LEAST_RUNS, Interval, mean_interval

__all__ = ["write_run_report"]

_ONE_SEED = Markup(
    "One seed: the interval is over the episodes of this policy and says nothing about other seeds. "
    "<code>workhorse study</code> trains several."
)


class _Evaluation(NamedTuple):
    """Episodes of one evaluation, and the interval of their mean; None below 3 episodes."""

    iteration: int
    returns: tuple[float, ...]
    mean: float
    interval: Interval | None


def write_run_report(path: str | os.PathLike[str]) -> Path:
    """Write a run's page, report.html, and the tables of its figures, report-data/*.csv, into its folder.

    Args:
        path: the run folder; the run need not be finished.

    Returns:
        The page.

    Raises:
        UsageError: the folder is not a run, its metrics are damaged, or it cannot be written.
    """
    folder = RunFolder.open(path)
    manifest, status = folder.manifest(), folder.status()
    metrics = _metrics(folder)
    last = _last_evaluation(folder)
    page = Page(f"{folder.id}: run")
    page.begin(
        f"Run {folder.id}, {manifest.created[:10]}", _answer(manifest, status, last), paragraph(_ONE_SEED, "lead")
    )
    page.add("result", "Result and cost", _facts(folder, manifest, status, metrics, last))
    warned = read_warnings(folder)
    page.add("warnings", "Warnings", sentences([str(each) for each in warned]) if warned else Markup(""))
    page.add("learning", "Learning", page.draw(_returns(metrics, last)) or paragraph("No iteration has ended yet."))
    page.add("evaluation", "Last evaluation", page.draw(last_episodes(last.returns)) if last else Markup(""))
    page.add("speed", "Speed", page.draw(speed_and_length(metrics)))
    agreement = gradient_agreement(gradient_records(folder.path))
    page.add("gradients", "Gradients", page.draw(agreement) if agreement else Markup(""))
    values = value_rows(folder.path)
    page.add("values", "Value function", _values(values) if values else Markup(""))
    baselines = baseline_agreement(baseline_records(folder.path))
    page.add("baselines", "Baselines", page.draw(baselines) if baselines else Markup(""))
    landscapes = landscape_records(folder.path)
    planes = [page.draw(draw(record)) for record in landscapes for draw in (plane, side_view)]
    page.add("landscape", "Landscape", page.draw(landscape_summary(landscapes)), *planes)
    page.add("metrics", "Other metrics", page.draw(other_metrics(metrics)))
    found = newest_video(folder.path)
    page.add("video", "Video", _video(found, folder.path) if found else Markup(""))
    page.add("settings", "Settings", _settings(manifest))
    machine = f"{count_text(manifest.hardware.cores, 'core')} of {manifest.hardware.cpu or 'an unnamed processor'}"
    command = reproduce(shlex.join(manifest.command), _versions(manifest), f"{machine}, {manifest.hardware.system}")
    page.add("reproduce", "Reproduce", command)
    page.add("reading", "How to read this page", reading(RUN_WORDS))
    return page.write(folder.path)


def _metrics(folder: RunFolder) -> pl.DataFrame:
    if not folder.metrics.exists():
        return pl.DataFrame(schema={"iteration": pl.Int64, "env_steps": pl.Int64})
    return read_metrics(folder)


def _last_evaluation(folder: RunFolder) -> _Evaluation | None:
    """Return the evaluation of the newest iteration, with the most episodes; damaged files are skipped."""
    found = []
    for place in folder.evaluations.glob("*.json"):
        try:
            record = json.loads(place.read_bytes())
            returns = tuple(float(value) for value in record["returns"] if value is not None and math.isfinite(value))
            iteration = int(record["iteration"])
            if record.get("stochastic"):
                continue  # the curves beside it are of the likeliest actions
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if returns:
            found.append((iteration, len(returns), returns))
    if not found:
        return None
    iteration, number, returns = max(found)
    estimate = mean_interval(returns)
    return _Evaluation(iteration, returns, estimate.value, estimate if number >= LEAST_RUNS else None)


def _returns(metrics: pl.DataFrame, last: _Evaluation | None) -> Figure | None:
    steps = math.nan
    if last is not None and "env_steps" in metrics.columns:
        rows = metrics.filter(pl.col("iteration") == last.iteration)
        steps = float(rows["env_steps"][-1]) if len(rows) else math.nan
    return returns_over_training(metrics, last.interval if last and math.isfinite(steps) else None, steps)


def _answer(manifest: Manifest, status: Status | None, last: _Evaluation | None) -> str:
    name = f"{manifest.algorithm} on {manifest.task}, seed {manifest.seed}"
    if last is None:
        return f"{name}: no evaluation yet ({status.state if status else 'new'})."
    episodes = count_text(len(last.returns), "episode")
    if last.interval is None:
        return f"{name}: return {number_text(last.mean)} over {episodes}, too few for an interval."
    return f"{name}: return {interval_text(last.interval)} over {episodes}."


def _facts(
    folder: RunFolder, manifest: Manifest, status: Status | None, metrics: pl.DataFrame, last: _Evaluation | None
) -> Markup:
    ledger = Ledger.of(folder)
    result: dict[str, object] = {"state": status.state if status else "new"}
    if last is not None:
        result["return"] = interval_text(last.interval) if last.interval else number_text(last.mean)
        result["worst, best episode"] = f"{number_text(min(last.returns))}, {number_text(max(last.returns))}"
    steps = status.env_steps if status else 0
    result["training steps"] = f"{steps_text(steps)} of {steps_text(manifest.env_steps)} planned"
    result["iterations"] = number_text(status.iteration if status else 0)
    if "failed_episodes" in metrics.columns:
        result["episodes whose simulation broke"] = number_text(int(metrics["failed_episodes"].drop_nulls().sum()))
    cost: dict[str, object] = {
        **cost_texts(ledger),
        "slots, threads": f"{manifest.slots:,}, {manifest.threads or 'a cluster'}",
    }
    return Markup(
        f'<div class="cards"><article class="card"><h4>Result</h4>{definitions(result)}</article>'
        f'<article class="card"><h4>Cost</h4>{definitions(cost)}</article></div>'
    )


def _video(place: Path, folder: Path) -> Markup:
    return Markup(f'<div class="videos">{video(place, folder, f"An episode: {place.name}")}</div>')


def _values(rows: list[tuple[str, ...]]) -> Markup:
    words = (
        "On states never trained on. The truth is the mean return of the frozen policy over many episodes from one "
        "state. The share explained is corrected for the error of that mean; it is 1 at best, and 0 for a constant."
    )
    return Markup(paragraph(words) + table(VALUE_HEAD, rows, numbers=range(len(VALUE_HEAD))))


def _settings(manifest: Manifest) -> Markup:
    recipe = f"Recipe {manifest.recipe}: {manifest.recipe_source}." if manifest.recipe else "No recipe was used."
    rows = [(name, _plain(value)) for name, value in manifest.settings.items()]
    rows += [(f"task: {name}", _plain(value)) for name, value in manifest.task_options.items()]
    inside = table(("setting", "value"), rows, kind="fine")
    summary = f"{count_text(len(rows), 'setting')} of {escape(manifest.algorithm)} and the task"
    return Markup(f"{paragraph(recipe)}<details><summary>{summary}</summary>{inside}</details>")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _versions(manifest: Manifest) -> dict[str, str]:
    versions = dict(manifest.versions)
    if manifest.git:
        dirty = ", with changes that are in no commit" if manifest.git.get("dirty") else ""
        versions["commit"] = f"{manifest.git.get('commit', '')}{dirty}"
    return versions
