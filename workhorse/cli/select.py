"""`workhorse select LOG RUN RUN ...`."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from workhorse.cli.options import Count, parse

if TYPE_CHECKING:
    from workhorse.diagnostics.selection import Candidate, Selection

__all__ = ["run"]


@dataclasses.dataclass
class SelectOptions:
    """Choose among the policies of some runs by a log alone, without playing them.

    Fitted Q evaluation decides. Importance sampling and doubly robust estimates stand beside it, with the effective
    number of episodes that they rest on: where it is near 1, they say nothing. Where all runs were evaluated in the
    task, the truth is shown too, and how well each estimator would have chosen.
    """

    log: tyro.conf.Positional[str]
    """The log, in any format that `workhorse dataset` reads; best one that nothing was learnt from."""
    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(help_behavior_hint="(at least one)")]
    """The run folders."""
    discount: float = 0.99
    """Weight of a reward one step later, in all estimates."""
    width: float = 0.1
    """Standard deviation of the density around a policy's actions that importance sampling needs, in halves of an
    action's range; among choices the probability of any instead of the policy's own."""
    updates: Count = 20_000
    """Updates of fitted Q evaluation for each run."""
    seed: int = 0
    """Seed of all draws."""
    json: bool = False
    """Print the result as JSON and nothing else."""


def run(arguments: Sequence[str]) -> int:
    """Judge policies by a log, print the estimates and their ranking, and return the exit code."""
    options = parse(SelectOptions, arguments)
    from workhorse.data.opening import open_dataset
    from workhorse.diagnostics.selection import folders, select
    from workhorse.diagnostics.store import plain_json

    runs = folders(options.runs)
    found = select(
        open_dataset(options.log), runs, discount=options.discount, width=options.width, updates=options.updates,
        seed=options.seed, told=(lambda sentence: print(sentence, file=sys.stderr, flush=True)),
    )  # fmt: skip
    if options.json:
        print(json.dumps(plain_json(_record(found)), indent=1))
        return 0
    _print(found)
    return 0


def _record(found: Selection) -> dict:
    candidates = [
        {
            "run": one.name, "truth": one.truth, "twins": one.twins,
            "estimates": {
                name: {"value": given.interval.value, "low": given.interval.low, "high": given.interval.high,
                       "effective": given.effective}
                for name, given in one.estimates.items()
            },
        }
        for one in found.candidates
    ]  # fmt: skip
    return {
        "log": found.log, "discount": found.discount, "chosen": found.chosen().name, "candidates": candidates,
        "rankings": {name: dict(one._asdict()) for name, one in found.rankings.items()}, "notes": list(found.notes),
    }  # fmt: skip


def _print(found: Selection) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from workhorse.diagnostics.selection import FITTED
    from workhorse.reports.wording import number_text

    console, names = Console(), _names(found)
    ordered = sorted(found.candidates, key=lambda one: -one.estimates[FITTED].interval.value)
    table = Table(
        "run", "fitted Q [95 %]", "twins differ by", "weighted DR [95 %]", "effective episodes", "own values", "truth",
        box=box.SIMPLE_HEAD, pad_edge=False, title=f"Policies by the log {found.log}", title_justify="left",
    )  # fmt: skip
    for one in ordered:
        weighted = one.estimates["weighted doubly robust"]
        own = one.estimates.get("own values")
        truth = "-" if one.truth is None else number_text(one.truth)
        table.add_row(
            names[one.name], _interval(one, FITTED), number_text(one.twins), _interval(one, "weighted doubly robust"),
            number_text(weighted.effective, 2), "-" if own is None else number_text(own.interval.value), truth,
        )  # fmt: skip
    console.print(table)
    if found.rankings:
        table = Table("estimator", "chooses", "rank correlation", "regret at 1", box=box.SIMPLE_HEAD, pad_edge=False)
        for name, rank in found.rankings.items():
            correlation = "-" if math.isnan(rank.correlation) else f"{rank.correlation:.2f}"
            table.add_row(name, names[found.chosen(name).name], correlation, f"{rank.regret:.0%}")
        chance = next(iter(found.rankings.values())).regret_of_chance
        table.add_row("a random choice", "any", "0", f"{chance:.0%}")
        console.print(table)
        print("Regret: what the chosen policy's truth lacks of the best one's, as a share of what the worst lacks.")
    for note in found.notes:
        print(note)
    print(f"Chosen: {found.chosen().name}")


def _names(found: Selection) -> dict[str, str]:
    """Return short names of the runs: those of their folders, where these differ, from where they do.

    *A table cuts long names at their end*, where runs of one task would otherwise look alike.
    """
    short = {one.name: Path(one.name).name for one in found.candidates}
    if len(set(short.values())) < len(short):
        return {name: name for name in short}
    first, last = min(short.values()), max(short.values())  # what these two share, all do
    same = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), 0)
    begin = first[:same].rfind("-") + 1
    return {name: text[begin:] for name, text in short.items()}


def _interval(one: Candidate, name: str) -> str:
    from workhorse.reports.wording import interval_text

    return interval_text(one.estimates[name].interval)
