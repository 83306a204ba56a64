"""Actions that need no policy: the one that does as good as nothing, and random ones."""

import numpy as np

from workhorse.core.spec import ActionSpace, Discrete, MultiBinary, MultiDiscrete, idle_action

__all__ = ["idle_actions", "random_actions"]


def idle_actions(space: ActionSpace, count: int) -> np.ndarray:
    """Return the action that does as good as nothing, see `core.spec.idle_action`, `count` times.

    Example:
        >>> from workhorse.core.spec import Box
        >>> idle_actions(Box((-1.0, 0.5), (1.0, 1.0)), 1).tolist()
        [[0.0, 0.5]]
    """
    idle = idle_action(space)
    return np.tile(idle, (count, *[1] * idle.ndim))


def random_actions(space: ActionSpace, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw actions inside the space; `shape` are the axes before an action's own.

    Uniform between two finite bounds and over choices; standard normal, clipped to the bound there may be, elsewhere.

    Example:
        >>> random_actions(MultiDiscrete((2, 9)), (3,), np.random.default_rng(0)).tolist()
        [[1, 5], [1, 2], [0, 0]]
    """
    match space:
        case Discrete():
            return rng.integers(space.count, size=shape)
        case MultiDiscrete():
            return rng.integers(space.counts, size=(*shape, space.size))
        case MultiBinary():
            return rng.integers(2, size=(*shape, space.size), dtype=np.int8)
    low, high = (np.reshape(bound, space.shape) for bound in (space.low, space.high))
    with np.errstate(over="ignore", invalid="ignore"):  # bounds may be infinite, or the ends of float64
        bounded = np.isfinite(high - low)
        start, span = np.where(bounded, low, 0.0), np.where(bounded, high - low, 0.0)
    drawn = rng.random((*shape, *space.shape))
    normal = rng.standard_normal((*shape, *space.shape))
    return np.where(bounded, start + span * drawn, np.clip(normal, low, high))
