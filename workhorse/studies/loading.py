"""Load the results of a study from its records and its run folders."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from workhorse.core.errors import UsageError
from workhorse.environments.bounds import return_bounds
from workhorse.robustness.results import Floor, Sweep, from_record
from workhorse.runs.metrics import read_metrics
from workhorse.studies.folder import StudyFolder
from workhorse.studies.plan import TrainingJob
from workhorse.studies.results import RunResult, SearchResult, StudyResults, Trial
from workhorse.studies.table import read_table

__all__ = ["cell_key", "load_results", "read_study"]


def cell_key(*names: str) -> str:
    """Return a file name for a task, or for a task and an algorithm."""
    return re.sub(r"[^\w.+=@-]+", "-", "-".join(names))


def load_results(folder: StudyFolder) -> StudyResults:
    """Load all results of a study; runs that have not ended are `unfinished`."""
    plan = folder.plan
    floors = {task: _floor(folder.record("floors", cell_key(task))) for task in plan.tasks}
    searches = tuple(
        found
        for task in plan.tasks
        for algorithm in plan.algorithms
        if (found := _search(folder, task, algorithm)) is not None
    )
    planned = {job.id: job for job in [*plan.jobs(), *_added_jobs(folder, searches)]}
    curves_lost: list[str] = []
    runs = [_run(folder, job, folder.ended("runs", job), curves_lost) for job in planned.values()]
    order = {variant: place for place, variant in enumerate(dict.fromkeys(run.variant for run in runs))}
    runs.sort(key=lambda run: (plan.tasks.index(run.task), order[run.variant], run.seed))
    thresholds, sources = _thresholds(folder)
    folder.records("tuning")  # nothing here needs them, but a search that goes on does: damage is told now
    return StudyResults(
        folder.id,
        folder.about["created"],
        shlex.join(folder.about["command"]),
        tuple(runs),
        {task: floor for task, floor in floors.items() if floor is not None},
        thresholds,
        sources,
        searches,
        dict(plan.grid),
        dict(folder.about["versions"]),
        folder.about["machine"],
        (*_notes(folder, runs), *curves_lost, *folder.damage.values()),
        {task: dict(options) for task, options in plan.task_options.items()},
        {task: return_bounds(task, plan.task_options.get(task)) for task in plan.tasks},
        len(plan.seeds) if plan.until is not None else 0,
    )


def read_study(path: Path) -> StudyResults:
    """Load the results from a study folder or from its table.

    Raises:
        UsageError: it is neither.
    """
    return load_results(StudyFolder.open(path)) if path.is_dir() or not path.exists() else read_table(path)


def _added_jobs(folder: StudyFolder, searches: tuple[SearchResult, ...]) -> list[TrainingJob]:
    """Return the runs that were added later: seeds that `until` added, and the winners of searches."""
    jobs = [job for batch in folder.batches() for job in folder.batch_jobs(batch)]
    for search in searches:
        if search.winner is not None:
            for seed in search.reporting_seeds:
                jobs.append(folder.plan.job(search.task, search.algorithm, _winning(search), seed, search.variant))
    return jobs


def _winning(search: SearchResult) -> Mapping[str, Any]:
    assert search.winner is not None
    return search.trials[search.winner].settings


def _run(folder: StudyFolder, job: TrainingJob, record: dict[str, Any] | None, curves_lost: list[str]) -> RunResult:
    path = folder.path / "runs" / job.id
    if record is None:
        return RunResult(job.task, job.variant, job.algorithm, job.setting, job.seed, "unfinished", folder=path)
    try:
        steps, returns = _curve(path, record)
    except UsageError as error:
        steps, returns = np.zeros(0), np.zeros(0)
        if record["outcome"] != "crashed":  # which may be before its first metrics
            curves_lost.append(f"The learning curve of {job.id} is missing: {error}")
    return RunResult(
        job.task,
        job.variant,
        job.algorithm,
        job.setting,
        job.seed,
        record["outcome"],
        record["reason"],
        record["score"],
        tuple(record["episode_returns"]),
        steps,
        returns,
        record["env_steps"],
        job.env_steps,
        record["wall_s"],
        record["core_hours"],
        record["failed_episodes"],
        path,
        _sweep(folder, job.id),
    )


def _curve(path: Path, record: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and mean returns of the evaluations; the final one replaces any other at the same step.

    Raises:
        UsageError: the metrics are missing or damaged.
    """
    rows = read_metrics(path)
    if "evaluation_return" in rows.columns:
        rows = rows.filter(pl.col("evaluation_return").is_not_null())
        steps, returns = rows["env_steps"].to_numpy(), rows["evaluation_return"].to_numpy()
    else:
        steps, returns = np.zeros(0), np.zeros(0)
    if record["score"] is not None:
        earlier = steps < record["env_steps"]
        steps = np.append(steps[earlier], record["env_steps"])
        returns = np.append(returns[earlier], record["score"])
    return steps.astype(np.float64), returns.astype(np.float64)


