"""A study from its first run to its last: what is still to do, who does it, and when enough is known."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.core.machine import installed_versions
from workhorse.core.types import Returns
from workhorse.environments.registry import TASKS
from workhorse.statistics.adaptive import Batch, Cell, next_batch
from workhorse.studies.cells import cell_scores, succeeded
from workhorse.studies.folder import Kind, StudyFolder
from workhorse.studies.loading import cell_key, load_results
from workhorse.studies.plan import Job, StudyPlan
from workhorse.studies.pool import Answer, Pool
from workhorse.studies.results import StudyResults
from workhorse.studies.search import Searching
from workhorse.studies.training_job import crash, is_fatal, request, spent_core_hours, train
from workhorse.training.loop import MakeLoop

__all__ = ["FLOOR_EPISODES", "SWEEP_EPISODES", "Observer", "check_cluster", "conduct"]

FLOOR_EPISODES = 100
SWEEP_EPISODES = 20
BATCH = 5
"""Seeds that `until` adds at a time."""


class Observer:
    """Is told what happens in a study; does nothing."""

    def began(self, folder: StudyFolder, jobs: int, done: int) -> None:
        """The study begins, or goes on: so many runs, so many of them done."""

    def added(self, jobs: int, why: str) -> None:
        """More runs have been found necessary."""

    def progressed(self, id: str, env_steps: int, of: int, value: float | None) -> None:
        """A run is so far."""

    def ended(self, id: str, variant: str, task: str, record: Mapping[str, Any]) -> None:
        """A run has ended, in whatever way."""

    def noted(self, sentence: str) -> None:
        """Something a user should know, once."""


def conduct(folder: StudyFolder, cores: int, observer: Observer, make: MakeLoop | None = None) -> StudyResults:
    """Do everything of a study that is not done yet.

    Args:
        folder: the study; the caller holds its lock.
        cores: worker processes, each with one simulation thread.
        observer: is told what happens.
        make: makes loops on a cluster; then the runs go one after the other, each on all of it.

    Returns:
        The study as it stands at the end.

    Raises:
        UsageError: something that would meet every seed, such as a full disk.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after every run was saved.
    """
    if make is not None:
        check_cluster(folder.plan)
    before = _on_termination()
    pool = Pool(cores, folder.path / "logs")
    study = _Study(folder, pool, observer, make)
    try:
        study.to_the_end()
        return load_results(folder)
    finally:
        pool.close()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def check_cluster(plan: StudyPlan) -> None:
    """Refuse a study on a cluster whose algorithms cannot use one.

    Raises:
        UsageError: one of them learns from rollouts, on one machine.
    """
    for name in plan.algorithms:
        if registry.algorithm_class(name).consumes is not Returns:
            raise UsageError(f"{name} learns on one machine: --cluster is for evolution strategies. Leave it out.")


def _is_pure(task: str) -> bool:
    return task in TASKS and TASKS[task].kind == "classic"


class _Study:
    """A study under way."""

    def __init__(self, folder: StudyFolder, pool: Pool, observer: Observer, make: MakeLoop | None) -> None:
        self._folder = folder
        self._plan = folder.plan
        self._pool = pool
        self._observer = observer
        self._make = make
        self._command = tuple(folder.about["command"])

    def to_the_end(self) -> None:
        jobs = self._plan.jobs()
        done = [job for job in jobs if self._folder.record("runs", job.id)]
        self._observer.began(self._folder, len(jobs), len(done))
        self._note_versions()
        self._do(self._floors())
        self._train("runs", jobs)
        if self._plan.search is not None:
            for task in self._plan.tasks:
                for algorithm in self._plan.algorithms:
                    self._search(task, algorithm)
        if self._plan.until is not None:
            self._until_known()

    def _note_versions(self) -> None:
        """Say, and write down, that a study goes on with other versions than it began with."""
        now, then = installed_versions(), self._folder.about["versions"]
        changed = [f"{name} {then[name]} -> {now[name]}" for name in then if now.get(name, then[name]) != then[name]]
        if changed:
            sentence = f"The study went on with other versions ({', '.join(changed)}): a difference may be theirs."
            self._observer.noted(sentence)
            self._folder.write_record("choices", "versions", {"sentence": sentence})

    # Floors and sweeps

    def _floors(self) -> list[dict[str, Any]]:
        return [
            {
                "kind": "floor",
                "id": cell_key(task),
                "task": task,
                "task_options": dict(self._plan.task_options.get(task, {})),
                "episodes": FLOOR_EPISODES,
            }
            for task in self._plan.tasks
            if "random" not in (self._folder.record("floors", cell_key(task)) or {})
        ]

    def _sweep(self, job: Job) -> list[dict[str, Any]]:
        """The sweep of a run's policy, where one is wanted, missing and possible."""
        if self._plan.perturbations is None or self._folder.record("sweeps", job.id):
            return []
        ended = self._folder.record("runs", job.id)
        if ended is None or ended["outcome"] != "finished":
            return []
        return [
            {
                "kind": "sweep",
                "id": job.id,
                "task": job.task,
                "task_options": dict(job.task_options),
                "folder": str(self._folder.path / "runs" / job.id),
                "artefacts": {name: list(values) for name, values in self._plan.perturbations.items()},
                "episodes": SWEEP_EPISODES,
            }
        ]

    # Runs

    def _train(self, kind: Kind, jobs: list[Job]) -> None:
        """Train what has not ended yet, as far as the budget goes, each policy swept as soon as it is there."""
        root = self._folder.path / kind
        missing = [job for job in jobs if not self._folder.record(kind, job.id)]
        by_id = {job.id: job for job in jobs}
        sweeps = [sweep for job in jobs for sweep in self._sweep(job)] if kind == "runs" else []

        waiting = self._works(missing, root) if self._make is None else deque([[job] for job in missing])

        def more() -> dict[str, Any] | None:
            if not waiting or self._is_spent():
                return None
            return self._work(waiting.popleft(), jobs, root)

        def ended(id: str, answer: Answer) -> list[dict[str, Any]]:
            self._note_end(kind, by_id[id], answer)
            return self._sweep(by_id[id]) if kind == "runs" else []

        def again(work: dict[str, Any]) -> None:
            """The seeds of a process that died and cannot say which of them killed it: each gets one of its own."""
            waiting.extend([by_id[one["id"]]] for one in work["runs"] if not self._folder.record(kind, one["id"]))

        if self._make is not None:
            self._train_on_cluster(more, ended)
            more = lambda: None  # noqa: E731
        self._do(sweeps, more, ended, again)
        if waiting:
            budget = self._plan.budget.text if self._plan.budget else ""
            left = sum(map(len, waiting))
            self._observer.noted(f"The budget of {budget} is spent: {left} of {len(jobs)} runs were not begun.")

    def _train_on_cluster(
        self, more: Callable[[], dict[str, Any] | None], ended: Callable[[str, Answer], list[dict[str, Any]]]
    ) -> None:
        while (work := more()) is not None:
            try:
                answer: Answer = {"event": "done", "run": train(work, lambda _: None, make=self._make)}
            except Exception as error:
                if is_fatal(error):
                    raise
                answer = {"event": "crashed", "reason": crash(error)}
            for sweep in ended(work["id"], answer):
                self._do([sweep])

    def _works(self, missing: list[Job], root: Path) -> deque[list[Job]]:
        """What is given to a worker at a time: a run, or all seeds of a cell that share one process."""
        cells: dict[tuple[str, str], list[Job]] = {}
        for job in missing:
            cells.setdefault((job.task, job.variant), []).append(job)
        # on a pure task one compilation does for all seeds, and the bits are those of runs alone
        together = {cell for cell, jobs in cells.items() if len(jobs) > 1 and _is_pure(cell[0])}
        alone = [[job] for job in missing if (job.task, job.variant) not in together]
        return deque([*(cells[cell] for cell in cells if cell in together), *alone])

    def _work(self, given: list[Job], jobs: list[Job], root: Path) -> dict[str, Any]:
        """What a worker is told. Seeds of the cell that have ended are named too: the program is that of all."""
        requests = [request(self._plan, job, root, self._command) for job in given]
        if len(given) == 1:
            return requests[0]
        task, variant = given[0].task, given[0].variant
        return {
            "kind": "seeds",
            "id": cell_key(task, variant),
            "cores": self._pool.size,
            "runs": requests,
        }

    def _note_end(self, kind: Kind, job: Job, answer: Answer) -> None:
        path = self._folder.path / kind / job.id
        record = answer.get("run") or {
            "outcome": "crashed",
            "reason": answer["reason"],
            "score": None,
            "episode_returns": [],
            "env_steps": 0,
            "wall_s": answer.get("seconds", 0.0),
            "core_hours": spent_core_hours(path),
            "failed_episodes": 0,
        }
        record = {**record, "variant": job.variant, "task": job.task, "algorithm": job.algorithm, "seed": job.seed}
        record["setting"] = dict(job.setting)
        self._folder.write_record(kind, job.id, record)
        self._observer.ended(job.id, job.variant, job.task, record)

    def _is_spent(self) -> bool:
        return self._plan.budget is not None and self._folder.core_hours() >= self._plan.budget.core_hours

    # Search

    def _search(self, task: str, algorithm: str) -> None:
        searching = Searching(self._folder, task, algorithm)
        while (trials := searching.proposals()) is not None:
            jobs = [job for trial in trials for job in searching.jobs(trial)]
            count = f"{len(trials)} more settings" if len(trials) > 1 else "one more setting"
            self._observer.added(len(jobs), f"to try {count} of {algorithm} on {task}")
            self._train("tuning", jobs)
            if any(self._folder.record("tuning", job.id) is None for job in jobs):
                return  # the budget is spent
            searching.judge(trials)
        jobs = searching.reporting_jobs()
        self._observer.added(len(jobs), f"to run the best setting of {algorithm} on {task} on fresh seeds")
        self._train("runs", jobs)

    # Until enough is known

    def _until_known(self) -> None:
        for batch in self._folder.batches():  # of an earlier sitting, which may not have come to their end
            self._train("runs", self._folder.batch_jobs(batch))
        while True:
            results = load_results(self._folder)
            batch = self._next_batch(results)
            if batch.cell is None:
                self._observer.noted(f"No more seeds: {batch.why.replace(chr(10), ', ')}.")
                return
            task, variant = batch.cell.split("\n")
            run = results.cell(task, variant)[-1]
            seeds = range(run.seed + 1, run.seed + 1 + batch.runs)
            record = {
                "task": task,
                "algorithm": run.algorithm,
                "variant": variant,
                "setting": dict(run.settings),
                "seeds": list(seeds),
                "why": batch.why.replace("\n", ", "),
            }
            self._folder.add_batch(record)
            self._observer.added(len(seeds), record["why"])
            self._train("runs", self._folder.batch_jobs(record))

    def _next_batch(self, results: StudyResults) -> Batch:
        until, budget = self._plan.until, self._plan.budget
        assert until is not None and budget is not None
        cells = {}
        for task in results.tasks:
            for variant in results.variants:
                runs = results.cell(task, variant)
                if not runs:
                    continue
                good = np.array([succeeded(results, run) for run in runs], float)
                outcomes = {"failure_rate": 1 - good, "success_rate": good, "mean_return": cell_scores(results, runs)}
                price = max(float(np.mean([run.core_hours for run in runs])), 1e-9)
                cells[f"{task}\n{variant}"] = Cell(outcomes[until.statistic], price)
        left = max(budget.core_hours - self._folder.core_hours(), 0.0)
        return next_batch(
            cells,
            width=until.width,
            budget=left,
            estimand=until.estimand,
            batch=BATCH,
            least=max(len(self._plan.seeds), 2),
        )

    # Work

    def _do(
        self,
        works: list[dict[str, Any]],
        more: Callable[[], dict[str, Any] | None] = lambda: None,
        ended: Callable[[str, Answer], list[dict[str, Any]]] = lambda id, answer: [],
        again: Callable[[dict[str, Any]], None] = lambda work: None,
    ) -> None:
        """Have it all done: what is given, what `more` still asks for, and what follows from what has ended."""
        waiting, under_way = deque(works), 0
        while True:
            while self._pool.idle:
                work = waiting.popleft() if waiting else more()
                if work is None:
                    break
                self._pool.give(work)
                under_way += 1
            if not under_way:
                return
            found = self._pool.answer()
            if found is None:
                continue
            work, answer = found
            match answer["event"]:
                case "progress":
                    self._observer.progressed(answer["run"], answer["env_steps"], work["env_steps"], answer["return"])
                    continue
                case "ended":
                    waiting.extend(ended(answer["run"], {**answer, "run": answer.get("record")}))
                    continue
                case "fatal":
                    raise UsageError(answer["reason"])
                case "stopped":
                    raise KeyboardInterrupt
            under_way -= 1
            match work["kind"]:
                case "run":
                    waiting.extend(ended(work["id"], answer))
                case "seeds":
                    again(work)
                case _:
                    self._note(work, answer)

    def _note(self, work: dict[str, Any], answer: Answer) -> None:
        """Write down a floor or a sweep; one that failed is said, and written down so that it is not tried for ever."""
        kind: Kind = _RECORDS[work["kind"]]
        hours = answer.get("seconds", 0.0) / 3600
        if answer["event"] == "crashed":
            self._observer.noted(f"{_WHAT[kind]} of {work['id']} could not be measured: {answer['reason']}")
        self._folder.write_record(
            kind, work["id"], {**answer.get(_ANSWERS[work["kind"]], _failed(kind, answer)), "core_hours": hours}
        )


_RECORDS: dict[str, Kind] = {"floor": "floors", "sweep": "sweeps"}
_ANSWERS = {"floor": "floor", "sweep": "sweep"}
_WHAT: dict[Kind, str] = {
    "floors": "The floors",
    "sweeps": "The robustness of the policy",
    "choices": "The best way to run the seeds",
}


def _failed(kind: Kind, answer: Answer) -> dict[str, Any]:
    return {"way": "processes"} if kind == "choices" else {"failed": answer.get("reason", "")}


def _on_termination() -> Any:
    """SIGTERM does what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    return signal.signal(signal.SIGTERM, stop)
