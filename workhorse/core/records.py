"""Strict reader of small records: JSON or TOML text into a dataclass, or one sentence that names the field at fault.

The dataclass is the schema: every field must be there and no other, each of its type. Types may be `str`, `bool`,
`int`, `float` (finite), `Literal`, other dataclasses, `tuple[X, ...]`, `Mapping[str, X]`, unions of these with or
without None, and `Any` for plain values. `Annotated` with a `Check` says more, as `AtLeastZero` and `Text` do.

Records come from folders and files that others may have sent or edited, so nothing in them is executed, a `true` is no
number, JSON is read by the letter of its standard, and the depth is bounded.
"""

import hashlib
import json
import math
import os
import reprlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from workhorse.core.errors import UsageError

__all__ = [
    "DAMAGED",
    "AtLeastZero",
    "Check",
    "CountFromZero",
    "Text",
    "build",
    "check_owner",
    "checksum",
    "from_json",
    "is_plain",
    "parse",
    "parse_json",
    "read_value",
    "seal",
    "shown",
    "unseal",
]

DAMAGED = "The file is damaged or was edited: restore it from a copy."

OWNER = "run"
"""Field of a record that holds the run it belongs to, see `runs.manifest.owner_of`."""

CHECKSUM = "checksum"
"""Field of a record that holds the checksum of its others."""

MOST_NESTED = 64
"""Deepest nesting accepted. Python's own limit depends on who calls, and dumping has another one than parsing."""

PLAIN = f"plain text, finite numbers of 64 bits, lists and tables, nested at most {MOST_NESTED} deep"

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """A condition on a value that already has its type, and the words for it in a message."""

    holds: Callable[[Any], bool]
    expected: str


AtLeastZero = Annotated[float, Check(lambda number: number >= 0, "a finite number of at least 0")]
CountFromZero = Annotated[int, Check(lambda number: number >= 0, "a whole number of at least 0")]
Text = Annotated[str, Check(lambda text: bool(text.strip()), "text that is not empty")]

_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a finite number", NoneType: "null"}

_repr = reprlib.Repr()  # bounded in depth too: the plain one overflows the stack on endless nesting
_repr.maxstring = _repr.maxother = 60
shown = _repr.repr
"""A value from a file as a message shows it, cut short."""


def parse(
    loads: Callable[[str], Any], text: bytes | str, where: str | os.PathLike[str], noun: str, remedy: str = DAMAGED
) -> dict[str, Any]:
    """Read the table of a file.

    Args:
        loads: `parse_json`, or a reader of another format.
        text: the file's content, UTF-8.
        where: the file, for the message.
        noun: what the file should hold, as in "a manifest in JSON".
        remedy: what a user can do about a file that holds something else.

    Raises:
        UsageError: it cannot be read, or is no table.
    """
    try:
        record = loads(text.decode() if isinstance(text, bytes) else text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"Expected {noun} in {os.fspath(where)}, but it cannot be read ({error}). {remedy}") from error
    if not isinstance(record, dict):
        raise UsageError(f"Expected {noun} in {os.fspath(where)}, got no table but {shown(record)}. {remedy}")
    return record


