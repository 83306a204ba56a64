"""Figures of one run: training and evaluation returns, the last evaluation, speed, and every other metric."""

import itertools
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import polars as pl

from workhorse.reports.figure import Figure, LegendEntry, band, blank, whiskers
from workhorse.reports.palette import LIGHT, series, shade
from workhorse.reports.wording import count_text, number_text
from workhorse.statistics.intervals import Interval

__all__ = ["last_episodes", "other_metrics", "returns_over_training", "speed_and_length"]

_SHOWN = ("training_return", "training_return_min", "training_return_max", "evaluation_return")
_SPEED = {"steps_per_second": "training steps per second", "episode_length": "steps per episode"}
_NO_CURVES = {"iteration", "env_steps", "steps", "wall_s", "digest", "evaluation_steps", *_SHOWN, *_SPEED}
_MOST_POINTS = 2000


def returns_over_training(metrics: pl.DataFrame, last: Interval | None, last_steps: float) -> Figure | None:
    """Draw the returns of training episodes and of evaluations; None if there are neither.

    Args:
        metrics: of the run, a row an iteration.
        last: the last evaluation, with its interval over episodes; None where there is none.
        last_steps: training steps at that evaluation.
    """
    names = [name for name in _SHOWN if _has_numbers(metrics, name)]
    if not names or "env_steps" not in metrics.columns:
        return None
    table = _thinned(metrics.select("env_steps", *names))
    rows = table.with_columns(low=pl.lit(None, pl.Float64), high=pl.lit(None, pl.Float64))
    panel, keys = blank(x="training steps", y="return", height=380), []
    x = table["env_steps"].cast(pl.Float64).to_numpy()
    if "training_return" in names:
        keys += _draw_training_returns(panel, table, x, names)
    if "evaluation_return" in names:
        known = table.filter(pl.col("evaluation_return").is_not_null())
        panel.add_scatter(
            x=known["env_steps"].to_list(),
            y=known["evaluation_return"].to_list(),
            mode="lines+markers",
            line={"color": series(1), "width": 1.4, "dash": "dash"},
            marker={"size": 8, "symbol": "diamond", "color": series(1)},
            hovertemplate="policy without noise: %{y:,.4~g} after %{x:,} steps<extra></extra>",
        )
        keys.append(LegendEntry("policy without noise", "series-1", "diamond"))
    if last is not None:
        row = {"env_steps": last_steps, "evaluation_return": last.value, "low": last.low, "high": last.high}
        rows = pl.concat([rows, pl.DataFrame([row])], how="diagonal_relaxed")
        panel.add_scatter(
            x=[last_steps],
            y=[last.value],
            mode="markers",
            marker={"size": 12, "symbol": "diamond", "color": series(1)},
            error_y=whiskers(last.value, last.low, last.high, series(1)),
            hovertemplate=f"last evaluation: {number_text(last.value)} "
            f"[{number_text(last.low)}, {number_text(last.high)}]<extra></extra>",
        )
    caption = (
        "Band: lowest to highest return of an iteration's episodes (not a confidence interval). Diamonds: evaluations "
    )
    caption += "without noise; the error bar of the last is the 95 % interval over its episodes."
    return Figure("returns", "Return over training", caption, (panel,), rows, tuple(keys), panel_width=300)


def last_episodes(returns: Sequence[float]) -> Figure | None:
    """Draw the episodes of the last evaluation: a histogram, with a mark for each episode under it."""
    values = np.array([value for value in returns if np.isfinite(value)], float)
    if not values.size:
        return None
    panel = blank(x="return of an episode", y="episodes", height=260, x_ticks=",~g")
    counts, edges = np.histogram(values, bins=min(30, max(6, int(np.sqrt(values.size) * 1.5))))
    panel.add_bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=counts,
        width=np.diff(edges) * 0.94,
        marker={"color": shade(series(0), 0.35), "line": {"width": 0}},
        text=[f"{number_text(low)} to {number_text(high)}" for low, high in itertools.pairwise(edges.tolist())],
        textposition="none",
        hovertemplate="%{y} episodes at %{text}<extra></extra>",
    )
    panel.add_scatter(
        x=values,
        y=np.full(len(values), -0.06 * counts.max()),
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 8, "color": series(0), "line": {"width": 1.2}},
        hovertemplate="an episode: %{x:,.4~g}<extra></extra>",
    )
    mean = float(values.mean())
    panel.add_vline(x=mean, line={"color": LIGHT["ink"], "width": 1.4, "dash": "dash"})
    table = pl.DataFrame({"episode": range(len(values)), "return": values})
    caption = f"{count_text(len(values), 'episode')} of the final policy; dashed: their mean, {number_text(mean)}."
    return Figure("last-evaluation", "Episode by episode", caption, (panel,), table, panel_width=300)


