"""Values of a run from a log on held-out steps, one by one: against what followed, and against what rewards allow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.runs.history import History
from workhorse.runs.metrics import read_metrics
from workhorse.runs.warnings.offline import OUTSIDE
from workhorse.training.log_measures import log_measures, probe_values
from workhorse.training.offline import OfflineLoop
from workhorse.training.replay_measures import gives_values

__all__ = ["LogValueStudy", "check_log_values", "study_log_values", "verdict"]

SHOWN = 256
"""Held-out steps that a record keeps, at most."""


@dataclass(frozen=True)
class LogValueStudy:
    """Values at one iteration.

    Attributes:
        iteration: whose state was looked at.
        steps: held-out steps.
        measures: means over them, by the names of a run's metrics; see `workhorse.training.log_measures`.
        returns, data_values, policy_values: of up to 256 steps whose end is near enough to be known: what followed, the
            value of the log's action, and that of the policy's.
        outside: 1 where the policy's action has no support in the log, else 0, of the same steps.
        verdict: what it means, a sentence or two.
    """

    iteration: int
    steps: int
    measures: dict[str, float]
    returns: list[float]
    data_values: list[float]
    policy_values: list[float]
    outside: list[int]
    verdict: str


def check_log_values(history: History) -> OfflineLoop:
    """Return the loop of a run from a log.

    Raises:
        UsageError: it is none, or its algorithm tells no values.
    """
    loop, name = history.loop, history.manifest.algorithm
    if not isinstance(loop, OfflineLoop):
        raise UsageError(
            f"{history.folder.path} does not learn from a log alone: `diagnose --only log` reads runs of `workhorse "
            "offline`."
        )
    if not gives_values(loop.algorithm):
        raise UsageError(
            f"{name} of {history.folder.path} learns no values of actions: there is nothing to hold against the log. "
            "Its policy is judged by `workhorse select`."
        )
    loop.prepare()
    return loop


def study_log_values(history: History, iteration: int) -> LogValueStudy:
    """Measure the values of a run from a log at one iteration, on the steps that it held out.

    Raises:
        UsageError: the run is none from a log, has no values, or the state was not kept.
    """
    loop, state = check_log_values(history), history.measurable(iteration).state
    key = draw(root_key(loop.plan.seed), "held-out", 1, iteration)
    told = _told(history, iteration)
    found = jax.device_get(log_measures(loop.algorithm, state, loop.probe, key, told))
    there = jax.device_get(probe_values(loop.algorithm, state, loop.probe, key))
    known = np.flatnonzero(there.is_known)
    known = known[np.linspace(0, len(known) - 1, min(SHOWN, len(known))).astype(int)] if len(known) else known
    outside = np.zeros(len(there.data)) if there.is_outside is None else there.is_outside
    measures = {name: float(value) for name, value in found.items()}
    lists = [np.asarray(one)[known].astype(float).tolist() for one in (there.returns, there.data, there.policy)]
    flags = [int(flag) for flag in np.asarray(outside)[known]]
    return LogValueStudy(iteration, len(there.data), measures, *lists, flags, verdict(measures))  # type: ignore[arg-type]


def _told(history: History, iteration: int) -> dict[str, Any]:
    """Return what the updates before an iteration's end say of soft values."""
    if not history.folder.has_metrics:
        return {}
    metrics = read_metrics(history.folder.path)
    row = metrics.filter(metrics["iteration"] == iteration)
    names = [name for name in ("temperature", "reward_factor") if name in row.columns and len(row)]
    return {name: np.float32(row[name][0]) for name in names if row[name][0] is not None}


def verdict(measures: Mapping[str, float]) -> str:
    """Return what measures on held-out steps mean, in a sentence or two.

    Example:
        >>> print(verdict({"policy_value": 9.0, "value_bound": 0.0, "data_return_spread": 2.0, "outside_support": 0.6}))
        Values are made up: the policy's actions are worth 9 on average, and no reward that the task can give allows \
more than 0. 60 % of the policy's actions have no support in the log.
    """
    task, seen = measures.get("value_bound", math.nan), measures.get("seen_value_bound", math.nan)
    bound, whose = (seen, "the log holds") if math.isnan(task) else (task, "the task can give")
    spread = measures.get("data_return_spread", math.nan)
    value, gap = measures["policy_value"], measures.get("return_gap", math.nan)
    outside = measures.get("outside_support", math.nan)
    room = 0.0 if math.isnan(spread) else 0.25 * spread
    if value > bound + room:
        first = (
            f"Values are made up: the policy's actions are worth {value:.3g} on average, and no reward that {whose} "
            f"allows more than {bound:.3g}."
        )
    elif gap > 3 * spread or (gap > spread and outside >= OUTSIDE):
        first = (
            f"Values are far above what the log shows: those of its own actions by {gap:.3g}, where its returns have a "
            f"spread of {spread:.3g}. Unless the policy is far better than the log, they are made up, or have not come "
            "down yet from where they began."
        )
    elif outside >= OUTSIDE:
        first = "Values are near what the log shows, but the policy has left it: of its own actions nothing is known."
    else:
        first = "Values stay within what rewards allow, and the policy near the log."
    words = [first]
    if not math.isnan(outside):
        words.append(f"{100 * outside:.0f} % of the policy's actions have no support in the log.")
    held_out, trained = measures.get("held_out_error", math.nan), measures.get("trained_error", math.nan)
    if not math.isnan(held_out + trained):
        words.append(
            f"The squared error to the targets is {held_out:.3g} on held-out steps and {trained:.3g} on those that "
            f"were learnt from{': no overfitting' if held_out <= 1.5 * trained else ''}."
        )
    return " ".join(words)
