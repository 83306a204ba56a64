"""The list of planted bugs fits the code: each has its place and its tests, and makes other code that still parses."""

import ast
import importlib.util
from collections import Counter
from pathlib import Path

import pytest

specification = importlib.util.spec_from_file_location("plant", Path(__file__).parent / "plant.py")
plant = importlib.util.module_from_spec(specification)
specification.loader.exec_module(plant)
MUTANTS = plant.read()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_bug_can_be_planted(mutant):
    sound = (plant.ROOT / mutant.file).read_text()
    planted = mutant.planted(sound)
    assert planted != sound
    if mutant.file.endswith(".py"):
        assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(sound)), "only a comment or the layout changes"
    assert mutant.tests and all((plant.ROOT / test.partition("::")[0]).exists() for test in mutant.tests)


def test_the_list_is_long_enough_and_names_each_bug_once():
    assert len(MUTANTS) >= 60
    assert [name for name, count in Counter(mutant.name for mutant in MUTANTS).items() if count > 1] == []
    assert len({mutant.family for mutant in MUTANTS}) >= 4


def test_a_bug_without_its_place_is_refused():
    lost = plant.Mutant("lost", "workhorse/__init__.py", "no such text", "x", ("tests",), "none")
    with pytest.raises(ValueError, match=r"0 times in workhorse/__init__.py"):
        lost.planted("text")


def test_the_table_keeps_what_was_judged_before_and_says_what_was_not():
    first, second = MUTANTS[:2]
    once = plant.page(MUTANTS[:2], [plant.Outcome(first, "noticed", "tests/a.py::test_b[c]", 1.0)])
    assert "1 of the 1 that were judged are noticed, and 1 were not measured yet" in once
    again = plant.page(MUTANTS[:2], [plant.Outcome(second, "survived", "", 1.0)], once)
    assert "1 of the 2 that were judged are noticed, and 0 were not measured yet" in again
    assert "| `a.py::test_b` |" in again and "| **survived** |" in again
