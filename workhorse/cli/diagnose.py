"""`workhorse diagnose RUN`, and `workhorse diagnose LOG --only confusion`."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Sequence
from typing import Literal

import tyro

from workhorse.cli.confusion import asks_for_confusion
from workhorse.cli.confusion import run as of_log
from workhorse.cli.options import Count, parse
from workhorse.cli.places import RunPath

__all__ = ["run"]

Topic = Literal["gradients", "values", "baselines", "trust-region", "landscape", "log"]


@dataclasses.dataclass
class DiagnoseOptions:
    """Check the assumptions of a policy gradient on a finished or unfinished run.

    Do its gradient estimates agree? How good is its value function? Did its trust region hold? Does its surrogate
    follow the reward? Earlier measurements are kept and not repeated.

    Of a run from a log: are its values within what rewards allow, and near what the log shows?
    Of demonstrations, `workhorse diagnose LOG --only confusion` takes --evaluate-on, --expert, --interventions and
    others, which it lists with --help.
    """

    run: tyro.conf.Positional[RunPath]
    """The run folder, as in runs/<id>, finished or not."""
    at: tuple[int, ...] = ()
    """Iterations to measure, among those whose state was kept; by default the first, the last and two between."""
    only: tuple[Topic, ...] = ()
    """Parts to measure; by default gradients, values and trust-region, and log of a run from a log. The others take
    minutes or more."""
    budget: Count | None = None
    """Environment steps for each part at each iteration; by default 1,000,000, and for the landscape no limit."""
    estimates: int = 10
    """Independent estimates of each gradient, at least 3."""
    grid: int = 31
    """Points of the landscape along each axis."""
    pairs: Count = 20_000
    """Environment steps at each point of the landscape."""
    threads: int = 0
    """Simulation threads; 0 uses one for each core."""
    trust: bool = False
    """Run code of a run from elsewhere: the modules of its task and algorithm. Remembered for the run."""


def run(arguments: Sequence[str]) -> int:
    """Measure the assumptions of a policy gradient on a run, print them, and return the exit code."""
    if asks_for_confusion(arguments):  # of a log, and not of a run
        return of_log(arguments)
    options = parse(DiagnoseOptions, arguments)
    from workhorse.runs.trust import open_run

    folder = open_run(options.run, options.trust)
    from workhorse.api.diagnosis import Question, diagnose
    from workhorse.cli.diagnosis_display import DiagnosisDisplay
    from workhorse.reports.run_page import write_run_report

    asked = {name: getattr(options, name) for name in Question.__dataclass_fields__}
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop as at Ctrl-C
    try:
        diagnose(folder, Question(**asked), DiagnosisDisplay())
    except KeyboardInterrupt:
        print(f"Stopped; measurements are kept. Continue with: workhorse diagnose {folder.path} ...")
        raise
    print(f"Report: {write_run_report(folder.path)}")
    return 0
