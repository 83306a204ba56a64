"""Conduct a study from its first run to its last: find what is missing, have it done, and stop when enough is known."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

import numpy as np

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.core.machine import installed_versions
from workhorse.core.types import Returns
from workhorse.environments.registry import TASKS, is_native
from workhorse.statistics.adaptive import Cell, SeedBatch, next_batch
from workhorse.studies.cells import cell_scores, succeeded
from workhorse.studies.cluster_pool import ClusterPool, JobTransport
from workhorse.studies.dispatch import Dispatcher, StudyObserver
from workhorse.studies.folder import StudyFolder
from workhorse.studies.jobs import JobEvent, JobPool, JobRequest
from workhorse.studies.loading import cell_key, load_results
from workhorse.studies.plan import StudyPlan, TrainingJob
from workhorse.studies.pool import Pool
from workhorse.studies.record_kinds import KINDS, Kind
from workhorse.studies.results import StudyResults
from workhorse.studies.rules import SEEDS_ADDED
from workhorse.studies.search import Searching
from workhorse.studies.spending import Sitting
from workhorse.studies.training_job import crash, is_fatal, ledger_of, request, train
from workhorse.training.loop import MakeLoop

__all__ = ["FLOOR_EPISODES", "SWEEP_EPISODES", "check_cluster", "conduct"]

FLOOR_EPISODES = 100
SWEEP_EPISODES = 20


def conduct(
    folder: StudyFolder,
    cores: int,
    observer: StudyObserver,
    make: MakeLoop | None = None,
    transport: JobTransport | None = None,
) -> StudyResults:
    """Do everything of a study that is not done yet.

    Args:
        folder: the study; the caller holds its lock.
        cores: worker processes, each with one simulation thread.
        observer: is told what happens.
        make: makes loops on a cluster; then runs are trained one after the other, each on the whole cluster.
        transport: to workers on a cluster, which are used instead of processes here, a core for each run.

    Returns:
        The study as it stands at the end.

    Raises:
        UsageError: something that affects every seed, such as a full disk.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after every run was saved.
    """
    if make is not None:
        check_cluster(folder.plan)
    before = _on_termination()
    if transport is None:
        pool: JobPool = Pool(cores, folder.path / "logs")
        sitting = Sitting(folder, cores)
    else:
        pool = ClusterPool(transport, folder, observer.noted)
        sitting = Sitting(folder, 0, pool.core_seconds)
    study = _Study(folder, pool, observer, make, sitting, shares=make is None and transport is None)
    try:
        study.finish()
        return load_results(folder)
    finally:
        pool.close()
        sitting.save()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def check_cluster(plan: StudyPlan) -> None:
    """Check that a run of every algorithm of a study can be spread over a cluster.

    Raises:
        UsageError: one of them learns from rollouts, which needs one machine.
    """
    for name in plan.algorithms:
        if registry.algorithm_class(name).consumes is not Returns:
            raise UsageError(
                f"{name} learns on one machine: --each-on-all is for evolution strategies. Leave it out, and the runs "
                "are trained side by side, each on one core of the cluster."
            )


def _is_pure(task: str, options: Mapping[str, object]) -> bool:
    return is_native(task, options) and TASKS[task].kind == "classic"


SignalHandler = Callable[[int, FrameType | None], object] | int | None


class _Study:
    """Study in progress."""

    def __init__(
        self,
        folder: StudyFolder,
        pool: JobPool,
        observer: StudyObserver,
        make: MakeLoop | None,
        sitting: Sitting,
        shares: bool,
    ) -> None:
        self._folder = folder
        self._plan = folder.plan
        self._pool = pool
        self._observer = observer
        self._dispatcher = Dispatcher(folder, pool, observer)
        self._make = make
        self._sitting = sitting
        self._shares = shares  # seeds on JAX environments share a process, which has all cores of this machine
        self._command = tuple(folder.about["command"])

    def finish(self) -> None:
        jobs = self._plan.jobs()
        done = [job for job in jobs if self._folder.ended("runs", job)]
        self._observer.began(self._folder, len(jobs), len(done))
        self._note_versions()
        self._note_damage()
        self._dispatcher.do(self._floors())
        self._train("runs", jobs)
        if self._plan.search is not None:
            for task in self._plan.tasks:
                for algorithm in self._plan.algorithms:
                    self._search(task, algorithm)
        if self._plan.until is not None:
            self._until_known()

    def _note_versions(self) -> None:
        """Tell the user, and write down, that a study continues with other versions than it began with."""
        now, then = installed_versions(), self._folder.about["versions"]
        changed = [f"{name} {then[name]} -> {now[name]}" for name in then if now.get(name, then[name]) != then[name]]
        if changed:
            sentence = f"The study was continued with other versions ({', '.join(changed)}), which may change results."
            self._observer.noted(sentence)
            self._folder.write_record("choices", "versions", {"sentence": sentence})

    def _note_damage(self) -> None:
        """Tell the user which records are damaged, before their work is done again."""
        for kind in KINDS:
            self._folder.records(kind)
        for sentence in list(self._folder.damage.values()):
            self._observer.noted(sentence)

    # Floors and sweeps

    def _floors(self) -> list[JobRequest]:
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

    def _sweep(self, job: TrainingJob) -> list[JobRequest]:
        """Return the sweep of a run's policy, if one is wanted, missing and possible."""
        if self._plan.perturbations is None or self._folder.record("sweeps", job.id):
            return []
        ended = self._folder.ended("runs", job)
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

    def _train(self, kind: Kind, jobs: list[TrainingJob]) -> None:
        """Train the jobs that have not ended, within the budget, and sweep each policy as soon as it is trained."""
        root = self._folder.path / kind
        missing = [job for job in jobs if not self._folder.ended(kind, job)]
        by_id = {job.id: job for job in jobs}
        sweeps = [sweep for job in jobs for sweep in self._sweep(job)] if kind == "runs" else []

        waiting = self._works(missing) if self._shares else deque([[job] for job in missing])

        def more() -> JobRequest | None:
            if not waiting or self._is_spent():
                return None
            return self._work(waiting.popleft(), jobs, root)

        def ended(id: str, event: JobEvent) -> list[JobRequest]:
            self._note_end(kind, by_id[id], event)
            return self._sweep(by_id[id]) if kind == "runs" else []

        def again(work: JobRequest) -> None:
            """Give each unfinished seed of a shared process that died its own process, to see which one kills it."""
            waiting.extend([by_id[one["id"]]] for one in work["runs"] if not self._folder.ended(kind, by_id[one["id"]]))

        if self._make is not None:
            self._train_on_cluster(more, ended)
            more = lambda: None  # noqa: E731
        self._dispatcher.do(sweeps, more, ended, again)
        if waiting:
            budget = self._plan.budget.text if self._plan.budget else ""
            left = sum(map(len, waiting))
            self._observer.noted(f"The budget of {budget} is spent: {left} of {len(jobs)} runs were not started.")

    def _train_on_cluster(
        self, more: Callable[[], JobRequest | None], ended: Callable[[str, JobEvent], list[JobRequest]]
    ) -> None:
        while (work := more()) is not None:
            begun = time.monotonic()
            try:
                event: JobEvent = {"event": "done", "run": train(work, lambda _: None, make=self._make)}
            except Exception as error:
                if is_fatal(error):
                    raise
                event = {"event": "crashed", "reason": crash(error)}
            self._sitting.elsewhere(time.monotonic() - begun, ledger_of(Path(work["root"]) / work["id"]).core_hours)
            self._dispatcher.do(ended(work["id"], event))

    def _works(self, missing: list[TrainingJob]) -> deque[list[TrainingJob]]:
        """Split the missing jobs into what a process gets at a time: a run, or seeds that share programs."""
        cells: dict[tuple[str, str], list[TrainingJob]] = {}
        for job in missing:
            cells.setdefault((job.task, job.variant), []).append(job)
        # on a pure task one compilation does for all seeds, and the bits are those of runs alone
        together = {
            cell
            for cell, jobs in cells.items()
            if len(jobs) > 1 and _is_pure(cell[0], self._plan.task_options.get(cell[0], {}))
        }
        alone = [[job] for job in missing if (job.task, job.variant) not in together]
        return deque([*(cells[cell] for cell in cells if cell in together), *alone])

    def _work(self, given: list[TrainingJob], jobs: list[TrainingJob], root: Path) -> JobRequest:
        """Return what a worker is told."""
        requests = [request(self._plan, job, root, self._command) for job in given]
        if len(given) == 1:
            return requests[0]
        task, variant = given[0].task, given[0].variant
        return {
            "kind": "seeds",
            "id": cell_key(task, variant),
            "cores": self._pool.size,
            "env_steps": given[0].env_steps,
            "runs": requests,
        }

    def _note_end(self, kind: Kind, job: TrainingJob, event: JobEvent) -> None:
        ledger = ledger_of(self._folder.path / kind / job.id)
        record = event.get("run") or {
            "outcome": "crashed",
            "reason": event["reason"],
            "score": None,
            "episode_returns": [],
            "env_steps": 0,
            "wall_s": ledger.wall_s,
            "core_hours": ledger.core_hours,
            "failed_episodes": 0,
        }
        record = {**record, "variant": job.variant, "task": job.task, "algorithm": job.algorithm, "seed": job.seed}
        record["setting"] = dict(job.setting)
        self._folder.write_record(kind, job.id, record)
        self._sitting.save()
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
            if any(self._folder.ended("tuning", job) is None for job in jobs):
                return  # the budget is spent
            searching.judge(trials)
        if searching.is_lost:
            self._observer.noted(
                f"Search of {algorithm} on {task}: no setting survived, because each crashed or diverged on a tuning "
                "seed; there is no winner to run on fresh seeds."
            )
            return
        jobs = searching.reporting_jobs()
        self._observer.added(len(jobs), f"to run the best setting of {algorithm} on {task} on fresh seeds")
        self._train("runs", jobs)

    # Until enough is known

    def _until_known(self) -> None:
        for batch in self._folder.batches():  # of an earlier session, which may have been stopped in the middle
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

    def _next_batch(self, results: StudyResults) -> SeedBatch:
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
            batch=SEEDS_ADDED,
            least=max(len(self._plan.seeds), 2),
        )


def _on_termination() -> SignalHandler:
    """Make SIGTERM do what Ctrl-C does, and return the handler that it had."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    return signal.signal(signal.SIGTERM, stop)
