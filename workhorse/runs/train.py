"""A training run from the first iteration to the last: folder, manifest, checkpoints, metrics, evaluation, policy.

`start` and `resume` are one code path: a run that begins saves its state first and goes on from there.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from workhorse.algorithms import registry as algorithms
from workhorse.algorithms.recipes import Recipe
from workhorse.core.digest import digest
from workhorse.core.errors import UsageError
from workhorse.core.machine import describe_hardware, installed_versions
from workhorse.core.spec import EnvSpec
from workhorse.runs import checkpoint
from workhorse.runs.cost import Ledger
from workhorse.runs.export import policy_of
from workhorse.runs.files import check_writable, write_file, writing
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.runs.metrics import MetricsLog
from workhorse.runs.traffic import TrafficLog
from workhorse.runs.warnings import Warned, Watch, preflight, read_warnings, write_warnings
from workhorse.statistics.intervals import Interval, mean_interval
from workhorse.training.evolve import Evaluation, Evolve, Progress
from workhorse.training.learning import Learning, actor_of
from workhorse.training.on_policy import OnPolicy
from workhorse.training.on_policy import Progress as RolloutProgress
from workhorse.training.plan import Plan, local_workforce
from workhorse.training.workforce import Workforce

__all__ = [
    "Observer",
    "Schedule",
    "Summary",
    "Traffic",
    "annealed_steps",
    "available_threads",
    "evaluate_run",
    "plan_of",
    "resume",
    "start",
]


@dataclass(frozen=True)
class Schedule:
    """How often a run evaluates and saves. None of it changes what is learnt.

    Attributes:
        evaluate_every: environment steps between evaluations; 0 for none but the last.
        evaluation_episodes: episodes of each.
        final_episodes: episodes of the evaluation at the end.
        checkpoint_every_s: seconds between checkpoints; 0 saves after every iteration.
        milestones: states kept for good, evenly over the budget, beside the first: what `diagnose` looks at.
        stop_on_warning: end the run at its first warning, and judge it as it is then; a resume goes on.
        stop_at_return: end the run at the first evaluation whose mean return is at least this, and judge it as it is
            then; a resume of the finished run goes on, to its budget. The last evaluation begins with the same
            episodes, so where it has few more its mean is flattered by having been waited for.
    """

    evaluate_every: int = 0
    evaluation_episodes: int = 16
    final_episodes: int = 100
    checkpoint_every_s: float = 30.0
    milestones: int = 10
    stop_on_warning: bool = False
    stop_at_return: float | None = None


@dataclass(frozen=True)
class Traffic:
    """What a cluster run's messages came to, a worker and training iteration: means over this sitting.

    Attributes:
        sent: bytes from the coordinator to a worker, after it was set up and had its state.
        received: bytes from a worker to the coordinator.
        workers: mean number of workers.
    """

    sent: float
    received: float
    workers: float


@dataclass(frozen=True)
class Summary:
    """What a run came to, printed at its end and kept in `evaluations/`.

    Attributes:
        episode_return: mean raw return of the noiseless policy with its interval over episodes.
        episode_returns: the returns themselves.
        env_steps: training steps; evaluation_steps are counted apart.
        simulated_s: training steps in simulated seconds; None where the task has no such time.
        wall_s: seconds of training, over all the sittings of a resumed run.
        core_hours: cores held times hours, evaluations included, over all sittings and machines.
        failed_episodes: training episodes whose simulation broke.
        ledger: the core-seconds by kind of core, for a price.
        traffic: bytes a worker and iteration; None for a run on one machine.
    """

    episode_return: Interval
    episode_returns: tuple[float, ...]
    env_steps: int
    evaluation_steps: int
    simulated_s: float | None
    wall_s: float
    core_hours: float
    failed_episodes: int
    ledger: Ledger
    traffic: Traffic | None


class Observer:
    """Is told what happens in a run; does nothing. The command line's progress display is one."""

    def started(self, folder: RunFolder, manifest: Manifest, row: Mapping[str, Any]) -> None:
        """The run begins, or goes on, at `row["iteration"]`."""

    def iterated(self, row: Mapping[str, Any]) -> None:
        """An iteration is complete; `row` is its line of metrics."""

    def noted(self, sentence: str) -> None:
        """Something a user should know, once."""


