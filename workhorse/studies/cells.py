"""Summarise the runs of one variant on one task: scores with intervals, success, risk, cost, grades.

A run that crashed or diverged counts everywhere: as a failure, with a score that no run is below: see `failure_score`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from workhorse.robustness.retained import Robustness, robustness_of
from workhorse.statistics import reliability
from workhorse.statistics.intervals import (
    LEAST_IQM_RUNS,
    LEAST_RUNS,
    Interval,
    cut,
    iqm_interval,
    mean_interval,
    proportion_interval,
    score_interval,
)
from workhorse.statistics.survival import Reached, first_reach, median_steps, share_reached
from workhorse.studies.results import RunResult, StudyResults

__all__ = [
    "CellSummary",
    "Cost",
    "Curve",
    "Grade",
    "Reliability",
    "aligned_curves",
    "cell_scores",
    "failure_score",
    "has_collapsed",
    "floor_return",
    "random_return",
    "succeeded",
    "summarise",
]

ENOUGH_SEEDS = 10
"""Seeds from which on the interval of a mean holds what it says also where one seed in four fails."""

_LETTERS = ((0.9, "A"), (0.75, "B"), (0.5, "C"), (0.25, "D"), (-math.inf, "E"))
_COST_LETTERS = ((1.25, "A"), (2.0, "B"), (4.0, "C"), (8.0, "D"), (math.inf, "E"))


class Grade(NamedTuple):
    """Letter from A to E, and those that the interval allows. Empty where there is nothing to grade.

    Attributes:
        letter: the grade of the estimate.
        worst, best: those of the interval's ends.
        rule: meaning of the letters.
    """

    letter: str
    worst: str
    best: str
    rule: str

    @property
    def text(self) -> str:
        """The letter, or the range that the runs leave open, as "A (to C)".

        Example:
            >>> Grade("A", "C", "A", "").text, Grade("B", "B", "B", "").text, Grade("C", "D", "B", "").text
            ('A (to C)', 'B', 'C (B to D)')
        """
        if not self.letter or self.worst == self.best:
            return self.letter or "-"
        if self.letter == self.best:
            return f"{self.letter} (to {self.worst})"
        if self.letter == self.worst:
            return f"{self.letter} (to {self.best})"
        return f"{self.letter} ({self.best} to {self.worst})"


class Curve(NamedTuple):
    """Learning curves of a cell's runs on one grid of steps.

    Attributes:
        steps: training steps, (T,).
        runs: (runs, T), in the order of the cell; NaN before a run's first evaluation. Where a run was not evaluated
            at a step, its last evaluation stands; after a run crashed, the score of a failure.
        mean, low, high: Student's t band, (T,), pointwise, cut at what is possible; low and high are NaN below 3 runs.
        note: how the runs' own steps were brought onto the grid.
    """

    steps: np.ndarray
    runs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    note: str


class Cost(NamedTuple):
    """Cost of a cell.

    Attributes:
        core_hours: of a run, mean with its interval.
        env_steps: of a run, mean.
        core_hours_per_success: of all runs together over the number of successes; infinite without any.
    """

    core_hours: Interval | None
    env_steps: float
    core_hours_per_success: float


class Reliability(NamedTuple):
    """Dispersion and risk after Chan et al. 2020, in the task's units of return; NaN where the runs do not allow it.

    Attributes:
        over_time: median over runs of the spread of a curve's slopes, return a step.
        short_term_risk: the worst run's mean of its steepest falls, return a step.
        long_term_risk: the worst run's greatest drawdown.
        across_runs: IQR of the scores.
        risk_across_runs: mean of the worst twentieth of the scores: below 40 runs little more than the worst.
        over_rollouts: median over runs of the IQR of the final policy's episodes.
        risk_over_rollouts: the worst run's mean of its worst twentieth of episodes.
    """

    over_time: float
    short_term_risk: float
    long_term_risk: float
    across_runs: float
    risk_across_runs: float
    over_rollouts: float
    risk_over_rollouts: float


class CellSummary(NamedTuple):
    """Summary of a variant on a task.

    Attributes:
        task, variant: which cell.
        runs: its results, by seed, crashed ones included.
        scores: one a run, (runs,); that of a failure for a run without a score.
        successes: which of them reached the threshold.
        num_crashed, num_diverged, num_collapsed: a run has collapsed that ends below half of its own best above the
            floor.
        num_unfinished: planned runs that are not results yet.
        mean: of the scores, cut at what is possible; None below 3 runs, with the reason in `too_few`.
        iqm: likewise; None below 5 runs.
        doubt: why the interval of the mean may hold less than it says; empty from 10 runs, or first seeds, on.
        bounds: least and greatest possible score, infinite where it is not known.
        first_seeds: runs that were made whatever they returned, where others were added; 0 where all were.
        median, worst, best: of the scores.
        success: share of successes with the exact interval; None without runs.
        threshold, rule: from which return on a run is a success, and where that comes from.
        reached: share of runs that have reached the threshold, against steps; None without a threshold.
        steps_to_threshold: by which half of all runs have reached it.
        curve: learning curves; None where no run has one.
        reliability: dispersion and risk.
        cost: prices.
        robustness: None where no policy was swept.
        reliability_grade, robustness_grade, cost_grade: see `Grade.rule`.
        too_few: empty, or why intervals are missing.
    """

    task: str
    variant: str
    runs: tuple[RunResult, ...]
    scores: np.ndarray
    successes: np.ndarray
    num_crashed: int
    num_diverged: int
    num_collapsed: int
    num_unfinished: int
    mean: Interval | None
    iqm: Interval | None
    median: float
    worst: float
    best: float
    success: Interval | None
    threshold: float | None
    rule: str
    reached: Reached | None
    steps_to_threshold: Interval | None
    curve: Curve | None
    reliability: Reliability
    cost: Cost
    robustness: Robustness | None
    reliability_grade: Grade
    robustness_grade: Grade
    cost_grade: Grade
    too_few: str
    doubt: str = ""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    first_seeds: int = 0


def summarise(results: StudyResults, failures: Mapping[str, float] | None = None) -> tuple[CellSummary, ...]:
    """Summarise every cell of a study that has a result, task by task.

    Args:
        results: of the study.
        failures: by task, the score of a run that failed; by default `failure_score`.
    """
    failures = {task: failure_score(results, task) for task in results.tasks} | dict(failures or {})
    cells = [(task, variant) for task in results.tasks for variant in results.variants]
    found = [_summary(results, task, variant, failures) for task, variant in cells if results.cell(task, variant)]
    return tuple(cell._replace(cost_grade=_cost_grade(cell, found)) for cell in found)


def _summary(results: StudyResults, task: str, variant: str, failures: Mapping[str, float]) -> CellSummary:
    runs, bounds = results.cell(task, variant), results.bounds(task)
    scores, successes = cell_scores(results, runs, failures), np.array([succeeded(results, run) for run in runs])
    threshold = results.thresholds.get(task)
    floor = floor_return(results, task)
    enough = len(runs) >= LEAST_RUNS
    success = proportion_interval(int(successes.sum()), len(runs))
    robustness = robustness_of([run.sweep for run in runs if run.sweep is not None], floor)
    return CellSummary(
        task=task,
        variant=variant,
        runs=runs,
        scores=scores,
        successes=successes,
        num_crashed=sum(run.outcome == "crashed" for run in runs),
        num_diverged=sum(run.outcome == "diverged" for run in runs),
        num_collapsed=sum(has_collapsed(results, run) for run in runs),
        num_unfinished=sum((run.task, run.variant) == (task, variant) and not run.ended for run in results.runs),
        mean=cut(score_interval(scores, first=results.first_seeds), bounds) if enough else None,
        iqm=cut(iqm_interval(scores), bounds) if len(runs) >= LEAST_IQM_RUNS else None,
        median=float(np.median(scores)),
        worst=float(scores.min()),
        best=float(scores.max()),
        success=success,
        threshold=threshold,
        rule=_success_rule(results, task),
        reached=_reached(runs, threshold),
        steps_to_threshold=_steps_to_threshold(runs, threshold),
        curve=aligned_curves(runs, failures[task], bounds),
        reliability=_reliability(runs, scores),
        cost=_cost(runs, successes),
        robustness=robustness,
        reliability_grade=_graded(success, "share of seeds that succeed: A from .9, B .75, C .5, D .25"),
        robustness_grade=_graded(
            robustness and robustness.worst_share,
            "share of the return above the floor that the worst artefact leaves: A from .9, B .75, C .5, D .25",
        ),
        cost_grade=Grade("", "", "", ""),
        too_few="" if enough else f"{len(runs)} run{'s' * (len(runs) != 1)}: an interval needs at least {LEAST_RUNS}",
        doubt=_doubt(min(len(runs), results.first_seeds or len(runs))) if enough else "",
        bounds=bounds,
        first_seeds=results.first_seeds,
    )


def _doubt(runs: int) -> str:
    """Return what so few runs do not show, in words; empty where they are enough.

    Where `until` added seeds, its first ones count: if they showed no failure, the study ended early.
    """
    if runs >= ENOUGH_SEEDS:
        return ""
    return f"a failure of one seed in four stays unseen by {runs} seeds in {0.75**runs:.0%} of studies"


def cell_scores(
    results: StudyResults, runs: Sequence[RunResult], failures: Mapping[str, float] | None = None
) -> np.ndarray:
    """Return a score for every run; one that crashed or diverged gets that of a failure."""
    known = dict(failures or {})
    for run in runs:
        if run.score is None and run.task not in known:
            known[run.task] = failure_score(results, run.task)
    return np.array([known[run.task] if run.score is None else run.score for run in runs], np.float64)


def failure_score(results: StudyResults, task: str) -> float:
    """Return what a run that crashed or diverged counts as: the random policy's return, or the worst score if lower.

    *The random policy's return alone would not do*: where a short training run earns less than chance does, a crash
    would look better than a run that finished.
    """
    finished = [run.score for run in results.runs if run.task == task and run.score is not None]
    return min([random_return(results, task), *finished])


def succeeded(results: StudyResults, run: RunResult) -> bool:
    """Tell whether a run finished at its task's threshold or above it; without a threshold, above every floor.

    Above a floor means above the upper end of the 95 % interval of its mean. Without threshold and
    floors, no run is a success.
    """
    if run.outcome != "finished" or run.score is None:
        return False
    threshold = results.thresholds.get(run.task)
    if threshold is not None:
        return run.score >= threshold
    floor = results.floors.get(run.task)
    return floor is not None and run.score > max(map(_upper, floor.policies.values()))


def has_collapsed(results: StudyResults, run: RunResult) -> bool:
    """Tell whether a run ends below half of its own best, both above the floor."""
    finite = run.curve_returns[np.isfinite(run.curve_returns)]
    return bool(finite.size) and reliability.collapsed(finite, floor_return(results, run.task))


def aligned_curves(
    runs: Sequence[RunResult], failure: float, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Curve | None:
    """Return the runs' learning curves on the union of their steps, thinned to at most 200 points.

    Args:
        runs: of a cell.
        failure: what a run counts as once it has crashed.
        bounds: least and greatest possible return, at which the band is cut.
    """
    grids = [run.curve_steps for run in runs if run.curve_steps.size]
    if not grids:
        return None
    steps = np.unique(np.concatenate(grids))
    if len(steps) > 200:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, 200).round().astype(int))]
    values = np.stack([_held(run, steps, failure) for run in runs])
    known = ~np.isnan(values).any(0)
    mean, low, high = np.full((3, len(steps)), np.nan)
    for place in np.flatnonzero(known):
        found = cut(mean_interval(values[:, place]), bounds)
        mean[place] = found.value
        if len(runs) >= LEAST_RUNS:
            low[place], high[place] = found.low, found.high
    longest = max(grids, key=len)
    same = all((grid == longest[: len(grid)]).all() for grid in grids)  # a run that crashed has fewer
    note = "all runs were evaluated at the same steps"
    if not same:
        note = "runs were evaluated at different steps: between evaluations, each counts with its last one"
    return Curve(steps, values, mean, low, high, note)


def floor_return(results: StudyResults, task: str) -> float:
    """Return the greatest mean return of a policy that learns nothing, or what `random_return` says without floors."""
    floor = results.floors.get(task)
    return random_return(results, task) if floor is None else floor.greatest[1]


def random_return(results: StudyResults, task: str) -> float:
    """Return the mean return of the random policy or, if it could not be measured, the worst score of any run."""
    floor = results.floors.get(task)
    if floor is not None:
        return float(np.mean(floor.random))
    return min((run.score for run in results.runs if run.task == task and run.score is not None), default=0.0)


def _upper(returns: Sequence[float]) -> float:
    found = mean_interval(returns)
    return found.high if len(returns) > 1 else found.value


def _success_rule(results: StudyResults, task: str) -> str:
    threshold = results.thresholds.get(task)
    if threshold is not None:
        return f"return of at least {threshold:g} ({results.threshold_sources.get(task, 'given')})"
    if task not in results.floors:
        return "unknown: the task has no threshold, none was given, and its floors could not be measured"
    return "return above every policy that learns nothing (the task has no threshold, and none was given)"


def _held(run: RunResult, steps: np.ndarray, failure: float) -> np.ndarray:
    """The run's last evaluation at or before each of `steps`."""
    if not run.curve_steps.size:
        return np.full(len(steps), failure if run.outcome == "crashed" else np.nan)
    place = np.searchsorted(run.curve_steps, steps, side="right") - 1
    values = np.where(place >= 0, run.curve_returns[np.maximum(place, 0)], np.nan)
    if run.outcome in ("crashed", "diverged"):
        values = np.where((steps > run.curve_steps[-1]) | ((place >= 0) & np.isnan(values)), failure, values)
    return values


