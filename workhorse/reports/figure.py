"""Figures: panels, title and caption, and a table of exactly the data drawn."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
import polars as pl

from workhorse.reports.palette import LIGHT, NUM_SERIES, series, shade
from workhorse.reports.wording import label_text

__all__ = [
    "DASHES",
    "SYMBOLS",
    "Figure",
    "LegendEntry",
    "PanelHead",
    "band",
    "blank",
    "hover_name",
    "label_rows",
    "level",
    "whiskers",
]

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Line of each series, so that no series is told by its colour alone."""

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "triangle-down", "star")
"""Marker of each series, for the same reason."""

Style = Literal["line", "level", "dot", "cross", "ring", "diamond", "open"]


@dataclass(frozen=True)
class LegendEntry:
    """An entry of a legend.

    Attributes:
        label: text.
        colour: name of a colour of the palette.
        style: how it is drawn.
        group: the traces (their legendgroup) that a click on it hides; empty for none.
        dash: of a line, one of `DASHES`.
    """

    label: str
    colour: str
    style: Style = "line"
    group: str = ""
    dash: str = "solid"

    @staticmethod
    def of_series(label: str, place: int) -> LegendEntry:
        """The entry of a series that is drawn as a line."""
        return LegendEntry(label, f"series-{place % NUM_SERIES}", "line", label, DASHES[place % len(DASHES)])


@dataclass(frozen=True)
class PanelHead:
    """What stands above a panel, as text of the page, which wraps where a title inside the figure would not.

    Attributes:
        title: in words.
        unit: of the values; empty for none.
        name: under which the values are found in the files.
        text: a sentence or two.
        legend: of this panel alone.
        note: what is left off the picture; empty for nothing.
        trouble: what is wrong with the values themselves; empty for nothing.
    """

    title: str
    unit: str = ""
    name: str = ""
    text: str = ""
    legend: tuple[LegendEntry, ...] = ()
    note: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Figure:
    """One figure of a page, of one panel or several.

    Attributes:
        name: of its CSV file, without the ending.
        title, caption: plain text.
        panels: what Plotly draws, side by side where there is room.
        table: exactly the data drawn.
        legend: of all the panels.
        panel_width: the least width of a panel, px; narrower pages put fewer side by side.
        heads: of the panels; none where they have titles of their own, or need none.
    """

    name: str
    title: str
    caption: str
    panels: tuple[go.Figure, ...]
    table: pl.DataFrame
    legend: tuple[LegendEntry, ...] = ()
    panel_width: int = 420
    heads: tuple[PanelHead, ...] = ()

    @property
    def csv(self) -> str:
        """The table as CSV text."""
        return self.table.write_csv()


def blank(
    title: str = "", *, x: str = "", y: str = "", height: int = 320, x_ticks: str = "~s", y_ticks: str = ",~g"
) -> go.Figure:
    """A panel in the house's style, with nothing drawn yet.

    Args:
        title: plain text, above the panel.
        x, y: titles of the axes.
        height: px.
        x_ticks, y_ticks: d3 formats of the ticks.
    """
    axis: dict[str, Any] = {
        "gridcolor": LIGHT["grid"],
        "linecolor": LIGHT["line"],
        "zeroline": False,
        "tickfont": {"size": 11, "color": LIGHT["muted"]},
        "automargin": True,
    }
    name = {"font": {"size": 11.5, "color": LIGHT["muted"]}, "standoff": 6}
    heading = {
        "text": html.escape(label_text(title, 60)),
        "font": {"size": 13, "color": LIGHT["ink"]},
        "x": 0.0,
        "xref": "paper",
        "xanchor": "left",
        "y": 1.0,
        "yref": "paper",
        "yanchor": "bottom",
        "pad": {"b": 10},
    }
    layout: dict[str, Any] = {
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "color": LIGHT["ink"]},
        "paper_bgcolor": LIGHT["card"],
        "plot_bgcolor": LIGHT["card"],
        "hoverlabel": {"bgcolor": LIGHT["card"], "bordercolor": LIGHT["line"], "font": {"color": LIGHT["ink"]}},
        "margin": {"l": 8, "r": 14, "t": 34 if title else 10, "b": 8},
        "height": height,
        "showlegend": False,
        "hovermode": "closest",
        "uirevision": "keep",
        "xaxis": {**axis, "showgrid": False, "ticks": "outside", "ticklen": 4, "tickcolor": LIGHT["muted"]},
        "yaxis": {**axis, "showline": False, "ticks": "outside", "ticklen": 4, "tickcolor": LIGHT["muted"]},
    }
    layout["xaxis"] |= {"title": {"text": html.escape(x), **name}, "tickformat": x_ticks, "showline": True}
    layout["yaxis"] |= {"title": {"text": html.escape(y), **name}, "tickformat": y_ticks}
    if title:
        layout["title"] = heading
    panel = go.Figure(layout=layout)
    panel.layout.template = None  # or Plotly's own style comes along, in colours that have no dark twins
    return panel


