"""Figures of tuning: the swing of each option, and a search's winner on tuning and on fresh seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from workhorse.reports.figure import Figure, LegendEntry, blank, hover_name, label_rows, whiskers
from workhorse.reports.palette import LIGHT, series, shade
from workhorse.reports.wording import number_text, slug
from workhorse.statistics.intervals import LEAST_RUNS, cut, mean_interval
from workhorse.studies.cells import cell_scores
from workhorse.studies.results import SearchResult, StudyResults
from workhorse.studies.tuning import Effect, tornado

__all__ = ["search_trials", "setting_text", "tornadoes"]


def tornadoes(results: StudyResults) -> Figure | None:
    """Draw the effect of each option of the grid on the mean score, one panel a task; None without a grid."""
    panels, rows = [], []
    for task in results.tasks:
        effects = tornado(results, task)
        if not effects:
            continue
        panel = blank(task, x="mean score, the other options as in the best setting", x_ticks=",~g")
        for effect, place in zip(effects, label_rows(panel, [_swing(effect) for effect in effects]), strict=True):
            found = _effect_rows(task, effect)
            rows += found
            _draw_effect(panel, effect, found, place)
        panels.append(panel)
    if not panels:
        return None
    caption = "A bar an option: the span of the mean score over its values, the others as in the best setting of the "
    caption += "task; a dot a value. The best of many noisy means is partly luck: spans are not confidence intervals."
    table = pl.DataFrame(rows)
    return Figure("tornado", "What each option does", caption, tuple(panels), table, panel_width=340)


def search_trials(results: StudyResults, number: int) -> Figure:
    """Every trial of a search on the tuning seeds, and the winner on seeds that the search never used."""
    search = results.searches[number]
    rows = _trial_rows(search) + _fresh_rows(results, search)
    table = pl.DataFrame(rows, schema=_TRIAL_SCHEMA)
    panel = blank(x="trial", y="return", height=320, x_ticks="d")
    scores = table.filter(pl.col("line") == "tuning seed")
    panel.add_scatter(
        x=scores["trial"].to_list(),
        y=scores["score"].to_list(),
        mode="markers",
        marker={"size": 6, "color": shade(series(0), 0.35)},
        hovertemplate="trial %{x}, one tuning seed: %{y:,.4~g}<extra></extra>",
    )
    means = table.filter(pl.col("line") == "trial")
    panel.add_scatter(
        x=means["trial"].to_list(),
        y=means["score"].to_list(),
        text=[setting_text(trial.settings) for trial in search.trials if trial.survived],
        mode="markers",
        marker={"size": 10, "color": series(0), "symbol": "diamond"},
        hovertemplate="trial %{x}: %{y:,.4~g}<br>%{text}<extra></extra>",
    )
    failed = table.filter(pl.col("line") == "did not survive")
    panel.add_scatter(
        x=failed["trial"].to_list(),
        y=failed["score"].to_list(),
        text=[setting_text(trial.settings) for trial in search.trials if not trial.survived],
        mode="markers",
        marker={"symbol": "x", "size": 10, "color": LIGHT["bad"]},
        hovertemplate="trial %{x} crashed or diverged<br>%{text}<extra></extra>",
    )
    _draw_winner(panel, search, table)
    caption = "Small: a tuning seed. Diamond: what the search maximised, their mean. Cross: a setting with a run that "
    caption += "crashed or diverged; its height means nothing. Ringed: the winner, if any. Right: the "
    caption += f"winner on the reporting seeds, with the mean's 95 % interval from {LEAST_RUNS} seeds on."
    keys = (
        LegendEntry("trial, mean", "series-0", "diamond"),
        LegendEntry("tuning seed", "series-0", "dot"),
        *([LegendEntry("crashed or diverged", "bad", "cross")] if len(failed) else []),
        LegendEntry("winner", "ink", "ring"),
        LegendEntry("winner, fresh seed", "series-1", "open"),
        LegendEntry("winner, mean of fresh seeds", "series-1", "diamond"),
    )
    title = f"{search.algorithm} on {search.task}"
    return Figure(slug("search", search.task, search.algorithm), title, caption, (panel,), table, keys)


def setting_text(settings: Mapping[str, object]) -> str:
    """Return settings as one line, escaped for HTML and figures."""
    return ", ".join(f"{hover_name(str(name))} {hover_name(str(value))}" for name, value in settings.items())


_TRIAL_SCHEMA: dict[str, Any] = {
    "line": pl.String,
    "trial": pl.Int64,
    "seed": pl.Int64,
    "score": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "winner": pl.Boolean,
}


def _swing(effect: Effect) -> str:
    return f"{effect.option}: swing {number_text(effect.swing)}"


def _effect_rows(task: str, effect: Effect) -> list[dict[str, Any]]:
    return [
        {"task": task, "option": effect.option, "value": str(value), "mean_score": None if np.isnan(mean) else mean}
        for value, mean in zip(effect.values, effect.means.tolist(), strict=True)
    ]


def _draw_effect(panel: go.Figure, effect: Effect, rows: Sequence[dict[str, Any]], place: int) -> None:
    known = [row for row in rows if row["mean_score"] is not None]
    means = [row["mean_score"] for row in known]
    panel.add_scatter(
        x=[min(means), max(means)],
        y=[place, place],
        mode="lines",
        line={"color": shade(series(0), 0.35), "width": 16},
        hoverinfo="skip",
    )
    panel.add_scatter(
        x=means,
        y=[place] * len(means),
        text=[hover_name(row["value"]) for row in known],
        textposition=["bottom center"] * len(means),
        textfont={"size": 11, "color": LIGHT["muted"]},
        mode="markers+text",
        marker={"size": 8, "color": series(0)},
        hovertemplate=f"{hover_name(effect.option)} = %{{text}}: %{{x:,.4~g}}<extra></extra>",
    )


def _trial_rows(search: SearchResult) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    lowest = min((score for trial in search.trials for score in trial.scores if score is not None), default=0.0)
    for trial in search.trials:
        won = trial.number == search.winner
        line, height = ("trial", trial.value) if trial.survived else ("did not survive", lowest)
        rows.append({"line": line, "trial": trial.number, "score": height, "winner": won})
        for seed, score in zip(search.tuning_seeds, trial.scores, strict=False):
            if score is not None:
                rows.append(
                    {"line": "tuning seed", "trial": trial.number, "seed": seed, "score": float(score), "winner": won}
                )
    return rows


def _fresh_rows(results: StudyResults, search: SearchResult) -> list[dict[str, Any]]:
    runs = results.cell(search.task, search.variant)
    if search.winner is None or not runs:
        return []
    scores = cell_scores(results, runs)
    rows: list[dict[str, Any]] = [
        {"line": "reporting seed", "trial": search.winner, "seed": run.seed, "score": float(score), "winner": True}
        for run, score in zip(runs, scores, strict=True)
    ]
    mean = cut(mean_interval(scores), results.bounds(search.task))
    bounds = {"low": mean.low, "high": mean.high} if len(scores) >= LEAST_RUNS else {}
    return [*rows, {"line": "reporting mean", "trial": search.winner, "score": mean.value, "winner": True, **bounds}]


def _draw_winner(panel: go.Figure, search: SearchResult, table: pl.DataFrame) -> None:
    if search.winner is None:
        return
    value = search.trials[search.winner].value  # of a version that let a crashed setting win, if not None
    panel.add_scatter(
        x=[search.winner],
        y=[value],
        mode="markers",
        marker={"symbol": "circle-open", "size": 18, "color": LIGHT["ink"], "line": {"width": 2}},
        hoverinfo="skip",
    )
    right = max(trial.number for trial in search.trials) + 1.5
    fresh = table.filter(pl.col("line") == "reporting seed")
    if not len(fresh):
        return
    panel.add_scatter(
        x=[right] * len(fresh),
        y=fresh["score"].to_list(),
        text=[f"seed {seed}" for seed in fresh["seed"]],
        mode="markers",
        marker={"size": 7, "color": series(1), "symbol": "circle-open"},
        hovertemplate="winner, fresh %{text}: %{y:,.4~g}<extra></extra>",
    )
    mean = table.filter(pl.col("line") == "reporting mean").row(0, named=True)
    low, high = (np.nan if mean[name] is None else mean[name] for name in ("low", "high"))
    panel.add_scatter(
        x=[right + 0.5],
        y=[mean["score"]],
        mode="markers",
        marker={"size": 11, "color": series(1), "symbol": "diamond"},
        error_y=whiskers(mean["score"], low, high, series(1)),
        hovertemplate="winner, mean of the fresh seeds: %{y:,.4~g}<extra></extra>",
    )
    panel.update_xaxes(range=[-0.8, right + 1.2])
