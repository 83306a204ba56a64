"""Sensitivity of an algorithm to the tuning of its hyper-parameters.

Performance is an array [environments, *grid], one axis for every hyper-parameter, made comparable between environments
by `normalise`. A setting that diverged is NaN; it is counted apart, and never taken for a bad score.

Source: Adkins, Bowling, White 2024, "A Method for Evaluating Hyperparameter Sensitivity in Reinforcement Learning"
(arXiv 2412.07165).
"""

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Sensitivity", "normalise", "sensitivity"]


class Sensitivity(NamedTuple):
    """Benefit of tuning to each environment.

    Attributes:
        sensitivity: tuned - default.
        tuned: mean over environments of the best setting in each.
        default: the best mean over environments of one setting for all.
        default_setting: that setting, an index for every hyper-parameter.
        effective_dimension: the fewest hyper-parameters, the same ones for all environments, to tune to each of them,
            the rest at the default, that give the wanted share of `tuned`. Only settings that diverged nowhere are
            tried for it, as in the source; where they never give that share it is the number of hyper-parameters.
        diverged: share of settings and environments that diverged.
        considered: share of settings that diverged nowhere; only those can be the default.
    """

    sensitivity: float
    tuned: float
    default: float
    default_setting: tuple[int, ...]
    effective_dimension: int
    diverged: float
    considered: float


def normalise(performance: ArrayLike, pool: ArrayLike | None = None) -> np.ndarray:
    """(J - p5) / (p95 - p5) in each environment, the percentiles over a pool of performances.

    Args:
        performance: [environments, ...], NaN where a setting diverged.
        pool: what the percentiles are of, [environments, ...]; by default `performance`. To compare algorithms it has
            to hold those of all of them, and the scores depend on which these are.

    Raises:
        ValueError: an environment whose pool does not vary.

    Example:
        >>> normalise(np.arange(101.0)[None])[0, [5, 95]].tolist()
        [0.0, 1.0]
    """
    values = np.asarray(performance, np.float64)
    reference = values if pool is None else np.asarray(pool, np.float64)
    flat = reference.reshape(len(reference), -1)
    low, high = np.nanpercentile(flat, [5, 95], axis=1)
    if (high <= low).any():
        place = int(np.argmax(high <= low))
        raise ValueError(f"The performances in environment {place} do not vary: they cannot be normalised.")
    shape = (-1,) + (1,) * (values.ndim - 1)
    return (values - low.reshape(shape)) / (high - low).reshape(shape)


def sensitivity(performance: ArrayLike, share: float = 0.95) -> Sensitivity:
    """Sensitivity and effective dimension of one algorithm.

    sensitivity = mean_e max_h G(e, h) - max_h mean_e G(e, h)

    The maximum over noisy means is biased upwards, the more so the fewer seeds a mean is of and the more settings there
    are: choose settings on some seeds and report others.

    Args:
        performance: normalised, [environments, *grid], NaN where a setting diverged.
        share: of `tuned`, what the effective dimension is to reach.

    Raises:
        ValueError: fewer than two axes, an environment where every setting diverged, or no setting without divergence.

    Example:
        >>> found = sensitivity([[[1.0, 0.0], [0.5, 0.4]], [[0.0, 0.1], [0.6, 1.0]]])
        >>> round(found.sensitivity, 3), found.default_setting, found.effective_dimension
        (0.3, (1, 1), 2)
    """
    values = np.asarray(performance, np.float64)
    if values.ndim < 2:
        raise ValueError(f"Expected performance [environments, *grid], got {values.ndim} axes.")
    if np.isnan(values).all(tuple(range(1, values.ndim))).any():
        raise ValueError("Every setting diverged in one of the environments: nothing can be said of tuning there.")
    everywhere = values.mean(0)  # NaN where a setting diverged anywhere
    if np.isnan(everywhere).all():
        raise ValueError("Every setting diverged somewhere: there is no default.")
    tuned = float(np.nanmax(values, tuple(range(1, values.ndim))).mean())
    setting = tuple(int(place) for place in np.unravel_index(np.nanargmax(everywhere), everywhere.shape))
    default = float(everywhere[setting])
    return Sensitivity(
        tuned - default,
        tuned,
        default,
        setting,
        _effective_dimension(np.where(np.isnan(everywhere), np.nan, values), setting, share * tuned),
        float(np.isnan(values).mean()),
        float((~np.isnan(everywhere)).mean()),
    )


def _effective_dimension(values: np.ndarray, setting: tuple[int, ...], wanted: float) -> int:
    number = values.ndim - 1
    for size in range(number + 1):
        for free in itertools.combinations(range(number), size):
            part = values[(slice(None), *(slice(None) if axis in free else setting[axis] for axis in range(number)))]
            if np.nanmax(part.reshape(len(values), -1), 1).mean() >= wanted:
                return size
    return number
