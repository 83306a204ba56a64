"""Figures of everything that a run measured of itself, in groups, each metric with its words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import polars as pl

from workhorse.reports.figure import DASHES, Figure, LegendEntry, PanelHead, blank, hover_name, level
from workhorse.reports.palette import series
from workhorse.reports.wording import count_text, number_text, steps_text
from workhorse.runs.metric_words import HELD_OUT, Metric, describe, groups, known_metrics

__all__ = ["finite", "has_numbers", "measured", "thinned", "unchanged"]

_DRAWN_ELSEWHERE = {"training_return", "training_return_min", "training_return_max", "evaluation_return"}
_NO_CURVES = {"iteration", "env_steps", "steps", "wall_s", "digest", "evaluation_steps", "held_out_steps"}
_MOST_POINTS = 2000
_FEW_POINTS = 20
"""Points of a line up to which each of them is marked: a single one would not be seen otherwise."""
_DECADES = 1e3
"""Quotient of the largest and the smallest value from which on positive values have a logarithmic axis."""
_FAR = 6.0
"""Distance from the middle nine tenths of the values, in widths of these, beyond which a value is off the picture."""


_MANY_VALUES = 50
"""Number of values from which on a few of them may be left off the picture."""


class _Panel(NamedTuple):
    """A panel and what stands above it."""

    figure: go.Figure
    head: PanelHead


def measured(metrics: pl.DataFrame, settings: Mapping[str, Any]) -> list[Figure]:
    """Draw every metric that changed, a figure a group and a panel a metric; what has nothing to show is left out.

    What is measured twice, on held-out slots or in evaluations, is a second line of the same panel.

    Args:
        metrics: of the run, a row an iteration.
        settings: of the algorithm, for the values to compare with.
    """
    if "env_steps" not in metrics.columns:
        return []
    table = thinned(metrics)
    found = [describe(name) for name in table.columns if _is_curve(table, name)]
    varying = [one for one in found if finite(table, one.name)[one.name].n_unique() > 1 or _broken(table, one)]
    varying.sort(key=lambda metric: _rank(metric.name))
    panels: dict[str, list[Metric]] = {}
    for metric in varying:
        panels.setdefault(metric.beside if metric.beside in panels else metric.name, []).append(metric)
    figures = []
    for key, title in groups().items():
        here = [lines for lines in panels.values() if lines[0].group == key]
        if here:
            constant = [metric for metric in found if metric.group == key and metric not in varying]
            figures.append(_group(f"metrics-{key}", title, here, constant, table, settings))
    return figures


def unchanged(metrics: pl.DataFrame, figures: Sequence[Figure]) -> dict[str, str]:
    """Return title and value of each metric of the groups that no figure is drawn of: the same in every iteration."""
    drawn = {figure.name for figure in figures}
    found = [describe(name) for name in metrics.columns if _is_curve(metrics, name)]
    still = [metric for metric in found if f"metrics-{metric.group}" not in drawn]
    order = list(groups())
    still.sort(key=lambda metric: (order.index(metric.group), _rank(metric.name)))
    return {metric.title: _value(metrics, metric) for metric in still}


def has_numbers(metrics: pl.DataFrame, name: str) -> bool:
    """Tell whether a metric has a finite value in some iteration."""
    return name in metrics.columns and metrics[name].dtype.is_numeric() and len(finite(metrics, name)) > 0


def finite(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return the rows in which a metric has a finite value."""
    return table.filter(pl.col(name).cast(pl.Float64).is_finite().fill_null(False))


