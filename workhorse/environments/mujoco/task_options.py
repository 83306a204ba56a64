"""Options of the MuJoCo tasks: one frozen dataclass a task, whose fields declare which values are valid.

A field is declared by the kind of its value, `ctrl_cost_weight: float = weight(0.1)`, and `read_options` checks every
given value against the kind before any simulator is touched.
"""

import dataclasses
import math
import numbers
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from workhorse.core.errors import UsageError, nearest

__all__ = [
    "TaskOptions",
    "body",
    "count",
    "flag",
    "interval",
    "limit",
    "model_file",
    "read_options",
    "scale",
    "weight",
]

Options = TypeVar("Options")
Check = Callable[[object], object]


class _Unfit(ValueError):
    """A value of the wrong kind; the text says which was expected, and `read_options` adds the rest."""


def _option(default: object, check: Check) -> Any:
    return dataclasses.field(default=default, metadata={"check": check})


def _number(value: object) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real) or math.isnan(value):
        raise _Unfit("a number")
    return float(value)


def _finite(value: object) -> float:
    try:
        number = _number(value)
    except _Unfit:
        number = math.inf
    if not math.isfinite(number):
        raise _Unfit("a finite number")
    return number


def _not_negative(value: object) -> float:
    try:
        number = _finite(value)
    except _Unfit:
        number = -1.0
    if number < 0:
        raise _Unfit("a finite number of at least 0")
    return number


def _positive_integer(value: object) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral) or value < 1:
        raise _Unfit("an integer of at least 1")
    return int(value)


def _positive_integer_or_none(value: object) -> int | None:
    try:
        return None if value is None else _positive_integer(value)
    except _Unfit:
        raise _Unfit("an integer of at least 1, or None for no time limit") from None


def _boolean(value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise _Unfit("True or False")
    return bool(value)


def _ordered_pair(value: object) -> tuple[float, float]:
    try:
        low, high = value  # type: ignore[misc]
        pair = _number(low), _number(high)
    except (TypeError, ValueError):
        raise _Unfit("a pair (low, high) of numbers") from None
    if not pair[0] < pair[1]:
        raise _Unfit("a pair (low, high) with low < high")
    return pair


def _existing_file(value: object) -> str:
    if not isinstance(value, str | os.PathLike):
        raise _Unfit("the name of an XML file")
    if not os.path.isfile(model_path(str(value))):
        raise _Unfit("an existing XML file (a path starting with '/', '.' or '~', or one of Gymnasium's assets)")
    return str(value)


def _body(value: object) -> int | str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral) or value < 0:
        raise _Unfit("a body's name or its number")
    return int(value)


def weight(default: float) -> Any:
    """A finite real, of either sign: the factor of a reward term."""
    return _option(default, _finite)


def scale(default: float) -> Any:
    """A finite real of at least 0: the size of the reset noise."""
    return _option(default, _not_negative)


def count(default: int) -> Any:
    """An integer of at least 1."""
    return _option(default, _positive_integer)


def limit(default: int | None) -> Any:
    """An integer of at least 1, or None: the time limit in environment steps."""
    return _option(default, _positive_integer_or_none)


def flag(default: bool) -> Any:
    """True or False."""
    return _option(default, _boolean)


def interval(low: float, high: float) -> Any:
    """A pair low < high, infinities allowed."""
    return _option((low, high), _ordered_pair)


def body(default: int | str) -> Any:
    """A body by number or by name; that the model has it is checked when the model is loaded."""
    return _option(default, _body)


def model_file(default: str) -> Any:
    """An XML file: a path starting with '/', '.' or '~', or the name of one of Gymnasium's assets."""
    return _option(default, _existing_file)


def model_path(name: str) -> str:
    """Return the path of an `xml_file` option, by Gymnasium's rules."""
    if name.startswith((".", "/")):
        return name
    if name.startswith("~"):
        return os.path.expanduser(name)
    import gymnasium

    return os.path.join(os.path.dirname(gymnasium.__file__), "envs", "mujoco", "assets", name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Gymnasium's constructor options that every task has; a task's own class has the others, by the same names.

    Attributes:
        xml_file: the model.
        frame_skip: simulation steps an environment step.
        max_episode_steps: time limit in environment steps; None for none.
    """

    xml_file: str
    frame_skip: int = count(5)
    max_episode_steps: int | None = limit(1000)


def read_options(kind: type[Options], task: str, given: Mapping[str, Any]) -> Options:
    """Make the options of `task`, checked.

    Raises:
        UsageError: a name the task does not have, with the nearest it has, or a value that makes no sense for it.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {}
    for name, value in given.items():
        if name not in fields:
            close = nearest(name, fields)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(sorted(fields))}."
            raise UsageError(f"{task} has no option {name!r}; {hint}")
        try:
            values[name] = fields[name].metadata["check"](value)
        except _Unfit as unfit:
            raise UsageError(
                f"{task}.{name} must be {unfit}, got {value!r}; leave it out for {fields[name].default!r}."
            ) from None
    return kind(**values)
