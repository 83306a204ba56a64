"""Records are read strictly: every message names the field at fault, and nothing a file holds can crash the reader."""

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from workhorse.core.errors import UsageError
from workhorse.core.records import AtLeastZero, CountFromZero, Text, build, from_json, is_plain, parse, parse_json


@dataclass(frozen=True)
class Inner:
    size: CountFromZero
    bound: float | str


@dataclass(frozen=True)
class Outer:
    name: Text
    kind: Literal["a", "b"]
    on: bool
    parts: tuple[Inner, ...]
    one: Inner | None
    weights: Mapping[str, AtLeastZero]
    extra: Any
    note: str | None = None


GOOD = {
    "name": "x",
    "kind": "a",
    "on": True,
    "parts": [{"size": 3, "bound": 1}, {"size": 0, "bound": "inf"}],
    "one": None,
    "weights": {"w": 2},
    "extra": {"deep": [1, None, "x", {"y": False}]},
    "note": None,
}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_a_record_becomes_what_its_types_say():
    made = build(Outer, GOOD, "f.json")
    assert made == Outer("x", "a", True, (Inner(3, 1.0), Inner(0, "inf")), None, {"w": 2.0}, GOOD["extra"], None)
    assert type(made.weights["w"]) is float and type(made.parts[0].size) is int
    assert build(Outer, {**GOOD, "one": {"size": 1, "bound": 0.5}}, "f.json").one == Inner(1, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": " "}, "Expected `name` in f.json to be text that is not empty, got ' '. Mend it."),
        ({"kind": "c"}, "Expected `kind` in f.json to be one of a, b, got 'c'. Mend it."),
        ({"kind": ["a"]}, "Expected `kind` in f.json to be one of a, b, got ['a']. Mend it."),
        ({"on": 1}, "Expected `on` in f.json to be true or false, got 1. Mend it."),
        ({"parts": {}}, "Expected `parts` in f.json to be a list, got {}. Mend it."),
        ({"parts": [3]}, "Expected `parts` entry 1 in f.json to be a table, got 3. Mend it."),
        ({"one": 3}, "Expected `one` in f.json to be a table or null, got 3. Mend it."),
        ({"one": {"size": 1}}, "Expected a field `bound` in f.json, `one`, got none. Mend it."),
        (
            {"one": {"size": 1.0, "bound": 1}},
            "Expected `size` in f.json, `one` to be a whole number of at least 0",
        ),
        ({"one": {"size": -1, "bound": 1}}, "Expected `size` in f.json, `one` to be a whole number of at least 0"),
        ({"one": {"size": 1, "bound": None}}, "`bound` in f.json, `one` to be a finite number or text, got None"),
        ({"weights": {"w": True}}, "Expected `weights` of 'w' in f.json to be a finite number of at least 0, got True"),
        ({"weights": {"w": math.inf}}, "Expected `weights` of 'w' in f.json to be a finite number of at least 0, got"),
        ({"weights": {"w": 10**400}}, "Expected `weights` of 'w' in f.json to be a finite number of at least 0, got"),
        ({"weights": []}, "Expected `weights` in f.json to be a table, got []. Mend it."),
        ({"extra": {"deep": [math.nan]}}, "Expected `extra` in f.json to be plain text, finite numbers of 64 bits"),
        ({"extra": nested(65)}, "Expected `extra` in f.json to be plain text, finite numbers of 64 bits"),
        ({"extra": nested(900)}, "nested at most 64 deep, got [[[[[[[...]]]]]]]. Mend it."),
        ({"note": 3}, "Expected `note` in f.json to be text or null, got 3. Mend it."),
        ({"colour": 3}, "Expected no field `colour` in f.json, got one: the fields are name, kind, on, parts, one,"),
    ],
)
def test_a_field_at_fault_is_named(change, message):
    with pytest.raises(UsageError) as raised:
        build(Outer, {**GOOD, **change}, "f.json", "Mend it.")
    assert message in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("name", GOOD)
def test_a_field_that_is_missing_is_named_even_if_it_has_a_default(name):
    with pytest.raises(UsageError, match=f"Expected a field `{name}` in f.json, got none"):
        build(Outer, {key: value for key, value in GOOD.items() if key != name}, "f.json")


def test_depth_is_bounded_and_64_is_enough():
    assert build(Outer, {**GOOD, "extra": nested(64)}, "f").extra == nested(64)
    endless: list[Any] = []
    endless.append(endless)
    assert not is_plain(endless) and not is_plain({1: 2}) and is_plain((1, "a"))
    assert not is_plain(2**63) and not is_plain({"a\ud800": 1}) and is_plain({"é": -(2**63)})


@pytest.mark.parametrize(("loads", "deep"), [(parse_json, "[" * 100_000), (tomllib.loads, "a = " + "[" * 100_000)])
def test_a_file_that_is_no_record(loads, deep):
    for text in (b"\xff\xfe", deep, "{"):
        with pytest.raises(UsageError, match=r"Expected a thing in f, but it cannot be read \(.*\)\. Mend it\."):
            parse(loads, text, "f", "a thing", "Mend it.")


def test_versions_are_renewed_or_refused():
    def renew(record):
        return {"size": record["large"], "bound": 0, "format": 2} if record["format"] == 1 else record

    def read(**record):
        return from_json(Inner, json.dumps(record), "f", "thing", 2, renew)

    assert read(format=1, large=5) == read(format=2, size=5, bound=0) == Inner(5, 0.0)
    for version in (3, "2", None, True, [2]):
        with pytest.raises(UsageError, match=r"Expected thing format 2 in f, got .*: another version"):
            read(format=version, size=5, bound=0)
