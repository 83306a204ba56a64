"""The command that makes a run or a study again, from the one that was typed or from what is on record."""

import ast
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from workhorse.reports.markup import Markup, definitions, escape, paragraph
from workhorse.runs.manifest import Manifest

__all__ = ["command_again", "modules_needed", "reproduce", "run_again"]


def command_again(command: Sequence[str]) -> str:
    """Return a recorded command line without the name it gave its folder, which is taken by now; quoted for a shell.

    Example:
        >>> command_again(("workhorse", "train", "my task:Tank-v0", "--id", "first", "--seed", "3"))
        "workhorse train 'my task:Tank-v0' --seed 3"
        >>> command_again(("workhorse", "study", "plan.yaml", "--id=first"))
        'workhorse study plan.yaml'
    """
    kept: list[str] = []
    words = iter(command)
    for word in words:
        if word == "--id":
            next(words, None)
        elif not word.startswith("--id="):
            kept.append(word)
    return shlex.join(kept)


def run_again(manifest: Manifest) -> str:
    """Return the command that makes a run again: the recorded one, or one with its settings where none was typed.

    A run that Python, a study or a fork began has no command of its own.
    """
    if tuple(manifest.command[:2]) == ("workhorse", "train") and "--seeds" not in " ".join(manifest.command):
        return command_again(manifest.command)
    words = ["workhorse", "train", manifest.task, "--algorithm", manifest.algorithm, "--seed", str(manifest.seed)]
    words += ["--env-steps", str(manifest.env_steps)]
    for name, value in manifest.task_options.items():
        words += ["--task-option", f"{name}={_literal(value)}"]
    if "num_envs" not in manifest.settings:  # which are the slots of an algorithm that has them
        words += ["--slots", str(manifest.slots)]
    for name, value in manifest.settings.items():
        if name != "hidden" or manifest.settings.get("policy") != "linear":  # which has no hidden units
            words += _option(name, value)
    return shlex.join(words)


def modules_needed(manifest: Manifest) -> list[str]:
    """Return the modules that the command imports: those of the user's own task and algorithm."""
    names = [name.rpartition(":")[0] for name in (manifest.task, manifest.algorithm)]
    return list(dict.fromkeys(name for name in names if name))


def _literal(value: Any) -> str:
    """Return a task option's value as `--task-option` reads it: text without quotes, unless it would be a literal."""
    if not isinstance(value, str):
        return repr(value)
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    return repr(value)


def _option(name: str, value: Any) -> list[str]:
    """Return a setting as it is typed."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, list | tuple):
        return [flag, *map(str, value)]
    return [flag, str(value)]


def reproduce(command: str, versions: Mapping[str, str], machine: str, note: str = "") -> Markup:
    """The command with a button that copies it, the versions and the machine."""
    button = '<button type="button" class="copy">Copy</button>'
    about: dict[str, object] = {**versions, **({"machine": machine} if machine else {})}
    words = " ".join(f"<span>{escape(word)}</span>" for word in command.split(" "))  # a line never ends after `--`
    inside = f'<div class="command"><pre>{words}</pre>{button}</div>' + paragraph(note, "small text")
    return Markup(inside + (f'<div class="text">{definitions(about, "small")}</div>' if about else ""))
