"""Forecast, from what a minute of probes measured, the probability that each class of approaches works on a task."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

__all__ = ["FEATURES", "Model", "features", "fit", "read_model"]

FILE = Path(__file__).parent / "forecast.json"

FEATURES = ("simple", "climb", "look_ahead", "es", "gradient", "plan", "reach", "reward_seen")
"""Inputs of the forecasts, each about 1 in size; see `features`."""
INPUTS: Mapping[str, tuple[str, ...]] = {
    "simple": ("simple",),
    "plan": ("plan", "look_ahead"),
    "es": ("es", "climb"),
    "gradient": ("gradient", "reach", "reward_seen"),
}
"""The features that the forecast of each class is made from: few, because there are few families to learn from."""
CLIP = 0.03
"""Forecasts are in [CLIP, 1 - CLIP]: nobody knows better after a minute."""
RETURNS = (
    "random_return", "guess_best", "climb_best", "lqr_return", "rule_return", "pid_return",
    "greedy_return", "plan_return", "es_return", "ppo_return",
)  # fmt: skip


def features(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the features of a task card's numbers.

    Returns are told as shares of the way from the floor to the best that any probe reached: `simple` for rules,
    guessing, climbing, PID and linear control, `climb` for guessing and climbing, `look_ahead`, `es`, `gradient` and
    `plan` for the others. `reach` is the steps in which nine tenths of an action's effect come, on a log scale that
    ends at 1,000; `reward_seen` of random episodes. What was not measured is left at 0.5.

    Example:
        >>> found = features({"floor": 0.0, "random_return": 0.0, "guess_best": 4.0, "ppo_return": 8.0})
        >>> found["simple"], found["gradient"], found["es"]
        (0.5, 1.0, 0.5)
    """
    floor = numbers.get("floor", numbers.get("random_return", math.nan))
    known = [numbers[name] for name in RETURNS if math.isfinite(numbers.get(name, math.nan))]
    span = max(known, default=math.nan) - floor

    def share(*names: str) -> float:
        there = [numbers[name] for name in names if math.isfinite(numbers.get(name, math.nan))]
        if not there or not math.isfinite(span):
            return 0.5
        return 0.0 if span <= 1e-9 * max(abs(floor), 1.0) else float(np.clip((max(there) - floor) / span, -0.5, 1.0))

    def scaled(name: str, top: float) -> float:
        value = numbers.get(name, math.nan)
        return 0.5 if math.isnan(value) else float(np.clip(math.log1p(max(value, 0.0)) / math.log1p(top), 0.0, 1.0))

    def plain(name: str) -> float:
        value = numbers.get(name, math.nan)
        return 0.5 if math.isnan(value) else float(value)

    return {
        "simple": share("guess_best", "climb_best", "lqr_return", "rule_return", "pid_return"),
        "climb": share("guess_best", "climb_best"),
        "look_ahead": share("greedy_return"),
        "es": share("es_return"),
        "gradient": share("ppo_return"),
        "plan": share("plan_return"),
        "reach": scaled("ninth_horizon", 1000.0),
        "reward_seen": plain("reward_seen"),
    }


@dataclass(frozen=True)
class Model:
    """Logistic regressions, one a class, on standardised features.

    Attributes:
        mean, scale: of each feature, by which it is standardised.
        weights: of each class, in the order of its `INPUTS`, the constant last.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: Mapping[str, tuple[float, ...]]

    def probabilities(self, found: Mapping[str, float]) -> dict[str, float]:
        """Return the forecast for each class."""
        told = {name: float(np.dot(row, self._told(found, name))) for name, row in self.weights.items()}
        return {name: float(np.clip(1 / (1 + math.exp(-odds)), CLIP, 1 - CLIP)) for name, odds in told.items()}

    def movers(self, found: Mapping[str, float], group: str, count: int = 3) -> list[tuple[str, float]]:
        """Return the features that moved a class's forecast most, with the change of its log odds."""
        parts = np.array(self.weights[group][:-1]) * self._told(found, group)[:-1]
        order = np.argsort(-np.abs(parts))[:count]
        return [(INPUTS[group][place], float(parts[place])) for place in order]

    def _told(self, found: Mapping[str, float], group: str) -> np.ndarray:
        row = (np.array([found[name] for name in FEATURES]) - self.mean) / self.scale
        return np.append(row[_places(group)], 1.0)


def _places(group: str) -> list[int]:
    return [FEATURES.index(name) for name in INPUTS[group]]


def fit(rows: Sequence[Mapping[str, float]], works: Mapping[str, Sequence[bool]], penalty: float = 1.0) -> Model:
    """Fit a model: for each class, the weights w that minimise log loss + penalty / 2 * |w|^2, the constant left free.

    Args:
        rows: features of each task.
        works: of each class, whether it works on each task.
        penalty: of the squared weights.
    """
    table = np.array([[row[name] for name in FEATURES] for row in rows])
    mean, scale = table.mean(0), np.maximum(table.std(0), 1e-6)
    standard, constant = (table - mean) / scale, np.ones((len(table), 1))
    weights = {}
    for name, wanted in works.items():
        told = np.concatenate([standard[:, _places(name)], constant], axis=1)
        sign = np.where(np.array(wanted), 1.0, -1.0)

        def loss(w: np.ndarray, sign: np.ndarray = sign, told: np.ndarray = told) -> tuple[float, np.ndarray]:
            margin = sign * (told @ w)
            slope = -sign / (1 + np.exp(margin))
            value = np.logaddexp(0, -margin).sum() + penalty / 2 * np.square(w[:-1]).sum()
            return float(value), told.T @ slope + penalty * np.append(w[:-1], 0.0)

        weights[name] = tuple(map(float, minimize(loss, np.zeros(told.shape[1]), jac=True, method="L-BFGS-B").x))
    return Model(tuple(map(float, mean)), tuple(map(float, scale)), weights)


def read_model() -> Model | None:
    """Return the model that is shipped; None where there is none."""
    if not FILE.exists():
        return None
    row = json.loads(FILE.read_text())["model"]
    weights = {name: tuple(values) for name, values in row["weights"].items()}
    return Model(tuple(row["mean"]), tuple(row["scale"]), weights)