def _reached(runs: Sequence[RunResult], threshold: float | None) -> Reached | None:
    found = _first_reaches(runs, threshold)
    return None if found is None else share_reached(*found)


def _steps_to_threshold(runs: Sequence[RunResult], threshold: float | None) -> Interval | None:
    found = _first_reaches(runs, threshold)
    return None if found is None else median_steps(*found)


def _first_reaches(runs: Sequence[RunResult], threshold: float | None) -> tuple[list[float], list[bool]] | None:
    """Return when each run reached the threshold, and whether it did; a crashed run never does."""
    if threshold is None or not any(run.curve_steps.size for run in runs):
        return None
    longest = max(float(run.curve_steps[-1]) for run in runs if run.curve_steps.size)
    at, there = [], []
    for run in runs:
        steps, reached = longest, False
        if run.curve_steps.size:
            steps, reached = first_reach(run.curve_steps, run.curve_returns, threshold)
            steps = steps if reached or run.outcome == "finished" else longest
        at.append(steps)
        there.append(reached)
    return at, there


def _reliability(runs: Sequence[RunResult], scores: np.ndarray) -> Reliability:
    curves = [run for run in runs if run.curve_steps.size >= 3 and np.isfinite(run.curve_returns).all()]
    episodes = [run.episode_returns for run in runs if len(run.episode_returns) >= 2]
    over_time, falls, losses = [], [], []
    for run in curves:
        window = float(run.curve_steps[-1] - run.curve_steps[0])
        over_time.append(reliability.dispersion_over_time(run.curve_steps, run.curve_returns, window))
        falls.append(reliability.short_term_risk(run.curve_steps, run.curve_returns))
        losses.append(reliability.long_term_risk(run.curve_returns))
    return Reliability(
        _median(over_time),
        min(falls, default=math.nan),
        max(losses, default=math.nan),
        reliability.dispersion_of_rollouts(scores) if len(scores) >= LEAST_RUNS else math.nan,
        float(reliability.cvar(scores)) if len(scores) >= LEAST_RUNS else math.nan,
        _median([reliability.dispersion_of_rollouts(returns) for returns in episodes]),
        min((float(reliability.cvar(returns)) for returns in episodes), default=math.nan),
    )


