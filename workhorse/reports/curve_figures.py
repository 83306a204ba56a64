"""Figures of training: learning curves of every seed, and the steps to the threshold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from workhorse.advice.line import rival_mark
from workhorse.reports.figure import DASHES, Figure, LegendEntry, band, blank, hover_name, level
from workhorse.reports.palette import LIGHT, NUM_SERIES, series, shade, variant_colours
from workhorse.reports.wording import number_text, rate_text, slug, steps_text
from workhorse.statistics.intervals import LEAST_RUNS
from workhorse.studies.cells import CellSummary, random_return
from workhorse.studies.results import RunResult, StudyResults

__all__ = ["learning_curves", "steps_to_threshold"]

_OVERLAID = 3
"""Variants that share a panel; more of them get one each."""

_CURVE_SCHEMA: dict[str, Any] = {
    "line": pl.String,
    "variant": pl.String,
    "seed": pl.Int64,
    "outcome": pl.String,
    "env_steps": pl.Float64,
    "return": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
}


def learning_curves(results: StudyResults, task: str, cells: Sequence[CellSummary]) -> Figure | None:
    """Draw every seed of every variant on a task, the mean with its band, and levels to compare with.

    Args:
        results: of the study.
        task: which.
        cells: of that task.
    """
    if not any(run.curve_steps.size for cell in cells for run in cell.runs):
        return None
    levels = _levels(results, task, max((cell.scores.mean() for cell in cells), default=np.nan))
    rows = [row for cell in cells for row in _curve_rows(cell, random_return(results, task))]
    longest = max((row["env_steps"] for row in rows), default=0.0)
    rows += [{"line": name, "env_steps": at, "return": value} for name, value, *_ in levels for at in (0.0, longest)]
    table = pl.DataFrame(rows, schema=_CURVE_SCHEMA)
    groups = [list(cells)] if len(cells) <= _OVERLAID else [[cell] for cell in cells]
    panels = [_curve_panel(table, group, levels, variant_colours(results.variants)) for group in groups]
    if len(panels) > 1:
        _share_range(panels, table)
    return Figure(
        slug("learning-curves", task),
        task,
        _curve_caption(cells),
        tuple(panels),
        table,
        (*_variant_keys(cells, results.variants), *_level_keys(levels), *_ending_keys(cells)),
        panel_width=420 if len(panels) == 1 else 260,
    )


def steps_to_threshold(results: StudyResults, cells: Sequence[CellSummary]) -> Figure | None:
    """Draw the share of runs that have reached the threshold against steps, a panel a task; None without thresholds."""
    measured = [cell for cell in cells if cell.reached is not None]
    if not measured:
        return None
    colours = variant_colours(results.variants)
    panels, rows = [], []
    for title, here in _reached_groups(measured).items():
        longest = max(float(run.curve_steps[-1]) for cell in here for run in cell.runs if run.curve_steps.size)
        panel = blank(title, x="training steps", y="share of runs there", height=270, y_ticks=".0%")
        for cell in here:
            found = _reached_rows(cell, longest)
            rows += found
            _draw_reached(panel, cell, found, colours[cell.variant])
        panel.update_yaxes(range=[-0.02, 1.04])
        panels.append(panel)
    few = sorted({f"{cell.variant} on {cell.task} ({cell.too_few})" for cell in measured if cell.too_few})
    caption = (
        "Kaplan and Meier's estimate of the share of runs that have reached the threshold, with a pointwise 95 % band; "
        "a run that crashed before never reaches it." + (f" Without a band: {'; '.join(few)}." if few else "")
    )
    return Figure(
        "steps-to-threshold",
        "Steps to the threshold",
        caption,
        tuple(panels),
        pl.DataFrame(rows),
        _variant_keys(measured, results.variants),
        panel_width=300,
    )


def _reached_groups(cells: Sequence[CellSummary]) -> dict[str, list[CellSummary]]:
    """The cells that share a panel, by its title: a task's, or each alone where colours do not tell them apart."""
    groups: dict[str, list[CellSummary]] = {}
    for cell in cells:
        alone = sum(other.task == cell.task for other in cells) > NUM_SERIES
        groups.setdefault(f"{cell.task}: {cell.variant}" if alone else cell.task, []).append(cell)
    return groups


# --- learning curves ---