def speed_and_length(metrics: pl.DataFrame) -> Figure | None:
    """Draw training steps per second and the length of episodes."""
    names = {name: words for name, words in _SPEED.items() if _has_numbers(metrics, name)}
    if not names:
        return None
    caption = "Speed counts training alone, without evaluations and saving."
    return _small_multiples("speed-and-length", "Speed and length of episodes", caption, metrics, names, 320)


def other_metrics(metrics: pl.DataFrame) -> Figure | None:
    """Draw every other metric that changes, one panel each."""
    names = [name for name in metrics.columns if name not in _NO_CURVES and _has_numbers(metrics, name)]
    varying = {name: name for name in names if metrics[name].drop_nulls().n_unique() > 1}
    if not varying:
        return None
    constant = [f"{name} {number_text(float(metrics[name].drop_nulls()[0]))}" for name in names if name not in varying]
    caption = (
        f"The same in every iteration: {', '.join(constant)}." if constant else "As they stand in metrics.parquet."
    )
    return _small_multiples("other-metrics", "What else was recorded", caption, metrics, varying, 240)


# --- within ---


def _draw_training_returns(
    panel: go.Figure, table: pl.DataFrame, x: np.ndarray, names: Sequence[str]
) -> list[LegendEntry]:
    colour = series(0)
    if {"training_return_min", "training_return_max"} <= set(names):
        low, high = (table[f"training_return_{end}"].cast(pl.Float64).to_numpy() for end in ("min", "max"))
        band(panel, x, low, high, colour, "training")
    panel.add_scatter(
        x=x,
        y=table["training_return"].to_list(),
        mode="lines",
        legendgroup="training",
        line={"color": colour, "width": 2},
        hovertemplate="training episodes, mean: %{y:,.4~g} after %{x:,} steps<extra></extra>",
    )
    return [LegendEntry("training episodes: mean, lowest to highest", "series-0", "line", "training")]


def _small_multiples(
    name: str, title: str, caption: str, metrics: pl.DataFrame, names: dict[str, str], width: int
) -> Figure:
    table = _thinned(metrics.select("env_steps", *names))
    panels = []
    for column, words in names.items():
        known = table.filter(pl.col(column).is_not_null())
        panel = blank(words, x="training steps", height=210)
        panel.add_scatter(
            x=known["env_steps"].to_list(),
            y=known[column].to_list(),
            mode="lines+markers" if len(known) < 20 else "lines",
            line={"color": series(0), "width": 1.4},
            hovertemplate=f"{words}: %{{y:,.4~g}} after %{{x:,}} steps<extra></extra>",
        )
        if known[column].min() == known[column].max():
            panel.update_yaxes(rangemode="tozero")
        panels.append(panel)
    return Figure(name, title, caption, tuple(panels), table, panel_width=width)


def _has_numbers(metrics: pl.DataFrame, name: str) -> bool:
    return name in metrics.columns and metrics[name].dtype.is_numeric() and metrics[name].drop_nulls().len() > 0


def _thinned(table: pl.DataFrame) -> pl.DataFrame:
    """Drop rows so that the page stays fast: keep every evaluation, every n-th other row, and the last one."""
    every = -(-len(table) // _MOST_POINTS)
    if every <= 1:
        return table
    keep = pl.int_range(pl.len()) % every == 0
    if "evaluation_return" in table.columns:
        keep = keep | pl.col("evaluation_return").is_not_null()
    return table.filter(keep | (pl.int_range(pl.len()) == pl.len() - 1))
