"""What is typed behind a command, or given to a method of a run, reaches the function that does the work, unchanged."""

import importlib
import inspect
import os

import pytest

from workhorse.api.run import Run
from workhorse.cli.main import main
from workhorse.core.errors import UsageError
from workhorse.runs.folder import RunFolder

COMMANDS = {
    "evaluate runs/r --episodes 3 --seed 7 --threads 2 --stochastic": (
        "workhorse.runs.train.evaluate_run",
        {"path": "runs/r", "episodes": 3, "seed": 7, "threads": 2, "stochastic": True},
    ),
    "evaluate runs/r": (
        "workhorse.runs.train.evaluate_run",
        {"path": "runs/r", "episodes": 100, "seed": None, "threads": 0, "stochastic": False},
    ),
    "resume runs/r --env-steps 2M --threads 3": (
        "workhorse.runs.train.resume",
        {"path": "runs/r", "env_steps": 2_000_000, "threads": 3, "make": None},
    ),
    "video runs/r --seed 4 --max-steps 55 --width 320 --height 200": (
        "workhorse.runs.video.record",
        {"path": "runs/r", "seed": 4, "max_steps": 55, "width": 320, "height": 200},
    ),
    "fork runs/r --iteration 6 --set discount=.98 --set trace=.5 --seeds 3 --env-steps 1k --runs there --threads 2": (
        "workhorse.runs.fork.fork",
        {
            "path": "runs/r",
            "iteration": 6,
            "settings": {"discount": 0.98, "trace": 0.5},
            "seeds": range(3),
            "root": "there",
            "env_steps": 1000,
            "threads": 2,
        },
    ),
    "bisect runs/r runs/s --threads 2": (
        "workhorse.runs.history.bisect",
        {"one": "runs/r", "other": "runs/s", "threads": 2},
    ),
    "replay runs/r --iteration 5 --threads 2": (
        "workhorse.runs.history.opened",
        {"path": "runs/r", "threads": 2},
    ),
}

METHODS = {
    "evaluate": (
        "workhorse.runs.train.evaluate_run",
        {"episodes": 3, "seed": 7, "threads": 2, "stochastic": True},
    ),
    "resume": ("workhorse.runs.train.resume", {"env_steps": 50, "threads": 3}),
    "video": ("workhorse.runs.video.record", {"seed": 4, "max_steps": 55, "width": 320, "height": 200}),
}


@pytest.fixture
def given(monkeypatch, tmp_path):
    """Return a function that puts a catcher in the place of another, and what the catcher was given."""
    caught = {}

    def watch(target):
        module, _, name = target.rpartition(".")
        signature = inspect.signature(getattr(importlib.import_module(module), name))

        def catch(*arguments, **named):
            bound = signature.bind(*arguments, **named)
            bound.apply_defaults()
            caught.update(bound.arguments)
            raise UsageError("caught")

        monkeypatch.setattr(target, catch)
        return caught

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("workhorse.runs.trust.open_run", lambda path, trusted: RunFolder(tmp_path / "runs" / "r"))
    return watch


@pytest.mark.parametrize("line", list(COMMANDS))
def test_options_of_a_command_reach_what_does_the_work(line, given):
    target, expected = COMMANDS[line]
    caught = given(target)
    assert main(line.split()) == 2
    assert {name: caught.get(name) for name in expected} == expected


@pytest.mark.parametrize("method", list(METHODS))
def test_arguments_of_a_method_reach_what_does_the_work(method, given, tmp_path):
    target, expected = METHODS[method]
    caught = given(target)
    with pytest.raises(UsageError, match="caught"):
        getattr(Run(RunFolder(tmp_path / "r")), method)(**expected)
    assert {name: caught.get(name) for name in expected} == expected
    assert os.fspath(caught["path"]) == os.fspath(tmp_path / "r")
