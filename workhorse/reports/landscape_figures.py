"""Figures of a landscape: reward and surrogate on a plane, its smoothness, and the effect of a step."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from workhorse.reports.diagnosis_figures import diagnoses
from workhorse.reports.figure import SYMBOLS, Figure, LegendEntry, band, blank, estimate_line, level
from workhorse.reports.palette import LIGHT, series

__all__ = ["landscape_records", "landscape_summary", "plane", "side_view"]

_SCALE = "Cividis"
"""Colours of a height: even in lightness, the same in light, in the dark and on paper, and told apart by everyone."""


def landscape_records(folder: Path) -> list[dict[str, Any]]:
    """Return the landscapes of a run by iteration."""
    return diagnoses(folder, "landscape", _record)


def _record(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers to draw, with their shapes checked."""
    axis = np.array(raw["axis"], np.float64)
    surfaces = [
        {
            "pairs": int(one["pairs"]),
            "reward": _grid(one["reward"], axis),
            "error": _grid(one["error"], axis),
            **{name: float(one[name]) for name in ("smoothness", "low", "high")},
        }
        for one in raw["surfaces"]
    ]
    last = raw["surrogates"][-1]
    line = [
        {
            **{name: float(one[name]) for name in ("x", "reward", "change", "low", "high")},
            "surrogate": float("nan") if one["surrogate"] is None else float(one["surrogate"]),
            "verdict": str(one["verdict"]),
        }
        for one in raw["line"]
    ]
    return {
        "iteration": int(raw["iteration"]),
        "axis": axis,
        "surfaces": surfaces,
        "surrogate_pairs": int(last["pairs"]),
        "surrogate": _grid(last["plain"], axis),
        "clipped": None if last["clipped"] is None else _grid(last["clipped"], axis),
        "line": line,
        "episodes": int(raw["line_episodes"]),
        "lengths": (float(raw["step_length"]), float(raw["random_length"])),
    }


def _grid(rows: Sequence[Sequence[float | None]], axis: np.ndarray) -> np.ndarray:
    values = np.array([[np.nan if value is None else value for value in row] for row in rows], np.float64)
    if values.shape != (len(axis), len(axis)):
        raise ValueError("not a plane")
    return values


def plane(record: Mapping[str, Any]) -> Figure:
    """The true reward by the fewest pairs and by all, and the surrogate, from above."""
    first, last = record["surfaces"][0], record["surfaces"][-1]
    bounds = float(last["reward"].min()), float(last["reward"].max())
    panels = [_height(f"reward, {one['pairs']:,} steps a point", record, one, bounds) for one in _apart(first, last)]
    panels.append(_height(f"surrogate, {record['surrogate_pairs']:,} steps in all", record, record["surrogate"]))
    if record["clipped"] is not None:
        panels.append(_height("clipped surrogate, which PPO maximises", record, record["clipped"]))
    step, random = record["lengths"]
    caption = (
        "The mean return of the policy moved along the algorithm's own step (across; 1 is a whole update) and along a "
        "random direction (up), every point with fresh randomness, and the objective that the algorithm maximises, on "
        f"the same steps at every point. A step is {step:.3g} long, the random vector {random:.3g}. Circle: the "
        "frozen policy; diamond: after the update. Both rewards have one scale; that of a surrogate ends at its 2nd "
        "and 98th percentile."
    )
    keys = (LegendEntry("the policy", "bad", "open"), LegendEntry("after the update", "bad", "diamond"))
    title = f"Iteration {record['iteration']}: the reward, and the objective maximised instead"
    name = f"landscape-{record['iteration']}"
    return Figure(name, title, caption, tuple(panels), _plane_table(record), keys, 330)


