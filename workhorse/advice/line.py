"""The line under every result: the cheapest rival that earns as much."""

from collections.abc import Mapping
from typing import Any

from workhorse.advice.store import find_rivals

__all__ = ["rival_line", "rival_mark"]


def rival_line(task: str, options: Mapping[str, Any], result: float) -> str:
    """Return the sentence for a learner's mean return: the cheapest rival within 5 %, that there is none, or unknown.

    Example:
        >>> rival_line("CartPole-v1", {"max_episode_steps": 77}, 77.0)
        'not measured for this task and its options; `workhorse rivals CartPole-v1` does it'
    """
    found = find_rivals(task, options)
    if found is None:
        return f"not measured for this task and its options; `workhorse rivals {task}` does it"
    rival = found.cheapest_within(result)
    if rival is not None:
        price = f"{_number(rival.core_s)} core-seconds and {rival.steps:,.0f} simulator steps"
        return f"{rival.contender.algorithm} earns {_number(rival.interval.value)} for {price}"
    best = found.best
    said = f"none found for {found.budget_s:,.0f} core-seconds"
    return (
        said if best is None else f"{said}; the best is {best.contender.algorithm} with {_number(best.interval.value)}"
    )


def rival_mark(task: str, options: Mapping[str, Any], result: float) -> tuple[str, float] | None:
    """Return name and mean return of the rival to draw beside a result: the cheapest within 5 %, else the best one."""
    found = find_rivals(task, options)
    rival = None if found is None else found.cheapest_within(result) or found.best
    return None if rival is None else (rival.contender.algorithm, rival.interval.value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
