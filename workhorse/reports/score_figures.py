"""Figures of final scores: success rate, every seed's score, and aggregates over all tasks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from workhorse.reports.figure import (
    DASHES,
    SYMBOLS,
    Figure,
    LegendEntry,
    band,
    blank,
    hover_name,
    interval_dot,
    label_rows,
)
from workhorse.reports.palette import LIGHT, series, variant_colours
from workhorse.reports.wording import interval_text, number_text, rate_text, share_text
from workhorse.statistics.aggregates import profile_interval
from workhorse.studies.across_tasks import Aggregate
from workhorse.studies.cells import CellSummary
from workhorse.studies.results import StudyResults

__all__ = ["aggregate_intervals", "performance_profiles", "score_strips", "success_rates"]


def success_rates(results: StudyResults, cells: Sequence[CellSummary]) -> Figure:
    """The share of runs that succeed, with its exact interval, a panel a task."""
    colours = variant_colours(results.variants)
    rows: list[dict[str, Any]] = []
    panels = []
    for task, here in _by_task(cells):
        panel = blank(task, x="share of seeds that succeed", x_ticks=".0%")
        places = label_rows(panel, [f"{cell.variant}: {_rate(cell)}" for cell in here])
        for cell, place in zip(here, places, strict=True):
            row = _success_row(cell)
            rows.append(row)
            name, at = hover_name(cell.variant), colours[cell.variant]
            interval = row["share"], row["low"], row["high"]
            interval_dot(panel, place, interval, series(at), SYMBOLS[at], name, f"{name}: {_rate(cell)}")
        panel.update_xaxes(range=[-0.03, 1.03], tickvals=[0, 0.25, 0.5, 0.75, 1])
        panels.append(panel)
    caption = (
        "Dot: the share of seeds. Whisker: the exact 95 % interval of Clopper and Pearson. A seed that crashed or "
    )
    caption += "diverged is a failure."
    return Figure("success-rate", "How many seeds succeed", caption, tuple(panels), pl.DataFrame(rows), panel_width=300)


def score_strips(results: StudyResults, cells: Sequence[CellSummary]) -> Figure:
    """Every seed's score, and the mean with its interval, a panel a task."""
    colours = variant_colours(results.variants)
    rows: list[dict[str, Any]] = []
    panels = []
    for task, here in _by_task(cells):
        panel = blank(task, x="return of the final policy", x_ticks=",~g")
        places = label_rows(panel, [cell.variant for cell in here])
        for cell, place in zip(here, places, strict=True):
            seeds = _score_rows(cell)
            rows += seeds
            _draw_scores(panel, cell, seeds, place, colours[cell.variant])
            if cell.mean is not None:
                mean = {"line": "mean", "score": cell.mean.value, "low": cell.mean.low, "high": cell.mean.high}
                rows.append({"task": task, "variant": cell.variant, **mean})
                _draw_score_mean(panel, cell, place, series(colours[cell.variant]))
        threshold = results.thresholds.get(task)
        if threshold is not None:
            rows.append({"task": task, "line": "success threshold", "score": float(threshold)})
            panel.add_scatter(
                x=[threshold, threshold],
                y=[-0.5, len(here) - 0.3],
                mode="lines",
                line={"color": LIGHT["ink"], "width": 1.4, "dash": "dash"},
                hovertemplate=f"success threshold {number_text(threshold)}<extra></extra>",
            )
        panels.append(panel)
    few = sorted({f"{cell.variant} on {cell.task} ({cell.too_few})" for cell in cells if cell.too_few})
    caption = "A mark a seed: filled where it succeeded, open where it did not, a cross where it crashed or diverged "
    caption += "and counts as a failure. Below: the mean with its 95 % interval, cut at what is possible."
    caption += f" Without one: {'; '.join(few)}." if few else ""
    keys = (
        LegendEntry("succeeded", "muted", "dot"),
        LegendEntry("did not", "muted", "open"),
        LegendEntry("crashed or diverged", "bad", "cross"),
        LegendEntry("mean with interval", "muted", "diamond"),
        *(
            [LegendEntry("success threshold", "ink", "level", dash="dash")]
            if any(v is not None for v in results.thresholds.values())
            else []
        ),
    )
    table = pl.DataFrame(rows, schema=_SCORE_SCHEMA)
    return Figure("scores", "Every seed's score", caption, tuple(panels), table, keys, panel_width=300)


def aggregate_intervals(results: StudyResults, found: Sequence[Aggregate]) -> Figure:
    """IQM, median, mean and optimality gap over all tasks, a panel each."""
    colours = variant_colours(results.variants)
    names = {"iqm": "IQM", "median": "median", "mean": "mean", "optimality_gap": "optimality gap (low is good)"}
    rows, panels = [], []
    for field, name in names.items():
        panel = blank(name, x="normalised score" if field != "optimality_gap" else "missing to the threshold")
        places = label_rows(panel, [aggregate.variant for aggregate in found])
        for aggregate, place in zip(found, places, strict=True):
            estimate = getattr(aggregate, field)
            bounds = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
            rows.append({"statistic": name, "variant": aggregate.variant, **bounds, "method": estimate.method})
            who, at = hover_name(aggregate.variant), colours[aggregate.variant]
            words = f"{who}: {share_text(estimate.value)} [{share_text(estimate.low)}, {share_text(estimate.high)}]"
            interval_dot(panel, place, estimate[:3], series(at), SYMBOLS[at], who, words)
        panel.update_xaxes(tickformat=".2~f")
        panels.append(panel)
    caption = "Normalised: 0 is the floor, 1 the success threshold. 95 % intervals from a stratified bootstrap "
    caption += "over the seeds; the tasks are not a sample, so this holds for these tasks only."
    return Figure(
        "across-tasks", "One number over all tasks", caption, tuple(panels), pl.DataFrame(rows), panel_width=240
    )


