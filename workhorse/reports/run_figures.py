"""Figures of one run: returns of training and evaluation, and the episodes of the last evaluation."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import polars as pl

from workhorse.reports.figure import Figure, LegendEntry, band, blank, level, whiskers
from workhorse.reports.metric_figures import finite, has_numbers, thinned
from workhorse.reports.palette import LIGHT, series, shade
from workhorse.reports.wording import count_text, number_text
from workhorse.statistics.intervals import Interval

__all__ = ["Level", "last_episodes", "learns_from_a_population", "returns_over_training"]

_RETURNS = ("training_return", "training_return_min", "training_return_max", "evaluation_return")
_FEW_POINTS = 40
"""Points of the training line up to which each of them is marked."""


class Level(NamedTuple):
    """A return to compare with: what it is, and how much."""

    words: str
    value: float


def learns_from_a_population(metrics: pl.DataFrame) -> bool:
    """Tell from its metrics whether a run judged a population's members by whole episodes.

    Every other loop counts the episodes that ended in an iteration. The algorithm itself is not asked: it may be the
    code of whoever made the run.
    """
    return "training_return" in metrics.columns and "episodes" not in metrics.columns


def returns_over_training(
    metrics: pl.DataFrame, last: Interval | None, last_steps: float, levels: Sequence[Level] = ()
) -> Figure | None:
    """Draw the returns of training episodes and of evaluations; None if there are neither.

    Args:
        metrics: of the run, a row an iteration.
        last: the last evaluation, with its interval over episodes; None where there is none.
        last_steps: training steps at that evaluation.
        levels: returns to compare with; one far from all that was reached is left out.
    """
    names = [name for name in _RETURNS if has_numbers(metrics, name)]
    if not names or "env_steps" not in metrics.columns:
        return None
    table = thinned(metrics.select("env_steps", *names))
    rows = table.with_columns(low=pl.lit(None, pl.Float64), high=pl.lit(None, pl.Float64))
    panel, keys = blank(x="training steps", y="return", height=380), []
    panel.update_xaxes(range=[0.0, 1.03 * float(table["env_steps"].max())])  # type: ignore[arg-type]
    caption = ""
    if "training_return" in names:
        kind = "members of the population" if learns_from_a_population(metrics) else "training episodes"
        caption = _draw_training(panel, table, kind)
        keys.append(LegendEntry(f"{kind}: mean, lowest to highest", "series-0", "line", "training"))
    elif "episodes" in metrics.columns:
        caption = (
            f"No training episode ended in the {count_text(len(table), 'iteration')}, so there is no line of them."
        )
    if "evaluation_return" in names:
        _draw_evaluations(panel, finite(table, "evaluation_return"))
        keys.append(LegendEntry("policy without noise", "series-1", "diamond"))
        caption += " Diamonds: evaluations without noise."
    if last is not None:
        row = {"env_steps": last_steps, "evaluation_return": last.value, "low": last.low, "high": last.high}
        rows = pl.concat([rows, pl.DataFrame([row])], how="diagonal_relaxed")
        caption += _draw_last(panel, last, last_steps)
        if "evaluation_return" not in names:
            keys.append(LegendEntry("policy without noise", "series-1", "diamond"))
    keys += _draw_levels(panel, rows, levels)
    return Figure("returns", "Return over training", caption.strip(), (panel,), rows, tuple(keys), panel_width=300)


def last_episodes(returns: Sequence[float]) -> Figure | None:
    """Draw the episodes of the last evaluation: a histogram, with a mark for each episode under it.

    None where all returned the same, which is a sentence and no picture.
    """
    values = np.array([value for value in returns if np.isfinite(value)], float)
    if values.size < 2 or np.ptp(values) == 0:
        return None
    panel = blank(x="return of an episode", y="episodes", height=260, x_ticks=",~g")
    counts, edges = np.histogram(values, bins=_bins(values))
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
    most = int(counts.max())
    panel.update_yaxes(range=[-0.12 * most, 1.08 * most], tick0=0, dtick=_tick_step(most), tickformat=",d")
    mean = float(values.mean())
    panel.add_vline(x=mean, line={"color": LIGHT["ink"], "width": 1.4, "dash": "dash"})
    table = pl.DataFrame({"episode": range(len(values)), "return": values})
    caption = f"{count_text(len(values), 'episode')} of the final policy; dashed: their mean, {number_text(mean)}."
    return Figure("last-evaluation", "Episode by episode", caption, (panel,), table, panel_width=300)


def _tick_step(most: int) -> int:
    """Return a round number of which at most six make up a count.

    Example:
        >>> _tick_step(3), _tick_step(51), _tick_step(900)
        (1, 10, 200)
    """
    steps = (factor * 10**power for power in range(20) for factor in (1, 2, 5))
    return next(step for step in steps if most <= 6 * step)


def _bins(values: np.ndarray) -> np.ndarray:
    """Return the edges of the bins: one a whole number where there are few of them, else about 1.5 sqrt(n) in all."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 30 and (values == np.round(values)).all():
        return np.arange(low - 0.5, high + 1.0)
    return np.linspace(low, high, min(30, max(6, int(np.sqrt(values.size) * 1.5))) + 1)