def _cost(runs: Sequence[RunResult], successes: np.ndarray) -> Cost:
    hours = [run.core_hours for run in runs]
    per_success = sum(hours) / int(successes.sum()) if successes.any() else math.inf
    interval = mean_interval(hours) if len(hours) >= LEAST_RUNS else None
    interval = interval and interval._replace(low=max(interval.low, 0.0))  # a cost is never negative
    return Cost(interval, float(np.mean([run.env_steps for run in runs])), per_success)


def _cost_grade(cell: CellSummary, cells: Sequence[CellSummary]) -> Grade:
    rule = "core-hours per success, relative to the cheapest variant on the task: A to 1.25 x, B 2 x, C 4 x, D 8 x"
    prices = [other.cost.core_hours_per_success for other in cells if other.task == cell.task]
    if len(prices) < 2 or not 0 < min(prices) < math.inf:
        return Grade("", "", "", rule)
    share = cell.cost.core_hours_per_success / min(prices)
    letter = next(letter for limit, letter in _COST_LETTERS if share <= limit)
    return Grade(letter, letter, letter, rule)


def _graded(share: Interval | None, rule: str) -> Grade:
    if share is None or math.isnan(share.value):
        return Grade("", "", "", rule)

    def letter(value: float) -> str:
        return next(letter for limit, letter in _LETTERS if value >= limit)

    low = share.value if math.isnan(share.low) else share.low
    high = share.value if math.isnan(share.high) else share.high
    return Grade(letter(share.value), letter(low), letter(high), rule)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan
