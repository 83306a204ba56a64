"""Read the plan of a study from a file (YAML or JSON) or the command line, and check it before any run starts."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml

from workhorse.algorithms import registry as algorithms
from workhorse.core.errors import UsageError, nearest, unknown
from workhorse.core.records import Check, Text, build, parse
from workhorse.environments.registry import TASKS
from workhorse.studies.plan import FIRST_TUNING_SEED, Range, Search, StudyPlan
from workhorse.studies.rules import Budget, Until

__all__ = ["plan_of", "read_plan", "read_yaml"]

T = TypeVar("T")

Count = Annotated[int, Check(lambda number: number >= 1, "a whole number of at least 1")]
Seed = Annotated[
    int, Check(lambda seed: 0 <= seed < FIRST_TUNING_SEED, "a whole number in [0, 2**31), above which seeds are tuned")
]
Seeds = Annotated[tuple[Seed, ...], Check(bool, "a list of at least one seed")]
Names = Annotated[tuple[Text, ...], Check(bool, "a list of at least one name")]
Values = Annotated[tuple[Any, ...], Check(bool, "a list of values")]
Choices = Annotated[tuple[Any, ...], Check(lambda values: len(values) >= 2, "a list of at least 2 values")]
Numbers = Annotated[tuple[float, ...], Check(bool, "a list of numbers")]
Options = Mapping[str, Any]


@dataclass(frozen=True)
class _Ends:
    """Ends of a range that a search samples, or its logarithm."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class _Words:
    """Entries of a study file, each of its type; `plan_of` checks what they say of each other. See `StudyPlan`."""

    tasks: Names
    algorithms: Names
    seeds: Count | Seeds = 10
    env_steps: Count | Mapping[str, Count] = field(default_factory=dict)
    settings: Mapping[str, Options] = field(default_factory=dict)
    task_options: Mapping[str, Options] = field(default_factory=dict)
    grid: Mapping[str, Values] = field(default_factory=dict)
    search: Mapping[str, _Ends | Choices] = field(default_factory=dict)
    trials: Count = 20
    tuning_seeds: Count = 3
    thresholds: float | Mapping[str, float] = field(default_factory=dict)
    perturbations: bool | Mapping[str, Numbers] = False
    until: str = ""
    budget: str = ""
    evaluations: Count = 10
    evaluation_episodes: Count = 16
    final_episodes: Count = 100


