"""Page of a task's rivals: return against core-seconds and against simulator steps."""

from pathlib import Path

import plotly.graph_objects as go
import polars as pl

from workhorse.advice.rivals import Outcome, frontier
from workhorse.advice.store import TaskRivals, folder_of
from workhorse.reports.figure import SYMBOLS, Figure, LegendEntry, blank, hover_name, whiskers
from workhorse.reports.markup import Markup, paragraph, sentences, table
from workhorse.reports.page import Page
from workhorse.reports.palette import series
from workhorse.reports.videos import video
from workhorse.reports.wording import interval_text, number_text, steps_text

__all__ = ["KINDS", "frontier_figure", "rival_rows", "write_rivals_page"]

KINDS = ("floor", "linear", "rule", "search", "plan", "tree")
_PRICES = (("core_s", "core-seconds to the end of the first episode"), ("steps", "simulator steps to that end"))


def frontier_figure(found: TaskRivals) -> Figure:
    """Draw what each rival earns against its price, a panel a kind of price; a line joins those that none beats."""
    there = [one for one in found.outcomes if one.returns]
    panels = [_panel(there, price, title) for price, title in _PRICES]
    kinds = [kind for kind in KINDS if any(one.contender.kind == kind for one in there)]
    legend = tuple(LegendEntry(kind, f"series-{KINDS.index(kind)}", "dot") for kind in kinds)
    rows = [
        {
            "rival": one.contender.algorithm,
            "kind": one.contender.kind,
            "return": one.interval.value,
            "low": one.interval.low,
            "high": one.interval.high,
            "core_seconds": one.core_s,
            "steps": one.steps,
            "episodes": len(one.returns),
        }
        for one in there
    ]
    caption = (
        "Dot: mean return over episodes that the rival was not chosen on, with its 95 % interval. The price is that of "
        "a first episode from nothing: search, compilation and planning are in it. The line joins those that nothing "
        "cheaper equals."
    )
    return Figure("frontier", "What can be had without learning", caption, tuple(panels), pl.DataFrame(rows), legend)


def _panel(there: list[Outcome], price: str, title: str) -> go.Figure:
    panel = blank(x=title, y="return", height=380, x_ticks=",~g" if price == "core_s" else "~s")
    panel.update_xaxes(type="log", dtick=1)
    for order, one in enumerate(sorted(there, key=lambda one: getattr(one, price))):
        place = KINDS.index(one.contender.kind)
        interval = one.interval
        panel.add_trace(
            go.Scatter(
                x=[getattr(one, price)],
                y=[interval.value],
                mode="markers+text",
                text=[one.contender.algorithm],
                textposition=("top center", "bottom center", "middle right")[order % 3],  # neighbours in price apart
                textfont={"size": 10},
                marker={"color": series(place), "symbol": SYMBOLS[place], "size": 9},
                error_y=whiskers(interval.value, interval.low, interval.high, series(place)),
                name=hover_name(one.contender.algorithm),
                hovertemplate=f"{hover_name(one.contender.algorithm)}: {interval_text(interval)}<extra></extra>",
            )
        )
    if price == "core_s":
        line = frontier(there)
        panel.add_trace(
            go.Scatter(
                x=[one.core_s for one in line],
                y=[one.interval.value for one in line],
                mode="lines",
                line={"color": "grey", "width": 1, "dash": "dot"},
                hoverinfo="skip",
            )
        )
    return panel


def rival_rows(outcomes: tuple[Outcome, ...] | list[Outcome]) -> list[tuple[str, ...]]:
    """Return a row of text for each rival: name, return, price before, price of an episode, real time, what it does."""
    rows = list[tuple[str, ...]]()
    for one in outcomes:
        if not one.returns:
            rows.append((one.contender.algorithm, "failed", "", "", "", one.failure))
            continue
        before = f"{steps_text(one.steps_before)} steps, {number_text(one.core_s_before, 2)} s"
        episode = f"{steps_text(one.steps_per_episode)} steps, {number_text(one.core_s_per_episode, 2)} s"
        factor = "" if one.real_time_factor is None else f"{number_text(one.real_time_factor, 2)}x"
        said = one.in_words or one.failure
        rows.append((one.contender.algorithm, interval_text(one.interval), before, episode, factor, said))
    return rows


def write_rivals_page(found: TaskRivals, root: Path) -> Path:
    """Write the page of a task's rivals into their folder, and return it."""
    page = Page(f"{found.task}: rivals")
    best, line = found.best, frontier(found.outcomes)
    answer = "No rival has a result." if best is None else (
        f"Without learning, {best.contender.algorithm} earns {interval_text(best.interval)}."
    )  # fmt: skip
    options = ", ".join(f"{name} {value}" for name, value in found.options.items())
    page.begin(f"Rivals on {found.task}{f' ({options})' if options else ''}, {found.date}", answer, Markup(""))
    page.add("frontier", "Return and price", page.draw(frontier_figure(found)) if best else Markup(""))
    head = ("rival", "return [95 %]", "before it acts", "an episode", "real time", "what it does, or why it failed")
    page.add("all", "Every rival", table(head, rival_rows(found.outcomes)))
    folder = folder_of(found.task, found.options, root)
    films = [folder / "films" / f"{one.contender.algorithm}.mp4" for one in line]
    shown = "".join(video(place, folder, place.stem) for place in films if place.is_file())
    page.add("films", "Films", Markup(f'<div class="videos">{shown}</div>') if shown else Markup(""))
    said = [
        f"{one.contender.algorithm}: {number_text(one.core_s, 3)} core-seconds, {interval_text(one.interval)}"
        for one in line
    ]
    page.add("cheapest", "What nothing cheaper equals", sentences(said))
    page.add(
        "again",
        "Make it again",
        paragraph(f"{found.made_by}. {found.machine}. Budget: {found.budget_s:g} core-seconds for all together."),
    )
    return page.write(folder)
