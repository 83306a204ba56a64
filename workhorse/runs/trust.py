"""Decide whether the code that a run folder names may run; importing a module runs it, and so does calling a name.

A manifest names its task as "module:id", its wrappers and an algorithm as "module:Class". Where the folder came from
elsewhere, the module found under that name may have come with it, and any function of any module could be named. So
code is run only where

- the module is part of Workhorse, was imported already or is installed, and what is named there is a task that it
  registers with Gymnasium, or a class of environments, of wrappers or of algorithms; or
- the user has vouched for the run: started it here, or asked for it by `--trust` once.

Runs that were vouched for are remembered outside of their folders, by the checksum of the manifest: one empty file each
in `$XDG_STATE_HOME/workhorse/trusted`, by default `~/.local/state/workhorse/trusted`. A folder that was copied to
another machine or user is not among theirs. Deleting the files is safe.
"""

import contextlib
import importlib.util
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workhorse.core.errors import UsageError
from workhorse.core.records import checksum
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest

__all__ = [
    "is_trusted",
    "key_of",
    "names_code",
    "needing_trust",
    "open_run",
    "require_trust",
    "require_trusted_run",
    "require_trusted_sources",
    "trust",
    "trust_run",
]

_NAMED = re.compile(r"[A-Za-z_][\w.]*:[^/\s]")
_vouched: set[str] = set()
"""Keys vouched for in this process, which count where the user's state folder cannot be written."""


def needing_trust(task: str, task_options: Mapping[str, Any], algorithm: str) -> list[str]:
    """Return what the names of a run would run that nothing vouches for, as they stand there.

    Example:
        >>> needing_trust("HalfCheetah-v5", {"frame_skip": 5}, "ppo")
        []
        >>> needing_trust("os:system", {"command": "reboot"}, "ppo")
        ['os:system']
    """
    names = {task: _is_task, algorithm: _is_algorithm}
    for name, value in task_options.items():
        for text in _texts(value):
            names[text] = _is_wrapper if name == "wrappers" else _is_task
    return [name for name, is_known in names.items() if _NAMED.match(name) and not (_is_near(name) and is_known(name))]


def names_code(task: str, task_options: Mapping[str, Any], algorithm: str) -> bool:
    """Tell whether a run names code that is not Workhorse's own by name: its task, wrappers or algorithm."""
    return any(map(_NAMED.match, (task, algorithm, *_texts(task_options))))


def key_of(record: Mapping[str, Any]) -> str:
    """Return the name under which a run or a study is remembered: the checksum of the record that describes it."""
    return checksum(record)


def trust(key: str) -> None:
    """Remember that the user vouches for a run or a study; where the disk cannot be written, in this process only."""
    _vouched.add(key)
    with contextlib.suppress(OSError):
        folder = _remembered()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / key).touch()


def is_trusted(key: object) -> bool:
    """Tell whether the user has vouched for a run or a study."""
    return isinstance(key, str) and (key in _vouched or (key.isalnum() and (_remembered() / key).exists()))


def require_trust(key: str, names: list[str], what: str) -> None:
    """Refuse to run what a run or a study names, where nothing vouches for it.

    Args:
        key: of the run or the study, by `key_of`.
        names: by `needing_trust`.
        what: names the run or the study in the message.

    Raises:
        UsageError: there are such names, and the user has not vouched for it.
    """
    if names and not is_trusted(key):
        modules = list(dict.fromkeys(name.partition(":")[0] for name in names))
        raise UsageError(
            f"{what} would import {' and '.join(modules)} and run {', '.join(names)[:200]}, and it was not begun here "
            "by you: read that code first, then say --trust, once (in Python: trust=True)."
        )


def trust_run(manifest: Manifest) -> None:
    """Remember that the user vouches for a run, where it names code of its own, a log or an expert."""
    if manifest.sources is not None or names_code(manifest.task, manifest.task_options, manifest.algorithm):
        trust(key_of(asdict(manifest)))


def open_run(path: str | os.PathLike[str], trusted: bool) -> RunFolder:
    """Open a run folder; where it is `trusted`, remember that the user vouches for it.

    Raises:
        UsageError: it is no run, see `RunFolder.open`.
    """
    folder = RunFolder.open(path)
    if trusted:
        trust_run(folder.manifest())
    return folder


def require_trusted_run(manifest: Manifest) -> None:
    """Refuse a run from elsewhere that would run code of its choice.

    Raises:
        UsageError: as `require_trust`.
    """
    key = key_of(asdict(manifest))
    if not is_trusted(key):
        names = needing_trust(manifest.task, manifest.task_options, manifest.algorithm)
        require_trust(key, names, f"The run {manifest.id}")


def require_trusted_sources(manifest: Manifest) -> None:
    """Refuse a run from elsewhere that would read a log or an expert of its choice, outside of its folder.

    Raises:
        UsageError: the user has not vouched for it.
    """
    if manifest.sources is not None and not is_trusted(key_of(asdict(manifest))):
        places = " and ".join(place for place in (manifest.sources.log, manifest.sources.expert) if place)
        raise UsageError(
            f"The run {manifest.id} would read {places:.200}, and it was not begun here by you: see what that is, then "
            "say --trust, once (in Python: trust=True)."
        )


def _texts(value: object) -> Iterator[str]:
    """Yield every text in plain JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _is_near(name: str) -> bool:
    """Tell whether a module is of this program, imported already, or found where packages are installed."""
    module = name.partition(":")[0]
    top = module.split(".")[0]
    if top == "workhorse" or module in sys.modules:
        return True
    try:
        found = importlib.util.find_spec(top)  # imports nothing, for a name without a dot
    except (ImportError, ValueError):
        return False
    places = [] if found is None else [found.origin or "", *(found.submodule_search_locations or ())]
    paths = sysconfig.get_paths()
    roots = {paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages()}
    return any(place and Path(place).is_relative_to(root) for place in places for root in roots)


def _is_task(name: str) -> bool:
    import gymnasium

    found, id = _found(name), name.rpartition(":")[2]
    return id in gymnasium.registry or (isinstance(found, type) and issubclass(found, gymnasium.Env))


def _is_wrapper(name: str) -> bool:
    import gymnasium

    from workhorse.environments.wrappers import parse_wrapper

    wrapper = parse_wrapper(name)
    found = _found(f"{wrapper.module}:{wrapper.name}")
    return isinstance(found, type) and issubclass(found, gymnasium.Env)


def _is_algorithm(name: str) -> bool:
    from workhorse.core.algorithm import Algorithm

    found = _found(name)
    return isinstance(found, type) and issubclass(found, Algorithm)


def _found(name: str) -> object:
    """Return what a name leads to in a module that may be imported; None where that is nothing."""
    module, _, path = name.rpartition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception:  # whoever makes the task says why
        return None
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _remembered() -> Path:
    given = os.environ.get("XDG_STATE_HOME", "")
    return Path(given if os.path.isabs(given) else os.path.expanduser("~/.local/state")) / "workhorse" / "trusted"
