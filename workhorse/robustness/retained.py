"""Share of a policy's return that is left on changed tasks: by artefact, and at the worst corner."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from workhorse.robustness.results import Artefact, Sweep
from workhorse.statistics.intervals import LEAST_RUNS, Interval, mean_interval

__all__ = ["Retained", "Robustness", "robustness_of"]

BREAKS_BELOW = 0.5
"""A change breaks a policy when it keeps less than half of what it had above the floor, interval included."""


class Retained(NamedTuple):
    """Share of a policy's return above the floor that is left under an artefact, by value.

    Attributes:
        artefact, unit, nominal: which, and the value that changes nothing.
        values: the values tried, (V,).
        share: mean over runs, (V,); 1 at `nominal`.
        low, high: Student's t interval over runs; NaN below 3 runs.
        runs: (runs, V).
    """

    artefact: str
    unit: str
    nominal: float
    values: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: np.ndarray

    @property
    def worst(self) -> int:
        """Index of the value at which least is left."""
        return int(np.argmin(self.share))


class Robustness(NamedTuple):
    """Robustness of the policies of a cell, the runs of one variant on one task.

    Attributes:
        retained: one an artefact.
        worst_artefact: the one that leaves least, by name.
        worst_share: what it leaves, with its interval over runs.
        breaks: whether the interval lies below one half.
        worst_corner: the combination of ends that leaves least, by name; empty where no corner was tried.
        worst_corner_share: what it leaves, mean over runs.
        num_runs: runs whose policies were looked at.
        left_out: runs with nothing to retain: no better than the floor on the unchanged task.
        skipped: artefacts that the task cannot have, with the reason.
    """

    retained: tuple[Retained, ...]
    worst_artefact: str
    worst_share: Interval
    breaks: bool
    worst_corner: str
    worst_corner_share: float
    num_runs: int
    left_out: int
    skipped: dict[str, str]


def robustness_of(sweeps: Sequence[Sweep], floor: float) -> Robustness | None:
    """Estimate a cell's robustness from the sweeps of its runs.

    Args:
        sweeps: one a run.
        floor: the greatest mean return of a policy that learns nothing.

    Returns:
        None where there is no sweep, or no policy that is better than the floor.
    """
    useful = [sweep for sweep in sweeps if sweep.nominal_return > floor]
    if not useful or not useful[0].artefacts:
        return None
    retained = tuple(
        _retained([sweep.artefacts[place] for sweep in useful], floor) for place in range(len(useful[0].artefacts))
    )
    worst = min(retained, key=lambda found: found.share[found.worst])
    share = Interval(
        float(worst.share[worst.worst]), float(worst.low[worst.worst]), float(worst.high[worst.worst]), "Student t"
    )
    corner, corner_share = _worst_corner(useful, floor)
    return Robustness(
        retained,
        worst.artefact,
        share,
        share.high < BREAKS_BELOW,
        corner,
        corner_share,
        len(useful),
        len(sweeps) - len(useful),
        dict(useful[0].skipped),
    )


def _retained(artefacts: Sequence[Artefact], floor: float) -> Retained:
    first = artefacts[0]
    shares = np.stack([_shares(artefact, floor) for artefact in artefacts])
    intervals = [mean_interval(column) for column in shares.T]
    low, high = np.full((2, len(first.values)), np.nan)
    if len(artefacts) >= LEAST_RUNS:
        low, high = np.array([found.low for found in intervals]), np.array([found.high for found in intervals])
    mean = np.array([found.value for found in intervals])
    return Retained(first.name, first.unit, first.nominal, first.values, mean, low, high, shares)


def _shares(artefact: Artefact, floor: float) -> np.ndarray:
    """Return (R(v) - floor) / (R(nominal) - floor), (V,).

    Where a policy earns with every step, half the time pays half, and that is no loss: returns under a changed clock
    are then taken per unit of time. A policy counts as earning with every step if its return under the shortest clock
    is nearer to its share of the time than to the whole.
    """
    returns = np.where(np.isnan(artefact.returns), floor, artefact.returns)
    base = float(returns[np.argmin(np.abs(artefact.values - artefact.nominal))])
    if artefact.name == "time limit":
        shortest, share = float(returns[0]), float(artefact.values[0])
        if share < 1 and abs(shortest - share * base) < abs(shortest - base):
            returns = returns / artefact.values
    return (returns - floor) / (base - floor) if base != floor else np.zeros(len(returns))


def _worst_corner(sweeps: Sequence[Sweep], floor: float) -> tuple[str, float]:
    names = [name for name in sweeps[0].corners if all(name in sweep.corners for sweep in sweeps)]
    if not names:
        return "", math.nan
    shares = {
        name: float(np.mean([(sweep.corners[name] - floor) / (sweep.nominal_return - floor) for sweep in sweeps]))
        for name in names
    }
    worst = min(names, key=lambda name: shares[name])
    return worst, shares[worst]
