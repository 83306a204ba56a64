"""Files of a run as bytes, on their way between the study's folder and the node of a cluster where the run is trained.

    b"WHP1"  length of the head  head: {"files": [[name, size], ...]}  contents, one after the other

A parcel names every file of the run. One with the size -1 is not in it, because the other side has it already; a file
that is not named is removed there. The other side may be another machine, so nothing it names is believed: only names
of a run's own files are taken, nothing is followed, and nothing is executed.
"""

from __future__ import annotations

import json
import os
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from workhorse.core.errors import UsageError
from workhorse.core.files import (
    list_folder,
    make_folder,
    read_file,
    remove,
    remove_folder,
    replace_folder,
    write_file,
    writing,
)

__all__ = ["MOST_BYTES", "MOST_FILES", "BadParcel", "Packer", "unpack"]

MOST_BYTES = 4 << 30
"""Bytes that the files of a run may have in all."""

MOST_FILES = 20_000
"""Files that a run may have."""

KEPT = -1
"""Size of a file that is named and not sent."""

_HEAD = struct.Struct("<4sI")
_MAGIC = b"WHP1"

_FILES = ("manifest.json", "ledger.json", "metrics.parquet", "warnings.json", "traceback.txt", "status.json")
_FOLDERS = ("tensorboard", "evaluations", "segments", "milestones", "checkpoints", "policy")
_ORDER = (*_FILES[:-1], *_FOLDERS, "status.json")
"""Order of writing. What a checkpoint needs comes before it, as where the run writes itself: a kill loses nothing."""

_PART = r"[A-Za-z0-9_][\w.+=@,-]{0,199}"
_NAME = re.compile(
    rf"{'|'.join(map(re.escape, _FILES))}|(tensorboard|evaluations|policy)/{_PART}|segments/{_PART}/{_PART}"
    rf"|(milestones|checkpoints)/[0-9]{{1,18}}/{_PART}",
    re.ASCII,
)
"""Names of files that are carried. `lock` is of the machine, and a report or a program is for nobody else to write."""

Stamp = tuple[int, int, int]
"""Time of change, size and inode: a file with another one is sent again."""


class BadParcel(ValueError):
    """Bytes that are no parcel of ours."""


class Packer:
    """Packs a run's files again and again, each time those that are new.

    Args:
        folder: of the run.
        parts: the only top names to pack; all by default.
    """

    def __init__(self, folder: Path, parts: tuple[str, ...] = _ORDER) -> None:
        self._folder, self._parts = folder, parts
        self._there: dict[str, Stamp] = {}

    def skip_present(self) -> None:
        """Take what is there now as sent: it has come from the other side."""
        self._there = dict(self._files())

    def pack(self) -> bytes:
        """Return a parcel with the files that were not there, or were others, the last time.

        Raises:
            UsageError: they are too many, or too large, to be carried.
        """
        now = dict(self._files())
        total = sum(size for _, size, _ in now.values())
        if len(now) > MOST_FILES or total > MOST_BYTES:
            raise UsageError(
                f"A study on a cluster carries at most {MOST_FILES:,} files and {MOST_BYTES / 2**30:g} GiB of a run, "
                f"and {self._folder.name} has {len(now):,} files and {total / 2**30:.1f} GiB: train it on one machine."
            )
        changed = {_unit(name) for name, stamp in now.items() if self._there.get(name) != stamp}
        contents = {name: read_file(self._folder / name, self._folder) for name in now if _unit(name) in changed}
        named = [[name, len(contents[name]) if name in contents else KEPT] for name in now]
        head = json.dumps({"files": named}).encode()
        self._there = now
        return b"".join([_HEAD.pack(_MAGIC, len(head)), head, *contents.values()])

    def _files(self) -> Iterator[tuple[str, Stamp]]:
        """Yield the names of the files, as they are written, and their stamps."""
        for part in self._parts:
            for path in _below(self._folder / part, self._folder):
                name, found = path.relative_to(self._folder).as_posix(), os.lstat(path)
                if _NAME.fullmatch(name) and stat.S_ISREG(found.st_mode):
                    yield name, (found.st_mtime_ns, found.st_size, found.st_ino)


