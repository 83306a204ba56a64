"""Read the command line: step counts like 7e6, task options like name=value, and errors in one sentence.

tyro's hook for errors is not part of its stable interface. Where the hook or an event is unknown, tyro's own, longer
message is printed.
"""

import ast
import contextlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Annotated, Any, TypeAlias, TypeVar, cast

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from workhorse.core.errors import UsageError, nearest

__all__ = ["Count", "parse", "parse_task_options"]


CommandOptions = TypeVar("CommandOptions")

# Objects of tyro's private interface, which has no types to name.
TyroEvent: TypeAlias = Any
TyroArgument: TypeAlias = Any


def _count(words: list[str]) -> int:
    try:
        value = float(words[0].replace("_", ""))
    except ValueError:
        raise ValueError(f"expected a whole number such as 7e6, got {words[0]!r}") from None
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"expected a whole number such as 7e6, got {words[0]!r}")
    return int(value)


Count = Annotated[
    int,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=_count,
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [f"{value:_}" if value >= 10_000 else str(value)],
    ),
]
"""Whole number that may be written 7e6 or 7_000_000."""


def parse(
    kind: type[CommandOptions], arguments: Sequence[str], default: CommandOptions | None = None
) -> CommandOptions:
    """Return a command's options as an instance of the dataclass `kind`; `--help` exits with 0.

    Options that are not on the command line have the values of `default`, where it is given.

    `BisectOptions` are those of `workhorse bisect`, and its docstring describes the command to users.

    Raises:
        UsageError: an option is unknown, lacks its value, or has a value of the wrong kind.
    """
    program = f"workhorse {kind.__name__.removesuffix('Options').lower()}"
    with _one_sentence(kind, program, list(arguments)):
        description = " ".join((kind.__doc__ or "").split())
        found = tyro.cli(kind, args=list(arguments), prog=program, description=description, default=default)
        return cast(CommandOptions, found)


def _one_sentence(kind: type, program: str, arguments: list[str]) -> AbstractContextManager[object]:
    """Return a context in which an error of tyro becomes a `UsageError`."""
    try:
        from tyro._errors import on_parse_error
    except ImportError:
        return contextlib.nullcontext()
    flags = [f"--{name.replace('_', '-')}" for name in getattr(kind, "__dataclass_fields__", {})]

    def say(event: TyroEvent) -> None:
        sentence = _sentence(event, flags, arguments)
        if sentence:
            raise UsageError(f"{sentence} `{program} --help` lists the options.")

    return on_parse_error(say)


def _sentence(event: TyroEvent, flags: list[str], arguments: list[str]) -> str | None:
    """Return our sentence about an error of tyro; None for an unknown one."""
    match type(event).__name__:
        case "UnrecognizedArgs":
            word = event.tokens[0]
            if not word.startswith("-"):
                return f"Expected an option, got the word {word!r}."
            close = nearest(word.partition("=")[0], flags)
            return f"Unknown option {word}." + (f" Did you mean {' or '.join(close)}?" if close else "")
        case "MissingArgs":
            missing = [_name(found.arg) for found in event.missing_arguments]
            return f"Expected {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} missing."
        case "InvalidChoice":
            choices = sorted(choice for choice in event.choices if choice != "None")
            return f"{_name(event.argument)} must be one of {', '.join(choices)}: got {event.value!r}."
        case "BadValue" if event.reason == "too_few_values":
            return f"{_name(event.argument)} needs {_wanted(event.argument)}, got none."
        case "InstantiationFailure" if event.argument is not None:
            given = _given(event.argument, arguments)
            return f"{_name(event.argument)} must be {_wanted(event.argument)}" + (f": got {given}." if given else ".")
        case _:
            return None


def _name(argument: TyroArgument) -> str:
    """Return the option as it is typed, or the name of a positional argument."""
    if argument.is_positional():
        return f"the {str(argument.field.intern_name).replace('_', ' ')}"
    return str(argument.lowered.name_or_flags[0])


def _wanted(argument: TyroArgument) -> str:
    """Return the kind of a value in words, from the name that `--help` shows for it."""
    shown = str(argument.lowered.metavar)
    kinds = {"INT": "a whole number", "FLOAT": "a number", "STR": "a word", "PATH": "a path"}
    if shown == "{None}|FLOAT":  # where None switches something off; elsewhere it only means that nothing was given
        return "a number or None"
    shown = shown.removeprefix("{None}|")
    return kinds.get(shown, f"of the form {shown}")


def _given(argument: TyroArgument, arguments: list[str]) -> str:
    """Return the words that were given for an option."""
    flag = argument.lowered.name_or_flags[0]
    for position, word in enumerate(arguments):
        if word.replace("_", "-") == flag:
            rest = arguments[position + 1 :]
            end = next((place for place, other in enumerate(rest) if other.startswith("--")), len(rest))
            return " ".join(map(repr, rest[:end]))
        if word.partition("=")[0].replace("_", "-") == flag:
            return repr(word.partition("=")[2])
    return ""


def parse_task_options(
    words: Sequence[str], what: str = "A task option", example: str = "frame_skip=5"
) -> dict[str, Any]:
    """Return options written name=value, where the value is a Python literal or a bare word.

    Example:
        >>> parse_task_options(["healthy_z_range=(0.5,2)", "xml_file=ant.xml"])
        {'healthy_z_range': (0.5, 2), 'xml_file': 'ant.xml'}

    Raises:
        UsageError: a word has no name or no `=`.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"{what} must be written name=value, as in {example}: got {word!r}.")
        try:
            options[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[name] = text
    return options
