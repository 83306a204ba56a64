"""Write files whole or not at all, and turn errors of the disk into sentences."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from workhorse.core.errors import UsageError

__all__ = [
    "check_writable",
    "remove_folder",
    "replace_folder",
    "settled_folder",
    "sync_folder",
    "write_file",
    "writing",
]

_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_NOT_A_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


@contextlib.contextmanager
def writing(what: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Context manager: turn disk errors that a user can fix into a `UsageError`: full, read-only, forbidden, gone.

    Any other `OSError` (a failing disk, too many open files) passes through and keeps its traceback.

    Args:
        what: what is being written, "the checkpoint".
        path: where.
    """
    try:
        yield
    except OSError as error:
        place = f"Could not write {what} to {os.fspath(path)}"
        if error.errno in _SPACE:
            sentence = f"{place}: the disk (or its quota) is full. Free some space, then resume the run."
        elif error.errno == errno.EROFS:
            sentence = f"{place}: the file system is read-only. Choose a folder on a writable one."
        elif error.errno in _FORBIDDEN:
            sentence = f"{place}: permission denied. Choose a folder you may write to, or change its permissions."
        elif error.errno in _NOT_A_FOLDER:
            named = f" ({error.filename})" if error.filename else ""
            sentence = f"{place}: expected a folder there, found a file{named}. Move it away, or choose another folder."
        elif error.errno == errno.ENOENT:
            sentence = f"{place}: the folder is gone. Was it moved or deleted? Put it back, or start a new run."
        elif error.errno == errno.ENAMETOOLONG:
            sentence = f"{place}: the name is too long for the file system. Choose a shorter one."
        else:
            raise
        raise UsageError(sentence) from error


def check_writable(what: str, path: Path) -> None:
    """Find out before the work whether its result could be written to `path`.

    Raises:
        UsageError: as `writing`.
    """
    probe = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    with writing(what, path):
        try:
            probe.touch()
        finally:
            probe.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: a rename survives a power cut only after this."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash at any instant, finds the old content or the new, never a part."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_folder(temporary: Path, target: Path) -> None:
    """Put a finished folder in `target`'s place. A crash leaves the old, the new, or the old set aside.

    POSIX renames a folder onto an empty one only, so an old one is first set aside; `settled_folder` finds it there if
    the process dies between the two renames.
    """
    aside = _aside(target)
    sync_folder(temporary)
    if target.exists():
        remove_folder(aside)
        os.rename(target, aside)
    os.rename(temporary, target)
    sync_folder(target.parent)
    remove_folder(aside)


def settled_folder(target: Path) -> Path:
    """Return the folder itself, or the one that a crash inside `replace_folder` left set aside."""
    aside = _aside(target)
    return aside if aside.exists() and not target.exists() else target


def remove_folder(path: Path) -> None:
    """Remove a folder that may not exist. It is renamed first, so that nobody sees a part of it under its name."""
    doomed = path.with_name(f".removed-{os.getpid()}-{path.name.lstrip('.')}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _aside(target: Path) -> Path:
    target = target.absolute()  # "." has no name
    return target.with_name(f".replaced-{target.name}")
