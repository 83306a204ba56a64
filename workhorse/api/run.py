"""A training run, as a program or a notebook holds it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workhorse.api.watching import Callback, followed
from workhorse.environments.constructors import Constructor, name_of
from workhorse.reports.wording import interval_text
from workhorse.runs import train
from workhorse.runs.folder import RunFolder, run_row
from workhorse.runs.manifest import Manifest
from workhorse.runs.metrics import read_metrics
from workhorse.runs.policy import Policy
from workhorse.runs.trust import trust_run
from workhorse.statistics.intervals import Interval

if TYPE_CHECKING:
    import polars as pl

    from workhorse.api.diagnosis import Diagnosis, Topic
    from workhorse.runs.video import Video

__all__ = ["PolicyEvaluation", "Run"]


@dataclass(frozen=True)
class PolicyEvaluation:
    """Episodes of a policy without noise, on the task's own reward.

    Attributes:
        episode_return: their mean with its 95 % interval over episodes: `value`, `low`, `high`.
        returns: undiscounted, of each episode.
        lengths: in steps, of each episode.
        failures: a sentence for each episode whose simulation broke.
    """

    episode_return: Interval
    returns: np.ndarray
    lengths: np.ndarray
    failures: tuple[str, ...]

    @property
    def mean(self) -> float:
        """The mean return."""
        return self.episode_return.value

    def __repr__(self) -> str:
        return f"return {interval_text(self.episode_return)} over {len(self.returns)} episodes"


class Run:
    """A training run. `workhorse.train` makes one, `Run.open` opens the folder of one.

    Everything is in its folder: another process, or another machine that the folder was copied to, opens the same run.

    Attributes:
        path: the run folder.
        summary: what training gave, where it came to its end through this object: the return with its interval, steps,
            seconds and core-hours; None otherwise.

    Example:
        >>> import workhorse
        >>> run = workhorse.Run.open("runs/first")  # doctest: +SKIP
        >>> run.resume(env_steps=200_000).evaluate(episodes=100).mean  # doctest: +SKIP
        487.3
    """

    def __init__(self, folder: RunFolder, summary: train.Summary | None = None) -> None:
        self._folder = folder
        self.summary = summary

    @staticmethod
    def open(path: str | os.PathLike[str], *, task: Constructor | None = None, trust: bool = False) -> Run:
        """Open the folder of a run.

        Args:
            path: the folder, as in "runs/<id>".
            task: the constructor that the run was begun with, where no other process finds it by its name: a lambda,
                a local function, something typed into another notebook.
            trust: run the code that a run from elsewhere names: the module of its task, its wrappers, its algorithm.
                Remembered for that run.

        Raises:
            UsageError: nothing is there, it is no run, or its manifest is damaged.
        """
        folder = RunFolder.open(path)
        if task is not None:
            name_of(task, folder.manifest().task)
        if trust or task is not None:
            trust_run(folder.manifest())
        return Run(folder)

    @property
    def path(self) -> Path:
        return self._folder.path

    @property
    def id(self) -> str:
        """Name of the run, which is that of its folder."""
        return self._folder.id

    @property
    def manifest(self) -> Manifest:
        """Everything that the run was begun with: versions, hardware and the command, too."""
        return self._folder.manifest()

    @property
    def task(self) -> str:
        """Id of the task."""
        return self.manifest.task

    @property
    def algorithm(self) -> str:
        """Name of the algorithm."""
        return self.manifest.algorithm

    @property
    def seed(self) -> int:
        """Root seed of all random numbers."""
        return self.manifest.seed

    @property
    def settings(self) -> Mapping[str, Any]:
        """Every option of the algorithm with its value."""
        return self.manifest.settings

    @property
    def state(self) -> str:
        """State: finished, stopped by the user or a callback, failed with an error, interrupted (its process is gone),
        running or new.
        """
        return run_row(self._folder).status

    @property
    def env_steps(self) -> int:
        """Environment steps trained so far."""
        return run_row(self._folder).env_steps or 0

    @property
    def last_return(self) -> float | None:
        """Newest mean return of an evaluation; None before the first."""
        return run_row(self._folder).last_return

    @property
    def policy(self) -> Policy:
        """The policy as it was saved last, which acts with NumPy alone: `run.policy.predict(obs)`.

        Raises:
            UsageError: none was saved yet, or it is damaged.
        """
        return Policy.load(self._folder.policy)

    @property
    def metrics(self) -> pl.DataFrame:
        """One row an iteration: steps, returns, evaluations, and the algorithm's own measures.

        Raises:
            UsageError: none were written yet, or they are damaged.
        """
        return read_metrics(self._folder)

    def evaluate(
        self, episodes: int = 100, *, seed: int | None = None, stochastic: bool = False, threads: int = 0
    ) -> PolicyEvaluation:
        """Play new episodes without noise, on the task's own reward.

        Args:
            episodes: how many.
            seed: of the initial states; by default the run's own.
            stochastic: draw actions from the policy, as in training, instead of taking the likeliest.
            threads: simulation threads; 0 for one a core.

        Raises:
            UsageError: no checkpoint of the run is whole, or the policy has nothing to draw from.
        """
        _, found, interval = train.evaluate_run(
            self._folder, episodes=episodes, seed=seed, threads=threads, stochastic=stochastic, noted=print
        )
        return PolicyEvaluation(interval, found.returns, found.lengths, tuple(found.failures))

    def resume(
        self,
        *,
        env_steps: int | None = None,
        threads: int = 0,
        callback: Callback | None = None,
        progress: bool = True,
        wandb: str | None = None,
    ) -> Run:
        """Go on from the newest checkpoint: the same bits as if the run had never stopped.

        Args:
            env_steps: a new budget, of the whole run; by default the run's own.
            threads: simulation threads, which do not change the result.
            callback: as for `workhorse.train`.
            progress: whether to show it.
            wandb: as for `workhorse.train`.

        Returns:
            This run.

        Raises:
            UsageError: another process trains in it, or no checkpoint of it is whole.
        """
        _, self.summary = followed(
            lambda observer: train.resume(self._folder, env_steps=env_steps, threads=threads, observer=observer),
            callback,
            progress,
            wandb=wandb,
        )
        return self

    def report(self) -> Path:
        """Write the report, one HTML page that works offline, and return its path."""
        from workhorse.reports.run_page import write_run_report

        return write_run_report(self._folder)

    def video(self, *, seed: int = 0, max_steps: int = 1000, width: int = 480, height: int = 480) -> Video:
        """Record one episode of the policy, and return its file (`path`), return and length.

        Args:
            seed: of the initial state.
            max_steps: the longest that is recorded.
            width: of the picture in pixels, for MuJoCo tasks.
            height: likewise.

        Raises:
            UsageError: there is no policy yet, or the task cannot be drawn.
        """
        from workhorse.runs.video import record

        return record(self._folder, seed=seed, max_steps=max_steps, width=width, height=height)

    def diagnose(
        self,
        *,
        at: Sequence[int] = (),
        only: Sequence[Topic] = (),
        budget: int | None = None,
        estimates: int = 10,
        grid: int = 31,
        pairs: int = 20_000,
        threads: int = 0,
        progress: bool = True,
    ) -> Diagnosis:
        """Measure the assumptions of a policy gradient on this run; earlier measurements are kept and not repeated.

        Args:
            at: iterations to measure, among those whose state was kept; by default the first, the last, two between.
            only: parts among "gradients", "values", "baselines", "trust-region" and "landscape"; by default gradients,
                values and trust region, as far as the run allows.
            budget: environment steps for each part at each iteration; by default 1,000,000, and for the landscape no
                limit.
            estimates: independent estimates of each gradient.
            grid: points of the landscape along each axis.
            pairs: environment steps at each point of the landscape.
            threads: simulation threads; 0 for one a core.
            progress: whether to say what is measured.

        Raises:
            UsageError: a part that was named cannot be measured on this run, or none can.
        """
        from workhorse.api.diagnosis import DiagnosisLines, DiagnosisObserver, Question, diagnose

        question = Question(tuple(at), tuple(only), budget, estimates, grid, pairs, threads)
        return diagnose(self._folder, question, DiagnosisLines() if progress else DiagnosisObserver())

    def __repr__(self) -> str:
        row = run_row(self._folder)
        value = "" if row.last_return is None else f", return {row.last_return:.1f}"
        return (
            f"Run({os.fspath(self.path)!r}: {row.task} by {row.algorithm}, seed {row.seed}, {row.status} after "
            f"{row.env_steps or 0:,} steps{value})"
        )