def _curve_rows(cell: CellSummary, floor: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for run in cell.runs:
        about = {"variant": cell.variant, "seed": run.seed, "outcome": run.outcome}
        points = zip(run.curve_steps.tolist(), run.curve_returns.tolist(), strict=True)
        rows += [{"line": "seed", **about, "env_steps": at, "return": value} for at, value in points]
        if run.outcome in ("crashed", "diverged"):
            rows.append({"line": "ended", **about, **_end_of(run, floor)})
    if cell.curve is not None and len(cell.runs) > 1:
        columns = (cell.curve.steps, cell.curve.mean, cell.curve.low, cell.curve.high)
        for at, mean, low, high in zip(*(column.tolist() for column in columns), strict=True):
            if np.isfinite(mean):
                bounds = {"low": low, "high": high} if np.isfinite(low) else {}
                rows.append({"line": "mean", "variant": cell.variant, "env_steps": at, "return": mean, **bounds})
    return rows


def _end_of(run: RunResult, floor: float) -> dict[str, float]:
    """Return the last point of a curve; at the random policy's level where there is no curve."""
    finite = np.flatnonzero(np.isfinite(run.curve_returns))
    if not finite.size:
        return {"env_steps": float(run.env_steps), "return": floor}
    return {"env_steps": float(run.curve_steps[finite[-1]]), "return": float(run.curve_returns[finite[-1]])}


def _curve_panel(
    table: pl.DataFrame,
    cells: Sequence[CellSummary],
    levels: Sequence[tuple[str, float, str, str]],
    colours: dict[str, int],
) -> go.Figure:
    alone = len(cells) == 1
    panel = blank(cells[0].variant if alone else "", x="training steps", y="return", height=250 if alone else 350)
    for name, _, dash, colour in levels:
        line = table.filter(pl.col("line") == name)
        level(panel, line["return"][0], line["env_steps"].to_list(), name, dash, colour)
    for cell in cells:
        rows = table.filter(pl.col("variant") == cell.variant)
        mean = rows.filter(pl.col("line") == "mean")
        colour = series(colours[cell.variant])
        x, low, high = (mean[name].to_numpy() for name in ("env_steps", "low", "high"))
        band(panel, x, low, high, colour, cell.variant)
        _draw_seeds(panel, cell.variant, rows.filter(pl.col("line") == "seed"), colour)
    for cell in cells:  # means and crosses lie above every seed
        rows, place = table.filter(pl.col("variant") == cell.variant), colours[cell.variant]
        _draw_mean(panel, cell.variant, rows.filter(pl.col("line") == "mean"), place)
        _draw_endings(panel, cell.variant, rows.filter(pl.col("line") == "ended"))
    return panel


def _draw_seeds(panel: go.Figure, variant: str, rows: pl.DataFrame, colour: str) -> None:
    """Thin lines, one a seed, as a single trace with gaps, which stays fast with hundreds of seeds."""
    x: list[float | None] = []
    y: list[float | None] = []
    seeds: list[str] = []
    for (seed,), line in rows.group_by(["seed"], maintain_order=True):
        x += [*line["env_steps"].to_list(), None]
        y += [*line["return"].to_list(), None]
        seeds += [f"seed {seed}"] * (len(line) + 1)
    panel.add_scatter(
        x=x,
        y=y,
        text=seeds,
        mode="lines",
        name=f"{hover_name(variant)}, seeds",
        legendgroup=variant,
        line={"color": shade(colour, 0.35), "width": 1},
        hovertemplate=f"{hover_name(variant)}, %{{text}}<br>%{{y:,.4~g}} after %{{x:,}} steps<extra></extra>",
    )


def _draw_mean(panel: go.Figure, variant: str, rows: pl.DataFrame, place: int) -> None:
    if not len(rows):
        return
    panel.add_scatter(
        x=rows["env_steps"].to_list(),
        y=rows["return"].to_list(),
        customdata=rows.select("low", "high").to_numpy(),
        mode="lines",
        name=f"{hover_name(variant)}, mean",
        legendgroup=variant,
        line={"color": series(place), "width": 2.6, "dash": DASHES[place % len(DASHES)]},
        hovertemplate=f"{hover_name(variant)}, mean<br>%{{y:,.4~g}} [%{{customdata[0]:,.4~g}}, "
        "%{customdata[1]:,.4~g}] after %{x:,} steps<extra></extra>",
    )


def _draw_endings(panel: go.Figure, variant: str, rows: pl.DataFrame) -> None:
    if not len(rows):
        return
    panel.add_scatter(
        x=rows["env_steps"].to_list(),
        y=rows["return"].to_list(),
        text=[f"seed {seed} {outcome}" for seed, outcome in rows.select("seed", "outcome").iter_rows()],
        mode="markers",
        name=f"{hover_name(variant)}, ended early",
        legendgroup=variant,
        marker={"symbol": "x", "size": 9, "color": LIGHT["bad"], "line": {"color": LIGHT["card"], "width": 1}},
        hovertemplate=f"{hover_name(variant)}, %{{text}}<extra></extra>",
    )


def _share_range(panels: Sequence[go.Figure], table: pl.DataFrame) -> None:
    values = table["return"].to_numpy()
    values = values[np.isfinite(values)]
    margin = 0.05 * float(np.ptp(values)) or 1.0
    for panel in panels:
        panel.update_yaxes(range=[float(values.min()) - margin, float(values.max()) + margin])


def _curve_caption(cells: Sequence[CellSummary]) -> str:
    sentences = [
        "Thin: one line a seed. Thick: their mean, with Student's pointwise 95 % band, cut at what is possible."
    ]
    if any(cell.first_seeds for cell in cells):
        sentences.append("Seeds were added until intervals were narrow, which the band does not allow for.")
    few = [f"{cell.variant} ({cell.too_few})" for cell in cells if cell.too_few]
    if few:
        sentences.append(f"Without a band: {'; '.join(few)}.")
    bare = [f"{cell.variant} seed {run.seed}" for cell in cells for run in cell.runs if not run.curve_steps.size]
    if bare:
        sentences.append(f"Ended before the first evaluation: {', '.join(bare)}.")
    notes = {cell.variant: cell.curve.note for cell in cells if cell.curve is not None}
    if len(set(notes.values())) == 1:
        (note,) = set(notes.values())
        notes = {"All variants" if len(notes) > 1 else cells[0].variant: note}
    return " ".join([*sentences, *(f"{variant}: {note}." for variant, note in notes.items())])


def _levels(results: StudyResults, task: str, best: float) -> list[tuple[str, float, str, str]]:
    """Name, return, dash and colour of the horizontal lines; the rival is that of the best variant's mean return."""
    found = []
    floor, threshold = results.floors.get(task), results.thresholds.get(task)
    if floor is not None:
        dashes = ("dot", "dashdot", "longdash")
        found += [
            (name, float(np.mean(returns)), dash, "muted")
            for (name, returns), dash in zip(floor.policies.items(), dashes, strict=False)
        ]
    if threshold is not None:
        found.append(("success threshold", float(threshold), "dash", "ink"))
    rival = rival_mark(task, results.task_options.get(task, {}), best)
    if rival is not None:
        found.append((f"rival without learning, {rival[0]}:", rival[1], "longdashdot", "ink"))
    return found


def _level_keys(levels: Sequence[tuple[str, float, str, str]]) -> list[LegendEntry]:
    return [
        LegendEntry(f"{name} {number_text(value)}", colour, "level", dash=dash) for name, value, dash, colour in levels
    ]


def _variant_keys(cells: Sequence[CellSummary], variants: tuple[str, ...]) -> tuple[LegendEntry, ...]:
    colours = variant_colours(variants)
    shown = dict.fromkeys(cell.variant for cell in cells)
    if len(shown) > 1 and len(set(colours.values())) == 1:
        return ()
    return tuple(LegendEntry.of_series(variant, colours[variant]) for variant in shown)


def _ending_keys(cells: Sequence[CellSummary]) -> list[LegendEntry]:
    ended = any(cell.num_crashed + cell.num_diverged for cell in cells)
    return [LegendEntry("crashed or diverged here", "bad", "cross")] if ended else []


# --- steps to the threshold ---


def _reached_rows(cell: CellSummary, longest: float) -> list[dict[str, Any]]:
    """Return the vertices of the step curve, from 0 at the start to the end of the longest run."""
    assert cell.reached is not None
    found = cell.reached
    steps = [0.0, *found.steps.tolist(), longest]
    columns = []
    for values in (found.value, found.low, found.high):
        inner = values.tolist()
        columns.append([0.0, *inner, inner[-1] if inner else 0.0])
    bands = len(cell.runs) >= LEAST_RUNS and len(found.steps) > 0
    return [
        {
            "task": cell.task,
            "variant": cell.variant,
            "env_steps": at,
            "share": share,
            "low": low if bands else None,
            "high": high if bands else None,
        }
        for at, share, low, high in zip(steps, *columns, strict=True)
    ]


def _draw_reached(panel: go.Figure, cell: CellSummary, rows: list[dict[str, Any]], place: int) -> None:
    x, share, low, high = (
        np.array([np.nan if row[name] is None else row[name] for row in rows], float)
        for name in ("env_steps", "share", "low", "high")
    )
    band(panel, x, low, high, series(place), cell.variant, "hv")
    there = rate_text(round(share[-1] * len(cell.runs)), len(cell.runs), None)
    panel.add_scatter(
        x=x,
        y=share,
        mode="lines",
        name=hover_name(cell.variant),
        legendgroup=cell.variant,
        line={"color": series(place), "width": 2.4, "shape": "hv", "dash": DASHES[place % len(DASHES)]},
        hovertemplate=f"{hover_name(cell.variant)}: %{{y:.0%}} by %{{x:,}} steps<br>{there} "
        f"by {steps_text(float(x[-1]))}<extra></extra>",
    )