def thinned(table: pl.DataFrame) -> pl.DataFrame:
    """Drop rows so that the page stays fast: keep every evaluation, every n-th other row, and the last one."""
    every = -(-len(table) // _MOST_POINTS)
    if every <= 1:
        return table
    keep = pl.int_range(pl.len()) % every == 0
    if "evaluation_return" in table.columns:
        keep = keep | pl.col("evaluation_return").is_not_null()
    return table.filter(keep | (pl.int_range(pl.len()) == pl.len() - 1))


def _is_curve(metrics: pl.DataFrame, name: str) -> bool:
    return name not in _DRAWN_ELSEWHERE | _NO_CURVES and has_numbers(metrics, name)


def _value(metrics: pl.DataFrame, metric: Metric) -> str:
    """Return the first value of a metric as text."""
    return number_text(float(finite(metrics, metric.name)[metric.name][0]))


def _rank(name: str) -> tuple[int, bool, str]:
    """Return where a metric stands on the page: in the order of `metrics.toml`, what nobody knows after it."""
    order, plain = list(known_metrics()), name.removeprefix(HELD_OUT)
    return order.index(plain) if plain in order else len(order), plain != name, name


def _group(
    name: str,
    title: str,
    panels: Sequence[Sequence[Metric]],
    constant: Sequence[Metric],
    table: pl.DataFrame,
    settings: Mapping[str, Any],
) -> Figure:
    drawn = [_panel(lines, table, settings) for lines in panels]
    same = [f"{metric.title} {_value(table, metric)}" for metric in constant]
    caption = "Across: training steps." + (f" The same in every iteration: {'; '.join(same)}." if same else "")
    columns = [metric.name for lines in panels for metric in lines]
    return Figure(
        name,
        title,
        caption,
        tuple(panel.figure for panel in drawn),
        table.select("env_steps", *columns),
        panel_width=290,
        heads=tuple(panel.head for panel in drawn),
    )


def _panel(lines: Sequence[Metric], table: pl.DataFrame, settings: Mapping[str, Any]) -> _Panel:
    """Return the panel of a metric, with what is drawn beside it."""
    first, several = lines[0], len(lines) > 1
    values = np.concatenate([finite(table, metric.name)[metric.name].cast(pl.Float64).to_numpy() for metric in lines])
    size = float(np.abs(values).max())
    panel, legend = blank(height=170, y_ticks=_ticks(size)), []
    panel.update_xaxes(range=[0.0, 1.02 * float(table["env_steps"].max())], nticks=5)  # type: ignore[arg-type]
    for place, metric in enumerate(lines):
        known = finite(table, metric.name)
        label = metric.label or "trained on"
        panel.add_scatter(
            x=known["env_steps"].to_list(),
            y=known[metric.name].to_list(),
            mode="lines+markers" if len(known) <= _FEW_POINTS else "lines",
            line={"color": series(place), "width": 1.5, "dash": DASHES[place % len(DASHES)]},
            marker={"size": 4, "color": series(place)},
            hovertemplate=f"{hover_name(label if several else metric.title)}: %{{y:,.4~g}} after %{{x:,}} steps"
            "<extra></extra>",
        )
        if several:
            legend.append(LegendEntry(label, f"series-{place}", dash=DASHES[place % len(DASHES)]))
    is_log, note = _scale(panel, values, first)
    legend += _references(panel, first, values, table, settings)
    unit = ", ".join(filter(None, (first.unit, "logarithmic" if is_log else "")))
    trouble = " ".join(dict.fromkeys(filter(None, (_broken(table, metric) for metric in lines))))
    return _Panel(panel, PanelHead(first.title, unit, first.name, first.meaning, tuple(legend), note, trouble))


def _ticks(size: float) -> str:
    """Return the format of an axis whose largest value has this size."""
    if size < 1e-4 or size >= 1e15:
        return ".2~e"
    return ",~g" if size < 1e5 else ".3~s"


def _scale(panel: go.Figure, values: np.ndarray, metric: Metric) -> tuple[bool, str]:
    """Choose the vertical axis; return whether it is logarithmic, and a sentence about what is off the picture."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > _DECADES:
        decades = math.log10(high / low)
        panel.update_yaxes(type="log", dtick=math.ceil(decades / 5), tickformat="", exponentformat="power")
        panel.update_yaxes(tickfont={"size": 9})  # Plotly makes powers larger
        return True, ""
    bottom, top = np.quantile(values, [0.05, 0.95])
    room = _FAR * float(top - bottom) if len(values) >= _MANY_VALUES else 0.0
    room = room or math.inf
    inside = values[
        (values >= max(bottom - room, metric.shown[0])) & (values <= min(float(top) + room, metric.shown[1]))
    ]
    outside = len(values) - len(inside)
    if not len(inside) or not outside:
        return False, ""
    margin = 0.08 * float(np.ptp(inside)) or 0.1
    panel.update_yaxes(range=[float(inside.min()) - margin, float(inside.max()) + margin])
    extreme = low if inside.min() - low > high - inside.max() else high
    return False, f"{count_text(outside, 'value')} off the picture, as far as {number_text(extreme)}."


def _references(
    panel: go.Figure, metric: Metric, values: np.ndarray, table: pl.DataFrame, settings: Mapping[str, Any]
) -> list[LegendEntry]:
    """Draw the values to compare with; one so far off that it would flatten the curve is only named."""
    low, high = float(values.min()), float(values.max())
    room = (high - low) or abs(high) or 1.0
    ends = [float(table["env_steps"].min()), float(table["env_steps"].max())]  # type: ignore[arg-type]
    keys = []
    for line in metric.lines:
        value = line.of(settings)
        if value is None:
            continue
        words = f"{line.words}: {number_text(value)}"
        if low - room <= value <= high + room:
            level(panel, value, ends, words, "dot")
            keys.append(LegendEntry(words, "muted", "level", dash="dot"))
        else:
            keys.append(LegendEntry(f"{words}, off the picture", "muted", "level", dash="dot"))
    return keys


def _broken(table: pl.DataFrame, metric: Metric) -> str:
    """Return a sentence about iterations without a finite value, where these are a sign of trouble; else nothing."""
    if metric.missing:
        return ""
    values = table.select("env_steps", value=pl.col(metric.name).cast(pl.Float64)).drop_nulls()
    bad = values.filter(~pl.col("value").is_finite())
    if not len(bad):
        return ""
    return (
        f"Not a finite number in {count_text(len(bad), 'iteration')}, from {steps_text(bad['env_steps'][0])} steps on."
    )
