"""Figures of a diagnosis: agreement of gradient estimates, value function, baselines."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import plotly.graph_objects as go
import polars as pl

from workhorse.core.errors import UsageError
from workhorse.core.files import list_folder
from workhorse.reports.figure import Figure, LegendEntry, band, blank, estimate_line, level
from workhorse.reports.palette import LIGHT, series
from workhorse.reports.wording import number_text
from workhorse.runs.manifest import owner_of
from workhorse.runs.sealed import read_record

__all__ = [
    "baseline_agreement",
    "baseline_records",
    "ACTION_VALUE_HEAD",
    "ActionValues",
    "WORST_HEAD",
    "action_value_records",
    "action_value_rows",
    "gradient_agreement",
    "gradient_records",
    "value_rows",
    "values_and_truth",
    "worst_rows",
    "VALUE_HEAD",
    "diagnoses",
]

T = TypeVar("T")

ActionValues: TypeAlias = dict[str, Any]
"""Record of the values of actions at an iteration; see `action_value_records`."""

_FIELDS = {"samples": int, "cosine": float, "low": float, "high": float, "to_reference": float, "p_value": float}


def diagnoses(folder: Path, part: str, read: Callable[[dict[str, Any]], T]) -> list[T]:
    """Return what `read` makes of a run's records of one part, by iteration; damaged files are skipped."""
    found = []
    for place in list_folder(folder / "diagnostics", f"{part}-*.json"):
        try:
            record: dict[str, Any] = read_record(place, folder, owner=owner_of(folder))
            found.append((int(record["iteration"]), read(record)))
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, UsageError):
            continue
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def gradient_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run's gradients by iteration."""

    def read(record: dict[str, Any]) -> dict[str, Any]:
        rows = [{name: kind(row[name]) for name, kind in _FIELDS.items()} for row in record["gradients"]]
        scale = record["noise_scale"]
        names = ("iteration", "own_samples", "estimates", "reference_samples")
        numbers = {name: int(record[name]) for name in names}
        return {**numbers, "noise_scale": None if scale is None else float(scale), "rows": rows}

    return diagnoses(folder, "gradients", read)


