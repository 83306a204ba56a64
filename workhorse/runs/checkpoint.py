"""Checkpoints: the state of a run on disk, there whole or not at all.

    checkpoints/<iteration>/ state.safetensors  meta.json     the newest two
    milestones/<iteration>/  the same                         kept for good

Saving writes a temporary folder, makes it durable and renames it, so that a crash at any instant leaves the newest
complete checkpoint loadable. Loading verifies every byte and falls back to the one before.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import PyTree

from workhorse.core.digest import digest, flatten_arrays, restore_arrays
from workhorse.core.errors import UsageError
from workhorse.core.files import (
    list_folder,
    make_folder,
    remove_folder,
    replace_folder,
    settled_folder,
    sync_folder,
    write_file,
    writing,
)
from workhorse.core.records import OWNER, is_plain, shown
from workhorse.runs.manifest import owner_of
from workhorse.runs.tensors import DamagedFile, read_part, read_tensors, write_tensors

__all__ = ["FORMAT", "KEPT", "load", "load_newest", "save", "saved_iterations", "saved_meta"]

FORMAT = 2
"""Version of the checkpoint's layout."""

KEPT = 2
"""Number of checkpoints a run folder keeps: the newest, and one to fall back on."""

Place = Literal["checkpoints", "milestones"]
"""Folder of states: those a run goes on from, or those that are looked at afterwards."""


def save(
    folder: str | os.PathLike[str],
    iteration: int,
    tree: PyTree,
    meta: dict[str, Any],
    place: Place = "checkpoints",
    *,
    later: Literal["removed", "kept"] = "removed",
) -> Path:
    """Save a state as the run's newest checkpoint, or as a milestone.

    After it returns, the checkpoint survives a power cut. Checkpoints of *later* iterations are removed: they belong
    to a future that was given up when the run fell back to an earlier one.

    Args:
        folder: the run folder.
        iteration: how many iterations made this state; at least 0.
        tree: the state, a pytree of arrays and numbers.
        meta: plain JSON with string keys and finite numbers; comes back from `load_newest`.
        place: `milestones` are all kept, but for later ones.
        later: what becomes of later ones; kept, where this state is of the same past.

    Returns:
        The checkpoint's folder.

    Raises:
        UsageError: the disk is full, read-only, or not there; checkpoints saved before are untouched.
        TypeError, ValueError: `tree` or `meta` holds what cannot be stored.
    """
    if iteration < 0:
        raise ValueError(f"An iteration must be at least 0, got {iteration}.")
    checkpoints = Path(folder) / place
    target = checkpoints / str(iteration)
    temporary = checkpoints / f".tmp-{os.getpid()}-{iteration}"
    arrays = flatten_arrays(tree)
    # Through JSON and back: what JSON cannot hold is refused before anything is written, and the seal is of the rest.
    record = {"format": FORMAT, "iteration": iteration, "digest": f"{digest(tree):016x}", "meta": meta}
    record = json.loads(_canonical(record)) | ({OWNER: owner} if (owner := owner_of(folder)) else {})
    with writing(f"the checkpoint of iteration {iteration}", checkpoints):
        try:
            make_folder(checkpoints)
            remove_folder(temporary)  # a killed process may have had this one's id
            temporary.mkdir()
            record["sha256"] = write_tensors(temporary / "state.safetensors", arrays)
            record["seal"] = hashlib.sha256(_canonical(record)).hexdigest()
            write_file(temporary / "meta.json", json.dumps(record, indent=2, allow_nan=False).encode())
            replace_folder(temporary, target)
        except BaseException:
            remove_folder(temporary)
            raise
        if later == "removed":
            _prune(checkpoints, iteration)
    return target


def load(
    folder: str | os.PathLike[str], iteration: int, template: PyTree, place: Place = "milestones"
) -> tuple[Any, dict[str, Any]]:
    """Load the state of one iteration, and what `save` was given with it.

    Raises:
        UsageError: there is none of that iteration, it is damaged, or it does not have the template's structure.
    """
    where = settled_folder(Path(folder) / place / str(iteration))
    try:
        record = _read_record(folder, where, iteration)
        arrays = _arrays(folder, where, record)
    except (DamagedFile, OSError) as damage:
        raise UsageError(f"Expected a whole state in {where}, but {damage}: choose another iteration.") from damage
    return restore_arrays(template, arrays, where=str(where)), record["meta"]


