"""Decide whether the modules that a run folder names may be imported: importing a module runs its code.

A manifest names its task as "module:id", and an algorithm as "module:Class". Where the folder came from elsewhere, the
module that is found under that name may have come with it. So a module is imported only where

- it is part of Workhorse, or was imported already, so that importing it again runs nothing; or
- it belongs to an installed distribution, and is found where that was installed; or
- the user has vouched for the run: started it here, or asked for it by `--trust` once.

Runs that were vouched for are remembered outside of their folders, by a digest of the manifest: one empty file each in
`$XDG_STATE_HOME/workhorse/trusted`, by default `~/.local/state/workhorse/trusted`. A folder that was copied to another
machine or user is not among theirs. Deleting the files is safe.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from workhorse.core.errors import UsageError
from workhorse.runs.manifest import Manifest

__all__ = ["foreign_modules", "is_trusted", "key_of", "named_modules", "require_trust", "trust"]

_vouched: set[str] = set()
"""Keys vouched for in this process, which count where the user's state folder cannot be written."""


def named_modules(task: str, task_options: Mapping[str, Any], algorithm: str) -> list[str]:
    """Return the modules that a run's task, its wrappers and its algorithm would import.

    Example:
        >>> named_modules("mytask:Tank-v0", {"wrappers": ["walls:Walls"]}, "ppo")
        ['mytask', 'walls']
        >>> named_modules("HalfCheetah-v5", {}, "ppo")
        []
    """
    wrappers = task_options.get("wrappers", ())
    wrappers = [wrappers] if isinstance(wrappers, str) else wrappers if isinstance(wrappers, list | tuple) else ()
    names = [task, algorithm, *(wrapper for wrapper in wrappers if isinstance(wrapper, str))]
    return list(dict.fromkeys(name.partition(":")[0] for name in names if ":" in name))


def foreign_modules(modules: Iterable[str]) -> list[str]:
    """Return those modules whose code is not this program's, not imported yet, and of no installed distribution."""
    return [name for name in modules if not _is_ours(name) and not _is_installed(name)]


def key_of(record: Mapping[str, Any]) -> str:
    """Return the name under which a run or a study is remembered: a digest of the record that describes it."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def trust(key: str) -> None:
    """Remember that the user vouches for a run or a study; where the disk cannot be written, in this process only."""
    _vouched.add(key)
    with contextlib.suppress(OSError):
        folder = _remembered()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / key).touch()


def is_trusted(key: str) -> bool:
    """Tell whether the user has vouched for a run or a study."""
    return key in _vouched or (_remembered() / key).exists()


def require_trust(key: str, modules: Iterable[str], what: str) -> None:
    """Refuse what would import modules from who knows where.

    Args:
        key: of the run or the study, by `key_of`.
        modules: that it names.
        what: names it in the message.

    Raises:
        UsageError: it would import a foreign module, and the user has not vouched for it.
    """
    foreign = foreign_modules(modules)
    if foreign and not is_trusted(key):
        noun, them = ("the module", "it") if len(foreign) == 1 else ("the modules", "them")
        raise UsageError(
            f"{what} would import {noun} {', '.join(foreign)}, which runs the code in {them}, and was not begun here by "
            f"you: read that code, then add --trust, which is remembered for this run."
        )


def run_key(manifest: Manifest) -> str:
    """Return the key of a run."""
    return key_of(asdict(manifest))


def trust_run(manifest: Manifest) -> None:
    """Remember that the user vouches for a run, where it names modules that nobody else vouches for."""
    if foreign_modules(modules := named_modules(manifest.task, manifest.task_options, manifest.algorithm)):
        trust(run_key(manifest))
    del modules


def require_trusted_run(manifest: Manifest) -> None:
    """Refuse a run from elsewhere that would import modules of its choice.

    Raises:
        UsageError: as `require_trust`.
    """
    modules = named_modules(manifest.task, manifest.task_options, manifest.algorithm)
    require_trust(run_key(manifest), modules, f"The run {manifest.id}")