def _sweep(folder: StudyFolder, id: str) -> Sweep | None:
    record = folder.record("sweeps", id)
    if record is None or "failed" in record:
        return None
    record.pop("core_hours", None)
    return from_record(record, str(folder.path / "records" / "sweeps" / f"{id}.json"))


def _floor(record: dict[str, Any] | None) -> Floor | None:
    if record is None or "failed" in record:
        return None
    random, nothing, constant, action = (tuple(record[name]) for name in ("random", "nothing", "constant", "action"))
    return Floor(random, nothing, constant, action, record["trial_episodes"], record["trial_steps"])


def _search(folder: StudyFolder, task: str, algorithm: str) -> SearchResult | None:
    record = folder.record("searches", cell_key(task, algorithm))
    if record is None:
        return None
    trials = tuple(
        Trial(number, trial["settings"], tuple(trial["scores"]), trial["value"], tuple(trial["outcomes"]))
        for number, trial in enumerate(record["trials"])
    )
    return SearchResult(
        task,
        algorithm,
        tuple(record["tuning_seeds"]),
        folder.plan.seeds,
        trials,
        record["winner"],
        record["variant"],
        record["complete"],
    )


def _thresholds(folder: StudyFolder) -> tuple[dict[str, float | None], dict[str, str]]:
    """Return the study's own thresholds, or else those that Gymnasium publishes, and where each comes from."""
    thresholds: dict[str, float | None] = {}
    sources = {}
    for task in folder.plan.tasks:
        given = folder.plan.thresholds.get(task)
        published = folder.about["published_thresholds"].get(task) if given is None else None
        thresholds[task] = given if given is not None else published
        if thresholds[task] is not None:
            sources[task] = "given by the study" if given is not None else "Gymnasium's reward_threshold"
    return thresholds, sources


def _notes(folder: StudyFolder, runs: list[RunResult]) -> tuple[str, ...]:
    ended = [run for run in runs if run.ended]
    crashed, diverged = (sum(run.outcome == outcome for run in ended) for outcome in ("crashed", "diverged"))
    notes = [
        f"{len(ended)} of {len(runs)} runs have ended; {crashed} crashed and {diverged} diverged: they count as "
        "failures, with the random policy's return or the worst finished score on the task, whichever is lower."
    ]
    for task in folder.plan.tasks:
        record = folder.record("floors", cell_key(task))
        if record is not None and "failed" in record:
            notes.append(
                f"The policies that learn nothing could not be run on {task} ({record['failed']}): a run "
                "without a score gets the worst score of any run on it."
            )
    failed = [name for name, record in folder.records("sweeps").items() if "failed" in record]
    if failed:
        notes.append(f"{len(failed)} policies could not be evaluated on changed tasks: {', '.join(failed)}.")
    notes += [record["sentence"] for record in folder.records("choices").values() if "sentence" in record]
    return tuple(notes)
