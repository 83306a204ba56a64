"""Rules about learning from a log: values that nothing in it supports, while the error of learning looks well."""

import math
from functools import partial

import numpy as np

from workhorse.runs.warnings.rule import Column, Rows, Rule, register

__all__ = ["RULES"]

RULES: list[Rule] = []
rule = partial(register, RULES)

STAY = (
    "Choose an algorithm that keeps its policy near the log (iql, td3+bc, cql), or stop at an earlier iteration that "
    "`workhorse select` prefers. More of the same steps do not help: the log must hold the actions that are missing."
)
COST = "values and nearest actions of at most 1,024 held-out steps an iteration"
SOURCE = "Kumar et al. 2019 (arXiv 1906.00949), figure 1; the conditions are our own"

OUTSIDE = 0.3
"""Share of unsupported actions from which on a policy has left the log: of the log's own actions, it is 5 %."""


def _spread(rows: Rows) -> float:
    """Return the standard deviation of the log's returns, by the first iterations: later values take part in it."""
    seen = rows.all("data_return_spread")[:5]
    return float(np.median(seen)) if len(seen) else math.nan


def _bound(rows: Rows) -> tuple[float, str]:
    """Return the highest bound that there was, and whose rewards it is by; NaN where there is none."""
    for name, whose in (("value_bound", "the task can give"), ("seen_value_bound", "the log holds")):
        seen = rows.all(name)
        if len(seen):
            return float(seen.max()), whose
    return math.nan, ""


def _rise(rows: Rows) -> float:
    """Return how far values of the log's actions have come above the returns since they were nearest, or met them."""
    gap = rows.all("return_gap")
    if len(gap) < 5:
        return math.nan
    return float(gap[-3:].mean() - max(_smooth(gap).min(), 0.0))


def _smooth(values: Column) -> Column:
    return np.convolve(values, np.full(3, 1 / 3), "valid")


def _has_left(rows: Rows) -> bool:
    """Tell whether the policy acts outside of the log."""
    outside = rows.last("outside_support", 5)
    return len(outside) == 5 and float(outside.mean()) >= OUTSIDE


@rule(
    name="value-above-bound",
    meaning="The policy's actions have values that no reward allows: they are made up, and the policy follows them.",
    condition=(
        "the mean value of the policy's actions on held-out steps is above the highest value that the rewards of the "
        "task allow, or, where these are not known, those of the log, by a quarter of the spread of the log's returns "
        "where that is known; of soft values, above the bound with the most entropy that there was"
    ),
    persistence=2,
    cost=COST,
    misleads="never for the values: it says nothing of how good the policy still is",
    remedy=STAY,
    source=SOURCE,
)
def _above_bound(rows: Rows) -> str | None:
    value, room = rows.newest("policy_value"), float(np.nan_to_num(0.25 * _spread(rows)))
    bound, whose = _bound(rows)
    if value > bound + room:
        return (
            f"the policy's actions have a mean value of {value:.3g} on held-out steps, and no reward that {whose} "
            f"allows more than {bound:.3g}"
        )
    return None


@rule(
    name="values-leave-returns",
    meaning="Values of the log's own actions rise away from the returns that followed them.",
    condition=(
        "the gap between both has risen by the spread of these returns since it was smallest, or 0, and three in ten "
        "of the policy's actions have no support in the log; or it has risen by three times their spread"
    ),
    persistence=3,
    cost=COST,
    misleads="a policy that is far better than the log and acts unlike it",
    remedy=STAY,
    source=SOURCE,
)
def _leave_returns(rows: Rows) -> str | None:
    rise, spread = _rise(rows), _spread(rows)
    if rise > 3 * spread or (rise > spread and _has_left(rows)):
        return (
            f"values of the log's actions are {rows.newest('return_gap'):.3g} above the returns that followed them, "
            f"{rise:.3g} more than they were, where these returns have a spread of {spread:.3g}"
        )
    return None


@rule(
    name="unsupported-actions",
    meaning="The policy prefers actions that the log does not hold, ever more so.",
    condition=(
        "the values of the policy's actions less those of the log's, over five iterations, are half as large again as "
        "ten iterations before, and a tenth of the spread of the log's returns, and three in ten of its actions have "
        "no support in the log"
    ),
    persistence=3,
    cost=COST,
    misleads="a log of bad actions, beside which there are better ones that generalise",
    remedy=STAY,
    source=SOURCE,
)
def _unsupported(rows: Rows) -> str | None:
    gap, spread = rows.last("action_gap", 15), _spread(rows)
    if len(gap) < 15 or not _has_left(rows):
        return None
    before, now = float(gap[:5].mean()), float(gap[-5:].mean())
    if now > 1.5 * before and now > 0.1 * spread:
        return (
            f"the policy's actions have values {now:.3g} above the log's own, {before:.3g} ten iterations before, and "
            f"{rows.newest('outside_support'):.0%} of them have no support in the log"
        )
    return None


@rule(
    name="no-overfitting",
    meaning="Learning looks well by its error, also where nothing was learnt from, while values are made up.",
    condition=(
        "values of the log's actions have risen by half the spread of the returns away from them, three in ten of the "
        "policy's actions have no support, and over five iterations the error to the targets on held-out steps is at "
        "most half as large again as on those that were learnt from"
    ),
    persistence=3,
    cost=COST,
    misleads="as values-leave-returns",
    remedy="Smaller networks and more regularisation do not help: this is no overfitting. " + STAY,
    source=SOURCE,
)
def _no_overfitting(rows: Rows) -> str | None:
    held_out, trained = rows.last("held_out_error", 5), rows.last("trained_error", 5)
    if min(len(held_out), len(trained)) < 5 or not _has_left(rows) or not _rise(rows) > 0.5 * _spread(rows):
        return None
    if held_out.mean() <= 1.5 * trained.mean():
        return (
            f"the squared error to the targets is {held_out.mean():.3g} on held-out steps and {trained.mean():.3g} on "
            f"those that were learnt from, and yet values of the log's actions are {rows.newest('return_gap'):.3g} "
            "above the returns that followed them: the policy finds actions whose value is made up"
        )
    return None