def parse_json(text: str) -> Any:
    """Parse JSON that holds no key twice; that values are plain is checked where they are read.

    Raises:
        ValueError: it is no such JSON; the text says why.

    Example:
        >>> parse_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ValueError: the key 'a' is there twice
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError(f"it is nested more than {MOST_NESTED} deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} is there twice")
    if not all(map(is_plain, record)):
        raise ValueError("a key cannot be encoded as UTF-8")
    return record


def checksum(record: Mapping[str, object]) -> str:
    """Return the SHA-256 of a record's JSON in one spelling, its own checksum left out.

    Example:
        >>> checksum({"b": 1, "a": 2}) == checksum({"a": 2, "checksum": "?", "b": 1})
        True
    """
    described = {name: value for name, value in record.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(described, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(record: Mapping[str, object]) -> dict[str, Any]:
    """Return a record as plain JSON with its checksum in it, so that a flipped bit is noticed by `unseal`.

    The checksum lies in the record and not beside it: a crash between two files could tear those apart.
    """
    plain = json.loads(json.dumps(dict(record)))
    return {**plain, CHECKSUM: checksum(plain)}


def unseal(
    record: Mapping[str, object], where: str | os.PathLike[str], remedy: str = "", owner: str = ""
) -> dict[str, Any]:
    """Return a record without its checksum, which is verified. One from before checksums were kept has none.

    Args:
        record: what was read.
        where: the file, for the message.
        remedy: whether the work goes on without the file, and what to do, as a sentence.
        owner: of the folder; the field that names the record's own is left out.

    Raises:
        UsageError: the content is not that of the checksum, or the record is another run's.

    Example:
        >>> unseal(seal({"seed": 0}), "manifest.json")
        {'seed': 0}
        >>> unseal({**seal({"seed": 0}), "seed": 1}, "manifest.json")
        Traceback (most recent call last):
        workhorse.core.errors.UsageError: Expected manifest.json as it was written, but its content does not have its
        checksum: it is damaged, or was edited. Restore it from a copy; if you edited it on purpose, `workhorse
        seal` renews the checksums of its folder.
    """
    try:
        whole = CHECKSUM not in record or record[CHECKSUM] == checksum(record)
    except RecursionError:
        whole = False
    if not whole:
        place = os.fspath(where)
        raise UsageError(
            f"Expected {place} as it was written, but its content does not have its checksum: it is damaged, or was "
            f"edited. {remedy or 'Restore it from a copy'}; if you edited it on purpose, `workhorse seal` "
            "renews the checksums of its folder."
        )
    if owner:
        check_owner(record.get(OWNER), owner, where, remedy)
    return {name: value for name, value in record.items() if name != CHECKSUM and not (owner and name == OWNER)}


def check_owner(found: object, owner: str, where: str | os.PathLike[str], remedy: str = "") -> None:
    """Raise a `UsageError` where a file names another owner than its folder's; one from before names none."""
    if found is not None and owner and found != owner:
        raise UsageError(
            f"Expected a file of the run {owner}, in {os.fspath(where)}, got one of {shown(found)}. "
            f"{remedy or 'Restore it from a copy'}."
        )


def from_json(
    kind: type[T],
    text: str | bytes,
    where: str | os.PathLike[str],
    noun: str,
    format: int,
    renew: Callable[[dict[str, Any]], dict[str, Any]] = lambda record: record,
    owner: str = "",
) -> T:
    """Read a dataclass that was written as JSON with the version of its layout under `format`.

    A checksum in it is verified, after the fields: a message about one of them says more.

    Args:
        kind: the dataclass; one without a field `format` is built without it.
        text: the file's content.
        where: the file, for the message.
        noun: what the file should hold, as in "manifest".
        format: the version that is read.
        renew: rewrites a record of an older version as one of this version.
        owner: of the folder, as in `unseal`.

    Raises:
        UsageError: it is not JSON, of another version, a field is missing, unknown or of another type, or the content
            does not have its checksum.
    """
    place = os.fspath(where)
    given, fields = parse(parse_json, text, place, f"a {noun} in JSON"), get_type_hints(kind)
    record = {
        name: value for name, value in given.items() if name != CHECKSUM and not (name == OWNER and OWNER not in fields)
    }
    if "format" not in record:
        raise UsageError(
            f"Expected a {noun} in {place}, got JSON without a `format`: it is another program's file. Move it away, "
            "or name another folder."
        )
    whole = type(record["format"]) is int  # true is no version, though it equals 1
    record = renew(record) if whole else record
    if not whole or record["format"] != format:
        raise UsageError(
            f"Expected {noun} format {format} in {place}, got {shown(record['format'])}: another version of Workhorse "
            "wrote it. Use that version."
        )
    if "format" not in fields:
        del record["format"]
    built = build(kind, record, place)
    unseal(given, place, owner=owner)
    return built


def build(kind: type[T], record: Mapping[str, object], where: str, remedy: str = DAMAGED) -> T:
    """Make a dataclass from a table that was read from a file.

    Args:
        kind: the dataclass.
        record: names and values.
        where: the file, and the place in it, for the message.
        remedy: what a user can do about a field at fault, as a sentence.

    Raises:
        UsageError: a field is missing, unknown or of another type.

    Example:
        >>> @dataclass
        ... class Point:
        ...     name: str
        ...     at: tuple[float, ...]
        >>> build(Point, {"name": "a", "at": [1, 2.5]}, "points.json")
        Point(name='a', at=(1.0, 2.5))
        >>> build(Point, {"name": "a", "at": [1, True]}, "points.json")
        Traceback (most recent call last):
        workhorse.core.errors.UsageError: Expected `at` entry 2 in points.json to be a finite number, got True. The file
        is damaged or was edited: restore it from a copy.
    """
    hints = get_type_hints(kind, include_extras=True)
    for name in record:
        if name not in hints:
            known = ", ".join(hints)
            raise UsageError(f"Expected no field `{name}` in {where}, got one: the fields are {known}. {remedy}")
    for name in hints:
        if name not in record:
            raise UsageError(f"Expected a field `{name}` in {where}, got none. {remedy}")
    return kind(**{name: read_value(hint, record[name], f"`{name}`", where, remedy) for name, hint in hints.items()})