def performance_profiles(results: StudyResults, found: Sequence[Aggregate], seed: int = 0) -> Figure:
    """The share of runs, over all tasks, above each normalised score."""
    colours = variant_colours(results.variants)
    scores = np.concatenate([aggregate.scores.ravel() for aggregate in found])
    low, high = min(0.0, float(np.quantile(scores, 0.02))), float(scores.max())
    at = np.linspace(low, high + 0.05 * (high - low), 81)
    panel = blank(x="normalised score t", y="share of runs above t", height=320, y_ticks=".0%", x_ticks=".2~f")
    rows = []
    for aggregate in found:
        profile = profile_interval(aggregate.scores, at, np.random.default_rng(seed), resamples=1000)
        place = colours[aggregate.variant]
        for point in zip(*(column.tolist() for column in profile[:4]), strict=True):
            rows.append(
                dict(zip(("variant", "score", "share", "low", "high"), (aggregate.variant, *point), strict=True))
            )
        band(panel, at, profile.low, profile.high, series(place), aggregate.variant)
        panel.add_scatter(
            x=at,
            y=profile.value,
            mode="lines",
            legendgroup=aggregate.variant,
            line={"color": series(place), "width": 2.4, "dash": DASHES[place]},
            hovertemplate=f"{hover_name(aggregate.variant)}: %{{y:.0%}} above %{{x:.2f}}<extra></extra>",
        )
    panel.update_yaxes(range=[-0.02, 1.04])
    keys = [LegendEntry.of_series(one.variant, colours[one.variant]) for one in found]
    caption = "For each score, the share of all runs on all tasks that are above it, with a pointwise 95 % band from a "
    caption += "stratified bootstrap. 0 is the floor, 1 the success threshold."
    return Figure("performance-profile", "Performance profile", caption, (panel,), pl.DataFrame(rows), tuple(keys))


# --- within ---

_SCORE_SCHEMA: dict[str, Any] = {
    "task": pl.String,
    "line": pl.String,
    "variant": pl.String,
    "seed": pl.Int64,
    "outcome": pl.String,
    "succeeded": pl.Boolean,
    "score": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}


def _by_task(cells: Sequence[CellSummary]) -> list[tuple[str, list[CellSummary]]]:
    tasks = dict.fromkeys(cell.task for cell in cells)
    return [(task, [cell for cell in cells if cell.task == task]) for task in tasks]


def _rate(cell: CellSummary) -> str:
    return rate_text(int(cell.successes.sum()), len(cell.runs), cell.success)


def _success_row(cell: CellSummary) -> dict[str, Any]:
    assert cell.success is not None
    return {
        "task": cell.task,
        "variant": cell.variant,
        "successes": int(cell.successes.sum()),
        "runs": len(cell.runs),
        "share": cell.success.value,
        "low": cell.success.low,
        "high": cell.success.high,
    }


def _score_rows(cell: CellSummary) -> list[dict[str, Any]]:
    return [
        {
            "task": cell.task,
            "line": "seed",
            "variant": cell.variant,
            "seed": run.seed,
            "outcome": run.outcome,
            "succeeded": bool(success),
            "score": float(score),
        }
        for run, score, success in zip(cell.runs, cell.scores, cell.successes, strict=True)
    ]


def _draw_scores(panel: go.Figure, cell: CellSummary, rows: list[dict[str, Any]], place: int, colour: int) -> None:
    symbol = SYMBOLS[colour]
    broken = [row["outcome"] in ("crashed", "diverged") for row in rows]
    shapes = [
        "x-thin" if bad else symbol if row["succeeded"] else f"{symbol}-open"
        for row, bad in zip(rows, broken, strict=True)
    ]
    spread = [place + 0.02 + 0.18 * ((order * 0.618) % 1 - 0.5) for order in range(len(rows))]
    panel.add_scatter(
        x=[row["score"] for row in rows],
        y=spread,
        text=[f"seed {row['seed']}, {row['outcome']}" for row in rows],
        mode="markers",
        name=hover_name(cell.variant),
        marker={
            "symbol": shapes,
            "size": 8,
            "color": [LIGHT["bad"] if bad else series(colour) for bad in broken],
            "line": {"width": [2 if bad else 1.4 for bad in broken], "color": _edges(broken, colour)},
        },
        hovertemplate=f"{hover_name(cell.variant)}, %{{text}}<br>%{{x:,.4~g}}<extra></extra>",
    )


def _edges(broken: Sequence[bool], colour: int) -> list[str]:
    return [LIGHT["bad"] if bad else series(colour) for bad in broken]


def _draw_score_mean(panel: go.Figure, cell: CellSummary, place: int, colour: str) -> None:
    assert cell.mean is not None
    value, low, high, _ = cell.mean
    name = f"{hover_name(cell.variant)}, mean"
    words = f"{name}<br>{interval_text(cell.mean, bounds=cell.bounds)}"
    interval_dot(panel, place - 0.26, (value, low, high), colour, "diamond-tall", name, words)