@dataclass
class _Meters:
    """What a run counts beside its state; saved with it."""

    wall_s: float = 0.0
    evaluation_steps: int = 0
    failed_episodes: int = 0
    last_return: float | None = None


def available_threads() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(
    *,
    task: str,
    algorithm: str,
    settings: Mapping[str, Any],
    env_steps: int,
    seed: int = 0,
    task_options: Mapping[str, Any] | None = None,
    slots: int | None = None,
    threads: int = 0,
    schedule: Schedule | None = None,
    root: str | os.PathLike[str] = "runs",
    id: str | None = None,
    recipe: Recipe | None = None,
    command: tuple[str, ...] = (),
    observer: Observer | None = None,
    recruit: Recruit | None = None,
    on_policy: MakeLoop | None = None,
) -> tuple[RunFolder, Summary]:
    """Train a policy in a new run folder, to the end of the budget.

    Args:
        task: a task's id (`workhorse tasks`).
        algorithm: an algorithm's name (`workhorse algorithms`).
        settings: options of the algorithm that differ from its defaults.
        env_steps: training steps after which no further iteration begins.
        seed: the run's root seed, in [0, 2**32).
        task_options: options of the task, by Gymnasium's names.
        slots: episodes side by side, part of the result's bits; by default as few equal chunks of at most 64 as the
            population needs.
        threads: simulation threads, not part of the result; 0 for one a core.
        schedule: how often to evaluate and save.
        root: the folder that holds the runs.
        id: the run's name; by default task, algorithm, seed and time.
        recipe: where the settings come from, for the record.
        command: the command line, for the record.
        observer: is told what happens.
        recruit: finds other processes to run the episodes, as `workhorse.distributed` does; this process by default.
        on_policy: makes the loop of an algorithm that reads rollouts, as a group of runs does that share programs.

    Returns:
        The run's folder and its summary.

    Raises:
        UsageError: something given cannot be used; nothing was written unless training had begun.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    for name, number in (("seed", seed), ("env_steps", env_steps)):
        if not isinstance(number, Integral):
            raise UsageError(f"{name} must be a whole number: got {number!r}.")
    if not 0 <= seed < 2**32:
        raise UsageError(f"The seed must be in [0, 2**32): got {seed}.")
    _check_budget(env_steps)
    if slots is not None and slots < 1:
        raise UsageError(f"The number of slots must be at least 1: got {slots}.")
    if threads < 0:
        raise UsageError(f"The number of threads must be at least 1, or 0 for one a core: got {threads}.")
    _check_schedule(schedule or Schedule())
    threads = threads or available_threads()
    options = dict(task_options or {})
    plan = Plan(task, options, algorithm, settings, seed, slots).with_budget(env_steps)
    if slots is not None and plan.is_on_policy:
        raise UsageError(f"{algorithm} acts in num_envs slots: set that, and leave slots={slots} out.")
    setup = _Setup.build(plan, threads, recruit, on_policy)
    try:
        folder = RunFolder.create(root, id, task=task.split(":")[-1], algorithm=algorithm, seed=seed)
        manifest = Manifest.describe(
            id=folder.id,
            command=command,
            task=task,
            task_options=options,
            algorithm=algorithm,
            settings=_settings_of(setup.algorithm),
            recipe=recipe.name if recipe else None,
            recipe_source=recipe.source if recipe else None,
            seed=seed,
            env_steps=env_steps,
            slots=setup.workforce.num_slots,
            threads=0 if recruit else threads,
        )
        folder.write_manifest(manifest)
        with folder.lock():
            progress = setup.loop.start()
            meta = {"meters": asdict(_Meters()), "schedule": asdict(schedule or Schedule())}
            checkpoint.save(folder, 0, progress, meta)
            if schedule is None or schedule.milestones:
                checkpoint.save(folder, 0, progress, meta, "milestones")
            run = _Run(folder, manifest, setup, progress, _Meters(), schedule or Schedule(), observer or Observer())
            return folder, run.to_the_end(env_steps, resumed=False)
    finally:
        setup.workforce.close()


def resume(
    path: str | os.PathLike[str],
    *,
    env_steps: int | None = None,
    threads: int = 0,
    observer: Observer | None = None,
    recruit: Recruit | None = None,
    on_policy: MakeLoop | None = None,
) -> tuple[RunFolder, Summary]:
    """Go on with a run from its newest whole checkpoint: the same bits as if it had never stopped.

    Args:
        path: the run folder.
        env_steps: a new budget; by default the run's own.
        threads: simulation threads; may differ from before without changing the result.
        observer: is told what happens.
        recruit: as in `start`; a run begun on one process may go on on a cluster and the other way round.
        on_policy: as in `start`.

    Raises:
        UsageError: the folder is no run, another process trains in it, or no checkpoint of it is whole.
    """
    observer = observer or Observer()
    folder = RunFolder.open(path)
    manifest = folder.manifest()
    if env_steps is not None:
        _check_budget(env_steps)
        _check_annealing(folder, manifest, env_steps)
    with folder.lock():
        setup = _Setup.build(plan_of(manifest), threads or available_threads(), recruit, on_policy)
        try:
            template = setup.loop.start()
            _, progress, meta, notes = checkpoint.load_newest(folder, template)
            for sentence in [*notes, *_version_notes(manifest)]:
                observer.noted(sentence)
            meters, schedule = _Meters(**meta["meters"]), Schedule(**meta["schedule"])
            status = folder.status()
            if status is not None and status.state == "finished" and schedule.stop_at_return is not None:
                schedule = replace(schedule, stop_at_return=None)  # it has had its effect, and is to have none again
                checkpoint.save(folder, int(progress.iteration), progress, meta | {"schedule": asdict(schedule)})
            run = _Run(folder, manifest, setup, progress, meters, schedule, observer)
            return folder, run.to_the_end(env_steps or manifest.env_steps, resumed=True)
        finally:
            setup.workforce.close()


def evaluate_run(
    path: str | os.PathLike[str],
    *,
    episodes: int = 100,
    seed: int | None = None,
    threads: int = 0,
    noted: Callable[[str], None] = lambda sentence: None,
) -> tuple[RunFolder, Evaluation, Interval]:
    """Noiseless episodes of a run's policy, from its newest whole checkpoint, on the raw reward.

    Args:
        path: the run folder.
        episodes: how many.
        seed: root of the initial states; by default the run's own seed.
        threads: simulation threads.
        noted: is told what a user should know: of a damaged checkpoint that was passed over.

    Raises:
        UsageError: the folder is no run, no checkpoint of it is whole, or the result could not be written there.
    """
    if episodes < 1:
        raise UsageError(f"The number of episodes must be at least 1: got {episodes}.")
    folder = RunFolder.open(path)
    manifest = folder.manifest()
    root = manifest.seed if seed is None else seed
    if not 0 <= root < 2**32:
        raise UsageError(f"The seed must be in [0, 2**32): got {root}.")
    setup = _Setup.build(replace(plan_of(manifest), seed=root), threads or available_threads())
    try:
        iteration, progress, _, notes = checkpoint.load_newest(folder, setup.loop.start(), set_aside=False)
        for sentence in notes:
            noted(sentence)
        place = folder.evaluations / f"{iteration}-seed{root}-{episodes}.json"
        check_writable("the evaluation", place)
        found = setup.loop.evaluate(progress, episodes)
    finally:
        setup.workforce.close()
    interval = mean_interval(found.returns)
    _record_evaluation(place, iteration, found, interval)
    return folder, found, interval


Recruit = Callable[[Plan, Learning], Workforce]
"""What finds the processes that run a plan's episodes."""

