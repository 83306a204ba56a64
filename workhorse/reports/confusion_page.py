"""Page of causal confusion: what predicts the next action, what each factor adds and costs, and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from workhorse.reports.figure import Figure, blank, interval_dot, label_rows
from workhorse.reports.markup import Markup, paragraph, sentences, table
from workhorse.reports.page import Page
from workhorse.reports.palette import series

__all__ = ["returns_figure", "write_confusion_page"]

Record = Mapping[str, Any]


def write_confusion_page(record: Record, folder: Path) -> Path:
    """Write the page of what `workhorse.diagnostics.confusion` found, as plain JSON, into a folder, and return it."""
    page = Page(f"confusion: {record['log']}")
    answer, *others = record["sentences"]
    size = f"{record['steps']:,} steps of {record['episodes']:,} episodes, of which {record['held_out']:,} are held out"
    page.begin(f"Causal confusion · {record['log']}", answer, Markup(sentences(others) + paragraph(size, "small")))
    page.add("predicts", "What predicts the next action", page.draw(_predictions(record)))
    page.add("factors", "What each factor adds", table(*_factor_rows(record), numbers=range(1, 7)))
    page.add("returns", "What it costs in the task", page.draw(returns_figure(record)), page.draw(_masks(record)))
    page.add("interventions", "What the interventions told", page.draw(_tries(record)))
    return page.write(folder)


def _predictions(record: Record) -> Figure:
    """Share of held-out actions that each kind of observation predicts."""
    names = {
        "chance": "nothing", "previous": "the previous action alone", "state": "all but the previous action",
        "everything": "everything",
    }  # fmt: skip
    panel = blank(x="share of held-out actions predicted", x_ticks=".0%")
    places = label_rows(panel, list(names.values()))
    rows = []
    for number, (place, (key, label)) in enumerate(zip(places, names.items(), strict=True)):
        found = record[key]
        value = found["agreement"]
        text = f"{label}: {value:.1%}, loss {found['loss']:.4g}"
        interval_dot(panel, place, (value, np.nan, np.nan), series(number), "circle", label, text)
        rows.append({"sees": label, **found})
    panel.update_xaxes(range=[-0.02, 1.02])
    caption = (
        "Of a box of actions, one counts as predicted within a tenth of half its range in every component. "
        f"{record['repeats']:.1%} of the steps repeat the action before."
    )
    return Figure(
        "predictions", "How much of what the expert does next is known?", caption, (panel,), pl.DataFrame(rows)
    )


def _factor_rows(record: Record) -> tuple[Sequence[str], list[list[str]]]:
    head = (
        "factor", "components", "explained alone", "adds on demonstrations (loss)", "costs in the task (return)",
        "raises the return, by episodes", "is a cause, by answers",
    )  # fmt: skip
    rows = [
        [
            one["name"], str(one["size"]), f"{one['alone']['explained']:.1%}", f"{one['gain']:+.4g}",
            "" if one["cost"] is None else f"{one['cost']:+,.1f}", _chance(one["chance"]), _chance(one["answered"]),
        ]
        for one in record["factors"]
    ]  # fmt: skip
    return head, rows


def _chance(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def returns_figure(record: Record) -> Figure | None:
    """Draw the returns of the policies fitted for one mask each; None where nothing was played."""
    names = {"without": "without the previous action", "shown": "with it", "final": "with the factors that were chosen"}
    return _returned("returns", "Plain cloning, with and without", {label: record[key] for key, label in names.items()})


def _masks(record: Record) -> Figure | None:
    named = [one["name"] for one in record["factors"]]
    rows = {
        ", ".join(name for name, kept in zip(named, one["mask"], strict=True) if kept) or "nothing": one
        for one in sorted(record["masked"], key=lambda one: -one["mean"])
    }
    return _returned("masks", "One network, by what it is shown", rows) if rows else None


def _returned(name: str, title: str, rows: Mapping[str, Any]) -> Figure | None:
    if any(row is None for row in rows.values()):
        return None
    panel = blank(x="return")
    for number, (place, (label, row)) in enumerate(zip(label_rows(panel, list(rows)), rows.items(), strict=True)):
        text = f"{label}: {row['mean']:,.1f} [{row['low']:,.1f}, {row['high']:,.1f}]"
        colour = series(number if len(rows) <= 3 else 0)
        interval_dot(panel, place, (row["mean"], row["low"], row["high"]), colour, "circle", label, text)
    episodes = next(iter(rows.values()))["episodes"]
    caption = (
        f"Dot: the mean over {episodes} episodes, all from the same initial states; line: Student's 95 % interval."
    )
    table = pl.DataFrame(
        [{"sees": label, **{key: row[key] for key in ("mean", "low", "high")}} for label, row in rows.items()]
    )
    return Figure(name, title, caption, (panel,), table)


def _tries(record: Record) -> Figure | None:
    """Returns of the episodes under drawn masks, and the probability of the likeliest mask after each answer."""
    acted, asked = list(record["executed"]), list(record["posterior"])
    if not acted:
        return None
    panels = [blank(x="episode", y="return")]
    panels[0].add_scatter(
        x=list(range(1, len(acted) + 1)), y=acted, mode="markers", marker={"color": series(0), "size": 8},
        hovertemplate="episode %{x}: %{y:,.1f}<extra></extra>",
    )  # fmt: skip
    columns = {"try": list(range(1, len(acted) + 1)), "return": acted}
    if asked:
        panels.append(blank(x="answers of the expert", y="probability of the likeliest mask", y_ticks=".0%"))
        panels[1].add_scatter(
            x=list(range(len(asked))), y=asked, mode="lines+markers", line={"color": series(1)},
            hovertemplate="after %{x} answers: %{y:.1%}<extra></extra>",
        )  # fmt: skip
        panels[1].update_yaxes(range=[0, 1.02])
        columns["posterior"] = asked[1:]
    caption = "Each episode was played under a mask that was drawn, more and more often one that had paid."
    if asked:
        caption += " An answer weighs the masks by what their policies would have done."
    return Figure("tries", "One try after another", caption, tuple(panels), pl.DataFrame(columns))