def band(
    panel: go.Figure, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, group: str, shape: str = "linear"
) -> None:
    """Fill between two curves; nothing is drawn where either is missing."""
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return
    edge = {"width": 0, "shape": shape, "color": colour}
    common: dict[str, Any] = {"mode": "lines", "line": edge, "hoverinfo": "skip", "legendgroup": group}
    panel.add_scatter(x=x[known], y=low[known], name="interval, low", **common)
    panel.add_scatter(
        x=x[known], y=high[known], name="interval, high", fill="tonexty", fillcolor=shade(colour), **common
    )


def level(panel: go.Figure, value: float, x: Sequence[float], name: str, dash: str, colour: str = "muted") -> None:
    """Draw a horizontal line to compare a curve with."""
    panel.add_scatter(
        x=list(x),
        y=[value, value],
        mode="lines",
        name=html.escape(name),
        line={"color": LIGHT[colour], "width": 1.4, "dash": dash},
        hovertemplate=f"{html.escape(name)}<br>%{{y:,.4~g}}<extra></extra>",
    )


def estimate_line(
    panel: go.Figure, x: np.ndarray, y: Sequence[float], label: str, place: int, form: str = ".3f"
) -> None:
    """Draw a quantity against the steps of an estimate, in the colour and the dash of a series."""
    colour, name = series(place), html.escape(label)
    panel.add_scatter(
        x=x,
        y=list(y),
        mode="lines+markers",
        name=name,
        legendgroup=label,
        line={"color": colour, "width": 1.8, "dash": DASHES[place % len(DASHES)]},
        marker={"size": 5, "color": colour},
        hovertemplate=f"{name}<br>%{{y:{form}}} at %{{x:,}} steps<extra></extra>",
    )


def interval_dot(
    panel: go.Figure, row: float, interval: tuple[float, float, float], colour: str, symbol: str, name: str, text: str
) -> None:
    """Draw an estimate (value, low, high) as a mark with a whisker in a row of a panel; `text` is shown on hovering."""
    panel.add_scatter(
        x=[interval[0]],
        y=[row],
        mode="markers",
        name=name,
        marker={"size": 11, "color": colour, "symbol": symbol},
        error_x=whiskers(*interval, colour),
        hovertemplate=f"{text}<extra></extra>",
    )


def whiskers(value: float, low: float, high: float, colour: str) -> dict[str, Any]:
    """Plotly's error bar for an interval; none where an end of it is missing."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return {}
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value],
        "arrayminus": [value - low],
        "color": colour,
        "thickness": 2,
        "width": 5,
    }


def label_rows(panel: go.Figure, labels: Sequence[str]) -> list[int]:
    """Name the rows of a panel above each of them, where long names have room; the rows' places, from the top."""
    places = list(range(len(labels) - 1, -1, -1))
    for place, label in zip(places, labels, strict=True):
        panel.add_annotation(
            x=0,
            xref="paper",
            y=place + 0.26,
            yref="y",
            text=hover_name(label),
            showarrow=False,
            xanchor="left",
            yanchor="bottom",
            font={"size": 12, "color": LIGHT["ink"]},
        )
    panel.update_yaxes(range=[-0.6, len(labels) - 0.25], showticklabels=False, showgrid=False, fixedrange=True)
    panel.update_xaxes(showgrid=True)
    panel.update_layout(height=62 * len(labels) + 74)
    return places


def hover_name(text: str) -> str:
    """A name from a user, harmless in Plotly's rich text, and no longer than a label may be."""
    return html.escape(label_text(text))