def read_plan(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the words of a study file, YAML or JSON, as they stand; `plan_of` checks them.

    Raises:
        UsageError: no such file, not YAML, or not a table.
    """
    return read_yaml(path, "a study file", "Write names and values, as in `tasks: [Hopper-v5]`.")


def read_yaml(path: str | os.PathLike[str], noun: str, remedy: str) -> dict[str, Any]:
    """Read the table of a YAML or JSON file, as it stands; nothing in it is executed.

    Args:
        path: the file.
        noun: what it should hold, as in "a study file".
        remedy: what a user can do about a file that holds something else.

    Raises:
        UsageError: no such file, not YAML, a name twice, or not a table.
    """
    place = Path(path)
    try:
        text = place.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"Expected {noun} in {place}, which does not exist.") from error
    except OSError as error:
        raise UsageError(f"Could not read {place} as {noun}: {error}.") from error
    return parse(_load_yaml, text, place, f"{noun} in YAML", remedy)


def _load_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    """YAML loader without objects or a name that is there twice, for which 1e-3 is a number, as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


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
    known = [entry.name for entry in fields(_Words)]
    for name in words:
        if name not in known:
            close = nearest(str(name), known)
            hint = f" Did you mean {' or '.join(close)}?" if close else f" Known are {', '.join(known)}."
            raise UsageError(f"Unknown entry {name!r} in {where}.{hint}")
    is_yaml = where.endswith((".yaml", ".yml"))  # which makes a date of 2026-11-29
    remedy = "Correct it; in YAML, dates go in quotes." if is_yaml else "Correct it."
    found = build(_Words, _completed(words), where, remedy)
    seeds = tuple(range(found.seeds)) if isinstance(found.seeds, int) else found.seeds
    for key, values in {"tasks": found.tasks, "algorithms": found.algorithms, "seeds": seeds}.items():
        _check_once(values, key, where)
    for task in found.tasks:
        _check_task(task)
    for name in found.algorithms:
        algorithms.entry(name)
    _check_names(found.settings, found.algorithms, "settings", "algorithms")
    _check_names(found.task_options, found.tasks, "task_options", "tasks")
    for algorithm, options in found.settings.items():
        _check_options(options, [algorithm])
    _check_options([*found.grid, *found.search], found.algorithms)
    for option, values in found.grid.items():
        _check_once(values, f"grid: {option}", where)
    ranges = {option: _range(option, span, where) for option, span in found.search.items()}
    plan = StudyPlan(
        found.tasks,
        found.algorithms,
        seeds,
        _by_task(found.env_steps, found.tasks, "env_steps"),
        found.settings,
        found.task_options,
        found.grid,
        Search(ranges, found.trials, found.tuning_seeds) if ranges else None,
        _by_task(found.thresholds, found.tasks, "thresholds"),
        {} if found.perturbations is True else found.perturbations or None,
        Until.of(found.until) if found.until else None,
        Budget.of(found.budget) if found.budget else None,
        found.evaluations,
        found.evaluation_episodes,
        found.final_episodes,
    )
    _check_contradictions(plan, words, where)
    return plan


def _completed(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries in the one form that `_Words` has for them, with the defaults of those that are left out."""
    plain = asdict(_Words((), ()))
    found: dict[str, Any] = plain | {name: value for name, value in words.items() if value is not None}
    found |= {name: [found[name]] for name in ("tasks", "algorithms") if isinstance(found[name], str)}
    if isinstance(steps := found["env_steps"], Mapping):
        found["env_steps"] = {task: _whole(number) for task, number in steps.items()}
    else:
        found["env_steps"] = _whole(steps)
    if isinstance(search := found["search"], Mapping):
        found["search"] = {
            option: {"log": False, **span} if isinstance(span, Mapping) else span for option, span in search.items()
        }
    return found


def _whole(number: object) -> object:
    """Return 1e6, which is a float, as a whole number."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _check_once(values: Iterable[object], key: str, where: str) -> None:
    seen: set[str] = set()
    for value in values:
        if (word := json.dumps(value)) in seen:
            raise UsageError(f"{value} is listed twice under `{key}` in {where}: list it once.")
        seen.add(word)


def _check_names(found: Iterable[str], known: Sequence[str], key: str, what: str) -> None:
    for name in found:
        if name not in known:
            raise UsageError(f"`{key}` names {name!r}, which is none of the study's {what} ({', '.join(known)}).")


def _by_task(found: T | Mapping[str, T], tasks: Sequence[str], key: str) -> Mapping[str, T]:
    """Return a value by task, from that or from one for all tasks."""
    if not isinstance(found, Mapping):
        return dict.fromkeys(tasks, found)
    _check_names(found, tasks, key, "tasks")
    return found


def _range(option: str, span: _Ends | tuple[Any, ...], where: str) -> Range:
    if not isinstance(span, _Ends):
        return Range(choices=span)
    if not span.low < span.high or (span.log and span.low <= 0):
        raise UsageError(
            f"The range of {option} must rise, and begin above 0 where it is logarithmic, got {span.low:g} to "
            f"{span.high:g} in {where}."
        )
    return Range(span.low, span.high, span.log)


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


def _check_task(task: str) -> None:
    if task in TASKS or ":" in task:
        return
    import gymnasium

    if task not in gymnasium.registry:
        raise unknown("task", task, list(TASKS), "workhorse tasks")


def _check_options(options: Iterable[str], chosen: Sequence[str]) -> None:
    for option in options:
        for algorithm in chosen:
            known = algorithms.options(algorithm)
            if option not in known:
                raise unknown(f"option of {algorithm}", option, list(known), f"workhorse algorithms {algorithm}")
