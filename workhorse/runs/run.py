"""A run under way: iterate, evaluate, write down, until the budget is spent."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from workhorse.core.digest import digest
from workhorse.core.files import make_folder, writing
from workhorse.environments.bounds import LEAST, MOST, return_bounds
from workhorse.environments.registry import TASKS, is_native
from workhorse.runs import checkpoint
from workhorse.runs.account import Account
from workhorse.runs.budget import budget_notes
from workhorse.runs.cost import Ledger
from workhorse.runs.export import policy_of
from workhorse.runs.folder import RunFolder
from workhorse.runs.interrupt import Interrupt
from workhorse.runs.manifest import Manifest, owner_of
from workhorse.runs.metrics import MetricsLog
from workhorse.runs.schedule import Schedule
from workhorse.runs.sealed import write_record
from workhorse.runs.segments import save_progress
from workhorse.runs.traffic import Traffic, TrafficLog, TrafficSums
from workhorse.runs.warnings import Warned, Watch, preflight, read_warnings, write_warnings
from workhorse.statistics.intervals import Interval, cut, mean_interval
from workhorse.training.loop import Evaluation, Failures, Loop, Progress
from workhorse.training.rollouts import actor_of

__all__ = ["Meters", "Observer", "StopTraining", "Summary", "TrainingRun", "interval_of", "record_evaluation"]


@dataclass(frozen=True)
class Summary:
    """Result of a run, printed at its end.

    Attributes:
        episode_return: mean raw return of the noiseless policy with its interval over episodes; None where a log came
            without its task, so that the policy could not be played.
        episode_returns: the returns themselves.
        env_steps: training steps, or updates where a log alone was learnt from; evaluation_steps are counted apart.
        simulated_s: training steps in simulated seconds; None where the task has no such time.
        wall_s: wall time, as `workhorse cost` has it: of all sittings, with evaluations and checkpoints.
        training_s: the part of it in which iterations were computed.
        core_hours: cores held times hours, over all sittings and machines.
        failed_episodes: training episodes whose simulation broke.
        ledger: the core-seconds by kind of core, for a price.
        traffic: bytes a worker and iteration; None for a run on one machine.
    """

    episode_return: Interval | None
    episode_returns: tuple[float, ...]
    env_steps: int
    evaluation_steps: int
    simulated_s: float | None
    wall_s: float
    training_s: float
    core_hours: float
    failed_episodes: int
    ledger: Ledger
    traffic: Traffic | None


class StopTraining(Exception):
    """Raised by an observer to stop a run after the iteration it was told of: saved, `stopped`, not evaluated again."""


class Observer:
    """Is told what happens in a run; does nothing. The command line's progress display is one."""

    def started(self, folder: RunFolder, manifest: Manifest, row: Mapping[str, Any]) -> None:
        """The run begins, or goes on, at `row["iteration"]`, with `row["budget"]` and `row["schedule"]`."""

    def evaluating(self, episodes: int, last: bool) -> None:
        """An evaluation begins: after an iteration, before its row is told, or the last one of the run."""

    def iterated(self, row: Mapping[str, Any]) -> None:
        """An iteration is complete; `row` is its line of metrics.

        What is raised here ends the run with its state saved: `stopped` for `StopTraining`, `failed` for anything else.
        """

    def noted(self, sentence: str) -> None:
        """Something a user should know, once."""


@dataclass
class Meters:
    """Counters of a run that are no part of its state; saved with it. `wall_s` is of iterations alone."""

    wall_s: float = 0.0
    evaluation_steps: int = 0
    failed_episodes: int = 0
    last_return: float | None = None