def _draw_training(panel: go.Figure, table: pl.DataFrame, kind: str) -> str:
    """Draw the training returns, and return what has to be said about them."""
    known, colour = finite(table, "training_return"), series(0)
    x = known["env_steps"].cast(pl.Float64).to_numpy()
    if {"training_return_min", "training_return_max"} <= set(table.columns):
        low, high = (known[f"training_return_{end}"].cast(pl.Float64).to_numpy() for end in ("min", "max"))
        band(panel, x, low, high, colour, "training")
    panel.add_scatter(
        x=x,
        y=known["training_return"].to_list(),
        mode="lines+markers" if len(known) <= _FEW_POINTS else "lines",
        legendgroup="training",
        line={"color": colour, "width": 2},
        marker={"size": 5, "color": colour},
        hovertemplate=f"{kind}, mean: %{{y:,.4~g}} after %{{x:,}} steps<extra></extra>",
    )
    words = f"Line and band: mean, lowest and highest return of the {kind} in an iteration, no confidence interval."
    if len(known) < len(table):
        words += f" In {len(table) - len(known):,} of {count_text(len(table), 'iteration')} no episode ended."
    return words


def _draw_evaluations(panel: go.Figure, known: pl.DataFrame) -> None:
    panel.add_scatter(
        x=known["env_steps"].to_list(),
        y=known["evaluation_return"].to_list(),
        mode="lines+markers",
        line={"color": series(1), "width": 1.4, "dash": "dash"},
        marker={"size": 8, "symbol": "diamond", "color": series(1)},
        hovertemplate="policy without noise: %{y:,.4~g} after %{x:,} steps<extra></extra>",
    )


def _draw_last(panel: go.Figure, last: Interval, steps: float) -> str:
    """Draw the last evaluation with its interval, and return what has to be said about it."""
    panel.add_scatter(
        x=[steps],
        y=[last.value],
        mode="markers",
        marker={"size": 12, "symbol": "diamond", "color": series(1)},
        error_y=whiskers(last.value, last.low, last.high, series(1)),
        hovertemplate=f"last evaluation: {number_text(last.value)} "
        f"[{number_text(last.low)}, {number_text(last.high)}]<extra></extra>",
    )
    cut = f" ({last.method})" if " cut at " in last.method else ""
    return f" The last one's error bar is the 95 % interval over its episodes{cut}."


def _draw_levels(panel: go.Figure, rows: pl.DataFrame, levels: Sequence[Level]) -> list[LegendEntry]:
    """Draw the levels that are not far off."""
    drawn = [name for name in (*_RETURNS, "low", "high") if has_numbers(rows, name)]
    values = np.concatenate([finite(rows, name)[name].cast(pl.Float64).to_numpy() for name in drawn])
    low, high = float(values.min()), float(values.max())
    room, end = 0.5 * ((high - low) or abs(high) or 1.0), float(rows["env_steps"].max())  # type: ignore[arg-type]
    keys = []
    for (words, value), dash in zip(levels, ("dot", "dash", "longdashdot"), strict=False):
        if low - room <= value <= high + room:
            text = f"{words}: {number_text(value)}"
            level(panel, value, [0.0, end], text, dash)
            keys.append(LegendEntry(text, "muted", "level", dash=dash))
    return keys
