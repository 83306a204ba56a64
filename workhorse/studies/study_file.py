"""Read the plan of a study from a file (YAML or JSON) or the command line, and check it before any run starts."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from workhorse.algorithms import registry as algorithms
from workhorse.core.errors import UsageError, nearest, unknown
from workhorse.environments.registry import TASKS
from workhorse.runs.records import is_plain, parse, shown
from workhorse.studies.plan import FIRST_TUNING_SEED, Range, Search, StudyPlan
from workhorse.studies.rules import Budget, Until

__all__ = ["plan_of", "read_plan"]

T = TypeVar("T")
Read = Callable[[object, str, str], T]
"""Function that checks a value: (value, its name, where it was read)."""

_KEYS = (*(field.name for field in fields(StudyPlan)), "trials", "tuning_seeds")


def read_plan(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the words of a study file, YAML or JSON, as they stand; `plan_of` checks them.

    Raises:
        UsageError: no such file, not YAML, or not a table.
    """
    place = Path(path)
    try:
        text = place.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"Expected a study file in {place}, which does not exist.") from error
    except OSError as error:
        raise UsageError(f"Could not read the study file {place}: {error}.") from error
    remedy = "Write names and values, as in `tasks: [Hopper-v5]`."
    return parse(_load_yaml, text, place, "a study file in YAML", remedy)


