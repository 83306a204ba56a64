"""`workhorse warnings [RULE or RUN]`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import tyro

from workhorse.cli.options import parse
from workhorse.core.errors import unknown

__all__ = ["run"]


@dataclasses.dataclass
class WarningsOptions:
    """List the warnings that a training run can give.

    Name a rule to have it explained, or a run folder for the warnings that today's rules find in its metrics.
    """

    what: tyro.conf.Positional[str] = ""
    """The name of a rule, or a run folder such as runs/<id>; leave out to list all rules."""


def run(arguments: Sequence[str]) -> int:
    """List all rules, explain one, or list the warnings of a run; return the exit code."""
    options = parse(WarningsOptions, arguments)
    from workhorse.runs.warnings import OTHER_RULES, RULES

    rules = {rule.name: rule for rule in (*RULES, *OTHER_RULES)}
    if not options.what:
        width = max(map(len, rules))
        for name, rule in rules.items():
            print(f"{name:<{width}}  {rule.meaning}")
        return 0
    if options.what in rules:
        rule = rules[options.what]
        print(fill(rule.meaning, 100))
        for head, text in rule.explained.items():
            print(fill(text, 100, initial_indent=f"  {head:<9} ", subsequent_indent=" " * 12))
        return 0
    if "/" not in options.what and not Path(options.what).exists():
        raise unknown("rule", options.what, list(rules), "workhorse warnings")
    return _of_run(options.what)


def _of_run(path: str) -> int:
    from workhorse.runs.folder import RunFolder
    from workhorse.runs.metrics import read_metrics
    from workhorse.runs.warnings import Watch, read_warnings

    folder = RunFolder.open(path)
    watch = Watch(folder.manifest().settings)
    watch.begin([warned for warned in read_warnings(folder) if warned.iteration == 0])
    rows = read_metrics(folder).to_dicts() if folder.has_metrics else []
    for row in rows:
        watch.see(row)
    for warned in watch.given:
        print(warned)
    if not watch.given:
        print(f"No warning in {len(rows):,} iterations.")
    return 0
