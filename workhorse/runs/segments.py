"""Append-only data of a run on disk: a checkpoint writes the rows that are new, in a file that is never rewritten.

    segments/<name>/<begin>-<end>.safetensors     rows begin to end of one log

A checkpoint's meta.json names the files it needs, with their SHA-256; files that no kept checkpoint needs are removed.
Milestones name none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from workhorse.core.errors import UsageError
from workhorse.runs import checkpoint
from workhorse.runs.files import list_folder, make_folder, remove, writing
from workhorse.runs.folder import RunFolder
from workhorse.runs.tensors import DamagedFile, read_tensors, write_tensors
from workhorse.training.loop import Loop, Progress, Segments

__all__ = ["load_progress", "require_whole_history", "save_progress"]

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

    def restore(meta: Mapping[str, Any]) -> None:
        record = meta.get("segments", {})
        for name, segments in loop.segments().items():
            _restore(folder, name, segments, record.get(name))

    return checkpoint.load_newest(folder, loop.start(), also=restore)


def _append(folder: RunFolder, name: str, segments: Segments, progress: Progress, before: list[Part]) -> list[Part]:
    """Write the rows since the last file and return all files that are needed."""
    first, end = segments.cursor(progress)
    kept = [part for part in before if first < part[1] <= end]
    begin = kept[-1][1] if kept else first
    if begin == end:
        return kept
    place = folder.path / "segments" / name
    with writing("the segment", place):
        make_folder(place, folder.path)
        sha256 = write_tensors(place / f"{begin}-{end}.safetensors", segments.read(begin, end), folder.path)
    return [*kept, [begin, end, sha256]]


def _restore(folder: RunFolder, name: str, segments: Segments, record: object) -> None:
    """Give a loop's segments the rows of a checkpoint.

    Raises:
        DamagedFile: a file is missing or not what was written, or the checkpoint has none of this name.
    """
    if record is None:
        raise DamagedFile(f"it names no segments in {name}")
    place, named = folder.path / "segments" / name, _parts(record)
    parts = [read_tensors(place / f"{begin}-{end}.safetensors", sha256, folder.path) for begin, end, sha256 in named]
    for (begin, end, _), arrays in zip(named, parts, strict=True):
        if any(len(array) != end - begin for array in arrays.values()):
            raise DamagedFile(f"{begin}-{end}.safetensors in {name} does not have {end - begin} rows")
    segments.restore(named[0][0] if named else 0, parts)


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
    """Remove the files that no kept checkpoint names."""
    named = set()
    for iteration in checkpoint.saved_iterations(folder):
        with contextlib.suppress(DamagedFile, OSError):
            for name, parts in _segments_of(folder, iteration).items():
                named |= {(name, f"{begin}-{end}.safetensors") for begin, end, _ in parts}
    for place in list_folder(folder.path / "segments"):
        for file in list_folder(place, within=folder.path, hidden=True):
            if (file.parent.name, file.name) not in named:
                remove(file, folder.path)


def _segments_of(folder: RunFolder, iteration: int) -> dict[str, list[Part]]:
    found = checkpoint.saved_meta(folder, iteration).get("segments", {})
    if not isinstance(found, dict):
        raise DamagedFile("meta.json names segments in another way than ours")
    return {name: _parts(parts) for name, parts in found.items()}


def require_whole_history(loop: Loop, folder: RunFolder) -> None:
    """Raise a `UsageError` where states between the kept ones cannot be computed again, for want of the segments."""
    if loop.segments():
        raise UsageError(
            f"{folder.path} learns from data that its milestones leave out ({', '.join(loop.segments())}): iterations "
            "between the kept ones cannot be computed again. Choose a kept one."
        )