MakeLoop = Callable[[Plan, EnvSpec], OnPolicy]
"""What makes the loop of a plan whose algorithm reads rollouts."""


@dataclass
class _Setup:
    """A plan with its algorithm, its workforce and the loop they run in."""

    algorithm: Any
    workforce: Workforce | OnPolicy
    loop: Any
    step_seconds: float | None
    threads: int

    @staticmethod
    def build(plan: Plan, threads: int, recruit: Recruit | None = None, on_policy: MakeLoop | None = None) -> _Setup:
        algorithms.entry(plan.algorithm)
        spec = plan.spec()
        _check_memory(plan, spec)
        if algorithms.is_on_policy(plan.algorithm):
            if recruit:
                raise UsageError(
                    f"{plan.algorithm} learns on one machine: --cluster is for evolution strategies. Leave it out."
                )
            loop = on_policy(plan, spec) if on_policy else plan.on_policy(spec, threads)
            return _Setup(loop.algorithm, loop, loop, spec.step_seconds, threads)
        learning = plan.learning(spec)
        workforce = recruit(plan, learning) if recruit else local_workforce(plan, learning, threads)
        return _Setup(learning.algorithm, workforce, Evolve(learning, workforce), spec.step_seconds, threads)


def _check_memory(plan: Plan, spec: EnvSpec) -> None:
    """Raise a `UsageError` where a machine of this memory could not even hold the policy and a rollout."""
    needed, there = plan.bytes_needed(spec), describe_hardware().memory_bytes
    if there and needed > there:
        raise UsageError(
            f"{plan.algorithm} needs {needed / 2**30:,.0f} GiB at the least for its parameters and a rollout, but this "
            f"machine has {there / 2**30:,.0f} GiB: lower hidden, num_envs or rollout_steps."
        )


