"""Score forecasts that were kept against runs that exist."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workhorse.advice.advise import Advice
from workhorse.advice.forecast import RETURNS
from workhorse.advice.labels import CLASSES, ENOUGH, LEAST_GAIN, SEEDS_NEEDED
from workhorse.advice.store import find_rivals
from workhorse.core.errors import UsageError
from workhorse.runs.folder import RunFolder, list_runs

__all__ = ["Scored", "EndedRun", "brier_score", "reliability", "score_forecasts", "trials_in"]


class EndedRun(NamedTuple):
    """A run that has ended: what it was of, and the newest mean return."""

    id: str
    task: str
    options: dict
    algorithm: str
    result: float


class Scored(NamedTuple):
    """A forecast for one class on one task, and what came.

    Attributes:
        advice: the forecast that was kept.
        group: the class.
        chance: forecast.
        came: whether it worked.
        runs: by which this is known.
        line: return from which on a run counts as having worked.
    """

    advice: Advice
    group: str
    chance: float
    came: bool
    runs: tuple[str, ...]
    line: float

    @property
    def is_wrong(self) -> bool:
        """The forecast was on the other side of one half."""
        return (self.chance >= 0.5) != self.came


def trials_in(root: str | Path) -> list[EndedRun]:
    """Return the finished runs of a folder that have a return."""
    found = []
    for row in list_runs(root):
        folder = RunFolder(Path(root) / row.id)
        try:
            manifest, status = folder.manifest(), folder.status()
        except UsageError:
            continue  # damaged runs say nothing
        if status is None or status.state != "finished" or status.last_return is None:
            continue
        found.append(
            EndedRun(row.id, manifest.task, dict(manifest.task_options), manifest.algorithm, status.last_return)
        )
    return found


def score_forecasts(forecasts: Sequence[Advice], trials: Sequence[EndedRun]) -> list[Scored]:
    """Return a row for every class of every forecast that some run can judge.

    A class has worked if at least 4 of 5 of its runs reach floor + 0.8 * (best - floor), where `best` is the highest
    return of the probes, of the rivals and of all runs on the task: the rule of the label set.
    """
    found = []
    for advice in forecasts:
        mine = [one for one in trials if one.task == advice.task and one.options == dict(advice.options)]
        best = [advice.numbers[name] for name in RETURNS if np.isfinite(advice.numbers.get(name, np.nan))]
        rivals = find_rivals(advice.task, advice.options)
        if rivals is not None and rivals.best is not None:
            best.append(rivals.best.interval.value)
        best += [one.result for one in mine]
        floor = advice.numbers.get("floor", advice.numbers.get("random_return", np.nan))
        gain = max(best, default=np.nan) - floor
        line = floor + ENOUGH * gain if gain > LEAST_GAIN * max(abs(floor), 1e-9) else np.inf
        for way in advice.ways:
            runs = [one for one in mine if one.algorithm in CLASSES[way.group]]
            if runs:
                came = np.mean([one.result >= line for one in runs]) >= SEEDS_NEEDED
                found.append(Scored(advice, way.group, way.chance, bool(came), tuple(one.id for one in runs), line))
    return found


def brier_score(chances: Sequence[float], came: Sequence[bool]) -> float:
    """Return the mean squared distance of forecasts from what came, in [0, 1]; a constant 1/2 has 1/4.

    Example:
        >>> round(brier_score([0.9, 0.2], [True, False]), 3)
        0.025

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    return float(np.square(np.array(chances) - np.array(came, float)).mean())


def reliability(chances: Sequence[float], came: Sequence[bool], bins: int = 5) -> list[tuple[float, float, int]]:
    """Return (mean forecast, share that came, count) of each bin of equal width that has a forecast.

    Example:
        >>> reliability([0.1, 0.15, 0.9], [False, True, True])
        [(0.125, 0.5, 2), (0.9, 1.0, 1)]
    """
    told, happened = np.array(chances, float), np.array(came, float)
    place = np.minimum((told * bins).astype(int), bins - 1)
    return [
        (float(told[place == one].mean()), float(happened[place == one].mean()), int((place == one).sum()))
        for one in range(bins)
        if (place == one).any()
    ]
