"""Check a plan by building each of its cells, before the first run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.environments.wrappers import require_time_limit
from workhorse.robustness.ranges import read_ranges
from workhorse.studies.plan import StudyPlan
from workhorse.studies.search import is_whole
from workhorse.training.plan import Plan

__all__ = ["check_by_building"]


def check_by_building(plan: StudyPlan) -> None:
    """Build every cell once, to find an impossible setting before the first run.

    Raises:
        UsageError: an option out of range, a task that cannot be made, actions that an algorithm cannot take.
    """
    if plan.perturbations:
        read_ranges(plan.perturbations)
    settings: list[tuple[str, str, Mapping[str, object]]] = plan.cells()
    settings += [(task, name, one) for task in plan.tasks for name, one in _ends_of_search(plan)]
    for task, algorithm, setting in settings:
        job = plan.job(task, algorithm, setting, plan.seeds[0])
        built = Plan(task, job.task_options, algorithm, job.settings, job.seed)
        spec = built.spec()
        require_time_limit(spec)
        built.make_algorithm(spec)


def _ends_of_search(plan: StudyPlan) -> list[tuple[str, dict[str, object]]]:
    """Return (algorithm, setting) for every choice and for both ends of every range, one option at a time.

    Raises:
        UsageError: an option takes whole numbers, and an end of its range is not one.
    """
    found = []
    ranges = plan.search.ranges if plan.search else {}
    for algorithm in plan.algorithms:
        for name, span in ranges.items():
            ends: tuple[Any, ...] = span.choices or (span.low, span.high)
            if not span.choices and is_whole(registry.options(algorithm)[name].annotation):
                if any(end != int(end) for end in ends):
                    raise UsageError(f"{name} of {algorithm} takes whole numbers: got the range {ends}.")
                ends = tuple(map(int, ends))
            found += [(algorithm, {name: end}) for end in ends]
    return found