def load_newest(
    folder: str | os.PathLike[str],
    template: PyTree,
    *,
    set_aside: bool = True,
    part: str = "",
    also: Callable[[dict[str, Any]], None] = lambda meta: None,
) -> tuple[int, PyTree, dict[str, Any], list[str]]:
    """Load the newest checkpoint that is whole.

    Args:
        folder: the run folder.
        template: a tree of the structure, shapes and dtypes that were saved; its values are ignored.
        set_aside: whether to take damaged checkpoints out of the count, so that `save` does not keep them in the place
            of whole ones. *False for a reader that does not hold the run's lock.*
        part: name of the only part of what was saved that the template has; all of it by default.
        also: reads what else belongs to a checkpoint, given its meta; its `DamagedFile` is the checkpoint's.

    Returns:
        iteration: how many iterations made the state.
        tree: the state.
        meta: what `save` was given.
        notes: one sentence for every damaged checkpoint passed over; empty when all is well.

    Raises:
        UsageError: there is no whole checkpoint, or its format or its structure is another.
    """
    checkpoints = Path(folder) / "checkpoints"
    iterations = saved_iterations(folder)
    if not iterations:
        raise UsageError(
            f"Expected a checkpoint in {checkpoints}, found none: the run ended before its first one was written. "
            "Start a new run."
        )
    damages: list[tuple[int, str]] = []
    for iteration in reversed(iterations):
        place = settled_folder(checkpoints / str(iteration))
        try:
            record = _read_record(folder, place, iteration)
            arrays = _arrays(folder, place, record)
            also(record["meta"])
        except (DamagedFile, OSError) as damage:
            damages.append((iteration, str(damage)))
            continue
        if part:
            arrays = {name: array for name, array in arrays.items() if name.partition("/")[0] == part}
        tree = restore_arrays(template, arrays, where=str(place))
        for damaged, _ in damages if set_aside else ():
            _set_aside(checkpoints, damaged)
        notes = [
            f"The checkpoint of iteration {damaged} in {checkpoints} is damaged ({reason}), "
            f"so the one of iteration {iteration} is used."
            for damaged, reason in damages
        ]
        return iteration, tree, record["meta"], notes
    reasons = "; ".join(f"iteration {iteration}: {reason}" for iteration, reason in damages)
    milestones = saved_iterations(folder, "milestones")
    other = f", or go on from milestone {milestones[-1]} with `workhorse fork`" if milestones else ""
    raise UsageError(
        f"Expected a whole checkpoint in {checkpoints}, but all are damaged ({reasons}). "
        f"Restore the folder from a copy, or start a new run{other}."
    )


def saved_iterations(folder: str | os.PathLike[str], place: Place = "checkpoints") -> list[int]:
    """Return the iterations that have a checkpoint, or a milestone, oldest first; nothing is verified."""
    places = list_folder(Path(folder) / place, hidden=True)
    found = {place.name.removeprefix(".replaced-") for place in places}
    return sorted(int(name) for name in found if name.isascii() and name.isdigit() and str(int(name)) == name)


def saved_meta(folder: str | os.PathLike[str], iteration: int, place: Place = "checkpoints") -> dict[str, Any]:
    """Return what `save` was given with a state, which itself is not read.

    Raises:
        DamagedFile: it is not what was written.
    """
    return _read_record(folder, settled_folder(Path(folder) / place / str(iteration)), iteration)["meta"]


def _renewed(arrays: dict[str, np.ndarray], record: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the leaves of a state of format 1 under the names of format 2."""
    if record["format"] == FORMAT:
        return arrays
    moved = {"learner": "state", "slots": "data/slots", "held_out_steps": "data/held_out_steps"}
    found = {}
    for name, array in arrays.items():
        first, slash, rest = name.partition("/")
        found[f"{moved.get(first, first)}{slash}{rest}"] = array
    return found


def _arrays(folder: str | os.PathLike[str], place: Path, record: dict[str, Any]) -> dict[str, np.ndarray]:
    return _renewed(read_tensors(place / "state.safetensors", record["sha256"], Path(folder)), record)


def _read_record(folder: str | os.PathLike[str], place: Path, iteration: int) -> dict[str, Any]:
    content = read_part(place / "meta.json", Path(folder))
    try:
        record = json.loads(content)
        seal = record.pop("seal")
        whole = hashlib.sha256(_canonical(record)).hexdigest() == seal and is_plain(record)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedFile("meta.json is not what was written") from error
    whole = whole and record.keys() - {OWNER} == {"format", "iteration", "digest", "meta", "sha256"}
    if not whole or record["iteration"] != iteration or not isinstance(record["meta"], dict):
        raise DamagedFile("meta.json is not what was written")
    if record.get(OWNER) not in (None, owner_of(folder)):
        raise DamagedFile(f"it is of another run, {shown(record[OWNER])}")
    if record["format"] not in (1, FORMAT):
        raise UsageError(
            f"Expected checkpoint format {FORMAT} in {place}, got {record['format']}: "
            "another version of Workhorse wrote it. Resume with that version."
        )
    return record


def _canonical(record: dict[str, Any]) -> bytes:
    """The one JSON text of a record: what the seal is computed over."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _prune(checkpoints: Path, newest: int) -> None:
    """Keep the newest and those before it: `KEPT` checkpoints, all milestones. Drop later ones and a crash's rest."""
    place: Place = "milestones" if checkpoints.name == "milestones" else "checkpoints"
    earlier = [iteration for iteration in saved_iterations(checkpoints.parent, place) if iteration < newest]
    if place == "checkpoints":
        earlier = earlier[1 - KEPT :]
    kept = {settled_folder(checkpoints / str(iteration)).name for iteration in (newest, *earlier)}
    for path in list_folder(checkpoints, hidden=True):
        if path.name not in kept:
            remove_folder(path)
    sync_folder(checkpoints)


def _set_aside(checkpoints: Path, iteration: int) -> None:
    """Take a damaged checkpoint out of the count, where the folder may be written; the next save removes it."""
    with contextlib.suppress(OSError):
        os.rename(settled_folder(checkpoints / str(iteration)), checkpoints / f".damaged-{iteration}")
