"""Figures of robustness: the share of the return left on changed tasks, a panel an artefact, a line a variant."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from workhorse.reports.figure import DASHES, SYMBOLS, Figure, LegendEntry, band, blank, hover_name
from workhorse.reports.palette import LIGHT, series, variant_colours
from workhorse.reports.wording import number_text, slug
from workhorse.robustness.retained import BREAKS_BELOW, Retained
from workhorse.statistics.intervals import LEAST_RUNS
from workhorse.studies.cells import CellSummary
from workhorse.studies.results import StudyResults

__all__ = ["perturbations"]


def perturbations(results: StudyResults, task: str, cells: Sequence[CellSummary]) -> Figure | None:
    """Draw the share of the return above the floor that each artefact leaves; None without a sweep.

    Args:
        results: of the study.
        task: which.
        cells: of that task.
    """
    swept = [cell for cell in cells if cell.robustness is not None]
    if not swept:
        return None
    colours = variant_colours(results.variants)
    rows = [row for cell in swept for row in _rows(cell)]
    table = pl.DataFrame(rows, infer_schema_length=None)
    lowest, highest = _range(table)
    panels = []
    for artefact in dict.fromkeys(table["artefact"]):
        panel = blank(artefact, x=_axis(table, artefact), y="share left", height=220, y_ticks=".2~f", x_ticks="~g")
        at = table.filter(pl.col("artefact") == artefact)["value"]
        _mark_levels(panel, [at.min(), at.max()], table.filter(pl.col("artefact") == artefact)["nominal"][0])
        for cell in swept:
            part = table.filter((pl.col("artefact") == artefact) & (pl.col("variant") == cell.variant))
            _draw(panel, cell.variant, part, colours[cell.variant])
        panel.update_yaxes(range=[lowest, highest])
        panels.append(panel)
    few = [cell for cell in swept if cell.robustness is not None and cell.robustness.num_runs < LEAST_RUNS]
    caption = "1: all of the return above the floor is left; 0: none of it. Dotted: the task as it is trained. "
    caption += "Dashed: one half. Ringed: the smallest share of a variant. Bands: Student's 95 % interval over seeds."
    caption += (
        f" Fewer than {LEAST_RUNS} policies, so no band: {', '.join(cell.variant for cell in few)}." if few else ""
    )
    keys = [LegendEntry.of_series(cell.variant, colours[cell.variant]) for cell in swept]
    return Figure(
        slug("perturbations", task),
        task,
        caption,
        tuple(panels),
        table,
        (*keys, LegendEntry("smallest share", "ink", "ring")),
        panel_width=200,
    )


def _rows(cell: CellSummary) -> list[dict[str, Any]]:
    assert cell.robustness is not None
    worst = min(cell.robustness.retained, key=lambda found: found.share[found.worst])
    return [row for found in cell.robustness.retained for row in _retained_rows(cell, found, found is worst)]


def _retained_rows(cell: CellSummary, found: Retained, holds_worst: bool) -> list[dict[str, Any]]:
    return [
        {
            "task": cell.task,
            "variant": cell.variant,
            "artefact": found.artefact,
            "unit": found.unit,
            "nominal": float(found.nominal),
            "value": float(found.values[place]),
            "share": float(found.share[place]),
            "low": _known(found.low[place]),
            "high": _known(found.high[place]),
            "worst": holds_worst and place == found.worst,
        }
        for place in range(len(found.values))
    ]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _axis(table: pl.DataFrame, artefact: str) -> str:
    unit = table.filter(pl.col("artefact") == artefact)["unit"][0]
    return "\N{MULTIPLICATION SIGN} the task's own" if unit == "x" else unit


def _range(table: pl.DataFrame) -> tuple[float, float]:
    """One range for all panels: every mean is within it; an interval that is very wide may leave it."""
    shares = table["share"].to_numpy()
    low = [value for value in table["low"].drop_nulls().to_list() if value > -0.6]
    high = [value for value in table["high"].drop_nulls().to_list() if value < 1.8]
    return min([-0.05, *shares, *low]) - 0.1, max([1.1, *shares, *high]) + 0.05


def _mark_levels(panel: go.Figure, ends: Sequence[Any], nominal: float) -> None:
    panel.add_scatter(
        x=list(ends),
        y=[BREAKS_BELOW] * 2,
        mode="lines",
        line={"color": LIGHT["ink"], "width": 1, "dash": "dash"},
        hoverinfo="skip",
    )
    panel.add_vline(x=nominal, line={"color": LIGHT["muted"], "width": 1, "dash": "dot"})


def _draw(panel: go.Figure, variant: str, rows: pl.DataFrame, place: int) -> None:
    if not len(rows):
        return
    colour = series(place)
    x, share, low, high = (rows[name].cast(pl.Float64).to_numpy() for name in ("value", "share", "low", "high"))
    band(panel, x, low, high, colour, variant)
    texts = [
        f"{hover_name(variant)}<br>{number_text(s)} [{number_text(lower)}, {number_text(upper)}] at {number_text(v)}"
        for v, s, lower, upper in zip(x, share, low, high, strict=True)
    ]
    panel.add_scatter(
        x=x,
        y=share,
        text=texts,
        mode="lines+markers",
        name=hover_name(variant),
        legendgroup=variant,
        line={"color": colour, "width": 2, "dash": DASHES[place]},
        marker={"size": 6, "symbol": SYMBOLS[place], "color": colour},
        hovertemplate="%{text}<extra></extra>",
    )
    worst = rows.filter(pl.col("worst"))
    if len(worst):
        panel.add_scatter(
            x=worst["value"].to_list(),
            y=worst["share"].to_list(),
            mode="markers",
            legendgroup=variant,
            marker={"size": 15, "symbol": "circle-open", "color": colour, "line": {"width": 2.2}},
            hoverinfo="skip",
        )