class TrainingRun:
    """A run under way: the state, and what is written as it moves."""

    def __init__(
        self,
        folder: RunFolder,
        manifest: Manifest,
        loop: Loop,
        threads: int,
        progress: Progress,
        meters: Meters,
        schedule: Schedule,
        observer: Observer,
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._loop = loop
        self._progress = progress
        self._meters = meters
        self._schedule = schedule
        self._observer = observer
        self._metrics = MetricsLog(folder, resume_from=int(progress.iteration), settings=manifest.settings)
        self._traffic = TrafficLog(folder.path, int(progress.iteration), observer.noted)
        self._watch = self._watching()
        at = schedule.stop_at_return  # a run that reached it may have been stopped before it was judged
        self._ended_early = at is not None and any(map(self._schedule.is_reached, self._metrics.rows()))
        self._told = TrafficSums()
        self._account = Account(folder, loop, threads, int(progress.iteration) == 0, observer.noted)
        self._saved_at = time.monotonic()
        self._warned_of_failures = False
        self._warned_of_divergence = False

    def to_the_end(self, budget: int, resumed: bool) -> Summary:
        """Iterate until the budget is spent, then judge the policy."""
        state = "failed"
        with Interrupt() as interrupt:  # around all of it: a second Ctrl-C must not reach the last save
            try:
                self._write_status("running")
                self._begin(budget, resumed)
                if not resumed:
                    with interrupt.allowed():
                        self._look_ahead()
                while int(self._progress.env_steps) < budget and not self._ended_early:
                    self._iterate(interrupt, budget)
                found, interval = self._judge(interrupt)
                state = "finished"
            except (KeyboardInterrupt, StopTraining, BrokenPipeError):  # the last: nobody reads what is printed
                state = "stopped"
                raise
            finally:
                self._save()
                self._write_status(state)
                self._metrics.close()
            return self._summary(found, interval)

    def _iterate(self, interrupt: Interrupt, budget: int) -> None:
        begun = time.perf_counter()
        before, schedule = int(self._progress.env_steps), self._schedule
        with interrupt.allowed():
            after, metrics, failures = self._loop.iterate(
                self._progress,
                lambda env_steps: env_steps < budget and not schedule.evaluation_due(before, env_steps),
            )
            row = {"iteration": int(after.iteration), "env_steps": int(after.env_steps), **metrics}
            row["digest"] = digest(after.state)
            seconds = time.perf_counter() - begun
            found = None
            if self._loop.evaluates and schedule.evaluation_due(before, int(after.env_steps)):
                self._observer.evaluating(schedule.evaluation_episodes, False)
                found = self._loop.evaluate(after, schedule.evaluation_episodes)
        self._progress = after
        self._meters.wall_s += seconds
        self._meters.failed_episodes += len(failures)
        row |= {"wall_s": self._meters.wall_s, "steps_per_second": metrics["steps"] / seconds}
        row |= self._loop.metrics()
        self._note_traffic()
        if found is not None:
            row |= self._evaluated(found)
        self._metrics.append(row["iteration"], {name: value for name, value in row.items() if name != "iteration"})
        for sentence in self._loop.notes():
            self._observer.noted(sentence)
        self._tell(row, failures)
        if schedule.milestone_due(before, int(after.env_steps), self._manifest.env_steps):
            checkpoint.save(self._folder, row["iteration"], after, self._meta(), "milestones")
        with interrupt.allowed():  # a user's callback may wait; last, because it may end the run
            self._observer.iterated(row)
        if time.monotonic() - self._saved_at >= max(schedule.checkpoint_every_s, self._loop.checkpoint_every_s):
            self._save()
            self._write_status("running")

    def _evaluated(self, found: Evaluation) -> dict[str, float]:
        """Count an evaluation's steps and return its metrics."""
        self._meters.evaluation_steps += found.steps
        self._meters.last_return = float(found.returns.mean())
        return {
            "evaluation_return": float(found.returns.mean()),
            "evaluation_return_std": float(found.returns.std()),
            "evaluation_length": float(found.lengths.mean()),
            "evaluation_steps": self._meters.evaluation_steps,
        }

    def _tell(self, row: Mapping[str, Any], failures: Failures) -> None:
        """Tell the observer what an iteration's row means, and end the run where the schedule asks for it."""
        if failures and not self._warned_of_failures:
            self._warned_of_failures = True
            self._observer.noted(f"A simulation broke and its episode was ended there: {failures[0]}.")
        self._warn(self._watch.see(row))
        if self._schedule.is_reached(row):
            self._ended_early = True
            self._observer.noted(
                f"The evaluation after {row['env_steps']:,} steps returned {row['evaluation_return']:.1f}, as "
                f"--stop-at-return {self._schedule.stop_at_return:g} asks: the run ends here. `workhorse resume` would "
                "go on with it."
            )

    def _watching(self) -> Watch:
        """Return what looks for warnings, having read the rows of earlier sittings."""
        watch = Watch(self._manifest.settings)
        for row in self._metrics.rows():
            watch.see(row)
        watch.begin([warned for warned in read_warnings(self._folder, self._observer.noted) if warned.iteration == 0])
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
                "schedule": self._schedule,
            },
        )
        acts = not self._manifest.counts_updates
        for sentence in [] if resumed else budget_notes(self._loop.algorithm, budget, self._schedule, acts=acts):
            self._observer.noted(sentence)
        if self._manifest.task in TASKS and not is_native(self._manifest.task, self._manifest.task_options):
            self._observer.noted(
                f"{self._manifest.task} goes through the Gymnasium adapter, as wrappers and stacked frames need it: "
                "every step is a Python call in a worker process, slower than Workhorse's own simulator by a factor of "
                "2 (HalfCheetah) to 20 (CartPole), and its random numbers are others."
            )
        if self._loop.algorithm.spec.resume == "episode":
            self._observer.noted(
                f"{self._manifest.task} is not deterministic: a run of it is not reproduced to the bit, and a resume "
                "begins its episodes again."
            )

    def _look_ahead(self) -> None:
        """Warn of what looks wrong before the first iteration."""
        obs = self._loop.observations(self._progress)
        if obs is not None and int(self._progress.iteration) == 0:
            found = preflight(self._loop.algorithm.spec, self._manifest.settings, obs)
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

    def _judge(self, interrupt: Interrupt) -> tuple[Evaluation | None, Interval | None]:
        """Return the last evaluation, written down; nothing where the policy cannot be played."""
        if not self._loop.evaluates:
            return None, None
        iteration = int(self._progress.iteration)
        with interrupt.allowed():
            self._observer.evaluating(self._schedule.final_episodes, True)
            found = self._loop.evaluate(self._progress, self._schedule.final_episodes)
        interval = interval_of(found.returns, self._manifest)
        self._meters.last_return = interval.value
        record_evaluation(self._folder, f"{iteration}-{len(found.returns)}.json", iteration, found, interval)
        self._note_traffic()
        return found, interval

    def _summary(self, found: Evaluation | None, interval: Interval | None) -> Summary:
        """Return the result, with the costs that the last save wrote down."""
        step_seconds, env_steps = self._loop.algorithm.spec.step_seconds, int(self._progress.env_steps)
        return Summary(
            interval,
            () if found is None else tuple(map(float, found.returns)),
            env_steps,
            self._meters.evaluation_steps + (0 if found is None else found.steps),
            None if step_seconds is None or self._manifest.counts_updates else env_steps * step_seconds,
            self._account.ledger.wall_s,
            self._meters.wall_s,
            self._account.ledger.core_hours,
            self._meters.failed_episodes,
            self._account.ledger,
            self._told.mean(),
        )

    def _note_traffic(self) -> None:
        rows = self._loop.messages()
        self._traffic.append(rows)
        self._told.add(rows)

    def _save(self) -> None:
        self._metrics.flush()
        self._traffic.flush()
        self._account.save(int(self._progress.env_steps))
        save_progress(self._folder, self._loop, self._progress, self._meta())
        self._save_policy()
        self._saved_at = time.monotonic()

    def _meta(self) -> dict[str, Any]:
        return {"meters": asdict(self._meters), "schedule": asdict(self._schedule)}

    def _save_policy(self) -> None:
        algorithm, progress = self._loop.algorithm, self._progress
        actor = actor_of(algorithm, progress.state)
        policy = policy_of(algorithm, actor, self._manifest, int(progress.iteration), int(progress.env_steps))
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


