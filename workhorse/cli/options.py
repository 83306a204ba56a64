"""Read the command line: a command's options, task options like name=value, and errors in one sentence.

tyro's hook for errors is not part of its stable interface. Where the hook or an event is unknown, tyro's own, longer
message is printed.
"""

import ast
import contextlib
import re
import sys
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, TextIO, TypeAlias, TypeVar, cast, get_args

import tyro

from workhorse.cli.hints import flag_hint, word_hint
from workhorse.cli.kinds import KINDS, NUMBER, TEXT, WHOLE_NUMBER, Count, with_hints
from workhorse.cli.places import find_places
from workhorse.core.errors import UsageError, nearest

__all__ = ["Count", "parse", "parse_task_options"]


WIDTH = 80
"""Columns of the descriptions that begin `--help`."""

MISSING = {
    "the task": "Name one, as in `workhorse train CartPole-v1`; `workhorse tasks` lists them.",
    "the run": "Name one, as in runs/<id>; `workhorse runs` lists them.",
    "the folder": "Name one, as in runs/<id>; `workhorse runs` lists the runs.",
}
"""What to do where a folder or a task is missing."""

CommandOptions = TypeVar("CommandOptions")

# Objects of tyro's private interface, which has no types to name.
TyroEvent: TypeAlias = Any
TyroArgument: TypeAlias = Any


def parse(
    kind: type[CommandOptions], arguments: Sequence[str], default: CommandOptions | None = None
) -> CommandOptions:
    """Return a command's options as an instance of the dataclass `kind`; `--help` exits with 0.

    Options that are not on the command line have the values of `default`, where it is given.

    `BisectOptions` are those of `workhorse bisect`, and its docstring describes the command to users.

    Raises:
        UsageError: an option is unknown, lacks its value, has a value of the wrong kind, or names no folder there is.
    """
    words = re.findall("[A-Z][a-z]*", kind.__name__.removesuffix("Options"))  # DatasetMakeOptions: dataset make
    program = " ".join(["workhorse", *map(str.lower, words)])
    narrow: Any = _Narrow(sys.stdout)
    with _one_sentence(kind, program, list(arguments)), contextlib.redirect_stdout(narrow):
        found = tyro.cli(
            with_hints(kind),
            args=list(arguments),
            prog=program,
            description="\n\n".join(" ".join(text.split()) for text in (kind.__doc__ or "").split("\n\n")),
            default=default,
            config=(tyro.conf.PositionalMetavarFromFieldName,),
            registry=KINDS,
        )
    options = cast(CommandOptions, found)
    find_places(options)
    return options


class _Narrow:
    """Standard output that folds long lines: tyro folds everything but a command's description."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        lines = (
            textwrap.fill(line, WIDTH) if len(line) > WIDTH and line[0].isalpha() else line for line in text.split("\n")
        )
        return self._stream.write("\n".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _one_sentence(kind: type, program: str, arguments: list[str]) -> AbstractContextManager[object]:
    """Return a context in which an error of tyro becomes a `UsageError`."""
    try:
        from tyro._errors import on_parse_error
    except ImportError:
        return contextlib.nullcontext()
    flags = [f"--{name.replace('_', '-')}" for name in getattr(kind, "__dataclass_fields__", {})]

    def say(event: TyroEvent) -> None:
        if hint := _hint(event, flags):
            raise UsageError(hint)
        sentence = _sentence(event, flags, arguments)
        if sentence:
            raise UsageError(f"{sentence} `{program} --help` lists the options.")

    return on_parse_error(say)


def _hint(event: TyroEvent, flags: list[str]) -> str | None:
    """Return the answer to a name that users of other libraries type; None where there is none."""
    if type(event).__name__ == "UnrecognizedArgs" and event.tokens[0].startswith("-"):
        return flag_hint(event.tokens[0], flags)
    return None


def _sentence(event: TyroEvent, flags: list[str], arguments: list[str]) -> str | None:
    """Return our sentence about an error of tyro; None for an unknown one."""
    match type(event).__name__:
        case "UnrecognizedArgs":
            word = event.tokens[0]
            if not word.startswith("-"):
                return word_hint(word)
            close = nearest(word.partition("=")[0], flags)
            return f"Unknown option {word}." + (f" Did you mean {' or '.join(close)}?" if close else "")
        case "MissingArgs":
            missing = [_name(found.arg) for found in event.missing_arguments]
            ways = "".join(f" {way}" for name, way in MISSING.items() if name in missing)
            return f"Expected {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} missing.{ways}"
        case "InvalidChoice":
            left_out = {"None", "none"} if "None" in event.choices else set()
            choices = sorted(set(event.choices) - left_out)
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
    if shown == NUMBER and type(None) in get_args(argument.field.type_stripped):  # None may switch something off
        return "a number or None"
    several = f"{WHOLE_NUMBER} ..."
    kinds = {WHOLE_NUMBER: "a whole number", NUMBER: "a number", TEXT: "a word", several: "whole numbers, as in 64 64"}
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
    """Return options written name=value, where the value is a Python literal, true, false, or a bare word.

    Example:
        >>> parse_task_options(["healthy_z_range=(0.5,2)", "xml_file=ant.xml", "contacts=false"])
        {'healthy_z_range': (0.5, 2), 'xml_file': 'ant.xml', 'contacts': False}

    Raises:
        UsageError: a word has no name or no `=`.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"{what} must be written name=value, as in {example}: got {word!r}.")
        try:
            options[name] = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
        except (ValueError, SyntaxError):
            options[name] = text
    return options
