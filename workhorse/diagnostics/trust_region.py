"""Trust region of a run: how far its updates moved the policy, beside the limit that its method promises."""

from typing import NamedTuple

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.runs.folder import RunFolder
from workhorse.runs.metrics import read_metrics
from workhorse.statistics.intervals import proportion_interval

__all__ = ["Promise", "trust_region"]


class Promise(NamedTuple):
    """One promise of a method, over a run.

    Attributes:
        quantity: measured after each update.
        batch: "training" or "held-out" steps.
        limit: the most that is promised; None where the method promises nothing of it.
        median, greatest: over the iterations.
        violations: share of iterations above the limit; NaN without one.
        low, high: its exact 95 % interval, as if iterations were independent.
        missing: iterations whose quantity is not a number, which count nowhere else.
    """

    quantity: str
    batch: str
    limit: float | None
    median: float
    greatest: float
    violations: float
    low: float
    high: float
    missing: int = 0

    @property
    def sentence(self) -> str:
        """The promise beside what was seen, for the terminal."""
        seen = f"{self.quantity} on {self.batch} steps: median {self.median:.3g}, greatest {self.greatest:.3g}"
        if self.missing:
            seen += f", not a number in {self.missing} more iterations"
        if self.limit is None:
            return f"{seen}; this algorithm sets no limit"
        return (
            f"{seen}; above {self.limit:.3g} in {self.violations:.0%} [{self.low:.0%}, {self.high:.0%}] of iterations"
        )


def trust_region(folder: RunFolder) -> list[Promise]:
    """Return the mean KL divergence, greatest KL divergence and greatest probability ratio of every update of a run.

    trpo promises that the mean KL on its training steps is at most `max_kl`. ppo's clip is meant to keep ratios within
    1 + `ratio_clip`. Held-out steps are those of slots that were never trained on.

    Raises:
        UsageError: the run's algorithm reports none of it, or it has no iteration yet.
    """
    metrics, manifest = read_metrics(folder), folder.manifest()
    if "mean_kl" not in metrics.columns:
        raise UsageError(
            f"{manifest.algorithm} of {folder.path} has no policy updates to measure: `diagnose` reads runs of "
            "reinforce, a2c, ppo and trpo that have an iteration at least."
        )
    max_kl, clip = manifest.settings.get("max_kl"), manifest.settings.get("ratio_clip")
    limits = {"mean_kl": max_kl, "max_kl": None, "max_ratio": None if clip is None else 1.0 + clip}
    words = {"mean_kl": "mean KL", "max_kl": "greatest KL", "max_ratio": "greatest ratio"}
    found = []
    for name, limit in limits.items():
        for batch, prefix in (("training", ""), ("held-out", "held_out_")):
            if prefix + name not in metrics.columns:
                continue
            values = metrics[prefix + name].drop_nulls().to_numpy()
            missing, values = int(np.isnan(values).sum()), values[~np.isnan(values)]
            if not len(values):
                continue
            share = low = high = float("nan")
            if limit is not None:
                above = int((values > limit * (1 + 1e-6)).sum())  # a limit met exactly, but for rounding, held
                interval = proportion_interval(above, len(values))
                share, low, high = above / len(values), interval.low, interval.high
            found.append(
                Promise(
                    words[name], batch, limit, float(np.median(values)), float(values.max()), share, low, high, missing
                )
            )
    return found
