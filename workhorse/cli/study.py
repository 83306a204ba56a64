"""`workhorse study [FILE | STUDY]`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import tyro

from workhorse.cli.cluster import ClusterOptions, loop_maker
from workhorse.cli.options import Count, parse, parse_task_options
from workhorse.core.errors import UsageError

__all__ = ["check_by_building", "conclude", "run"]


@dataclasses.dataclass
class StudyOptions(ClusterOptions):
    """What `study` takes: a study file, a study folder to go on with, or tasks and algorithms."""

    study: tyro.conf.Positional[str | None] = None
    """A study file in YAML, or the folder of a study to go on with; neither with --tasks and --algorithms."""
    tasks: tuple[str, ...] = ()
    """Tasks, crossed with the algorithms."""
    algorithms: tuple[str, ...] = ()
    """Algorithms, each with its recipe for the task where there is one."""
    seeds: int | None = None
    """Seeds of each algorithm on each task, from 0; 10 where the file does not say."""
    env_steps: Count | None = None
    """Training steps of every run; by default the recipe's."""
    task_option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An option of the task, as name=value, for a study of one task; may be given several times."""
    threshold: float | None = None
    """The return from which on a run is a success, for a study of one task; by default the task's own."""
    perturbations: bool = False
    """Try every trained policy on changed versions of its task."""
    until: str | None = None
    """Add seeds until every interval is narrow enough, as 'failure_rate width < 0.3'; needs --budget."""
    budget: str | None = None
    """What the study may take, as '2 core-hours'; no run is begun beyond it."""
    cores: int = 0
    """Worker processes, one seed each; 0 for one a core."""
    studies: str = "studies"
    """The folder that holds the studies."""
    id: str | None = None
    """The study's name; by default from the time."""
    quiet: bool = False
    """Print nothing but the table at the end."""


DESCRIPTION = (
    "Train many seeds, and say how often it works, how good it is, what it costs and what breaks it. A study can be "
    "stopped and gone on with: workhorse study STUDY_FOLDER. A seed that crashes is counted."
)
_OF_A_NEW_STUDY = (
    "tasks",
    "algorithms",
    "seeds",
    "env_steps",
    "task_option",
    "threshold",
    "perturbations",
    "until",
    "budget",
    "id",
)


def run(arguments: Sequence[str]) -> int:
    """Conduct a study; the exit code."""
    options = parse(StudyOptions, "study", arguments, DESCRIPTION)
    if options.cores < 0:
        raise UsageError(f"--cores must be at least 1, or 0 for one a core: got {options.cores}.")
    from workhorse.studies.conduct import check_cluster
    from workhorse.studies.folder import StudyFolder

    folder = _existing(options)
    if folder is None:
        plan = _plan(options)
        check_by_building(plan)
        if options.cluster is not None:
            check_cluster(plan)
        make = loop_maker(options, print)
        folder = StudyFolder.create(options.studies, options.id, plan, ("workhorse", "study", *arguments))
    else:
        make = loop_maker(options, print)

    conclude(folder, options.cores, options.quiet, make)
    return 0


def conclude(folder: Any, cores: int, quiet: bool, make: Any = None) -> None:
    """Conduct a study to its end, write its page, and print what came of it."""
    from rich.console import Console

    from workhorse.cli.study_display import cell_table, study_display_for
    from workhorse.reports.study_page import write_study_report
    from workhorse.runs.train import available_threads
    from workhorse.studies.cells import summarise
    from workhorse.studies.conduct import conduct
    from workhorse.studies.outliers import outlying_seeds
    from workhorse.studies.table import write_table
    from workhorse.studies.tuning import searched
    from workhorse.studies.verdicts import verdicts

    with folder.lock(), study_display_for(quiet) as display:
        results = conduct(folder, cores or available_threads(), display, make)
        write_table(results, folder.path / "results.parquet")
        page = write_study_report(results, folder.path)
    cells = summarise(results)
    Console().print(cell_table(cells))
    print("grades: reliability / robustness / cost, from A to E; the page says what they mean")
    for verdict in verdicts(results, cells):
        print(verdict.sentence)
    for search, gap in searched(results):
        apart = f" [{gap.gap.low:.4g}, {gap.gap.high:.4g}]" if gap.gap else ""
        print(
            f"Search of {search.algorithm} on {search.task}: {gap.promised:.4g} on the tuning seeds, "
            f"{gap.delivered:.4g} on fresh ones; the winner's curse is {gap.promised - gap.delivered:.4g}{apart}."
        )
    for sentence in (*outlying_seeds(cells), *results.notes):
        print(sentence)
    print(f"{folder.core_hours():.3f} core-hours in all. The page to look at: {page}")


