"""Print what `workhorse diagnose` found, from the records that it keeps."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from workhorse.api.diagnosis import DiagnosisObserver
from workhorse.diagnostics import store
from workhorse.diagnostics.trust_region import Promise
from workhorse.statistics.gradient_quality import expected_cosine

__all__ = ["DiagnosisDisplay"]

Record = dict[str, Any]
"""A study of `workhorse.diagnostics` as plain JSON."""

ENOUGH_ESTIMATES = 6
"""Fewest estimates whose agreement can be told from chance at the 5 % level."""


def print_gradients(record: Record) -> None:
    own = record["own_samples"]
    title = (
        f"iteration {record['iteration']}: {record['estimates']} estimates of the gradient of {record['parameters']:,} "
        f"parameters, reference of {record['reference_samples']:,} steps"
    )
    if record.get("step_reference_samples"):  # older records have none
        title += f", {record['step_reference_samples']:,} for the step"
    scale = record["noise_scale"]
    heads = ("steps", "cosine of two [95 %]", "by B", "to reference", "")
    table = Table(*heads, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for row in record["gradients"]:
        words = _cosine(row)
        notes = ["the run's own"] if row["samples"] == own else []
        if record["estimates"] < ENOUGH_ESTIMATES:
            notes.append("too few estimates to tell")
        elif row["p_value"] is None or row["p_value"] > 0.05:
            notes.append("no agreement")
        predicted = "-" if scale is None else f"{expected_cosine(scale, row['samples']):.3f}"
        table.add_row(f"{row['samples']:,}", words, predicted, _number(row["to_reference"]), ", ".join(notes))
    for row in record["steps"]:
        table.add_row(f"step of {row['samples']:,}", _cosine(row), "", _number(row["to_reference"]), "")
    Console().print(table)
    if not record["steps"]:
        print("The algorithm takes no step here: its learning rate is zero.")
    if scale is None:
        print("Gradient estimates do not agree yet: the noise is too large to be measured within this budget.")
        return
    own_cosine = next(row["cosine"] for row in record["gradients"] if row["samples"] == own)
    print(
        f"cosine {own_cosine:.2f} at {own:,}; .5 needs {scale:,.0f}, .9 needs {9 * scale:,.0f} steps "
        "(the noise scale, and nine times it)"
    )


def _cosine(row: Record) -> str:
    return f"{_number(row['cosine'])} [{_number(row['low'])}, {_number(row['high'])}]"


def _number(value: float | None, form: str = ".3f") -> str:
    """Return a number as text, and a dash for None."""
    return "-" if value is None else f"{value:{form}}"


def print_values(record: Record) -> None:
    if "over_estimate" in record:
        print_action_values(record)
        return
    print(
        f"value function at iteration {record['iteration']}, {record['states']} states never trained on, "
        f"{record['returns']} returns of up to {record['horizon']:,} steps from each:"
    )
    own, returns, truth = (_share(record, f"{name}_explained") for name in ("own", "return", "truth"))
    print(f"  explains {own} of its own targets, {returns} of single returns, {truth} of the truth")
    own, returns, truth = (_share(record, f"{name}_error") for name in ("own", "return", "truth"))
    print(f"  differs by {own} from its targets, {returns} from single returns, {truth} from the truth, on average")
    print(
        f"  bias {_number(record['bias'], '.3g')} (standard error {_number(record['bias_error'], '.2g')}); the truth "
        f"spreads by {_number(record['truth_spread'], '.3g')} over states, returns by "
        f"{_number(record['return_spread'], '.3g')} from one state"
    )
    learnt, unseen = record["learnt"], record["unseen"]
    for words, one in (("on steps learnt from", learnt), ("on fresh steps", unseen)):
        own, returns, truth = (_share(one, f"{name}_error") for name in ("own", "return", "truth"))
        off = f"{own} from its targets, {returns} from single returns, {truth} from the truth"
        print(f"  an update later, {words}: {off}")


def print_action_values(record: Record) -> None:
    print(
        f"values of actions at iteration {record['iteration']}, {record['states']} states of fresh episodes, "
        f"{record['returns']} returns of up to {record['horizon']:,} steps from each"
        f"{', entropy included' if record['soft'] else ''}:"
    )
    over, share = record["over_estimate"], record["share_of_spread"]
    print(
        f"  values are too {'high' if over > 0 else 'low'} by {_number(abs(over), '.3g')} on average (standard error "
        f"{_number(record['over_estimate_error'], '.2g')}): {_number(record['value_mean'], '.4g')} where "
        f"{_number(record['truth_mean'], '.4g')} is true"
    )
    told = (
        "" if share is None else f"{abs(share):.2f} of the truth's spread over states, {record['truth_spread']:.3g}; "
    )
    print(
        f"  {told}too high in {record['share_too_high']:.0%} of the states; they explain "
        f"{_number(record['truth_explained'], '.2f')} of the truth's variance"
    )
    table = Table("step", "value", "true", "too high by", "observation", box=box.SIMPLE_HEAD, pad_edge=False)
    for one in record["worst"]:
        seen = " ".join(f"{number:.3g}" for number in one["observation"][:6])
        more = " ..." if len(one["observation"]) > 6 else ""
        numbers = (one["value"], one["truth"], one["value"] - one["truth"])
        table.add_row(f"{one['step']:,}", *(f"{number:.4g}" for number in numbers), seen + more)
    Console().print(table)


def _share(record: Record, name: str) -> str:
    return _number(record[name], ".2f")


def print_baselines(record: Record) -> None:
    for kind, words in (("whole", "whole returns less a baseline"), ("own", "the run's own advantages")):
        title = f"iteration {record['iteration']}, {words}: cosine of two of {record['estimates']} gradients"
        _print_baseline_table(record, kind, title)
    print(
        f"V*, fitted to {record['fitted_pairs']:,} returns, explains {_share(record, 'true_explained')} of "
        f"{record['judged_pairs']:,} fresh ones and differs by {_share(record, 'true_error')} from them on average; "
        f"the agent's value {_share(record, 'agent_explained')} and {_share(record, 'agent_error')}"
    )


def _print_baseline_table(record: Record, kind: str, title: str) -> None:
    rows = [row for row in record["rows"] if row["returns"] == kind]
    own, most = record["own_samples"], max(row["samples"] for row in rows)
    heads = (f"of {own:,}", f"of {most:,} [95 %]", "noise scale", "variance, % of none")
    table = Table("baseline", *heads, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in dict.fromkeys(row["baseline"] for row in rows):
        first, last = (
            next(row for row in rows if (row["baseline"], row["samples"]) == (name, size)) for size in (own, most)
        )
        scale = "-" if last["noise_scale"] is None else f"{last['noise_scale']:,.0f}"
        ratio = "100" if name == "none" else _interval(_step(record, kind, most, name), *_RATIO, form=".2g", times=100)
        table.add_row(name, f"{first['cosine']:.2f}", _interval(last, "cosine", "low", "high"), scale, ratio)
    Console().print(table)
    steps = [_step(record, kind, most, *pair) for pair in (("agent", "constant"), ("true", "agent"))]
    gains = (f"{step['baseline']} over {step['other']} {_interval(step, *_DIFFERENCE)}" for step in steps)
    print(f"cosine gained at {most:,}: {', '.join(gains)}")


_RATIO, _DIFFERENCE = ("ratio", "ratio_low", "ratio_high"), ("difference", "low", "high")


def _step(record: Record, kind: str, samples: int, baseline: str, other: str = "none") -> Record:
    """Return the comparison of one baseline with another."""
    wanted = (kind, samples, baseline, other)
    return next(
        row for row in record["steps"] if (row["returns"], row["samples"], row["baseline"], row["other"]) == wanted
    )


def _interval(row: Record, *names: str, form: str = ".2f", times: float = 1.0) -> str:
    value, low, high = ("-" if row[name] is None else f"{times * row[name]:{form}}" for name in names)
    return f"{value} [{low}, {high}]"


def print_landscape(record: Record) -> None:
    surface, axis, line = record["surfaces"][-1], record["axis"], record["line"]
    places = [(x, y) for y in axis for x in axis]
    rewards = [reward for row in surface["reward"] for reward in row]
    best, (at_x, at_y) = max(zip(rewards, places, strict=True))
    print(
        f"iteration {record['iteration']}: {record['grid']} x {record['grid']} points of about {record['pairs']:,} "
        f"steps, {record['episodes']:,} whole episodes; a step of length {record['step_length']:.3g} and a random "
        f"direction of length {record['random_length']:.3g} in {record['parameters']:,} parameters"
    )
    print(f"best point: {at_x:.1f} steps, {at_y:.1f} random: {best:,.4g}; at the policy itself: {rewards[0]:,.4g}")
    table = Table("steps a point", "smoothness [95 %]")
    for row in record["surfaces"]:
        table.add_row(f"{row['pairs']:,}", f"{row['smoothness']:.2f} [{row['low']:.2f}, {row['high']:.2f}]")
    Console().print(table)
    table = Table("along the step", "reward", "change [95 %]", "the reward", "surrogate")
    for row in line:
        surrogate = "" if row["verdict"] == "-" else _number(row["surrogate"], "+.3g")
        change = "" if row["verdict"] == "-" else f"{row['change']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]"
        table.add_row(f"{row['x']:g}", f"{row['reward']:,.4g}", change, _LINE_WORDS[row["verdict"]], surrogate)
    Console().print(table)


_LINE_WORDS = {"-": "", "raises": "rises", "lowers": "falls", "cannot be told": "cannot be told"}


def print_log_values(record: Record) -> None:
    measures = record["measures"]
    print(f"values at iteration {record['iteration']}, on {record['steps']:,} held-out steps:")
    for words, names in _LOG_LINES:
        parts = [f"{word} {_number(measures.get(name), form)}" for word, name, form in names if name in measures]
        if parts:
            print(f"  {words}: {', '.join(parts)}")
    print(f"  {record['verdict']}")


_LOG_LINES: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("values", (("of the policy's actions", "policy_value", ".4g"), ("of the log's", "data_value", ".4g"))),
    ("returns of the log", (("mean", "data_return", ".4g"), ("spread", "data_return_spread", ".3g"),
                            ("values above them by", "return_gap", ".3g"))),
    ("highest value", (("of the task", "value_bound", ".4g"), ("by the log's rewards", "seen_value_bound", ".4g"),
                       ("above it", "above_bound", ".0%"))),
    ("actions", (("without support", "outside_support", ".0%"), ("preferred by", "action_gap", ".3g"))),
    ("squared error", (("held out", "held_out_error", ".3g"), ("learnt from", "trained_error", ".3g"))),
)  # fmt: skip


SHOWN: dict[store.Part, Callable[[Record], None]] = {
    "gradients": print_gradients,
    "values": print_values,
    "baselines": print_baselines,
    "landscape": print_landscape,
    "log": print_log_values,
}


class DiagnosisDisplay(DiagnosisObserver):
    """Prints every measurement as soon as it is there, and shows a bar while one is made."""

    def promised(self, promises: Sequence[Promise]) -> None:
        for promise in promises:
            print(promise.sentence)

    def measured(self, part: store.Part, record: Record) -> None:
        SHOWN[part](record)

    def noted(self, sentence: str) -> None:
        print(sentence)

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda env_steps: bar.advance(task, env_steps)