def interval_of(returns: Sequence[float] | np.ndarray, manifest: Manifest) -> Interval:
    """Return the mean of an evaluation's returns with its interval, cut at what the task can return.

    Its method says so where an end was cut. An interval that says nothing, of a single return, stays infinite.
    """
    whole = mean_interval(returns)
    low, high = return_bounds(manifest.task, manifest.task_options)
    method = whole.method
    if low is not None and whole.low < low:
        method += f", cut at {low:,.10g}, {LEAST}"
    if high is not None and whole.high > high:
        method += f", cut at {high:,.10g}, {MOST}"
    if method == whole.method or not math.isfinite(whole.high):
        return whole
    bounds = (-math.inf if low is None else low, math.inf if high is None else high)
    return cut(whole, bounds)._replace(method=method)


def record_evaluation(
    folder: RunFolder, name: str, iteration: int, found: Evaluation, interval: Interval, stochastic: bool = False
) -> None:
    """Write an evaluation into the run folder; `stochastic`: its actions were drawn. What is not finite is null."""
    returns = [float(value) for value in found.returns]
    record = {
        "iteration": iteration,
        "stochastic": stochastic,
        "mean": interval.value if math.isfinite(interval.value) else None,
        "interval": [interval.low, interval.high] if np.isfinite(interval.low) else None,
        "method": interval.method,
        "returns": [value if math.isfinite(value) else None for value in returns],
        "lengths": [int(value) for value in found.lengths],
        "failures": list(found.failures),
        "measures": dict(found.measures),
    }
    place = folder.evaluations / name
    with writing("the evaluation", place):
        make_folder(folder.evaluations)
        write_record(place, record, folder.path, owner=owner_of(folder))