def _existing(options: StudyOptions) -> Any:
    """The study to go on with; None for a new one."""
    from workhorse.studies.folder import StudyFolder, is_study

    if options.study is None or (not is_study(options.study) and not os.path.isdir(options.study)):
        return None
    folder = StudyFolder.open(options.study)
    for name in _OF_A_NEW_STUDY:
        if getattr(options, name) != getattr(StudyOptions, name):
            flag = name.replace("_", "-")
            raise UsageError(
                f"--{flag} is for a new study, and {options.study} has begun: leave it out, or begin another study."
            )
    return folder


def _plan(options: StudyOptions) -> Any:
    """The plan of a new study, from the file and what the command line adds to it."""
    from workhorse.studies.study_file import plan_of, read_plan

    words = read_plan(options.study) if options.study is not None else {}
    words = {**words, "tasks": [words["tasks"]]} if isinstance(words.get("tasks"), str) else words
    given: dict[str, Any] = {
        "tasks": list(options.tasks),
        "algorithms": list(options.algorithms),
        "seeds": options.seeds,
        "env_steps": options.env_steps,
        "thresholds": options.threshold,
        "perturbations": options.perturbations,
        "until": options.until,
        "budget": options.budget,
    }
    for name, value in given.items():
        if value is None or value is False or value == []:
            continue
        if name in words:
            raise UsageError(
                f"`{name}` is given by {options.study} and on the command line: leave it out in one of the two places."
            )
        words[name] = value
    task_options = parse_task_options(options.task_option)
    if task_options or options.threshold is not None:
        if not isinstance(words.get("tasks"), list) or len(words["tasks"]) != 1:
            raise UsageError("--task-option and --threshold are for a study of one task: write a study file for more.")
        if task_options:
            words["task_options"] = {words["tasks"][0]: task_options}
    return plan_of(words, options.study or "the command line")


def _ends_of_search(plan: Any) -> list[tuple[str, dict[str, Any]]]:
    """(algorithm, setting) of every choice, and of both ends of every range, one option at a time.

    Raises:
        UsageError: a range of whole numbers whose end is none.
    """
    from workhorse.algorithms import registry
    from workhorse.studies.search import is_whole

    found = []
    for algorithm in plan.algorithms if plan.search else ():
        for name, span in plan.search.ranges.items():
            ends = span.choices or (span.low, span.high)
            if not span.choices and is_whole(registry.options(algorithm)[name].annotation):
                if any(end != int(end) for end in ends):
                    raise UsageError(f"{name} of {algorithm} takes whole numbers: search between such, got {ends}.")
                ends = tuple(map(int, ends))
            found += [(algorithm, {name: end}) for end in ends]
    return found


def check_by_building(plan: Any) -> None:
    """Build every cell once, so that a setting that cannot be is found before the first run.

    Raises:
        UsageError: an option out of range, a task that cannot be made, actions that an algorithm cannot take.
    """
    from workhorse.robustness.ranges import read_ranges
    from workhorse.training.plan import Plan

    if plan.perturbations:
        read_ranges(plan.perturbations)
    settings = [*plan.cells(), *((task, name, one) for task in plan.tasks for name, one in _ends_of_search(plan))]
    for task, algorithm, setting in settings:
        job = plan.job(task, algorithm, setting, plan.seeds[0])
        built = Plan(task, job.task_options, algorithm, job.settings, job.seed)
        built.make_algorithm(built.spec())
