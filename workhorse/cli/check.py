"""`workhorse check TASK`."""

import dataclasses
import sys
import textwrap
from collections.abc import Sequence

import tyro

from workhorse.cli.environment_options import EnvironmentOptions, task_options_of
from workhorse.cli.options import parse

__all__ = ["finding_row", "run"]

WIDTH = 80
INDENT = 22
_MARKS = {"ok": "ok", "note": "note", "stop": "STOP"}
_COLOURS = {"ok": "32", "note": "33", "stop": "31;1"}


@dataclasses.dataclass
class TaskToCheck:
    """The task that `workhorse check` looks at."""

    task: tyro.conf.Positional[str]
    """The task, a Gymnasium id, or module:id for one of your own."""


@dataclasses.dataclass
class CheckOptions(EnvironmentOptions, TaskToCheck):
    """Look at a task as training would meet it, and say what training would stumble over.

    It plays some seconds of random actions. The exit code is 0 where the task can be trained on, else 2.
    """


def run(arguments: Sequence[str]) -> int:
    """Check a task, print what was found, and return the exit code."""
    options = parse(CheckOptions, arguments)
    task_options = task_options_of(options)
    from workhorse.environments.survey import survey

    print(f"{options.task}{''.join(f'  {name}={value}' for name, value in task_options.items())}\n")
    verdicts = []
    for finding in survey(options.task, task_options):
        verdicts.append(finding.verdict)
        print(finding_row(finding.topic, finding.verdict, finding.text), flush=True)
    print()
    if "stop" in verdicts:
        print("It cannot be trained on as it is.")
        return 2
    notes = verdicts.count("note")
    print("It can be trained on" + (f"; {notes} note{'s' if notes > 1 else ''} above." if notes else "."))
    return 0


def finding_row(topic: str, verdict: str, text: str) -> str:
    """Return a finding, wrapped to 80 columns."""
    mark = f"{_MARKS[verdict]:<4}"
    if sys.stdout.isatty():
        mark = f"\x1b[{_COLOURS[verdict]}m{mark}\x1b[0m"
    lines = textwrap.wrap(text, WIDTH - INDENT, break_long_words=False, break_on_hyphens=False)
    return f"  {topic:<14}{mark}  " + f"\n{'':<{INDENT}}".join(lines)
