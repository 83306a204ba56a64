"""What a log can support, and what not: imitation, reinforcement learning, judging other policies, intervals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from workhorse.core.spec import Box
from workhorse.data.dataset import Dataset
from workhorse.data.log_fits import LogFits

__all__ = ["support"]

DETERMINISTIC = 0.02
"""Unexplained share of the action below which there is one action in a state."""


def support(dataset: Dataset, fits: LogFits) -> Iterator[str]:
    """Yield sentences."""
    if dataset.num_episodes < 1:
        return
    yield from _of_returns(dataset)
    yield from _of_actions(dataset, fits)
    last = dataset.ends - 1
    shares = np.asarray(dataset.terminated)[last].mean(), dataset.is_broken_off(last).mean()
    yield (
        f"{shares[0]:.0%} of the episodes are terminated by the task"
        + (f", {shares[1]:.0%} broken off where the recording ended" if shares[1] else "")
        + "; values beyond the other ends are extrapolated."
    )


def _of_returns(dataset: Dataset) -> Iterator[str]:
    returns, count = dataset.returns(), dataset.num_episodes
    mean, spread = float(returns.mean()), float(returns.std(ddof=1)) if count > 1 else 0.0
    if count > 1:
        half = 1.96 * spread / np.sqrt(count)
        needed = int(np.ceil((1.96 * spread / max(0.05 * abs(mean), 1e-12)) ** 2)) if mean else 0
        enough = "" if needed <= count else f"; within 5 % of it would need about {min(needed, 10**7):,} episodes"
        yield f"The mean return of what acted is {mean:,.4g} +- {half:,.3g} over {count:,} episodes{enough}."
    best = float(np.sort(returns)[-max(count // 10, 1) :].mean())
    known = dataset.card.references
    scale = abs(known["expert"] - known["random"]) if {"expert", "random"} <= known.keys() else max(abs(mean), 1e-12)
    if spread < 0.05 * scale:
        yield (
            f"Returns hardly differ (spread {spread:,.3g}): imitation is what can be had of it, and choosing the "
            "better episodes gives nothing."
        )
    else:
        yield (
            f"The best tenth of the episodes returns {best:,.4g}, {abs(best - mean) / scale:.0%} of "
            f"{'the way from random to expert' if len(known) > 1 else 'the mean'} above the mean: filtered imitation "
            "can gain that, and learning values may gain more."
        )


def _of_actions(dataset: Dataset, fits: LogFits) -> Iterator[str]:
    if len(fits.steps) >= 400:
        left = float(np.mean(fits.action_by_shift[0]))
        if left < DETERMINISTIC:
            yield (
                f"There is one action in a state ({1 - left:.0%} of it is told by the observation): importance weights "
                "cannot judge another policy, and values of other actions are made up."
            )
        elif dataset.log_prob is None:
            yield "How likely each action was is not recorded: importance weights need a fitted behaviour policy."
    space = dataset.action_space
    if isinstance(space, Box) and np.isfinite(space.low).all() and np.isfinite(space.high).all():
        shares = dataset.card.coverage.get("action_bins")
        if shares and min(shares) < 0.5:
            least = int(np.argmin(shares))
            yield f"Component {least} of the action visits {shares[least]:.0%} of its range: nothing is known beyond."
