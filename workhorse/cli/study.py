"""`workhorse study [FILE | STUDY]`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tyro

from workhorse.cli.cluster import ClusterOptions, loop_maker
from workhorse.cli.environment_options import EnvironmentOptions, task_options_of
from workhorse.cli.options import Count, parse
from workhorse.cli.places import StudyPath
from workhorse.core.errors import UsageError
from workhorse.core.machine import threads_or_cores

if TYPE_CHECKING:  # imported by the functions below, so that `--help` needs no JAX
    from workhorse.studies.cluster_pool import JobTransport
    from workhorse.studies.folder import StudyFolder
    from workhorse.studies.plan import StudyPlan
    from workhorse.training.loop import MakeLoop

__all__ = ["conclude", "job_transport", "run"]


@dataclasses.dataclass
class StudyOptions(ClusterOptions, EnvironmentOptions):
    """Train many seeds and report success rate, return, cost and robustness, with intervals.

    A study can be stopped and continued: workhorse study STUDY_FOLDER. Crashed seeds count as failures.
    """

    study: tyro.conf.Positional[StudyPath | None] = None
    """A study file in YAML, or the folder of a study to continue; leave out with --tasks and --algorithms."""
    tasks: tuple[str, ...] = ()
    """Tasks; every algorithm is trained on each."""
    algorithms: tuple[str, ...] = ()
    """Algorithms, each with its recipe for the task if there is one."""
    seeds: int | None = None
    """Number of seeds of each algorithm on each task, from 0; by default 10."""
    env_steps: Count | None = None
    """Training steps of each run; by default the recipe's."""
    threshold: float | None = None
    """Lowest final return of a successful run, for a study of one task; by default the task's own."""
    perturbations: bool = False
    """Also evaluate every trained policy on changed versions of its task."""
    until: str | None = None
    """Add seeds until every interval is narrow enough, such as 'failure_rate width < 0.3'; needs --budget."""
    budget: str | None = None
    """Limit of the study, such as '2 core-hours'; no run starts beyond it."""
    cores: int = 0
    """Worker processes of this machine, one seed each; 0 uses one for each core."""
    cluster: str | None = None
    """Train the runs on a Ray cluster: auto (the one this machine is in, else its own cores), local, or HOST:PORT."""
    workers: int | None = None
    """With --cluster: most runs side by side, a core each; by default as many as it has cores, also later."""
    each_on_all: bool = False
    """With --cluster: train one run of an evolution strategy at a time, spread over all workers, instead of all runs
    side by side, a core each."""
    studies: str = "studies"
    """Folder of the studies."""
    id: str | None = None
    """Name of the study; by default made from the time."""
    trust: bool = False
    """Run code of a study from elsewhere: the modules of its tasks and algorithms. Remembered for the study."""
    quiet: bool = False
    """Print only the final table."""


_OF_A_NEW_STUDY = (
    "tasks",
    "algorithms",
    "seeds",
    "env_steps",
    "task_option",
    "wrapper",
    "frame_stack",
    "max_episode_steps",
    "threshold",
    "perturbations",
    "until",
    "budget",
    "id",
)


def run(arguments: Sequence[str]) -> int:
    """Conduct a study and return the exit code."""
    options = parse(StudyOptions, arguments)
    threads_or_cores(options.cores, "--cores")
    from workhorse.studies.building import check_by_building
    from workhorse.studies.folder import StudyFolder

    folder = _existing(options)
    plan = _plan(options) if folder is None else folder.plan
    if folder is None:
        check_by_building(plan)
    make, transport = _cluster(options, plan)
    if folder is None:
        folder = StudyFolder.create(options.studies, options.id, plan, ("workhorse", "study", *arguments))
    conclude(folder, options.cores, options.quiet, make, transport)
    return 0


def _cluster(options: StudyOptions, plan: StudyPlan) -> tuple[MakeLoop | None, JobTransport | None]:
    """Return what spreads a run over a cluster, or what has runs trained side by side there; two None for neither."""
    if options.cluster is None and options.each_on_all:
        raise UsageError("--each-on-all is for studies on a cluster. Add --cluster auto, or leave it out.")
    if options.cluster is None or options.each_on_all:
        if options.each_on_all:
            from workhorse.studies.conduct import check_cluster

            check_cluster(plan)
        return loop_maker(options, print, plan.algorithms), None
    if options.cores:
        raise UsageError("--cores is for worker processes of this machine: on a cluster it is --workers.")
    return None, job_transport(options, print)