def gradient_agreement(records: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Mean cosine of two estimates, and of one to the reference, against their size; None without a record."""
    if not records:
        return None
    pairs = blank("two estimates", x="steps of an estimate", y="mean cosine", height=340)
    reference = blank("an estimate and the reference", x="steps of an estimate", y="mean cosine", height=340)
    keys, tables = [], []
    for place, record in enumerate(records):
        table = pl.DataFrame(record["rows"]).with_columns(iteration=pl.lit(record["iteration"]))
        tables.append(table)
        label, x = f"iteration {record['iteration']}", table["samples"].cast(pl.Float64).to_numpy()
        band(pairs, x, table["low"].to_numpy(), table["high"].to_numpy(), series(place), label)
        for panel, column in ((pairs, "cosine"), (reference, "to_reference")):
            estimate_line(panel, x, table[column].to_list(), label, place)
        keys.append(LegendEntry.of_series(label, place))
    own = records[0]["own_samples"]
    sizes = [row["samples"] for record in records for row in record["rows"]]
    for panel in (pairs, reference):
        level(panel, 0.0, (min(sizes), max(sizes)), "no agreement", "dot")
        panel.add_vline(x=own, line={"color": LIGHT["muted"], "width": 1.4, "dash": "dash"})
        panel.add_annotation(
            x=float(np.log10(own)),
            y=1.0,
            yref="paper",
            text="the run's own",
            showarrow=False,
            xanchor="left",
            yanchor="top",
            xshift=4,
            font={"size": 11, "color": LIGHT["muted"]},
        )
        panel.update_xaxes(type="log", dtick=1)
    first = records[0]
    caption = (
        f"{first['estimates']} independent estimates of each size from one frozen policy, with the 95 % bootstrap "
        f"interval over them; dashed: the size of the run's own rollout, {own:,} steps. An estimate's reference is the "
        f"mean of all others at the largest size, {first['reference_samples']:,} steps. " + _needs(records)
    )
    columns = ["iteration", *_FIELDS]
    table = pl.concat(tables).select(columns)
    return Figure("gradients", "Do gradient estimates agree?", caption, (pairs, reference), table, tuple(keys), 330)


def value_rows(folder: Path) -> list[tuple[str, ...]]:
    """Return the rows of a table about a run's value function, one for each iteration; see `VALUE_HEAD`."""

    def read(record: dict[str, Any]) -> tuple[str, ...]:
        shares = [record[name] for name in ("own_explained", "return_explained", "truth_explained", "truth_error")]
        bias = f"{float(record['bias']):.3g} ± {float(record['bias_error']):.2g}"
        count = f"{int(record['states'])} × {int(record['returns'])}"
        later = [record.get(name) or {} for name in ("learnt", "unseen")]  # an older record has none
        pairs = (", ".join(_or_dash(one.get(name)) for one in later) for name in ("return_error", "truth_error"))
        return (str(int(record["iteration"])), *map(_or_dash, shares), *pairs, bias, count)

    return diagnoses(folder, "values", read)


def action_value_records(folder: Path) -> list[ActionValues]:
    """Return the records of the values of a run's actions by iteration."""

    def read(record: ActionValues) -> ActionValues:
        counts = {name: int(record[name]) for name in ("iteration", "states", "returns", "horizon", "soft")}
        means = {name: float(record[name]) for name in _OF_ACTIONS}
        shares = {name: None if record[name] is None else float(record[name]) for name in _SHARES}
        lists = {name: [float(one) for one in record[name]] for name in ("value", "truth", "step")}
        worst = [
            (int(one["step"]), float(one["value"]), float(one["truth"]), [float(x) for x in one["observation"]])
            for one in record["worst"]
        ]
        return {**counts, **means, **shares, **lists, "worst": worst}

    return diagnoses(folder, "values", read)


_OF_ACTIONS = (
    "value_mean", "truth_mean", "over_estimate", "over_estimate_error", "share_too_high", "truth_spread",
)  # fmt: skip
_SHARES = ("share_of_spread", "truth_explained")

ACTION_VALUE_HEAD = (
    "iteration",
    "value",
    "true",
    "too high by ± its error",
    "of the truth's spread",
    "too high in",
    "explains of the truth",
    "states × returns",
)
WORST_HEAD = ("step of its episode", "value", "true", "too high by", "observation")


def action_value_rows(records: Sequence[ActionValues]) -> list[tuple[str, ...]]:
    """Return the rows of a table about the values of actions, one for each iteration; see `ACTION_VALUE_HEAD`."""
    return [
        (
            str(one["iteration"]),
            number_text(one["value_mean"]),
            number_text(one["truth_mean"]),
            f"{one['over_estimate']:.3g} ± {one['over_estimate_error']:.2g}",
            _or_dash(one["share_of_spread"]),
            f"{one['share_too_high']:.0%}",
            _or_dash(one["truth_explained"]),
            f"{one['states']} × {one['returns']}",
        )
        for one in records
    ]


def worst_rows(record: ActionValues) -> list[tuple[str, ...]]:
    """Return the rows of a table of the states whose values are the most too high; see `WORST_HEAD`."""
    rows = []
    for step, value, truth, seen in record["worst"]:
        words = ", ".join(f"{number:.3g}" for number in seen[:_MOST_COMPONENTS])
        more = ", ..." if len(seen) > _MOST_COMPONENTS else ""
        rows.append((f"{step:,}", number_text(value), number_text(truth), f"{value - truth:.3g}", words + more))
    return rows


_MOST_COMPONENTS = 8
"""Components of an observation that a table shows."""


def values_and_truth(record: ActionValues) -> Figure:
    """Draw the value of each state's action against the truth about it."""
    table = pl.DataFrame({"step": record["step"], "truth": record["truth"], "value": record["value"]})
    panel = blank(x="true discounted return", y="value", height=340, x_ticks=",~g")
    low, high = (float(edge([edge(record["truth"]), edge(record["value"])])) for edge in (min, max))
    panel.add_scatter(
        x=[low, high], y=[low, high], mode="lines", line={"color": LIGHT["muted"], "width": 1.2, "dash": "dot"},
        hoverinfo="skip",
    )  # fmt: skip
    panel.add_scatter(
        x=record["truth"],
        y=record["value"],
        mode="markers",
        marker={"size": 6, "symbol": "diamond", "color": series(0), "opacity": 0.7},
        customdata=record["step"],
        hovertemplate="value %{y:,.4~g}, true %{x:,.4~g}, step %{customdata:,}<extra></extra>",
    )
    keys = (LegendEntry("a state", "series-0", "diamond"), LegendEntry("value = truth", "muted", "level", dash="dot"))
    caption = f"Iteration {record['iteration']}: {record['states']} states of fresh episodes; above the line, too high."
    return Figure("values", "Values against the truth", caption, (panel,), table, keys, panel_width=300)


def _or_dash(share: float | None) -> str:
    return "-" if share is None else f"{float(share):.2f}"


_BASELINE_FIELDS = {"returns": str, "baseline": str, "samples": int, "cosine": float, "low": float, "high": float}


def baseline_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run's baselines by iteration."""

    def read(record: dict[str, Any]) -> dict[str, Any]:
        rows = [{name: kind(row[name]) for name, kind in _BASELINE_FIELDS.items()} for row in record["rows"]]
        variances = {
            row["baseline"]: tuple(float(row[name]) for name in ("ratio", "ratio_low", "ratio_high"))
            for row in record["steps"]
            if row["returns"] == "whole" and row["other"] == "none" and row["samples"] == rows[-1]["samples"]
        }
        names = ("iteration", "own_samples", "estimates", "fitted_pairs")
        return {"rows": rows, "variances": variances, **{name: int(record[name]) for name in names}}

    return diagnoses(folder, "baselines", read)


def baseline_agreement(records: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Mean cosine of two estimates against their size, a line a baseline, a panel an iteration and kind of return."""
    panels, tables, names = [], [], []
    for record in records:
        table = pl.DataFrame(record["rows"]).with_columns(iteration=pl.lit(record["iteration"]))
        tables.append(table)
        names = table["baseline"].unique(maintain_order=True).to_list()
        for kind, words in (("whole", "whole returns less a baseline"), ("own", "the run's own advantages")):
            title = f"iteration {record['iteration']}: {words}"
            panel = blank(title, x="steps of an estimate", y="mean cosine", height=320)
            for place, name in enumerate(names):
                rows = table.filter((pl.col("returns") == kind) & (pl.col("baseline") == name))
                _baseline_line(panel, rows, place, name)
            sizes = table["samples"].to_list()
            level(panel, 0.0, (min(sizes), max(sizes)), "no agreement", "dot")
            panel.add_vline(x=record["own_samples"], line={"color": LIGHT["muted"], "width": 1.4, "dash": "dash"})
            panels.append(panel)
    if not records:
        return None
    first = records[0]
    caption = (
        f"{first['estimates']} estimates of the policy's gradient, the same steps for every baseline, with 95 % "
        f"bootstrap intervals; dashed: the size of the run's own rollout. true: a fresh value network, fitted to "
        f"{first['fitted_pairs']:,} returns of the frozen policy; agent: the run's own; constant: the mean return. "
        + _variances(records)
    )
    keys = tuple(LegendEntry.of_series(name, place) for place, name in enumerate(names))
    table = pl.concat(tables).select("iteration", *_BASELINE_FIELDS)
    return Figure("baselines", "What does a baseline do for the gradient?", caption, tuple(panels), table, keys, 330)


def _baseline_line(panel: go.Figure, rows: pl.DataFrame, place: int, name: str) -> None:
    x = rows["samples"].cast(pl.Float64).to_numpy()
    band(panel, x, rows["low"].to_numpy(), rows["high"].to_numpy(), series(place), name)
    estimate_line(panel, x, rows["cosine"].to_list(), name, place)


def _variances(records: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence on the variance that each baseline leaves, in percent of that without one."""
    words = []
    for record in records:
        parts = (
            f"{name} {100 * value:.2g} [{100 * low:.2g}, {100 * high:.2g}]"
            for name, (value, low, high) in record["variances"].items()
        )
        words.append(f"iteration {record['iteration']}: {', '.join(parts)}")
    return f"Variance of a gradient of whole returns, in per cent of that with none: {'; '.join(words)}."


VALUE_HEAD = (
    "iteration",
    "explains of its own targets",
    "of single returns",
    "of the truth",
    "off from the truth by",
    "an update later, off from returns: learnt from, fresh",
    "from the truth: learnt from, fresh",
    "bias ± its error",
    "states × returns",
)


def _needs(records: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence on the steps that a cosine of .5 and .9 needs."""
    words = []
    for record in records:
        scale = record["noise_scale"]
        need = "more than was measured" if scale is None else f"{scale:,.0f} and {9 * scale:,.0f} steps"
        words.append(f"iteration {record['iteration']}: {need}")
    return f"A cosine of .5, and of .9, needs by the noise scale: {'; '.join(words)}."