def read_value(hint: Any, value: object, label: str, where: str, remedy: str = DAMAGED) -> Any:
    """Return a value in the type of its hint: a list as a tuple, a whole number as a float where one is wanted.

    Raises:
        UsageError: it is of another type; the message names it as `label` in `where`.
    """
    return _Reader(where, remedy).read(hint, value, label)


@dataclass(frozen=True)
class _Reader:
    """Reads single values by their types; `where` and `remedy` are for the messages."""

    where: str
    remedy: str

    def read(self, hint: Any, value: object, label: str) -> Any:
        origin, inside = get_origin(hint), get_args(hint)
        found, fits = value, False
        if origin is Annotated:
            found, fits = self._annotated(hint, value, label)
        elif origin in (Union, UnionType):
            return self._union(hint, value, label)
        elif hint is Any:
            fits = is_plain(value)
        elif origin is Literal:
            fits = isinstance(value, str) and value in inside
        elif origin is tuple and isinstance(value, list | tuple):
            if Ellipsis in inside or len(value) == len(inside):
                entries = enumerate(value, 1)
                return tuple(self.read(inside[0], one, f"{label} entry {number}") for number, one in entries)
        elif origin in (dict, Mapping) and isinstance(value, dict):
            return {name: self.read(inside[1], one, f"{label} of {name!r}") for name, one in value.items()}
        elif is_dataclass(hint) and isinstance(value, dict):
            return build(cast(type, hint), value, f"{self.where}, {label}", self.remedy)
        elif hint is float:
            found, fits = (float(value), True) if _is_finite(value) else (value, False)
        else:
            fits = type(value) is hint and is_plain(value)  # the type itself, so that true is no number
        if not fits:
            raise self._misfit(hint, value, label)
        return found

    def _annotated(self, hint: Any, value: object, label: str) -> tuple[Any, bool]:
        try:
            found = self.read(hint.__origin__, value, label)
        except UsageError:
            if isinstance(value, list | dict):
                raise  # its message names the part inside
            return value, False
        return found, all(check.holds(found) for check in hint.__metadata__)

    def _union(self, hint: Any, value: object, label: str) -> Any:
        for option in get_args(hint):
            try:
                return self.read(option, value, label)
            except UsageError:
                bare = option.__origin__ if get_origin(option) is Annotated else option
                is_table = get_origin(bare) in (dict, Mapping) or is_dataclass(bare)
                if isinstance(value, dict) if is_table else isinstance(value, list) and get_origin(bare) is tuple:
                    raise  # its message names the part inside
        raise self._misfit(hint, value, label)

    def _misfit(self, hint: Any, value: object, label: str) -> UsageError:
        return UsageError(
            f"Expected {label} in {self.where} to be {_expected(hint)}, got {shown(value)}. {self.remedy}"
        )


def is_plain(value: object, depth: int = MOST_NESTED) -> bool:
    """Tell whether a value is strict JSON, see `PLAIN`: what is written is read again as it was."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)  # cannot be encoded
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, dict | list | tuple):
        if isinstance(value, dict) and not all(isinstance(name, str) and is_plain(name) for name in value):
            return False
        inside = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(is_plain(one, depth - 1) for one in inside)
    return value is None or _is_finite(value)


def _is_finite(value: object) -> TypeGuard[float]:
    """Tell whether a value is a number that a float can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _expected(hint: Any) -> str:
    """Return the words for a type in a message."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return hint.__metadata__[0].expected
    if origin in (Union, UnionType):
        return " or ".join(_expected(option) for option in inside)
    if origin is Literal:
        return f"one of {', '.join(map(str, inside))}"
    if hint is Any:
        return PLAIN
    if origin is tuple:
        return "a list" if Ellipsis in inside else f"{len(inside)} whole numbers"
    return _WORDS.get(hint, "a table")