def _load_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    """YAML loader without objects, for which 1e-3 is a number, as in YAML 1.2 and in Python."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*)(?:\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def plan_of(words: Mapping[str, Any], where: str = "the study") -> StudyPlan:
    """Return a checked plan from the entries of a study file or of the command line.

    Args:
        words: entries by name.
        where: for the messages.

    Raises:
        UsageError: an entry is unknown, of the wrong kind, or contradicts another.
    """
    _check_plain(words, where)
    for name in words:
        if name not in _KEYS:
            close = nearest(str(name), _KEYS)
            hint = f" Did you mean {' or '.join(close)}?" if close else f" Known are {', '.join(_KEYS)}."
            raise UsageError(f"Unknown entry {name!r} in {where}.{hint}")
    tasks = _names(words, "tasks", where)
    chosen = _names(words, "algorithms", where)
    for task in tasks:
        _check_task(task)
    for name in chosen:
        algorithms.entry(name)
    plan = StudyPlan(
        tasks,
        chosen,
        _seeds(words.get("seeds", 10), where),
        _by_task(words.get("env_steps"), tasks, "env_steps", where, _steps),
        _settings(words.get("settings"), chosen, where),
        _task_options(words.get("task_options"), tasks, where),
        _grid(words.get("grid"), chosen, where),
        _search(words, chosen, where),
        _by_task(words.get("thresholds"), tasks, "thresholds", where, _number),
        _perturbations(words.get("perturbations"), where),
        Until.of(str(words["until"])) if words.get("until") else None,
        Budget.of(str(words["budget"])) if words.get("budget") else None,
        _count(words.get("evaluations", 10), "evaluations", where),
        _count(words.get("evaluation_episodes", 16), "evaluation_episodes", where),
        _count(words.get("final_episodes", 100), "final_episodes", where),
    )
    _check_contradictions(plan, words, where)
    return plan


def _check_contradictions(plan: StudyPlan, words: Mapping[str, Any], where: str) -> None:
    names: dict[str, str] = {}
    for job in plan.jobs():
        cell = f"{job.variant} on {job.task}"
        if names.setdefault(job.id.lower(), cell) != cell:
            raise UsageError(
                f"{names[job.id.lower()]} and {cell} would have run folders of the same name, {job.id}: leave one of "
                f"them out of {where}."
            )
    if plan.grid and plan.search:
        raise UsageError(f"A study has a grid or a search, not both: leave one of them out of {where}.")
    for tuned, kind in ((plan.grid, "grid"), (plan.search.ranges if plan.search else {}, "search")):
        for algorithm, settings in plan.settings.items():
            both = sorted(set(tuned) & set(settings))
            if both:
                raise UsageError(
                    f"The option {both[0]} of {algorithm} is fixed by `settings` and varied by `{kind}` in {where}: "
                    "leave one of them out."
                )
    if plan.search is None:
        for name in ("trials", "tuning_seeds"):
            if name in words:
                raise UsageError(f"`{name}` is for a search, and {where} has none: add `search`, or leave it out.")
    if plan.until is not None and plan.budget is None:
        raise UsageError(f"`until {plan.until.text}` may never end: set a limit with `budget`, such as 2 core-hours.")
    if plan.until is not None and plan.search is not None:
        raise UsageError(f"`until` adds seeds as they are needed and `search` fixes them: leave one out of {where}.")


def _check_plain(words: Mapping[str, Any], where: str) -> None:
    """Refuse objects that YAML makes of an unquoted date or of a name such as `on`."""
    for name, value in words.items():
        if not isinstance(name, str):
            raise UsageError(f"Expected names, got the entry {name!r} in {where}: put it in quotes.")
        if name != "thresholds" and not is_plain(value):  # thresholds have a message of their own
            raise UsageError(
                f"Expected finite numbers, words, lists and tables under `{name}` in {where}, got {shown(value)}: put "
                "dates in quotes."
            )


def _check_task(task: str) -> None:
    if task in TASKS or ":" in task:
        return
    import gymnasium

    if task not in gymnasium.registry:
        raise unknown("task", task, list(TASKS), "workhorse tasks")


def _names(words: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    found = words.get(key)
    found = [found] if isinstance(found, str) else found
    if not found or not isinstance(found, Sequence) or not all(isinstance(name, str) for name in found):
        raise UsageError(f"Expected at least one name under `{key}` in {where}, got {found!r}.")
    twice = sorted({name for name in found if list(found).count(name) > 1})
    if twice:
        raise UsageError(f"{twice[0]} is listed twice under `{key}` in {where}: list it once.")
    return tuple(found)


def _seeds(found: object, where: str) -> tuple[int, ...]:
    if isinstance(found, int) and not isinstance(found, bool):
        if found < 1:
            raise UsageError(f"A study needs at least 1 seed, got {found} in {where}.")
        return tuple(range(found))
    if not isinstance(found, Sequence) or isinstance(found, str) or not found:
        raise UsageError(f"`seeds` must be a number of seeds or a list of them, got {found!r} in {where}.")
    for seed in found:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < FIRST_TUNING_SEED:
            raise UsageError(
                f"A seed must be a whole number in [0, 2**31), got {seed!r} in {where}; larger ones are for tuning, so "
                "that no seed is used for both."
            )
    if len(set(found)) < len(found):
        raise UsageError(f"A seed is listed twice in {where}: the same run twice is not two results.")
    return tuple(found)


def _by_task(found: object, tasks: Sequence[str], key: str, where: str, read: Read[T]) -> dict[str, T]:
    """Read one value for all tasks, or a value by task."""
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        return {task: read(found, key, where) for task in tasks}
    for task in found:
        if task not in tasks:
            raise UsageError(f"`{key}` names {task!r}, which is none of the study's tasks ({', '.join(tasks)}).")
    return {task: read(value, f"{key} of {task}", where) for task, value in found.items()}


def _steps(value: object, key: str, where: str) -> int:
    number = _number(value, key, where)
    if number < 1 or number != int(number):
        raise UsageError(f"`{key}` must be a whole number of at least 1, got {value!r} in {where}.")
    return int(number)


def _number(value: object, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"`{key}` must be a finite number, got {value!r} in {where}.")
    return float(value)


def _count(value: object, key: str, where: str) -> int:
    return _steps(value, key, where)


def _settings(found: object, chosen: Sequence[str], where: str) -> dict[str, dict[str, Any]]:
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise UsageError(f"`settings` must be options by algorithm, got {found!r} in {where}.")
    for algorithm, options in found.items():
        if algorithm not in chosen:
            raise UsageError(
                f"`settings` names {algorithm!r}, which is none of the study's algorithms ({', '.join(chosen)})."
            )
        if not isinstance(options, Mapping):
            raise UsageError(f"`settings` of {algorithm} must be options and values, got {options!r} in {where}.")
        for option in options:
            _check_option(option, [algorithm])
    return {algorithm: dict(options) for algorithm, options in found.items()}


def _task_options(found: object, tasks: Sequence[str], where: str) -> dict[str, dict[str, Any]]:
    if found is None:
        return {}
    if not isinstance(found, Mapping) or not all(isinstance(options, Mapping) for options in found.values()):
        raise UsageError(f"`task_options` must be options by task, got {found!r} in {where}.")
    for task in found:
        if task not in tasks:
            raise UsageError(f"`task_options` names {task!r}, which is none of the study's tasks ({', '.join(tasks)}).")
    return {task: dict(options) for task, options in found.items()}


def _grid(found: object, chosen: Sequence[str], where: str) -> dict[str, tuple[Any, ...]]:
    if not found:
        return {}
    if not isinstance(found, Mapping):
        raise UsageError(f"`grid` must be lists of values by option, got {found!r} in {where}.")
    for option, values in found.items():
        _check_option(option, chosen)
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise UsageError(f"`grid` needs a list of values for {option}, got {values!r} in {where}.")
        if len({json.dumps(value) for value in values}) < len(values):
            raise UsageError(f"A value of {option} is listed twice in the grid of {where}.")
    return {option: tuple(values) for option, values in found.items()}


def _search(words: Mapping[str, Any], chosen: Sequence[str], where: str) -> Search | None:
    found = words.get("search")
    if not found:
        return None
    if not isinstance(found, Mapping):
        raise UsageError(f"`search` must be ranges by option, got {found!r} in {where}.")
    ranges = {}
    for option, span in found.items():
        _check_option(option, chosen)
        ranges[option] = _range(option, span, where)
    trials = _count(words.get("trials", 20), "trials", where)
    return Search(ranges, trials, _count(words.get("tuning_seeds", 3), "tuning_seeds", where))


def _range(option: str, span: object, where: str) -> Range:
    if isinstance(span, Sequence) and not isinstance(span, str) and len(span) >= 2:
        return Range(choices=tuple(span))
    if not isinstance(span, Mapping) or not {"low", "high"} <= set(span) <= {"low", "high", "log"}:
        raise UsageError(
            f"`search` needs for {option} a list of at least 2 values, or {{low: ..., high: ..., log: true}}, got "
            f"{span!r} in {where}."
        )
    low, high = (_number(span[end], f"{end} of {option}", where) for end in ("low", "high"))
    if not low < high or (span.get("log") and low <= 0):
        raise UsageError(
            f"The range of {option} must rise, and begin above 0 where it is logarithmic, got {low:g} to {high:g} in "
            f"{where}."
        )
    return Range(low, high, bool(span.get("log", False)))


def _perturbations(found: object, where: str) -> dict[str, tuple[float, ...]] | None:
    if found is None or found is False:
        return None
    if found is True:
        return {}
    if not isinstance(found, Mapping):
        raise UsageError(f"`perturbations` must be true, or lists of values by artefact, got {found!r} in {where}.")
    values = {}
    for name, given in found.items():
        if not isinstance(given, Sequence) or isinstance(given, str) or not given:
            raise UsageError(f"`perturbations` needs a list of values for {name}, got {given!r} in {where}.")
        values[str(name)] = tuple(_number(value, f"perturbations of {name}", where) for value in given)
    return values


def _check_option(option: str, chosen: Sequence[str]) -> None:
    for algorithm in chosen:
        known = algorithms.options(algorithm)
        if option not in known:
            raise unknown(f"option of {algorithm}", option, list(known), f"workhorse algorithms {algorithm}")
