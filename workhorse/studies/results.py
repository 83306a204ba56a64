"""Results of a study: every planned run, with its learning curve, score, cost and outcome.

There are no estimates here: `cells`, `verdicts`, `tuning` and `across_tasks` make those. A crashed run is included like
any other.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from workhorse.robustness.results import Floor, Sweep

__all__ = ["Outcome", "RunResult", "SearchResult", "StudyResults", "Trial"]

Outcome = Literal["finished", "diverged", "crashed", "unfinished"]
"""`finished`: trained to the end with a finite score. `diverged`: trained to the end, but score or parameters are not
finite. `crashed`: the process raised an error or died. `unfinished`: not started, running, or stopped by the user; such
a run is not yet a result."""


@dataclass(frozen=True)
class RunResult:
    """Run of one seed of one variant of an algorithm on one task.

    Attributes:
        task: the task's id.
        variant: the algorithm with the settings that set it apart: "ars", or "ars (learning_rate 0.01)".
        algorithm: its name alone.
        settings: the options that differ between variants.
        seed: the run's seed.
        outcome: how it ended.
        reason: why it crashed or diverged, in a sentence; empty otherwise.
        score: mean raw return of the last evaluation; None where there is none or it is not finite.
        episode_returns: its episodes.
        curve_steps, curve_returns: training steps and mean return of the evaluations, the last one included.
        env_steps: training steps taken: the last iteration is always a whole one.
        budget: training steps after which no further iteration began.
        wall_s: wall time of the run in seconds, as `workhorse cost` has it.
        core_hours: its core time, cores held times hours.
        failed_episodes: training episodes whose simulation broke.
        folder: the run folder; None where the results were read from a table.
        sweep: the trained policy on changed tasks; None where it was not asked for.
    """

    task: str
    variant: str
    algorithm: str
    settings: Mapping[str, Any]
    seed: int
    outcome: Outcome
    reason: str = ""
    score: float | None = None
    episode_returns: tuple[float, ...] = ()
    curve_steps: np.ndarray = field(default_factory=lambda: np.zeros(0))
    curve_returns: np.ndarray = field(default_factory=lambda: np.zeros(0))
    env_steps: int = 0
    budget: int = 0
    wall_s: float = 0.0
    core_hours: float = 0.0
    failed_episodes: int = 0
    folder: Path | None = None
    sweep: Sweep | None = None

    @property
    def ended(self) -> bool:
        """Tell whether the run is a result: it finished, diverged or crashed."""
        return self.outcome != "unfinished"


@dataclass(frozen=True)
class Trial:
    """Setting tried in a search, judged on the tuning seeds.

    Attributes:
        number: in the order of the proposals.
        settings: the options tried.
        scores: a score for each tuning seed; None where a run crashed or diverged.
        value: what the search maximised: their mean; None where a run crashed or diverged, so that such a setting never
            wins.
        outcomes: how each of its runs ended; empty in studies from before this was written down.
    """

    number: int
    settings: Mapping[str, Any]
    scores: tuple[float | None, ...]
    value: float | None
    outcomes: tuple[str, ...] = ()

    @property
    def survived(self) -> bool:
        """Tell whether every one of its runs finished."""
        return self.value is not None and all(outcome == "finished" for outcome in self.outcomes)


@dataclass(frozen=True)
class SearchResult:
    """Search for settings, whose winner is run again on seeds that the search never used.

    Attributes:
        task, algorithm: what was tuned.
        tuning_seeds, reporting_seeds: disjoint.
        trials: every setting tried.
        winner: number of the trial with the highest value among those that survived; None while the search is under
            way, and where none survived.
        variant: the name under which the winner's runs on the reporting seeds stand in the study.
        complete: whether every trial has been judged.
    """

    task: str
    algorithm: str
    tuning_seeds: tuple[int, ...]
    reporting_seeds: tuple[int, ...]
    trials: tuple[Trial, ...]
    winner: int | None
    variant: str
    complete: bool = False

    @property
    def is_lost(self) -> bool:
        """Tell whether the search has come to its end without a setting that survived."""
        return self.complete and self.winner is None


@dataclass(frozen=True)
class StudyResults:
    """Results of a study so far.

    Attributes:
        name: the study's id.
        created: UTC time in ISO 8601.
        command: the exact command that makes this study again.
        runs: every planned run, ordered by task, variant, seed.
        floors: by task.
        thresholds: by task, the lowest return of a successful run; None where a run succeeds that beats every floor.
        threshold_sources: by task, where the threshold comes from.
        searches: of settings, if any.
        grid: for a study over a grid of settings, the values of each option; empty otherwise.
        versions: of Python and of the packages that compute.
        machine: the processor's name and the number of cores, in words.
        notes: sentences that a reader must know, such as how many runs crashed.
        task_options: by task, its options that differ from the defaults.
        return_bounds: by task, the least and the greatest possible return of an episode; None where it is not known.
        first_seeds: seeds that every cell got whatever they returned, where `until` added others; 0 where none were.
    """

    name: str
    created: str
    command: str
    runs: tuple[RunResult, ...]
    floors: Mapping[str, Floor]
    thresholds: Mapping[str, float | None]
    threshold_sources: Mapping[str, str] = field(default_factory=dict)
    searches: tuple[SearchResult, ...] = ()
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    notes: tuple[str, ...] = ()
    task_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    return_bounds: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    first_seeds: int = 0

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the study's order."""
        return tuple(dict.fromkeys(run.task for run in self.runs))

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants, in the study's order."""
        return tuple(dict.fromkeys(run.variant for run in self.runs))

    def bounds(self, task: str) -> tuple[float, float]:
        """Return the least and the greatest possible return on a task; infinite where it is not known."""
        low, high = self.return_bounds.get(task, (None, None))
        return -math.inf if low is None else low, math.inf if high is None else high

    def cell(self, task: str, variant: str) -> tuple[RunResult, ...]:
        """Return the runs of a variant on a task that are results, by seed."""
        return tuple(
            run for run in self.runs if (run.task, run.variant) == (task, variant) and run.outcome != "unfinished"
        )