def _apart(first: Mapping[str, Any], last: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [last] if first["pairs"] == last["pairs"] else [first, last]


def _height(
    title: str,
    record: Mapping[str, Any],
    drawn: Mapping[str, Any] | np.ndarray,
    bounds: tuple[float, float] | None = None,
) -> go.Figure:
    """A panel of heights over the plane."""
    panel = blank(title, x="steps", y="random vectors", height=330, x_ticks="~g", y_ticks="~g")
    values = drawn["reward"] if isinstance(drawn, Mapping) else drawn
    error = drawn["error"] if isinstance(drawn, Mapping) else None
    low, high = bounds or _middle(values)
    panel.add_heatmap(
        x=record["axis"].tolist(),
        y=record["axis"].tolist(),
        z=values.tolist(),
        customdata=None if error is None else error.tolist(),
        zmin=low,
        zmax=high,
        colorscale=_SCALE,
        colorbar={
            "thickness": 10,
            "outlinewidth": 0,
            "tickfont": {"size": 11, "color": LIGHT["muted"]},
            "tickformat": ",~g",
            "nticks": 6,
        },
        hovertemplate="%{z:,.4~g}"
        + ("" if error is None else " ± %{customdata:,.2~g}")
        + "<br>%{x:.2f} steps, %{y:.2f} random<extra></extra>",
    )
    for x, symbol in ((0.0, "circle-open"), (1.0, "diamond")):
        panel.add_scatter(
            x=[x],
            y=[0.0],
            mode="markers",
            marker={"size": 10, "symbol": symbol, "color": LIGHT["bad"], "line": {"width": 2, "color": LIGHT["bad"]}},
            hoverinfo="skip",
            cliponaxis=False,
        )
    for axes in (panel.update_xaxes, panel.update_yaxes):
        axes(constrain="domain", showgrid=False)
    return panel


def side_view(record: Mapping[str, Any]) -> Figure:
    """The true reward and the surrogate as surfaces that can be turned."""
    last, climbed = record["surfaces"][-1], record["surrogate"] if record["clipped"] is None else record["clipped"]
    reward = last["reward"]
    panels = (
        _surface(
            f"reward, {last['pairs']:,} steps a point", record, reward, (float(reward.min()), float(reward.max()))
        ),
        _surface("surrogate" if record["clipped"] is None else "clipped surrogate", record, climbed, _middle(climbed)),
    )
    title = f"Iteration {record['iteration']}: the same from the side"
    caption = "Drag to turn. Where the two do not rise together, the surrogate does not follow the reward."
    name = f"landscape-{record['iteration']}-side"
    return Figure(name, title, caption, panels, _plane_table(record), (), 330)


def _surface(title: str, record: Mapping[str, Any], values: np.ndarray, bounds: tuple[float, float]) -> go.Figure:
    """A panel of a surface in space, cut off where its colours end."""
    panel = blank(title, height=380)
    low, high = bounds
    panel.add_surface(
        x=record["axis"].tolist(),
        y=record["axis"].tolist(),
        z=np.clip(values, low, high).tolist(),
        cmin=low,
        cmax=high,
        colorscale=_SCALE,
        showscale=False,
        hovertemplate="%{z:,.4~g}<br>%{x:.2f} steps, %{y:.2f} random<extra></extra>",
    )
    axis = {
        "backgroundcolor": LIGHT["card"],
        "gridcolor": LIGHT["line"],
        "color": LIGHT["muted"],
        "tickfont": {"size": 10, "color": LIGHT["muted"]},
        "zeroline": False,
    }
    panel.update_layout(
        scene={
            "dragmode": "turntable",
            "camera": {"eye": {"x": -1.45, "y": -1.45, "z": 0.85}},
            "aspectratio": {"x": 1, "y": 1, "z": 0.7},
            "xaxis": {**axis, "title": {"text": "steps"}},
            "yaxis": {**axis, "title": {"text": "random"}},
            "zaxis": {**axis, "title": {"text": ""}, "tickformat": ",~g"},
        },
        xaxis_visible=False,
        yaxis_visible=False,
    )
    return panel


def _middle(values: np.ndarray) -> tuple[float, float]:
    """The 2nd and the 98th percentile of what is finite."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (2, 98)) if len(finite) else (0.0, 1.0)
    return float(low), float(high)


def _plane_table(record: Mapping[str, Any]) -> pl.DataFrame:
    """A row for every point."""
    axis = record["axis"]
    columns: dict[str, np.ndarray] = {"x": np.tile(axis, len(axis)), "y": np.repeat(axis, len(axis))}
    for one in record["surfaces"]:
        columns |= {f"{name}_{one['pairs']}": one[name].ravel() for name in ("reward", "error")}
    columns["surrogate"] = record["surrogate"].ravel()
    if record["clipped"] is not None:
        columns["clipped_surrogate"] = record["clipped"].ravel()
    return pl.DataFrame(columns)


def landscape_summary(records: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Draw the smoothness of the plane against samples, and the effect of the step; None without a record."""
    if not records:
        return None
    smooth = blank("smoothness", x="steps a point", y="share that is no noise", height=320)
    change = blank("along the step, the same randomness", x="steps", y="change of the return", height=320, x_ticks="~g")
    keys, rows = [], []
    for place, record in enumerate(records):
        label = f"iteration {record['iteration']}"
        _draw_smoothness(smooth, record, label, place)
        _draw_change(change, record, label, place, len(records))
        keys.append(LegendEntry.of_series(label, place))
        rows += _summary_rows(record)
    if max(len(record["surfaces"]) for record in records) > 1:
        sizes = sorted({one["pairs"] for record in records for one in record["surfaces"]})
        smooth.update_xaxes(type="log", tickvals=sizes)
    smooth.update_yaxes(range=[0, 1.03])
    ends = [one["x"] for record in records for one in record["line"]]
    level(change, 0.0, (min(ends), max(ends)), "no change", "dot")
    caption = (
        "Left: the share of the differences between neighbouring points that is not sampling noise, with its 95 % "
        "interval: 1 is no noise, 0 only noise. Right: the mean return along the step minus that of the frozen policy, "
        "with its 95 % interval, from the same starts and with the same action noise. "
        + " ".join(map(_verdict, records))
    )
    return Figure(
        "landscape", "Does the step raise the reward?", caption, (smooth, change), pl.DataFrame(rows), tuple(keys), 330
    )


def _draw_smoothness(panel: go.Figure, record: Mapping[str, Any], label: str, place: int) -> None:
    surfaces = record["surfaces"]
    x = np.array([float(one["pairs"]) for one in surfaces])
    low, high = (np.array([one[name] for one in surfaces]) for name in ("low", "high"))
    band(panel, x, low, high, series(place), label)
    estimate_line(panel, x, [one["smoothness"] for one in surfaces], label, place, ".2f")


def _draw_change(panel: go.Figure, record: Mapping[str, Any], label: str, place: int, count: int) -> None:
    """Draw points with intervals, side by side for several iterations."""
    line, colour = record["line"][1:], series(place)
    panel.add_scatter(
        x=[one["x"] + 0.05 * (place - (count - 1) / 2) for one in line],
        y=[one["change"] for one in line],
        mode="markers",
        name=html.escape(label),
        legendgroup=label,
        marker={"size": 8, "color": colour, "symbol": SYMBOLS[place % len(SYMBOLS)]},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [one["high"] - one["change"] for one in line],
            "arrayminus": [one["change"] - one["low"] for one in line],
            "color": colour,
            "thickness": 2,
            "width": 5,
        },
        customdata=[[one["low"], one["high"], one["x"]] for one in line],
        hovertemplate=f"{html.escape(label)}, %{{customdata[2]:g}} steps<br>%{{y:+,.4~g}} "
        "[%{customdata[0]:+,.4~g}, %{customdata[1]:+,.4~g}]<extra></extra>",
    )


def _summary_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    iteration = record["iteration"]
    smooth = [
        {"iteration": iteration, "of": "smoothness", "at": float(one["pairs"]), "value": one["smoothness"]}
        | {name: one[name] for name in ("low", "high")}
        for one in record["surfaces"]
    ]
    change = [
        {"iteration": iteration, "of": "change", "at": one["x"], "value": one["change"]}
        | {name: one[name] for name in ("low", "high")}
        for one in record["line"]
    ]
    return smooth + change


def _verdict(record: Mapping[str, Any]) -> str:
    """Return a sentence on the effect of a whole update."""
    whole = next((one for one in record["line"] if one["x"] == 1.0), record["line"][-1])
    words = {"raises": "raises the reward", "lowers": "lowers the reward"}
    what = words.get(whole["verdict"], "has no effect that can be told from zero")
    return f"Iteration {record['iteration']}: the whole update {what}, over {record['episodes']:,} episodes."
