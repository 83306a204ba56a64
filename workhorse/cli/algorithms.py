"""`workhorse algorithms [NAME]`."""

import dataclasses
from collections.abc import Sequence

import tyro

from workhorse.algorithms.registry import entries, entry, options
from workhorse.cli.options import parse

__all__ = ["run"]


@dataclasses.dataclass
class AlgorithmsOptions:
    """List the algorithms, or the options of one."""

    name: tyro.conf.Positional[str | None] = None
    """List the options of this algorithm."""


def run(arguments: Sequence[str]) -> int:
    """List the algorithms, or the options of one, and return the exit code."""
    chosen = parse(AlgorithmsOptions, arguments).name
    if chosen is None:
        width = max(map(len, entries()))
        for row in entries().values():
            print(f"{row.name:<{width}}  {row.summary}")
        print("\n`workhorse algorithms NAME` lists an algorithm's options.")
        return 0
    rows = [
        (f"--{option.name.replace('_', '-')}", str(option.default), option.help) for option in options(chosen).values()
    ]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    print(f"{chosen}: {entry(chosen).summary}\n")
    for flag, default, text in rows:
        print(f"  {flag:<{first}}  {default:<{second}}  {' '.join(text.split())}")
    return 0
