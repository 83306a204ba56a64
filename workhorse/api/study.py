"""`workhorse.study` and `workhorse.compare`: many runs by a plan, and what they add up to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import polars as pl

from workhorse.api.run import Run
from workhorse.core.errors import UsageError
from workhorse.core.machine import threads_or_cores
from workhorse.display.study_display import StudyDisplay, study_display_for
from workhorse.environments.constructors import Constructor, named_task
from workhorse.reports.study_page import write_study_report
from workhorse.studies.between import Between, compare_studies
from workhorse.studies.building import check_by_building
from workhorse.studies.cells import CellSummary, summarise
from workhorse.studies.cluster_pool import JobTransport
from workhorse.studies.conduct import conduct
from workhorse.studies.folder import StudyFolder
from workhorse.studies.loading import load_results, read_study
from workhorse.studies.plan import StudyPlan
from workhorse.studies.results import StudyResults
from workhorse.studies.study_file import plan_of, read_plan
from workhorse.studies.table import write_table
from workhorse.studies.verdicts import Verdict, verdicts
from workhorse.training.loop import MakeLoop

__all__ = ["StudyComparison", "Study", "compare", "conducted", "study"]


class Study:
    """A study. `workhorse.study` makes one, `Study.open` opens the folder of one.

    Attributes:
        path: the study's folder.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Study:
        """Open the folder of a study.

        Raises:
            UsageError: nothing is there, it is no study, or it is damaged.
        """
        return Study(StudyFolder.open(path))

    @property
    def path(self) -> Path:
        return self._folder.path

    @property
    def id(self) -> str:
        """Name of the study, which is that of its folder."""
        return self._folder.id

    @property
    def plan(self) -> StudyPlan:
        """What the study was asked to do."""
        return self._folder.plan

    @property
    def results(self) -> StudyResults:
        """Everything that is known so far, crashed runs included."""
        return load_results(self._folder)

    @property
    def cells(self) -> tuple[CellSummary, ...]:
        """Summary of each variant on each task: scores, intervals, success, cost, grades."""
        return summarise(self.results)

    @property
    def runs(self) -> pl.DataFrame:
        """One row a run: task, variant, seed, outcome, score, steps, seconds, core-hours, and its folder."""
        names = ("task", "variant", "seed", "outcome", "score", "env_steps", "wall_s", "core_hours", "folder")
        rows = [{name: getattr(run, name) for name in names} for run in self.results.runs]
        return pl.DataFrame([{**row, "folder": str(row["folder"])} for row in rows], infer_schema_length=None)

    @property
    def table(self) -> pl.DataFrame:
        """One row a variant and task: mean return with its interval, successes, worst seed, crashes, core-hours.

        The interval is over seeds, and null where there are too few runs for one.
        """
        return pl.DataFrame([_table_row(cell) for cell in self.cells], infer_schema_length=None)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """StudyComparison of every pair of variants on every task, corrected for their number; `sentence` says it."""
        results = self.results
        return verdicts(results, summarise(results))

    def run(self, seed: int, *, task: str | None = None, variant: str | None = None) -> Run:
        """Open one of the study's runs.

        Args:
            seed: of the run.
            task: its task; may be left out in a study of one.
            variant: its variant; likewise.

        Raises:
            UsageError: there is no such run, or more than one.
        """
        found = [
            run
            for run in self.results.runs
            if run.seed == seed and task in (None, run.task) and variant in (None, run.variant)
        ]
        if len(found) != 1 or found[0].folder is None:
            there = ", ".join(f"{run.task} {run.variant}" for run in found) or "none"
            raise UsageError(f"Expected one run of seed {seed} in {self.path}, found {there}: name task and variant.")
        return Run.open(found[0].folder)

    def resume(self, *, cores: int = 0, progress: bool = True) -> Study:
        """Do what is not done yet, and return this study.

        Args:
            cores: worker processes, one seed each; 0 for one a core.
            progress: whether to show it.
        """
        with _display(progress) as display:
            conducted(self._folder, cores, display)
        return self

    def report(self) -> Path:
        """Write the report, one HTML page that works offline, and return its path."""
        return write_study_report(self.results, self.path)

    def __repr__(self) -> str:
        ended = [run for run in self.results.runs if run.ended]
        lines = [f"Study({os.fspath(self.path)!r}: {len(ended)} of {len(self.results.runs)} runs have ended)"]
        for cell in self.cells:
            mean = f"return {cell.scores.mean():.4g}"
            if cell.mean is not None:
                mean += f" [{cell.mean.low:.4g}, {cell.mean.high:.4g}]"
            lines.append(f"  {cell.task} by {cell.variant}: {mean} over {len(cell.runs)} seeds")
        return "\n".join(lines)


class StudyComparison:
    """StudyComparison of two studies.

    Attributes:
        verdicts: one for each pair of variants, corrected over all of them: `better`, `p_adjusted`, `sentence`.
        cells: the variants compared, in pairs.
        notes: what was left out, a sentence each.
    """

    def __init__(self, found: Between) -> None:
        self.verdicts, self.cells, self.notes = found.verdicts, found.cells, found.notes

    @property
    def table(self) -> pl.DataFrame:
        """One row a variant, as in `Study.table`."""
        return pl.DataFrame([_table_row(cell) for cell in self.cells], infer_schema_length=None)

    def __repr__(self) -> str:
        return "\n".join([*(verdict.sentence for verdict in self.verdicts), *self.notes])


