"""The least and the most that an episode of a task can return, where its rewards are bounded."""

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["possible_returns"]

Bounds = tuple[float, float]
Options = Mapping[str, Any]


def possible_returns(task: str, options: Options | None = None) -> Bounds:
    """Return the least and the most that an episode can return; infinite where no bound is known.

    Only tasks that Workhorse has itself are known. An option that changes the rewards is taken into account.

    Args:
        task: the task's id.
        options: those that it was made with.

    Example:
        >>> possible_returns("CartPole-v1"), possible_returns("CartPole-v1", {"max_episode_steps": 100})
        ((1.0, 500.0), (1.0, 100.0))
        >>> possible_returns("Reacher-v5"), possible_returns("HalfCheetah-v5")
        ((-inf, 0.0), (-inf, inf))
    """
    try:
        return _BOUNDS[task](options or {})
    except (KeyError, TypeError, ValueError):  # not a task of ours, or an option that the task itself will refuse
        return -math.inf, math.inf


def _steps(options: Options, clock: int) -> float:
    found = options.get("max_episode_steps", clock)
    return math.inf if found is None else float(found)


def _cart_pole(options: Options) -> Bounds:
    """Each step pays 1, the one that fails too; by the book 0, and -1 for the one that fails."""
    return (-1.0, 0.0) if options.get("sutton_barto_reward") else (1.0, _steps(options, 500))


def _pendulum(options: Options) -> Bounds:
    """A step costs at most pi^2 + .1 * 8^2 + .001 * 2^2, with speed and torque at their bounds."""
    return -(math.pi**2 + 0.1 * 8.0**2 + 0.001 * 2.0**2) * _steps(options, 200), 0.0


def _paid_in_time(clock: int) -> Callable[[Options], Bounds]:
    """Return the bounds of a task that takes 1 for every step until it is solved."""
    return lambda options: (-_steps(options, clock), 0.0)


def _mountain_car_continuous(options: Options) -> Bounds:
    """Reaching the goal pays 100, and force costs: without a bound, for the task charges it as it was asked for."""
    return -math.inf, 100.0


def _inverted_pendulum(options: Options) -> Bounds:
    return 0.0, _steps(options, 1000)


def _double_pendulum(options: Options) -> Bounds:
    reward = float(options.get("healthy_reward", 10.0))
    return -math.inf, reward * _steps(options, 1000) if reward > 0 else 0.0


def _costs(*weights: str) -> Callable[[Options], Bounds]:
    """Return the bounds of a task that pays nothing and charges distances and actions, by weights of at least 0."""
    return lambda options: (-math.inf, 0.0 if all(options.get(name, 0) >= 0 for name in weights) else math.inf)


_BOUNDS: dict[str, Callable[[Options], Bounds]] = {
    "CartPole-v1": _cart_pole,
    "Pendulum-v1": _pendulum,
    "Acrobot-v1": _paid_in_time(500),
    "MountainCar-v0": _paid_in_time(200),
    "MountainCarContinuous-v0": _mountain_car_continuous,
    "InvertedPendulum-v5": _inverted_pendulum,
    "InvertedDoublePendulum-v5": _double_pendulum,
    "Reacher-v5": _costs("reward_dist_weight", "reward_control_weight"),
    "Pusher-v5": _costs("reward_near_weight", "reward_dist_weight", "reward_control_weight"),
}
