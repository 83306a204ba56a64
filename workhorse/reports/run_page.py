"""Report of one run."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from workhorse.advice.line import rival_line, rival_mark
from workhorse.core.errors import UsageError
from workhorse.core.files import list_folder
from workhorse.core.records import read_value
from workhorse.environments.bounds import return_bounds
from workhorse.reports.again import modules_needed, reproduce, run_again
from workhorse.reports.diagnosis_figures import (
    ACTION_VALUE_HEAD,
    VALUE_HEAD,
    WORST_HEAD,
    ActionValues,
    action_value_records,
    action_value_rows,
    baseline_agreement,
    baseline_records,
    gradient_agreement,
    gradient_records,
    value_rows,
    values_and_truth,
    worst_rows,
)
from workhorse.reports.figure import Figure
from workhorse.reports.landscape_figures import landscape_records, landscape_summary, plane, side_view
from workhorse.reports.markup import Markup, definitions, escape, paragraph, sentences, table
from workhorse.reports.metric_figures import measured, unchanged
from workhorse.reports.offline_figures import (
    LOG_HEAD,
    claims_over_training,
    log_rows,
    log_value_records,
    values_and_returns,
)
from workhorse.reports.page import Page
from workhorse.reports.reading import reading, run_words
from workhorse.reports.run_figures import Level, last_episodes, learns_from_a_population, returns_over_training
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
from workhorse.runs.manifest import Manifest, owner_of
from workhorse.runs.metrics import read_metrics
from workhorse.runs.run import interval_of
from workhorse.runs.sealed import read_record
from workhorse.runs.sealing import damaged_records
from workhorse.runs.warnings import read_warnings
from workhorse.statistics.intervals import LEAST_RUNS, Interval
from workhorse.studies.folder import published_threshold

__all__ = ["write_run_report"]

_ONE_SEED = Markup(
    "One seed: the interval is over the episodes of this policy and says nothing about other seeds. "
    "<code>workhorse study</code> trains several."
)

_OF_A_CUT = (
    "An end marked max or min is the most or the least that an episode of this task can return. Student's interval "
    "knows no such bound and goes beyond it: more episodes make it narrower."
)


class _Evaluation(NamedTuple):
    """Episodes of one evaluation, and the interval of their mean; None below 3 episodes."""

    iteration: int
    returns: tuple[float, ...]
    mean: float
    interval: Interval | None


def write_run_report(path: str | os.PathLike[str], noted: Callable[[str], None] = lambda sentence: None) -> Path:
    """Write a run's page, report.html, and the tables of its figures, report-data/*.csv, into its folder.

    Args:
        path: the run folder; the run need not be finished.
        noted: is told, in a sentence each, of damaged files that the page does without.

    Returns:
        The page.

    Raises:
        UsageError: the folder is not a run, its metrics are damaged, or it cannot be written.
    """
    folder = RunFolder.open(path)
    for sentence in damaged_records(folder.path):
        noted(f"{sentence} The report does without it.")
    manifest, status = folder.manifest(), folder.status()
    metrics = _metrics(folder)
    last = _last_evaluation(folder, manifest)
    drawn = _drawn_evaluation(folder, manifest, last)
    page = Page(f"{folder.id}: run")
    page.begin(
        f"Run {folder.id}, {manifest.created[:10]}", _answer(manifest, status, last), _limits(last, drawn, metrics)
    )
    page.add("result", "Result and cost", _facts(folder, manifest, status, metrics, last, drawn))
    warned = read_warnings(folder)
    page.add("warnings", "Warnings", sentences([str(each) for each in warned]) if warned else Markup(""))
    returns = _returns(metrics, last, manifest)
    page.add("learning", "Learning", page.draw(returns) or paragraph("No iteration has ended yet."))
    page.add("evaluation", "Last evaluation", _episodes(page, last) if last else Markup(""))
    agreement = gradient_agreement(gradient_records(folder.path))
    page.add("gradients", "Gradients", page.draw(agreement) if agreement else Markup(""))
    values = value_rows(folder.path)
    page.add("values", "Value function", _values(values) if values else Markup(""))
    of_actions = action_value_records(folder.path)
    page.add("action-values", "Values of actions", _action_values(page, of_actions) if of_actions else Markup(""))
    page.add("log", "Against the log", *_log(page, metrics, log_value_records(folder.path)))
    baselines = baseline_agreement(baseline_records(folder.path))
    page.add("baselines", "Baselines", page.draw(baselines) if baselines else Markup(""))
    landscapes = landscape_records(folder.path)
    planes = [page.draw(draw(record)) for record in landscapes for draw in (plane, side_view)]
    page.add("landscape", "Landscape", page.draw(landscape_summary(landscapes)), *planes)
    page.add("metrics", "Metrics", _metrics_of(page, metrics, manifest))
    found = newest_video(folder.path)
    page.add("video", "Video", _video(found, folder.path) if found else Markup(""))
    page.add("settings", "Settings", _settings(manifest))
    page.add("again", "Make it again", _again(manifest))
    page.add("reading", "How to read this page", reading(run_words(learns_from_a_population(metrics))))
    return page.write(folder.path)


def _metrics(folder: RunFolder) -> pl.DataFrame:
    if not folder.has_metrics:
        return pl.DataFrame(schema={"iteration": pl.Int64, "env_steps": pl.Int64})
    return read_metrics(folder)


def _last_evaluation(folder: RunFolder, manifest: Manifest, stochastic: bool = False) -> _Evaluation | None:
    """Return the evaluation of the newest iteration, with the most episodes; damaged files are skipped.

    Args:
        folder: of the run.
        manifest: of the run.
        stochastic: whether actions were drawn; the curves are of the likeliest ones.
    """
    found = []
    for place in list_folder(folder.evaluations, "*.json"):
        try:
            record = read_record(place, folder.path, owner=owner_of(folder))
            if bool(record.get("stochastic")) is not stochastic:
                continue
            iteration = read_value(int, record.get("iteration"), "`iteration`", str(place))
            given = read_value(tuple[float | None, ...], record.get("returns"), "`returns`", str(place))
        except (FileNotFoundError, UsageError):
            continue
        returns = tuple(value for value in given if value is not None)
        if returns:
            found.append((iteration, len(returns), returns))
    if not found:
        return None
    iteration, number, returns = max(found)
    estimate = interval_of(returns, manifest)
    return _Evaluation(iteration, returns, estimate.value, estimate if number >= LEAST_RUNS else None)


def _drawn_evaluation(folder: RunFolder, manifest: Manifest, last: _Evaluation | None) -> _Evaluation | None:
    """Return the evaluation with drawn actions of the policy that was last evaluated without; None where none is."""
    found = _last_evaluation(folder, manifest, stochastic=True)
    return found if found and last and found.iteration == last.iteration else None


def _differ(one: _Evaluation, other: _Evaluation) -> bool:
    """Tell whether two means differ by more than their intervals."""
    if one.interval is None or other.interval is None:
        return False
    return one.interval.high < other.interval.low or other.interval.high < one.interval.low


def _returns(metrics: pl.DataFrame, last: _Evaluation | None, manifest: Manifest) -> Figure | None:
    steps = math.nan
    if last is not None and "env_steps" in metrics.columns:
        rows = metrics.filter(pl.col("iteration") == last.iteration)
        steps = float(rows["env_steps"][-1]) if len(rows) else math.nan
    interval = last.interval if last and math.isfinite(steps) else None
    levels = _levels(manifest)
    if last is not None and (rival := rival_mark(manifest.task, manifest.task_options, last.mean)) is not None:
        levels.append(Level(f"rival without learning, {rival[0]}", rival[1]))
    return returns_over_training(metrics, interval, steps, levels)


def _levels(manifest: Manifest) -> list[Level]:
    """Return the most that the task pays, and where Gymnasium calls it solved; what is not known is left out."""
    most = return_bounds(manifest.task, manifest.task_options)[1]
    found = [] if most is None else [Level("the most possible", most)]
    threshold = None if manifest.task_options else published_threshold(manifest.task)
    return found if threshold is None else [*found, Level("solved, by Gymnasium", threshold)]


def _episodes(page: Page, last: _Evaluation) -> Markup:
    figure = last_episodes(last.returns)
    if figure is not None:
        return page.draw(figure)
    episodes = count_text(len(last.returns), "episode")
    return paragraph(f"{episodes} of the final policy, each of which returned {number_text(last.returns[0])}.")


def _metrics_of(page: Page, metrics: pl.DataFrame, manifest: Manifest) -> Markup:
    """Return the figures of all metrics, and a list of those of which there is nothing to draw."""
    figures = measured(metrics, manifest.settings)
    still = unchanged(metrics, figures)
    words = "In the only iteration" if len(metrics) == 1 else "The same in every iteration"
    listed = paragraph(f"{words}:") + definitions(still, "small") if still else ""
    return Markup("".join(map(page.draw, figures)) + (f'<div class="text">{listed}</div>' if listed else ""))


def _again(manifest: Manifest) -> Markup:
    machine = f"{count_text(manifest.hardware.cores, 'core')} of {manifest.hardware.cpu or 'an unnamed processor'}"
    files = " and ".join(f"{module.replace('.', '/')}.py" for module in modules_needed(manifest))
    note = f"It imports {files}: run it in the folder where that lies." if files else ""
    return reproduce(run_again(manifest), _versions(manifest), f"{machine}, {manifest.hardware.system}", note)


def _answer(manifest: Manifest, status: Status | None, last: _Evaluation | None) -> str:
    name = f"{manifest.algorithm} on {manifest.task}, seed {manifest.seed}"
    if last is None:
        return f"{name}: no evaluation yet ({status.state if status else 'new'})."
    episodes = count_text(len(last.returns), "episode")
    if last.interval is None:
        return f"{name}: return {number_text(last.mean)} over {episodes}, too few for an interval."
    return f"{name}: return {interval_text(last.interval)} over {episodes}."


def _limits(last: _Evaluation | None, drawn: _Evaluation | None, metrics: pl.DataFrame) -> Markup:
    """Say what the number at the head of the page does not say."""
    words = paragraph(_ONE_SEED, "lead")
    if last is not None and last.interval is not None and " cut at " in last.interval.method:
        words += paragraph(_OF_A_CUT, "lead")
    if last is not None and drawn is not None and _differ(last, drawn):
        sides = f"{_mean_text(drawn)} with actions drawn from the policy and {_mean_text(last)} with its likeliest ones"
        words += paragraph(f"It returns {sides}: they differ by more than their intervals.", "lead")
    if broken := _diverged(metrics):
        words += paragraph(f"The run diverged: {broken} is not a finite number in its last iteration.", "bad")
    return Markup(words)


def _diverged(metrics: pl.DataFrame) -> str:
    """Return a metric that shows that a run diverged; empty where it did not."""
    for name in ("parameter_norm", "params_norm", "gradient_norm", "value_loss", "critic_loss", "surrogate"):
        values = metrics[name].drop_nulls() if name in metrics.columns else []
        if len(values) and not math.isfinite(values[-1]):
            return name
    return ""


def _mean_text(found: _Evaluation) -> str:
    return interval_text(found.interval) if found.interval else number_text(found.mean)


def _facts(
    folder: RunFolder,
    manifest: Manifest,
    status: Status | None,
    metrics: pl.DataFrame,
    last: _Evaluation | None,
    drawn: _Evaluation | None,
) -> Markup:
    ledger = Ledger.of(folder)
    result: dict[str, object] = {"state": status.state if status else "new"}
    if last is not None:
        result["return"] = _mean_text(last)
        if drawn is not None:
            result["return, actions drawn"] = _mean_text(drawn)
        result["cheapest rival"] = rival_line(manifest.task, manifest.task_options, last.mean)
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


def _action_values(page: Page, records: list[ActionValues]) -> Markup:
    words = (
        "In states that the frozen policy visits in fresh episodes: the value of its action there, against the mean "
        "discounted return of taking it and following the policy, played from that state. "
    )
    words += (
        "The policy draws its actions, and both sides hold its entropy."
        if records[-1]["soft"]
        else "The policy acts without noise."
    )
    several = table(ACTION_VALUE_HEAD, action_value_rows(records), numbers=range(len(ACTION_VALUE_HEAD)))
    worst = table(WORST_HEAD, worst_rows(records[-1]), numbers=range(4))
    newest = f"The states of iteration {records[-1]['iteration']} whose values are the most too high:"
    drawn = page.draw(values_and_truth(records[-1]))
    return Markup("".join([paragraph(words), several, drawn, paragraph(newest), worst]))


def _log(page: Page, metrics: pl.DataFrame, records: list[dict[str, Any]]) -> list[Markup]:
    """Return what a run from a log claims beside what the log shows; nothing for another run."""
    parts = [page.draw(claims_over_training(metrics))]
    if records:
        last = records[-1]
        parts.insert(0, Markup(paragraph(f"Iteration {last['iteration']}: {last['verdict']}")))
        parts += [page.draw(values_and_returns(last)), Markup(table(LOG_HEAD, log_rows(records), numbers=range(9)))]
    return parts


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