def study(
    tasks: str | Constructor | Sequence[str | Constructor] | None = None,
    algorithms: str | Sequence[str] | None = None,
    *,
    file: str | os.PathLike[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    env_steps: int | Mapping[str, int] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    task_options: Mapping[str, Mapping[str, Any]] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    search: Mapping[str, Any] | None = None,
    trials: int | None = None,
    tuning_seeds: int | None = None,
    thresholds: float | Mapping[str, float] | None = None,
    perturbations: bool | Mapping[str, Sequence[float]] | None = None,
    until: str | None = None,
    budget: str | None = None,
    evaluations: int | None = None,
    evaluation_episodes: int | None = None,
    final_episodes: int | None = None,
    cores: int = 0,
    progress: bool = True,
    studies: str | os.PathLike[str] = "studies",
    id: str | None = None,
) -> Study:
    """Train many seeds of every algorithm on every task, and return the study with success rates and intervals.

    The arguments are the entries of a study file, `docs/tutorial/study.md` has them all. Runs are trained in processes
    of their own, so a task must be an id or a constructor in a module that they can import.

    Args:
        tasks: ids or constructors, or one of them.
        algorithms: names, or one of them; each with its recipe for the task.
        file: a study file with further entries; none may be given twice.
        seeds: how many, from 0, or a list; by default 10.
        env_steps: of each run, also by task; by default the recipe's.
        settings: options by algorithm, above the recipe's.
        task_options: options by task.
        grid: values by option; every combination is a variant.
        search: ranges by option, as in `{"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}`.
        trials: settings that a search tries.
        tuning_seeds: runs by which it judges each.
        thresholds: lowest final return of a successful run, also by task.
        perturbations: whether to evaluate every policy on changed tasks, or the changes.
        until: add seeds until this is known, as in "failure_rate width < 0.3".
        budget: limit of the study, as in "2 core-hours".
        evaluations: of each run, evenly over its steps.
        evaluation_episodes: episodes of each.
        final_episodes: episodes of the last.
        cores: worker processes, one seed each; 0 for one a core.
        progress: whether to show it.
        studies: the folder that holds the studies.
        id: the study's name; by default made of the time.

    Raises:
        UsageError: something given cannot be used; nothing was trained.
        KeyboardInterrupt: Ctrl-C or a notebook's stop button; every run was saved, and how to go on was printed.
    """
    given = {name: value for name, value in locals().items() if value is not None and name not in _OF_THE_CALL}
    given |= {name: _names(given[name]) for name in ("tasks", "algorithms") if name in given}
    words = dict(read_plan(file)) if file is not None else {}
    if both := sorted(set(words) & set(given)):
        raise UsageError(f"`{both[0]}` is set both in {file} and by an argument: set it in one place.")
    plan = plan_of({**words, **given}, os.fspath(file) if file is not None else "the study")
    check_by_building(plan)
    command = ("python", "-c", f"import workhorse; workhorse.study(**{ {**words, **given} })")
    folder = StudyFolder.create(studies, id, plan, command)
    return Study(folder).resume(cores=cores, progress=progress)


_OF_THE_CALL = ("file", "cores", "progress", "studies", "id")


def compare(
    ours: Study | str | os.PathLike[str],
    theirs: Study | str | os.PathLike[str],
    *,
    variant: str | None = None,
    any_version: bool = False,
) -> StudyComparison:
    """Compare two studies on the tasks that both have.

    Args:
        ours: a study, its folder, or its table (results.parquet).
        theirs: another one.
        variant: compare only this one; by default all that both have, or the only one of each.
        any_version: compare even if the studies were made with different versions of the packages that compute.

    Raises:
        UsageError: one is no study, or they cannot be compared.
    """
    left, right = (one.results if isinstance(one, Study) else read_study(Path(one)) for one in (ours, theirs))
    return StudyComparison(compare_studies(left, right, variant, any_version))


def conducted(
    folder: StudyFolder,
    cores: int,
    display: StudyDisplay,
    make: MakeLoop | None = None,
    transport: JobTransport | None = None,
) -> tuple[StudyResults, Path]:
    """Do what is not done of a study yet, write its table and its report, and return the results and the page."""
    with folder.lock():
        results = conduct(folder, threads_or_cores(cores, "cores"), display, make, transport)
        write_table(results, folder.path / "results.parquet")
        return results, write_study_report(results, folder.path)


def _display(progress: bool) -> StudyDisplay:
    display = study_display_for(not progress)
    display.stopped = "Stopped; every run is saved. Continue with: workhorse.Study.open({!r}).resume()"
    return display


def _names(given: object) -> list[str]:
    """Return the names of tasks or algorithms."""
    listed = list(given) if isinstance(given, list | tuple) else [given]
    if any(isinstance(one, gymnasium.Env) for one in listed):
        raise UsageError("A study makes its environments in other processes: pass the id or the constructor.")
    names = [named_task(one)[0] if callable(one) else one for one in listed]
    if nameless := [name for name in names if isinstance(name, str) and name.startswith("__main__:")]:
        raise UsageError(
            f"A study trains in other processes, which cannot import {nameless[0]}: define it in a module, and pass it "
            "from there."
        )
    return names  # type: ignore[return-value]  # what else it may be is for `plan_of` to refuse


def _table_row(cell: CellSummary) -> dict[str, Any]:
    interval = cell.mean
    return {
        "task": cell.task,
        "variant": cell.variant,
        "seeds": len(cell.runs),
        "mean_return": float(cell.scores.mean()),
        "low": interval and interval.low,
        "high": interval and interval.high,
        "successes": None if cell.success is None else int(cell.successes.sum()),
        "worst": cell.worst,
        "crashed": cell.num_crashed,
        "core_hours": sum(run.core_hours for run in cell.runs),
    }
