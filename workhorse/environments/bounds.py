"""Returns that a task can give at all: no estimate lies outside of them, so no interval is drawn there."""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["LEAST", "MOST", "return_bounds", "value_bounds"]

LEAST, MOST = "the least that the task can return", "the most that the task can return"
"""Ends of the method of an interval that was cut there."""


_PER_STEP: dict[str, tuple[float, float, int]] = {
    "CartPole-v1": (0.0, 1.0, 500),
    "Acrobot-v1": (-1.0, 0.0, 500),
    "MountainCar-v0": (-1.0, 0.0, 200),
    "Pendulum-v1": (-(math.pi**2 + 0.1 * 8**2 + 0.001 * 2**2), 0.0, 200),
    "InvertedPendulum-v5": (0.0, 1.0, 1000),
    "InvertedDoublePendulum-v5": (-math.inf, 10.0, 1000),
    "Reacher-v5": (-math.inf, 0.0, 50),
    "Pusher-v5": (-math.inf, 0.0, 100),
}
"""Least and greatest reward of a step, and steps of the longest episode, where the task's definition says so."""


def return_bounds(task: str, options: Mapping[str, Any] | None = None) -> tuple[float | None, float | None]:
    """Return the least and the greatest return of an episode, undiscounted; None where the task sets no such bound.

    Args:
        task: its id.
        options: the task's options; with any but `max_episode_steps` and `previous_action`, rewards may be others, and
            nothing is known.

    Example:
        >>> return_bounds("CartPole-v1"), return_bounds("CartPole-v1", {"max_episode_steps": 50})
        ((0.0, 500.0), (0.0, 50.0))
        >>> return_bounds("MountainCarContinuous-v0"), return_bounds("Hopper-v5")
        ((None, 100.0), (None, None))
    """
    options = dict(options or {})
    options.pop("previous_action", None)  # what is observed pays nothing
    if task == "MountainCarContinuous-v0" and not options.keys() - {"max_episode_steps"}:
        return None, 100.0  # once, for the goal; force only costs
    known = _PER_STEP.get(task)
    steps = options.pop("max_episode_steps", known[2] if known else None)
    if known is None or options or not isinstance(steps, int):
        return None, None
    return None if math.isinf(known[0]) else known[0] * steps, known[1] * steps


def value_bounds(task: str, options: Mapping[str, Any] | None, discount: float) -> tuple[float | None, float | None]:
    """Return the lowest and the highest discounted value that any policy can have; None where no bound is known.

    With r the greatest reward of a step it is r / (1 - gamma) if r > 0, which an episode that never ends would earn,
    and else r, because the task may end at once. *A clock is not used*: a value does not know how much time is left.

    Args:
        task: its id.
        options: the task's options; with any but `max_episode_steps`, rewards may be others, and nothing is known.
        discount: gamma.

    Example:
        >>> [round(bound, 6) for bound in value_bounds("CartPole-v1", {}, 0.99)]
        [0.0, 100.0]
        >>> value_bounds("Hopper-v5", {}, 0.99), value_bounds("MountainCarContinuous-v0", {}, 0.99)
        ((None, None), (None, 100.0))
    """
    if set(options or ()) - {"max_episode_steps"}:
        return None, None
    if task == "MountainCarContinuous-v0":
        return None, 100.0  # once, for the goal; force only costs
    if task not in _PER_STEP:
        return None, None
    least, most, _ = _PER_STEP[task]
    later = discount / (1.0 - discount) if discount < 1 else math.inf
    low = least + (later * least if least < 0 else 0.0)
    high = most + (later * most if most > 0 else 0.0)
    return None if math.isinf(low) else low, None if math.isinf(high) else high
