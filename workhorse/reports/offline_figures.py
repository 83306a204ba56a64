"""Figures of a run from a log: what its values claim beside what the log shows, over training and step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from workhorse.reports.diagnosis_figures import diagnoses
from workhorse.reports.figure import DASHES, Figure, LegendEntry, PanelHead, blank, level
from workhorse.reports.palette import LIGHT, series
from workhorse.reports.wording import number_text

__all__ = ["LOG_HEAD", "claims_over_training", "log_rows", "log_value_records", "values_and_returns"]

LogValues = dict[str, Any]
"""Record of the values of a run from a log at an iteration; see `log_value_records`."""

LOG_HEAD = (
    "iteration", "policy's value", "log's value", "log's return", "highest value", "above it", "without support",
    "error, held out", "learnt from",
)  # fmt: skip

_PANELS: tuple[tuple[str, str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Values and returns", "reward", "What the critic claims, and what followed the log's actions.",
        (("policy_value", "policy's actions"), ("data_value", "log's actions"), ("data_return", "returns of the log")),
    ),
    (
        "Advantage over the log's actions", "reward", "Value of the policy's action less that of the log's.",
        (("action_gap", "advantage"),),
    ),
    (
        "Actions without support", "share",
        "Farther from the log's actions in similar states than 95 % of those from each other.",
        (("outside_support", "without support"),),
    ),
    (
        "Squared error to the targets", "", "It tells overfitting, and nothing of values that are made up.",
        (("held_out_error", "held out"), ("trained_error", "learnt from")),
    ),
)  # fmt: skip
"""Title, unit, text and lines of each panel."""


def log_value_records(folder: Path) -> list[LogValues]:
    """Return the records of the values of a run from a log, by iteration."""

    def read(record: LogValues) -> LogValues:
        measures = {str(name): float(value) for name, value in record["measures"].items() if value is not None}
        lists = {name: [float(one) for one in record[name]] for name in ("returns", "data_values", "policy_values")}
        flags = [int(flag) for flag in record["outside"]]
        counts = {name: int(record[name]) for name in ("iteration", "steps")}
        return {**counts, **lists, "outside": flags, "measures": measures, "verdict": str(record["verdict"])}

    return diagnoses(folder, "log", read)


def log_rows(records: Sequence[LogValues]) -> list[tuple[str, ...]]:
    """Return the rows of a table, one for each iteration; see `LOG_HEAD`."""
    rows = []
    for record in records:
        measures = record["measures"]
        bound = measures.get("value_bound", measures.get("seen_value_bound"))
        numbers = [measures.get(name) for name in ("policy_value", "data_value", "data_return")]
        shares = [measures.get(name) for name in ("above_bound", "outside_support")]
        errors = [measures.get(name) for name in ("held_out_error", "trained_error")]
        rows.append((
            str(record["iteration"]), *map(_text, [*numbers, bound]),
            *("-" if share is None else f"{share:.0%}" for share in shares), *map(_text, errors),
        ))  # fmt: skip
    return rows


def _text(value: float | None) -> str:
    return "-" if value is None else number_text(value)


def claims_over_training(metrics: pl.DataFrame) -> Figure | None:
    """Draw what values claim against what the log shows, over the updates; None without such metrics."""
    if "outside_support" not in metrics.columns and "policy_value" not in metrics.columns:
        return None
    x, panels, heads, drawn = metrics["env_steps"].to_numpy(), [], [], ["env_steps"]
    for title, unit, text, lines in _PANELS:
        there = [(name, label) for name, label in lines if name in metrics.columns]
        if not there:
            continue
        panel, keys = blank(x="updates", y=unit, height=300), []
        for place, (name, label) in enumerate(there):
            _line(panel, x, metrics[name].cast(pl.Float64).to_numpy(), label, place)
            keys.append(LegendEntry.of_series(label, place))
            drawn.append(name)
        if there[0][0] == "policy_value":
            keys += _bounds(panel, metrics, x, drawn)
        if there[0][0] == "outside_support":
            level(panel, 0.05, (float(x[0]), float(x[-1])), "of the log's own actions", "dot")
            panel.update_yaxes(range=[0, 1], tickformat=".0%")
            keys.append(LegendEntry("of the log's own actions", "muted", "level", dash="dot"))
        panels.append(panel)
        heads.append(PanelHead(title, unit, "", text, tuple(keys)))
    caption = "On steps of the log that nothing is learnt from, after each iteration."
    table = metrics.select(list(dict.fromkeys(drawn)))
    return Figure("log", "Over training", caption, tuple(panels), table, (), 420, tuple(heads))


def _line(panel: go.Figure, x: np.ndarray, y: np.ndarray, label: str, place: int) -> None:
    panel.add_scatter(
        x=x, y=y, mode="lines+markers" if len(x) < 3 else "lines", name=label, legendgroup=label,
        line={"color": series(place), "width": 1.8, "dash": DASHES[place % len(DASHES)]},
        hovertemplate=f"{label}<br>%{{y:,.4~g}} after %{{x:,}} updates<extra></extra>",
    )  # fmt: skip


def _bounds(panel: go.Figure, metrics: pl.DataFrame, x: np.ndarray, drawn: list[str]) -> list[LegendEntry]:
    """Draw the highest value by the rewards of the task, or else of the log, where it is of the size of the others."""
    for name, label in (("value_bound", "highest value of the task"), ("seen_value_bound", "highest by the log")):
        if name not in metrics.columns:
            continue
        bound = metrics[name].cast(pl.Float64).to_numpy()
        if not np.isfinite(bound).any():
            continue
        others = np.concatenate([
            metrics[other].cast(pl.Float64).to_numpy() for other, _ in _PANELS[0][3] if other in metrics.columns
        ])  # fmt: skip
        others = others[np.isfinite(others)]
        span = np.ptp(others) if len(others) else 0.0
        if len(others) and np.nanmin(bound) > others.max() + 3 * max(span, 1e-9):
            return []  # so far above that the lines below it would be flat: the table has it
        panel.add_scatter(
            x=x, y=bound, mode="lines", name=label, line={"color": LIGHT["muted"], "width": 1.4, "dash": "dash"},
            hovertemplate=f"{label}<br>%{{y:,.4~g}}<extra></extra>",
        )  # fmt: skip
        drawn.append(name)
        return [LegendEntry(label, "muted", "level", dash="dash")]
    return []


def values_and_returns(record: LogValues) -> Figure | None:
    """Draw the value of each held-out step's action against the return that followed it; None where none is known."""
    if not record["returns"]:
        return None
    table = pl.DataFrame({name: record[name] for name in ("returns", "data_values", "policy_values", "outside")})
    panel = blank(x="discounted return of the log", y="value", height=340, x_ticks=",~g")
    low, high = min(record["returns"]), max(record["returns"])
    panel.add_scatter(
        x=[low, high], y=[low, high], mode="lines", line={"color": LIGHT["muted"], "width": 1.2, "dash": "dot"},
        hoverinfo="skip",
    )  # fmt: skip
    keys = []
    for place, (name, label, symbol) in enumerate(
        (("data_values", "the log's action", "circle"), ("policy_values", "the policy's action", "diamond"))
    ):
        panel.add_scatter(
            x=record["returns"], y=record[name], mode="markers", name=label, legendgroup=label,
            marker={"size": 5, "symbol": symbol, "color": series(place), "opacity": 0.6},
            hovertemplate=f"{label}<br>value %{{y:,.4~g}}, return %{{x:,.4~g}}<extra></extra>",
        )  # fmt: skip
        keys.append(LegendEntry(label, f"series-{place}", "dot" if place == 0 else "diamond", label))
    measures = record["measures"]
    bound = measures.get("value_bound", measures.get("seen_value_bound", math.inf))
    highest = max(*record["data_values"], *record["policy_values"], high)
    if bound < highest + (highest - low):
        level(panel, bound, (low, high), "highest value", "dash")
        keys.append(LegendEntry("highest value", "muted", "level", dash="dash"))
    keys.append(LegendEntry("value = return", "muted", "level", dash="dot"))
    caption = (
        f"Iteration {record['iteration']}: {len(record['returns'])} of {record['steps']:,} held-out steps, those whose "
        "end is near enough to be known."
    )
    return Figure("log-values", "Values against returns", caption, (panel,), table, tuple(keys), panel_width=300)
