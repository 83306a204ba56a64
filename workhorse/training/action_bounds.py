"""Share of a run's actions that lie at one bound: 1 where the policy has no choice left, because all are clipped."""

import functools
from typing import Any, NamedTuple

import numpy as np

from workhorse.core.spec import ActionSpace, Box

__all__ = ["EVERY", "Ends", "counted", "ends_of", "one_sided"]

EVERY = 16
"""Steps between two that are looked at in whole episodes: a comparison in each would cost small tasks some percent."""


class Ends(NamedTuple):
    """From where on a component's value counts as at its bound, float32 (A,); infinite where there is no bound."""

    low: np.ndarray
    high: np.ndarray


@functools.cache
def ends_of(space: ActionSpace) -> Ends | None:
    """Return the ends of a space's components; None where no action has a bound to be at.

    A millionth of the width, or of the bound, is left for rounding.
    """
    if not isinstance(space, Box):
        return None
    low, high = np.array(space.low), np.array(space.high)
    if not np.isfinite([low, high]).any():
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        width = high - low
        below, above = (
            1e-6 * np.where(np.isfinite(width), width, np.maximum(np.abs(bound), 1.0)) for bound in (low, high)
        )
        return Ends((low + below).astype(np.float32), (high - above).astype(np.float32))


def counted(ends: Ends, actions: Any, weight: Any = 1) -> Any:
    """Return how many actions (n, ...) lie at the lower and at the upper bound of each component, (2, A).

    Args:
        ends: of the components.
        actions: of NumPy or JAX.
        weight: of each action, (n, 1), or one for all.
    """
    flat = actions.reshape(-1, len(ends.low))
    at_low, at_high = ((flat <= ends.low) * weight).sum(0), ((flat >= ends.high) * weight).sum(0)
    return np.stack([at_low, at_high]) if isinstance(flat, np.ndarray) else (at_low, at_high)


def one_sided(ends: Ends, counts: Any, total: float) -> float:
    """Return the share of actions at the more frequent of a component's two bounds, the mean over its components.

    A policy that jumps between both bounds, as the best one of many a task does, has a half; NaN without any action.

    Args:
        ends: of the components; those without a bound are left out.
        counts: as from `counted`.
        total: number of actions.

    Example:
        >>> ends = ends_of(Box((5.0,), (35.0,)))
        >>> one_sided(ends, counted(ends, np.array([[5.0], [5.0], [35.0], [20.0]])), 4)
        0.5
    """
    has_bound = np.isfinite(ends.low) | np.isfinite(ends.high)
    return float((np.max(np.asarray(counts), axis=0) / total)[has_bound].mean()) if total else float("nan")