def unpack(parcel: bytes | memoryview, folder: Path) -> list[str]:
    """Write a parcel's files into a run's folder, remove those that it does not name, and return what was written.

    A checkpoint, a milestone and the policy appear whole or not at all, and a checkpoint after the files it needs.

    Raises:
        BadParcel: it is none of ours; nothing was written.
        UsageError: the disk cannot be written, or a part of the folder is a link.
    """
    sent, kept = _read(memoryview(parcel))
    units: dict[str, dict[str, memoryview]] = {}
    for name, content in sent.items():
        units.setdefault(_unit(name), {})[name] = content
    with writing("the files of a run", folder):
        make_folder(folder, folder.parent)
        for unit in sorted(units, key=lambda unit: (_ORDER.index(unit.partition("/")[0]), unit)):
            _write(folder, unit, units[unit])
        present = [name for name, _ in Packer(folder)._files()]
        gone = {_unit(name) for name in present if name not in sent and name not in kept}
        for unit in sorted(gone - {_unit(name) for name in (*sent, *kept)}):
            remove(folder / unit, folder)
    return list(sent)


def _read(parcel: memoryview) -> tuple[dict[str, memoryview], set[str]]:
    """Return the contents by name, and the names of files that are to stay, having checked all of it."""
    if len(parcel) < _HEAD.size or (found := _HEAD.unpack_from(parcel))[0] != _MAGIC:
        raise BadParcel("bytes that do not begin as a parcel does")
    at = _HEAD.size + found[1]
    try:
        files = json.loads(bytes(parcel[_HEAD.size : at]))["files"]
        named = dict(files)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadParcel("a parcel whose head is not what we write") from error
    if len(files) > MOST_FILES or len(named) < len(files):
        raise BadParcel(f"a parcel of {len(files):,} files, or with one of them twice")
    for name, size in named.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadParcel(f"a parcel with the file {str(name)[:200]!r}, which is none of a run's")
        if type(size) is not int or size < KEPT:
            raise BadParcel(f"a parcel with {name} of the size {str(size)[:20]}")
    sizes = {name: size for name, size in named.items() if size != KEPT}
    if at + sum(sizes.values()) != len(parcel) or len(parcel) > at + MOST_BYTES:
        raise BadParcel("a parcel that is shorter or longer than its files, or too large")
    kept = named.keys() - sizes.keys()
    if both := {_unit(name) for name in sizes} & {_unit(name) for name in kept}:
        raise BadParcel(f"a parcel with a part of {min(both)}")
    sent = {}
    for name, size in sizes.items():
        sent[name], at = parcel[at : at + size], at + size
    return sent, kept


def _unit(name: str) -> str:
    """Return the folder that a file is whole with, or the file itself.

    Example:
        >>> _unit("checkpoints/12/meta.json"), _unit("policy/policy.json"), _unit("evaluations/3-16.json")
        ('checkpoints/12', 'policy', 'evaluations/3-16.json')
    """
    first, *rest = name.split("/")
    if first == "policy":
        return first
    return f"{first}/{rest[0]}" if first in ("milestones", "checkpoints") else name


def _write(folder: Path, unit: str, contents: dict[str, memoryview]) -> None:
    target = folder / unit
    make_folder(target.parent, folder)
    if unit in contents:
        write_file(target, bytes(contents[unit]), folder, durable=False)
        return
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    remove_folder(temporary)  # a killed process may have had this one's id
    make_folder(temporary, folder)
    for name, content in contents.items():
        write_file(temporary / Path(name).name, bytes(content), folder)
    replace_folder(temporary, target)


def _below(path: Path, within: Path) -> Iterator[Path]:
    """Yield what lies below a path, hidden names and what is behind links left out; the path itself if it is a file."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        yield path
        return
    for inner in list_folder(path, within=within):
        yield from _below(inner, within)
