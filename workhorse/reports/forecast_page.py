"""Page of scored forecasts: how often what was forecast came."""

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go
import polars as pl

from workhorse.advice.scoring import Scored, brier_score, reliability
from workhorse.reports.figure import Figure, blank
from workhorse.reports.markup import Markup, paragraph, table
from workhorse.reports.page import Page
from workhorse.reports.palette import series
from workhorse.reports.wording import rate_text
from workhorse.statistics.intervals import proportion_interval

__all__ = ["calibration_figure", "write_forecast_page"]


def calibration_figure(chances: Sequence[float], came: Sequence[bool]) -> Figure:
    """Draw the share that came against what was forecast, in five bins: the diagonal is perfect calibration."""
    rows = reliability(chances, came)
    panel = blank(x="forecast", y="share that came", height=340, x_ticks=".0%", y_ticks=".0%")
    panel.add_trace(
        go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": "grey", "dash": "dot"}, hoverinfo="skip")
    )
    table_rows = []
    for told, share, count in rows:
        found = proportion_interval(round(share * count), count)
        table_rows.append({"forecast": told, "share": share, "low": found.low, "high": found.high, "count": count})
    known = pl.DataFrame(table_rows)
    panel.add_trace(
        go.Scatter(
            x=known["forecast"].to_list(),
            y=known["share"].to_list(),
            mode="markers+text",
            text=[str(count) for count in known["count"]],
            textposition="middle right",
            marker={"color": series(0), "size": 10},
            error_y={
                "type": "data",
                "array": (known["high"] - known["share"]).to_list(),
                "arrayminus": (known["share"] - known["low"]).to_list(),
            },
            hovertemplate="%{x:.0%} forecast, %{y:.0%} came<extra></extra>",
        )
    )
    panel.update_xaxes(range=[-0.02, 1.05])
    panel.update_yaxes(range=[-0.02, 1.05])
    caption = (
        "Dot: forecasts of a bin of a fifth; beside it their number. Whisker: the exact 95 % interval of the share. "
        "Dotted: perfect calibration."
    )
    return Figure("calibration", "Did what was forecast come?", caption, (panel,), known)


def write_forecast_page(rows: Sequence[Scored], root: Path) -> Path:
    """Write the page of scored forecasts into their folder, and return it."""
    chances, came = [row.chance for row in rows], [row.came for row in rows]
    wrong = [row for row in rows if row.is_wrong]
    page = Page("forecasts: score")
    usual = sum(came) / len(came)
    answer = (
        f"{len(rows) - len(wrong)} of {len(rows)} forecasts were right; Brier score {brier_score(chances, came):.3f}."
    )
    page.begin(
        "Scored forecasts",
        answer,
        paragraph(f"A constant {usual:.2f} has {brier_score([usual] * len(came), came):.3f}."),
    )
    page.add("calibration", "Calibration", page.draw(calibration_figure(chances, came)))
    head = ("task", "class", "forecast", "came", "by", "line")
    texts = [
        (
            row.advice.task,
            row.group,
            f"{row.chance:.0%}",
            "yes" if row.came else "no",
            ", ".join(row.runs),
            f"{row.line:,.1f}",
        )
        for row in sorted(rows, key=lambda one: not one.is_wrong)
    ]
    page.add("all", "Every forecast, the wrong ones first", table(head, texts) if texts else Markup(""))
    total = rate_text(sum(came), len(came), proportion_interval(sum(came), len(came)))
    page.add("base", "How often anything works here", paragraph(total))
    return page.write(root)
