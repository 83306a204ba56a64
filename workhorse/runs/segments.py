"""Append-only data of a run on disk: a checkpoint writes the rows that are new, in a file that is never rewritten.

    segments/<name>/<begin>-<end>.safetensors     rows begin to end of one log

A checkpoint's meta.json names the files it needs, with their SHA-256; files that nothing kept needs are removed.
Milestones name none, but for the one that a fork begins with, before which nothing can be computed again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from workhorse.core.files import list_folder, make_folder, remove, writing
from workhorse.runs import checkpoint
from workhorse.runs.folder import RunFolder
from workhorse.runs.tensors import DamagedFile, read_tensors, write_tensors
from workhorse.training.loop import Loop, Progress, Segments

__all__ = ["PLACES", "load_progress", "restore_segments", "save_progress"]

PLACES: tuple[checkpoint.Place, ...] = ("checkpoints", "milestones")
"""Folders of states that may name segments."""

PART_BYTES = 2**26
"""Bytes of a file, about: more rows than that go into several, so that few are in memory twice."""

Part = list[Any]
"""[begin, end, sha256] of one file, as JSON."""


def save_progress(folder: RunFolder, loop: Loop, progress: Progress, meta: dict[str, Any]) -> None:
    """Save a run's progress as its newest checkpoint, with the rows that its segments have gained.

    The rows come first: a crash between the two leaves files that no checkpoint names, which the next save removes.

    Raises:
        UsageError: the disk is full, read-only, or not there.
    """
    before = _newest_record(folder)
    record = {
        name: _append(folder, name, segments, progress, before.get(name, []))
        for name, segments in loop.segments().items()
    }
    checkpoint.save(folder, int(progress.iteration), progress, {**meta, "segments": record} if record else meta)
    if record:
        _remove_unnamed(folder)


def load_progress(folder: RunFolder, loop: Loop) -> tuple[int, Progress, dict[str, Any], list[str]]:
    """Load the newest checkpoint that is whole, its segments included, into a loop.

    Args:
        folder: the run.
        loop: made of the run's plan; its segments are restored.

    Returns:
        The iteration, the progress, what was saved with it, and a sentence for every damaged checkpoint passed over.

    Raises:
        UsageError: no checkpoint is whole, or a file of its segments is missing or damaged.
    """

    return checkpoint.load_newest(folder, loop.start(), also=lambda meta: restore_segments(folder, loop, meta))


def restore_segments(folder: RunFolder, loop: Loop, meta: Mapping[str, Any]) -> None:
    """Give a loop the rows that a checkpoint names.

    Raises:
        DamagedFile: a file is missing or not what was written, or the checkpoint names none.
    """
    record = meta.get("segments", {})
    for name, segments in loop.segments().items():
        _restore(folder, name, segments, record.get(name))


def _append(folder: RunFolder, name: str, segments: Segments, progress: Progress, before: list[Part]) -> list[Part]:
    """Write the rows since the last file and return all files that are needed."""
    first, end = segments.cursor(progress)
    kept = [part for part in before if first < part[1] <= end]
    begin = kept[-1][1] if kept else first
    if begin == end:
        return kept
    place, new = folder.path / "segments" / name, list[Part]()
    with writing("the segment", place):
        make_folder(place, folder.path)
        rows = max(PART_BYTES // sum(array.nbytes for array in segments.read(begin, begin + 1).values()), 1)
        for one in range(begin, end, rows):
            until = min(one + rows, end)
            sha256 = write_tensors(place / f"{one}-{until}.safetensors", segments.read(one, until), folder.path)
            new.append([one, until, sha256])
    return [*kept, *new]


def _restore(folder: RunFolder, name: str, segments: Segments, record: object) -> None:
    """Give a loop's segments the rows of a checkpoint.

    Raises:
        DamagedFile: a file is missing or not what was written, or the checkpoint has none of this name.
    """
    if record is None:
        raise DamagedFile(f"it names no segments in {name}")
    place, named = folder.path / "segments" / name, _parts(record)

    def parts() -> Iterator[dict[str, np.ndarray]]:  # one in memory at a time
        for begin, end, sha256 in named:
            arrays = read_tensors(place / f"{begin}-{end}.safetensors", sha256, folder.path)
            if any(len(array) != end - begin for array in arrays.values()):
                raise DamagedFile(f"{begin}-{end}.safetensors in {name} does not have {end - begin} rows")
            yield arrays

    segments.restore(named[0][0] if named else 0, parts())


def _parts(record: object) -> list[Part]:
    """Return the files that a checkpoint names, their types checked: the names are made of them."""
    kinds = [int, int, str]
    if not isinstance(record, list) or any(
        not isinstance(part, list) or list(map(type, part)) != kinds for part in record
    ):
        raise DamagedFile("meta.json names segments in another way than ours")
    return record


def _newest_record(folder: RunFolder) -> dict[str, list[Part]]:
    """The files that the newest checkpoint names; none before the first, or where it is damaged."""
    for iteration in reversed(checkpoint.saved_iterations(folder)):
        with contextlib.suppress(DamagedFile, OSError):
            return _segments_of(folder, iteration)
    return {}


def _remove_unnamed(folder: RunFolder) -> None:
    """Remove the files that no kept checkpoint or milestone names."""
    named = set()
    for place in PLACES:
        for iteration in checkpoint.saved_iterations(folder, place):
            with contextlib.suppress(DamagedFile, OSError):
                for name, parts in _segments_of(folder, iteration, place).items():
                    named |= {(name, f"{begin}-{end}.safetensors") for begin, end, _ in parts}
    for log in list_folder(folder.path / "segments"):
        for file in list_folder(log, within=folder.path, hidden=True):
            if (file.parent.name, file.name) not in named:
                remove(file, folder.path)


def _segments_of(folder: RunFolder, iteration: int, place: checkpoint.Place = "checkpoints") -> dict[str, list[Part]]:
    found = checkpoint.saved_meta(folder, iteration, place).get("segments", {})
    if not isinstance(found, dict):
        raise DamagedFile("meta.json names segments in another way than ours")
    return {name: _parts(parts) for name, parts in found.items()}