def job_transport(options: ClusterOptions, note: Callable[[str], None]) -> JobTransport | None:
    """Return the transport to a cluster's workers for runs side by side, connected to it; None for no cluster.

    Raises:
        UsageError: an option for a run that is spread over the cluster, or one that needs a cluster; a number out of
            range; a cluster that cannot be reached.
    """
    if options.cluster is None:
        loop_maker(options, note, ())  # refuses the options of a cluster
        return None
    for field in dataclasses.fields(ClusterOptions):
        if field.name not in ("cluster", "workers") and getattr(options, field.name) != field.default:
            word = field.name.replace("_", "-")
            raise UsageError(
                f"--{word} is for a run that is spread over the whole cluster, and the runs of a study are trained "
                "side by side, a core each: leave it out, or use `workhorse study` with --each-on-all."
            )
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers must be at least 1: got {options.workers}.")
    from workhorse.distributed.ray_jobs import RayJobs
    from workhorse.distributed.ray_transport import connect
    from workhorse.studies.job_worker import JobWorker

    connect(options.cluster, note)
    return RayJobs(JobWorker, options.workers, note)


def conclude(
    folder: StudyFolder,
    cores: int,
    quiet: bool,
    make: MakeLoop | None = None,
    transport: JobTransport | None = None,
) -> None:
    """Conclude a study to its end, write its report, and print the results."""
    from rich.console import Console

    from workhorse.api.study import conducted
    from workhorse.display.study_display import cell_table, study_display_for, table_notes
    from workhorse.reports.study_tables import rival_sentences, spending_text
    from workhorse.studies.cells import summarise
    from workhorse.studies.outliers import outlying_seeds
    from workhorse.studies.spending import spending
    from workhorse.studies.tuning import search_sentences
    from workhorse.studies.verdicts import unequal_steps, verdicts

    with study_display_for(quiet) as display:
        results, page = conducted(folder, cores, display, make, transport)
    cells = summarise(results)
    Console().print(cell_table(cells))
    print("grades: reliability / robustness / cost, from A to E; the report explains them")
    for note in table_notes(cells):
        print(note)
    for verdict in verdicts(results, cells):
        print(verdict.sentence)
    for sentence in (
        *rival_sentences(results, cells),
        *unequal_steps(cells),
        *search_sentences(results),
        *outlying_seeds(cells),
        *results.notes,
    ):
        print(sentence)
    print(spending_text(spending(folder)))
    print(f"Report: {page}")


def _existing(options: StudyOptions) -> StudyFolder | None:
    """Return the study to continue; None for a new one."""
    from workhorse.studies.folder import StudyFolder, is_study

    if options.study is None or (not is_study(options.study) and not os.path.isdir(options.study)):
        return None
    folder = StudyFolder.open(options.study)
    if options.trust:
        folder.trust()
    folder.require_trust()
    for name in _OF_A_NEW_STUDY:
        if getattr(options, name) != getattr(StudyOptions, name):
            flag = name.replace("_", "-")
            raise UsageError(
                f"--{flag} is for a new study, and {options.study} has begun: leave it out, or start another study."
            )
    return folder


def _plan(options: StudyOptions) -> StudyPlan:
    """Return the plan of a new study, from its file and the command line."""
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
            raise UsageError(f"`{name}` is set both in {options.study} and on the command line: set it in one place.")
        words[name] = value
    task_options = task_options_of(options)
    if task_options or options.threshold is not None:
        if not isinstance(words.get("tasks"), list) or len(words["tasks"]) != 1:
            raise UsageError(
                "Options of the task (--task-option, --wrapper, --frame-stack, --max-episode-steps) and --threshold "
                "are for a study of one task: write a study file for more."
            )
        if task_options:
            words["task_options"] = {words["tasks"][0]: task_options}
    return plan_of(words, options.study or "the command line")
