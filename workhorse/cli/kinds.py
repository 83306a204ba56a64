"""Kinds of values on the command line: how each is read, and the word that `--help` shows for it.

Whole numbers may be written 7e6, 7_000_000, 7M or 500k; several may be written `64 64` or `64,64`.
"""

import dataclasses
import inspect
import math
import re
import types
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

__all__ = ["KINDS", "NUMBER", "TEXT", "WHOLE_NUMBER", "Count", "whole_number", "with_hints"]

Count: TypeAlias = int
"""Whole number of steps or the like: users write 7e6 or 7M for it."""

WHOLE_NUMBER, NUMBER, TEXT = "whole number", "number", "text"

CommandOptions = TypeVar("CommandOptions")

KINDS = ConstructorRegistry()
"""Rules by which tyro reads values and names them in `--help`."""

_POWERS = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}


def whole_number(words: Sequence[str]) -> int:
    """Return a whole number from its word.

    Example:
        >>> [whole_number([word]) for word in ("12", "7e6", "1M", "2.5k", "1,000,000", "7_000")]
        [12, 7000000, 1000000, 2500, 1000000, 7000]
    """
    word = words[0].strip()
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", word):
        word = word.replace(",", "")
    if re.fullmatch(r"[+-]?[\d_]+", word):
        return int(word)  # without the rounding of floats
    power = _POWERS.get(word[-1:].lower(), 1)
    value = float((word if power == 1 else word[:-1]).replace("_", "")) * power
    if not math.isfinite(value) or abs(value - round(value)) > 1e-9 * abs(value):
        raise ValueError(f"expected a whole number, got {word!r}")
    return round(value)


def _list(words: Sequence[str]) -> list[str]:
    """Return the words of a list written `64 64`, `64,64` or `[64, 64]`."""
    return [word for word in re.split(r"[\s,]+", " ".join(words).strip("[]()")) if word]


def _single(kind: type | tuple[type, ...], shown: str, read: Any, write: Any = str) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=shown,
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, kind) and not isinstance(value, bool),
        str_from_instance=lambda value: [write(value)],
    )


_SINGLE = {
    int: _single(int, WHOLE_NUMBER, whole_number, lambda value: f"{value:_}" if value >= 10_000 else str(value)),
    float: _single((int, float), NUMBER, lambda words: float(words[0]), lambda value: str(value).removesuffix(".0")),
    str: _single(str, TEXT, lambda words: words[0]),
}


@KINDS.primitive_rule
def _rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Return how a type of ours is read; None leaves it to tyro's own rules."""
    if info.type in _SINGLE:
        return _SINGLE[info.type]
    arguments = get_args(info.type)
    if get_origin(info.type) in (Union, types.UnionType) and len(arguments) == 2 and arguments[1] is type(None):
        return _or_none(_inner(arguments[0], info))
    if get_origin(info.type) is tuple and arguments[1:] == (...,) and tyro.conf.UseAppendAction not in info.markers:
        return _several(_inner(arguments[0], info))
    return None


def _inner(kind: Any, info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any]:
    found = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, info.markers))
    assert isinstance(found, PrimitiveConstructorSpec), f"{kind} is no kind of a command's option"
    return found


def _or_none(inner: PrimitiveConstructorSpec[Any]) -> PrimitiveConstructorSpec[Any]:
    """Return the kind of an option that may be left out, or be given as None."""
    nones = ("None",) if inner.metavar == TEXT else ("None", "none")
    return dataclasses.replace(
        inner,
        choices=None if inner.choices is None else (*inner.choices, *nones),
        instance_from_str=lambda words: None if words[0] in nones else inner.instance_from_str(words),
        is_instance=lambda value: value is None or inner.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else inner.str_from_instance(value),
    )


def _several(inner: PrimitiveConstructorSpec[Any]) -> PrimitiveConstructorSpec[Any]:
    """Return the kind of a list; one of choices stays as tyro splits it."""
    split = list if inner.choices else _list
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{inner.metavar} ...",
        choices=inner.choices,
        instance_from_str=lambda words: tuple(inner.instance_from_str([word]) for word in split(words)),
        is_instance=lambda value: isinstance(value, tuple) and all(map(inner.is_instance, value)),
        str_from_instance=lambda value: [word for one in value for word in inner.str_from_instance(one)],
    )


def with_hints(kind: type[CommandOptions]) -> type[CommandOptions]:
    """Return the dataclass of a command's options with what `--help` says of defaults in words.

    A command's own option that is None or empty by default says in its own sentence what that means.
    """
    fields: list[Any] = []
    annotations = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        annotation = annotations[field.name]
        hint = _hint(field.default, any(getattr(one, "help", None) for one in getattr(annotation, "__metadata__", ())))
        if hint is not None:
            kept = dataclasses.field(default=field.default)
            fields.append((field.name, Annotated[annotation, tyro.conf.arg(help_behavior_hint=hint)], kept))
    namespace = {"__doc__": inspect.getdoc(kind)}
    return dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), namespace=namespace)


def _hint(default: object, is_algorithms: bool) -> str | None:
    """Return what is said of a default; None for tyro's own words."""
    if isinstance(default, bool):
        return f"(default: {'yes' if default else 'no'})"
    if default in (None, (), ""):
        return "(default: none)" if is_algorithms else ""
    return None
