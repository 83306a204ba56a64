"""The file of `workhorse train --config`: read strictly, and written by `--show`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Iterator, Mapping
from typing import Any, get_type_hints

from workhorse.algorithms import registry
from workhorse.algorithms.settings import check_names, usual_settings
from workhorse.api.setup import RunSetup, chosen_algorithm
from workhorse.core.errors import UsageError

__all__ = ["read_train_file", "shown"]

TASK_OPTIONS = ("task_options", "wrappers", "frame_stack", "max_episode_steps")
"""Names of the file that make up the options of the task."""

_REMEDY = "Correct it; `workhorse train TASK --show` prints a file with every name."

_NOTES = {
    "slots": "null for what the algorithm needs",
    "threads": "0 for one a core",
    "evaluate_every": "environment steps between evaluations; 0 for none but the last",
    "id": "null for task, algorithm, seed and time",
}


def read_train_file(
    path: str, options: Mapping[str, type], task: str | None, algorithm: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options and the task's options that a file sets, each of its type.

    Args:
        path: the file, in YAML or JSON, with names as on the command line: `env_steps` for --env-steps.
        options: the dataclasses whose fields are the options of every run.
        task: the one on the command line, which comes before the file's.
        algorithm: likewise.

    Raises:
        UsageError: no such file, not YAML, an unknown name, or a value of the wrong kind.
    """
    from workhorse.studies.study_file import read_yaml

    words = read_yaml(path, "options of a run", "Write names and values, as in `task: Hopper-v5`.")
    hints = {name: get_type_hints(kind)[name] for name, kind in options.items()}
    hints |= {"task_options": Mapping[str, Any], "wrappers": tuple[str, ...]}
    task = task or _value(str | None, words, "task", path)
    algorithm = chosen_algorithm(task or "", algorithm or _value(str | None, words, "algorithm", path))
    registry.entry(algorithm)
    try:
        check_names(algorithm, [name for name in words if name not in hints], list(hints))
    except UsageError as error:
        raise UsageError(f"{error} It is in {path}.") from error
    hints |= {name: option.annotation for name, option in registry.options(algorithm).items()}
    found = {name: _value(hints[name], words, name, path) for name in words}
    task_options = dict(found.pop("task_options", {}))
    for name in TASK_OPTIONS[1:]:
        if (value := found.pop(name, None)) not in (None, ()):
            task_options[name] = list(value) if isinstance(value, tuple) else value
    return found, task_options


def _value(hint: Any, words: Mapping[str, Any], name: str, path: str) -> Any:
    from workhorse.core.records import read_value

    value = words.get(name)
    if isinstance(value, float) and value.is_integer() and hint in (int, int | None):
        value = int(value)  # 1e6
    return read_value(hint, value, f"`{name}`", path, _REMEDY)


def shown(setup: RunSetup, yours: Container[str]) -> str:
    """Return every setting of a run, as a file for --config, saying where each comes from."""
    source = f"recipe {setup.recipe.name}: {setup.recipe.source}" if setup.recipe else "no recipe is known: defaults"
    lines = [
        "# What `workhorse train` would do; kept in a file, it is one for --config.",
        *(f"# {line}" for line in source.split("\n")),
        "",
    ]
    lines += _aligned(_run_rows(setup, yours))
    lines += ["", f"# Options of {setup.algorithm}; `workhorse algorithms {setup.algorithm}` says what they do."]
    recipe = set(setup.recipe.settings) if setup.recipe else set()
    usual = usual_settings(setup.algorithm, setup.recipe)
    rows = []
    for name, value in (usual | dict(setup.given)).items():
        origin = "yours" if name in setup.given else "recipe" if name in recipe else ""
        if name == "hidden" and (usual | dict(setup.given)).get("policy") == "linear":
            continue  # a linear policy has none
        rows.append((name, value, origin))
    return "\n".join([*lines, *_aligned(rows)])


def _run_rows(setup: RunSetup, yours: Container[str]) -> Iterator[tuple[str, object, str]]:
    """Yield the name, the value and a note of each option of the run itself."""
    best = "recipe" if setup.recipe else ""
    yield "task", setup.task, "yours"
    yield "algorithm", setup.algorithm, "yours" if "algorithm" in yours else best
    for field in dataclasses.fields(setup):
        if field.default is dataclasses.MISSING or field.name == "sources":
            continue
        origin = "yours" if field.name in yours else best if field.name == "env_steps" else ""
        value = getattr(setup, field.name)
        note = _NOTES.get(field.name, "")
        if field.name == "evaluate_every" and value:
            note = f"{setup.env_steps // value} evaluations of {setup.evaluation_episodes} episodes"
        yield field.name, value, "; ".join(filter(None, [origin, note]))
    if setup.sources is not None:
        for name, value in (("log", setup.sources.log), ("begin_from", setup.sources.begun_from)):
            if value:
                yield name, value, "yours"
    own = {name: value for name, value in setup.task_options.items() if name not in TASK_OPTIONS}
    yield "task_options", own, "yours" if own else ""
    for name in TASK_OPTIONS[1:]:
        if name in setup.task_options:
            yield name, setup.task_options[name], "yours"


def _aligned(rows: Iterator[tuple[str, object, str]] | list[tuple[str, object, str]]) -> list[str]:
    """Return lines of YAML with their notes in one column; JSON's values are YAML's."""
    texts = [(f"{name}: {json.dumps(value, default=str)}", note) for name, value, note in rows]
    width = min(max(len(text) for text, _ in texts), 40)
    return [f"{text:<{width}}  # {note}" if note else text for text, note in texts]