def plan_of(manifest: Manifest) -> Plan:
    """The plan that a run was made of."""
    return Plan(
        manifest.task,
        manifest.task_options,
        manifest.algorithm,
        manifest.settings,
        manifest.seed,
        manifest.slots,
    )


class _Run:
    """A run under way: the state, and what is written as it moves."""

    def __init__(
        self,
        folder: RunFolder,
        manifest: Manifest,
        setup: _Setup,
        progress: Progress | RolloutProgress,
        meters: _Meters,
        schedule: Schedule,
        observer: Observer,
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._setup = setup
        self._progress = progress
        self._meters = meters
        self._schedule = schedule
        self._observer = observer
        self._metrics = MetricsLog(folder, resume_from=int(progress.iteration))
        self._traffic = TrafficLog(folder.path, resume_from=int(progress.iteration))
        self._watch = self._watching()
        at = schedule.stop_at_return  # a run that reached it may have been stopped before it was judged
        self._ended_early = at is not None and any(map(self._has_reached, self._metrics.rows()))
        self._told = _Told()
        fresh = int(progress.iteration) == 0 and not (folder.path / "ledger.json").exists()
        self._ledger = Ledger() if fresh else Ledger.of(folder)
        self._charged_at = time.monotonic()
        self._saved_at = time.monotonic()
        self._warned_of_failures = False
        self._warned_of_divergence = False

    def to_the_end(self, budget: int, resumed: bool) -> Summary:
        """Iterate until the budget is spent, then judge the policy."""
        state = "failed"
        with _Interrupt() as interrupt:  # around all of it: a second Ctrl-C must not reach the last save
            try:
                self._write_status("running")
                self._begin(budget, resumed)
                if not resumed:
                    with interrupt.allowed():
                        self._look_ahead()
                while int(self._progress.env_steps) < budget and not self._ended_early:
                    self._iterate(interrupt, budget)
                summary = self._judge(interrupt)
                state = "finished"
                return summary
            except (KeyboardInterrupt, BrokenPipeError):  # or nobody reads what is printed any more
                state = "stopped"
                raise
            finally:
                self._save()
                self._write_status(state)
                self._metrics.close()

    def _iterate(self, interrupt: _Interrupt, budget: int) -> None:
        begun = time.perf_counter()
        before = int(self._progress.env_steps)
        with interrupt.allowed():
            after, metrics, failures = self._setup.loop.iterate(
                self._progress, lambda env_steps: env_steps < budget and not self._evaluation_due(before, env_steps)
            )
            row = {"iteration": int(after.iteration), "env_steps": int(after.env_steps), **metrics}
            row["digest"] = digest(after.learner)
            seconds = time.perf_counter() - begun
            found = None
            if self._evaluation_due(before, int(after.env_steps)):
                found = self._setup.loop.evaluate(after, self._schedule.evaluation_episodes)
        self._progress = after
        self._meters.wall_s += seconds
        self._meters.failed_episodes += len(failures)
        row |= {"wall_s": self._meters.wall_s, "steps_per_second": metrics["steps"] / seconds}
        row |= self._setup.workforce.metrics()
        self._note_traffic()
        if found is not None:
            self._meters.evaluation_steps += int(found.lengths.sum())
            self._meters.last_return = float(found.returns.mean())
            row |= {
                "evaluation_return": float(found.returns.mean()),
                "evaluation_return_std": float(found.returns.std()),
                "evaluation_length": float(found.lengths.mean()),
                "evaluation_steps": self._meters.evaluation_steps,
            }
        if failures and not self._warned_of_failures:
            self._warned_of_failures = True
            self._observer.noted(f"A simulation broke and its episode was ended there: {failures[0]}.")
        self._metrics.append(row["iteration"], {name: value for name, value in row.items() if name != "iteration"})
        self._observer.iterated(row)
        self._warn(self._watch.see(row))
        if self._has_reached(row):
            self._ended_early = True
            self._observer.noted(
                f"The evaluation after {row['env_steps']:,} steps returned {row['evaluation_return']:.1f}, as "
                f"--stop-at-return {self._schedule.stop_at_return:g} asks: the run ends here. `workhorse resume` would "
                "go on with it."
            )
        if self._is_milestone(before, int(after.env_steps)):
            checkpoint.save(self._folder, row["iteration"], after, self._meta(), "milestones")
        if time.monotonic() - self._saved_at >= self._schedule.checkpoint_every_s:
            self._save()
            self._write_status("running")

    def _watching(self) -> Watch:
        """What looks for warnings, having read what the run has behind it."""
        watch = Watch(self._manifest.settings)
        for row in self._metrics.rows():
            watch.see(row)
        watch.begin([warned for warned in read_warnings(self._folder) if warned.iteration == 0])
        return watch

    def _begin(self, budget: int, resumed: bool) -> None:
        """Say what begins."""
        self._observer.started(
            self._folder,
            self._manifest,
            {
                "iteration": int(self._progress.iteration),
                "env_steps": int(self._progress.env_steps),
                "budget": budget,
                "resumed": resumed,
            },
        )
        if self._setup.algorithm.spec.resume == "episode":
            self._observer.noted(
                f"{self._manifest.task} is not deterministic: a run of it is not reproduced to the bit, and a resume "
                "begins its episodes again."
            )

    def _look_ahead(self) -> None:
        """Warn of what looks wrong before the first iteration."""
        if isinstance(self._progress, RolloutProgress) and int(self._progress.iteration) == 0:
            obs = np.asarray(self._progress.slots.obs)
            found = preflight(self._setup.algorithm.spec, self._manifest.settings, obs)
            self._watch.begin(found)
            self._warn(found)

    def _warn(self, new: Sequence[Warned]) -> None:
        if not new:
            return
        write_warnings(self._folder, self._watch.given)
        for warned in new:
            self._observer.noted(str(warned))
        if self._schedule.stop_on_warning:
            self._ended_early = True
            self._observer.noted(
                "The run ends here, as --stop-on-warning asks; `workhorse resume` would go on with it."
            )

    def _has_reached(self, row: Mapping[str, Any]) -> bool:
        """Whether an iteration's evaluation is one to stop at."""
        threshold, found = self._schedule.stop_at_return, row.get("evaluation_return")
        return threshold is not None and found is not None and found >= threshold

    def _is_milestone(self, before: int, env_steps: int) -> bool:
        """Whether a fraction of the run's own budget was passed: the same iterations in every sitting."""
        count, budget = self._schedule.milestones, self._manifest.env_steps
        return bool(count) and env_steps * count // budget > before * count // budget

    def _evaluation_due(self, before: int, env_steps: int) -> bool:
        every = self._schedule.evaluate_every
        return bool(every) and env_steps // every > before // every

    def _judge(self, interrupt: _Interrupt) -> Summary:
        iteration = int(self._progress.iteration)
        with interrupt.allowed():
            found = self._setup.loop.evaluate(self._progress, self._schedule.final_episodes)
        interval = mean_interval(found.returns)
        self._meters.last_return = interval.value
        place = self._folder.evaluations / f"{iteration}-{len(found.returns)}.json"
        _record_evaluation(place, iteration, found, interval)
        self._charge()
        self._note_traffic()
        step_seconds, env_steps = self._setup.step_seconds, int(self._progress.env_steps)
        return Summary(
            interval,
            tuple(map(float, found.returns)),
            env_steps,
            self._meters.evaluation_steps + int(found.lengths.sum()),
            None if step_seconds is None else env_steps * step_seconds,
            self._meters.wall_s,
            self._ledger.core_hours,
            self._meters.failed_episodes,
            self._ledger,
            self._told.summary(),
        )

    def _note_traffic(self) -> None:
        rows = self._setup.workforce.traffic()
        self._traffic.append(rows)
        self._told.add(rows)

    def _charge(self) -> None:
        """Write down the cores held since the last time."""
        now = time.monotonic()
        held = self._setup.workforce.core_seconds()
        if held is None:
            held = {self._manifest.hardware.cpu: self._setup.threads * (now - self._charged_at)}
        for kind, core_seconds in held.items():
            self._ledger = self._ledger.charge(kind, 1, core_seconds)
        self._ledger = self._ledger.passed(now - self._charged_at, int(self._progress.env_steps))
        self._charged_at = now

    def _save(self) -> None:
        self._metrics.flush()
        self._traffic.flush()
        self._charge()
        self._ledger.write(self._folder.path)
        checkpoint.save(self._folder, int(self._progress.iteration), self._progress, self._meta())
        self._save_policy()
        self._saved_at = time.monotonic()

    def _meta(self) -> dict[str, Any]:
        return {"meters": asdict(self._meters), "schedule": asdict(self._schedule)}

    def _save_policy(self) -> None:
        actor = actor_of(self._setup.algorithm, self._progress.learner)
        policy = policy_of(
            self._setup.algorithm, actor, self._manifest, int(self._progress.iteration), int(self._progress.env_steps)
        )
        if policy is not None:
            policy.save(self._folder.policy)
        elif not self._warned_of_divergence:
            self._warned_of_divergence = True
            self._observer.noted(
                f"The parameters are no longer finite at iteration {int(self._progress.iteration)}: the run diverged, "
                "and the policy artefact stays that of the last finite save. Lower the learning rate."
            )

    def _write_status(self, state: str) -> None:
        self._folder.write_status(
            state,
            iteration=int(self._progress.iteration),
            env_steps=int(self._progress.env_steps),
            last_return=self._meters.last_return,
        )


class _Told:
    """Sums of the bytes that training iterations took."""

    def __init__(self) -> None:
        self._sent = self._received = 0
        self._pairs: set[tuple[int, str]] = set()

    def add(self, rows: Iterable[tuple[int, str, str, int, int]]) -> None:
        for iteration, worker, purpose, sent, received in rows:
            if purpose in ("updates", "orders", "parameters", "reports"):
                if purpose == "orders":
                    self._pairs.add((iteration, worker))
                self._sent += sent
                self._received += received

    def summary(self) -> Traffic | None:
        if not self._pairs:
            return None
        count = len(self._pairs)
        iterations = len({iteration for iteration, _ in self._pairs})
        return Traffic(self._sent / count, self._received / count, count / iterations)


class _Interrupt:
    """Ctrl-C and SIGTERM raise `KeyboardInterrupt`, but only where `allowed`: state and metrics never part ways."""

    def __init__(self) -> None:
        self._asked = False
        self._open = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Within the block an interrupt takes effect at once; one that came before takes effect on entering."""
        self._open = True
        try:
            if self._asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._open = False

    def _ask(self, *_: object) -> None:
        self._asked = True
        if self._open:
            raise KeyboardInterrupt


def _settings_of(algorithm: Any) -> dict[str, Any]:
    values = {field.name: getattr(algorithm, field.name) for field in fields(algorithm) if field.name != "spec"}
    return json.loads(json.dumps(values))


def _check_schedule(schedule: Schedule) -> None:
    if schedule.evaluate_every < 0:
        raise UsageError(f"evaluate_every must be at least 0 environment steps: got {schedule.evaluate_every}.")
    if schedule.evaluation_episodes < 1 or schedule.final_episodes < 1:
        raise UsageError("An evaluation needs at least 1 episode: raise evaluation_episodes and final_episodes.")
    if schedule.stop_at_return is not None:
        if not math.isfinite(schedule.stop_at_return):
            raise UsageError(f"stop_at_return must be a finite number: got {schedule.stop_at_return}.")
        if not schedule.evaluate_every:
            raise UsageError(
                f"stop_at_return={schedule.stop_at_return:g} needs evaluations to look at, and evaluate_every is 0: "
                "give it, in environment steps."
            )
    if not schedule.checkpoint_every_s >= 0:
        raise UsageError(f"checkpoint_every_s must be at least 0 seconds: got {schedule.checkpoint_every_s}.")
    if schedule.milestones < 0:
        raise UsageError(f"milestones must be at least 0: got {schedule.milestones}.")


def _record_evaluation(place: Path, iteration: int, found: Evaluation, interval: Interval) -> None:
    record = {
        "iteration": iteration,
        "mean": interval.value,
        "interval": [interval.low, interval.high] if np.isfinite(interval.low) else None,
        "method": interval.method,
        "returns": [float(value) for value in found.returns],
        "lengths": [int(value) for value in found.lengths],
        "failures": list(found.failures),
    }
    with writing("the evaluation", place):
        write_file(place, json.dumps(record, indent=1).encode())


def _check_budget(env_steps: int) -> None:
    if not 1 <= env_steps < 2**62:
        raise UsageError(f"The budget must be at least 1 environment step, and less than 2**62: got {env_steps}.")


def annealed_steps(settings: Mapping[str, Any]) -> int:
    """Training steps after which the learning rate is zero; 0 where it does not fall."""
    return settings.get("anneal_env_steps", 0) if settings.get("anneal_learning_rate") else 0


def _check_annealing(folder: RunFolder, manifest: Manifest, env_steps: int) -> None:
    """Raise a `UsageError` where steps would be taken with a learning rate that has fallen to zero."""
    annealed = annealed_steps(manifest.settings)
    if annealed and env_steps > max(annealed, manifest.env_steps):
        raise UsageError(
            f"{folder.path} lets its learning rate fall to zero at {annealed:,} steps, so that it would learn nothing "
            f"from there to {env_steps:,}: start a run with --anneal-env-steps {env_steps} or "
            f"--no-anneal-learning-rate, or go on with another rate by `workhorse fork {folder.path} --iteration "
            f"N --set anneal_env_steps={env_steps} --env-steps {env_steps}`."
        )


def _version_notes(manifest: Manifest) -> list[str]:
    now = installed_versions()
    changed = [
        f"{name} {then} -> {now[name]}" for name, then in manifest.versions.items() if now.get(name, then) != then
    ]
    if not changed:
        return []
    return [f"Versions changed since the run began ({', '.join(changed)}): its bits may differ from here on."]
