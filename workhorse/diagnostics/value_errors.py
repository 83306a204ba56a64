"""Errors of a value function: against its own targets, against single returns, and against the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["AgainstTruth", "PairErrors", "explained", "relative_error"]


@dataclass(frozen=True)
class PairErrors:
    """Errors of a value function that has just learnt, on the pairs of one rollout.

    Attributes:
        own_error: mean of |V - target| / |target|, against the targets that training uses, of every step.
        return_error, truth_error: the same against single returns and the truth, of the first step of every slot.
        own_explained: 1 - Var(target - V) / Var(target), of every step.
        return_explained, truth_explained: as those of a `ValueStudy`, of the first step of every slot.
    """

    own_error: float
    return_error: float
    truth_error: float
    own_explained: float
    return_explained: float
    truth_explained: float

    @staticmethod
    def of(value: np.ndarray, target: np.ndarray, returns: np.ndarray) -> PairErrors:
        """Compare values with their own targets (T, B), and with many returns from the first of the steps (R, B)."""
        truth = AgainstTruth.of(value[0], returns)
        return PairErrors(
            relative_error(value, target),
            relative_error(value[0], returns),
            truth.relative_error,
            explained(value, target),
            explained(value[0], returns),
            truth.explained,
        )


class AgainstTruth(NamedTuple):
    """Errors against the truth; names as in `ValueStudy`."""

    relative_error: float
    explained: float
    bias: float
    bias_error: float
    squared_error: float
    truth_spread: float
    return_spread: float

    @staticmethod
    def of(value: np.ndarray, returns: np.ndarray) -> AgainstTruth:
        """Compare values (S,) with the mean of many returns (R, S) from the same states."""
        truth, variance = returns.mean(0), returns.var(0, ddof=1)
        noise, error = variance / len(returns), value - truth
        # The mean of R returns is off by `noise`, which adds to every squared difference from it.
        squared = float(np.square(error).mean() - noise.mean())
        spread = float(truth.var(ddof=1) - noise.mean())
        told_apart = spread > 2 * noise.mean() * np.sqrt(2 / (len(truth) - 1))
        return AgainstTruth(
            relative_error(value, truth),
            1.0 - squared / spread if told_apart else float("nan"),
            float(error.mean()),
            float(error.std(ddof=1) / np.sqrt(len(error))),
            squared,
            float(np.sqrt(max(spread, 0.0))),
            float(np.sqrt(variance).mean()),
        )


def relative_error(value: np.ndarray, target: np.ndarray) -> float:
    """Return the mean of |V - target| / |target| where the target is not zero, broadcast; NaN where it always is."""
    size = np.abs(target)
    return float((np.abs(value - target)[size > 0] / size[size > 0]).mean()) if (size > 0).any() else float("nan")


def explained(value: np.ndarray, target: np.ndarray) -> float:
    """Return 1 - Var(target - V) / Var(target); NaN for a constant target."""
    spread = target.var()
    return float(1.0 - (target - value).var() / spread) if spread > 0 else float("nan")
