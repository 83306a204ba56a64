"""Files of run, study and policy folders: read and written inside of their folder, whole or not at all.

A folder may come from elsewhere. So no link *in* it is ever followed: every path is walked name by name from the folder
`within` which it lies, each name opened with O_NOFOLLOW, and what is written or removed is replaced or removed by name.
The folder itself may be reached by a link (`runs` may lie on another disk). Only plain files are opened: a pipe would
wait for ever, and a device may do anything.
"""

import contextlib
import errno
import fnmatch
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from workhorse.core.errors import UsageError

__all__ = [
    "ForbiddenFile",
    "UnreadableFile",
    "check_parts",
    "check_writable",
    "create_file",
    "is_there",
    "list_folder",
    "make_folder",
    "open_lock",
    "open_to_read",
    "read_file",
    "remove",
    "remove_folder",
    "replace_folder",
    "settled_folder",
    "sync_folder",
    "temporary_name",
    "write_file",
    "writing",
]

_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_NOT_A_FOLDER = (errno.ENOTDIR, errno.EEXIST)
_SEARCH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFREG: "a file",
    stat.S_IFSOCK: "a socket",
}


class UnreadableFile(UsageError):
    """What lies in a folder under the name of one of our files, or of a part, is a link, a pipe, or cannot be read."""


class ForbiddenFile(UnreadableFile):
    """The user may not read a file."""


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
        named = f" ({error.filename})" if error.filename else ""
        if error.errno in _SPACE:
            sentence = f"{place}: the disk (or its quota) is full. Free some space, then resume the run."
        elif error.errno == errno.EROFS:
            sentence = f"{place}: the file system is read-only. Choose a folder on a writable one."
        elif error.errno in _FORBIDDEN:
            sentence = f"{place}: permission denied. Choose a folder you may write to, or change its permissions."
        elif error.errno in _NOT_A_FOLDER:
            sentence = f"{place}: expected a folder there, found a file{named}. Move it away, or choose another folder."
        elif error.errno == errno.EISDIR:
            sentence = f"{place}: expected a file there, found a folder{named}. Move it away."
        elif error.errno == errno.ENOENT:
            sentence = f"{place}: the folder is gone. Was it moved or deleted? Put it back, or start a new run."
        elif error.errno == errno.ENAMETOOLONG:
            sentence = f"{place}: the name is too long for the file system. Choose a shorter one."
        else:
            raise
        raise UsageError(sentence) from error


def read_file(path: str | os.PathLike[str], within: str | os.PathLike[str] | None = None) -> bytes:
    """Return the content of a plain file.

    Args:
        path: the file.
        within: the folder whose parts may be no links; the file's own folder by default. *Name it for a file that lies
            deeper*, or a link in between is followed.

    Raises:
        FileNotFoundError: there is none.
        UnreadableFile: it is no plain file, a part of its path is a link, or it may not be read.
    """
    path = Path(path)
    with _readable(path), open(open_to_read(path, within), "rb") as file:
        return file.read()


def open_to_read(path: str | os.PathLike[str], within: str | os.PathLike[str] | None = None) -> int:
    """Return the descriptor of a plain file; arguments and errors are those of `read_file`."""
    path = Path(path)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a pipe would wait for somebody who writes
    with _readable(path), _folder_of(path, within) as folder:
        _check_plain(path, folder)
        return os.open(path.name, flags, dir_fd=folder)


@contextlib.contextmanager
def create_file(
    path: str | os.PathLike[str], within: str | os.PathLike[str] | None = None, *, durable: bool = True
) -> Iterator[BinaryIO]:
    """Context manager: a file to write, which takes its name at the end, whole; after an error nothing has changed.

    A link under that name is replaced, never followed.

    Args:
        path: the file.
        within: as in `read_file`.
        durable: whether it is to survive a power cut, which costs a wait for the disk.
    """
    path = Path(path)
    temporary = temporary_name(path).name
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with _folder_of(path, within) as folder:
        _remove_at(temporary, folder)  # a killed process may have had this one's id
        try:
            with open(os.open(temporary, flags, 0o666, dir_fd=folder), "wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            _remove_at(temporary, folder)
            raise
    if durable:
        sync_folder(path.parent)


def write_file(
    path: str | os.PathLike[str],
    content: bytes,
    within: str | os.PathLike[str] | None = None,
    *,
    durable: bool = True,
) -> None:
    """Write a file so that a reader, or a crash at any instant, finds the old content or the new, never a part.

    The arguments are those of `create_file`.
    """
    with create_file(path, within, durable=durable) as file:
        file.write(content)


def temporary_name(path: Path) -> Path:
    """Return the path under which `create_file` writes, for a library that opens files by name."""
    return path.with_name(f".tmp-{os.getpid()}-{path.name}")


def list_folder(
    path: str | os.PathLike[str],
    pattern: str = "*",
    within: str | os.PathLike[str] | None = None,
    *,
    hidden: bool = False,
) -> list[Path]:
    """Return what lies in a folder, sorted by name; nothing where there is no folder.

    Args:
        path: the folder.
        pattern: of the names, as in "*.json".
        within: as in `read_file`; by default the folder that this one lies in.
        hidden: whether to return names with a leading dot, which killed processes have left, as well.

    Raises:
        UnreadableFile: it is a link or a file, or it may not be read.
    """
    path = Path(path)
    try:
        with _readable(path), _opened(path, path.parent if within is None else Path(within)) as folder:
            readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
            try:
                names = os.listdir(readable)
            finally:
                os.close(readable)
    except FileNotFoundError:
        return []
    shown = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    return [path / name for name in sorted(shown) if hidden or not name.startswith(".")]


def check_parts(folder: Path, folders: Iterable[str], files: Iterable[str]) -> None:
    """Find out before any work whether the parts of a folder, as far as they are there, are folders and files.

    A link in the place of a file is no obstacle here: it is replaced where the file is written, and refused where it
    is read.

    Raises:
        UnreadableFile: one is not.
    """
    for name in folders:
        if is_there(folder / name) and not stat.S_ISDIR(mode := os.lstat(folder / name).st_mode):
            raise _unreadable(folder / name, _kind(mode), "a folder")
    for name in files:
        if is_there(folder / name) and stat.S_ISDIR(os.lstat(folder / name).st_mode):
            raise _unreadable(folder / name, "a folder", "a file")


def is_there(path: str | os.PathLike[str]) -> bool:
    """Tell whether something has this name: a link counts, whatever it points to."""
    return os.path.lexists(path)


def make_folder(path: str | os.PathLike[str], within: str | os.PathLike[str] | None = None) -> Path:
    """Make a folder, and those between it and `within`, where they are missing, and return it.

    Raises:
        UnreadableFile: one of them is a link or a file.
        OSError: the disk cannot be written, see `writing`.
    """
    path = Path(path)
    within = path.parent if within is None else Path(within)
    place = within
    for name in path.relative_to(within).parts:
        place = place / name
        with _folder_of(place, within) as folder, contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
    with _opened(path, within):  # what was there already is a folder
        return path


def remove(path: str | os.PathLike[str], within: str | os.PathLike[str] | None = None) -> None:
    """Remove a file, a folder, or a link (never what it points to); nothing where nothing is there."""
    path = Path(path)
    with contextlib.suppress(FileNotFoundError), _folder_of(path, within) as folder:
        if not _remove_at(path.name, folder):
            remove_folder(path)


def open_lock(path: str | os.PathLike[str]) -> int:
    """Return the descriptor of a file to lock and to write a process id into; it is made where it is missing.

    Raises:
        UnreadableFile: it is a link, or has a second name (a hard link), so that writing it would change another file.
        OSError: the disk cannot be written, see `writing`.
    """
    path = Path(path)
    with _folder_of(path) as folder:
        if is_there(path):
            _check_plain(path, folder)
        descriptor = os.open(path.name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644, dir_fd=folder)
    if os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        raise UnreadableFile(f"Expected {path} to be a file of its own, but it has a second name: remove it.")
    return descriptor


def check_writable(what: str, path: Path, within: str | os.PathLike[str] | None = None) -> None:
    """Find out before the work whether its result could be written to `path`.

    Raises:
        UsageError: as `writing`, or a part of the path below `within` is a link.
    """
    with writing(what, path), _folder_of(path, within) as folder:
        probe = temporary_name(path).name
        _remove_at(probe, folder)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, dir_fd=folder))
        _remove_at(probe, folder)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: a rename survives a power cut only after this."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(temporary: Path, target: Path) -> None:
    """Put a finished folder in `target`'s place. A crash leaves the old, the new, or the old set aside.

    POSIX renames a folder onto an empty one only, so an old one is first set aside; `settled_folder` finds it there if
    the process dies between the two renames. A link or a file in its place is replaced as well, by name.
    """
    aside = _aside(target)
    sync_folder(temporary)
    if is_there(target):
        remove(aside)
        os.rename(target, aside)
    os.rename(temporary, target)
    sync_folder(target.parent)
    remove(aside)


def settled_folder(target: Path) -> Path:
    """Return the folder itself, or the one that a crash inside `replace_folder` left set aside."""
    aside = _aside(target)
    return aside if is_there(aside) and not is_there(target) else target


def remove_folder(path: Path) -> None:
    """Remove a folder that may not exist. It is renamed first, so that nobody sees a part of it under its name."""
    doomed = path.with_name(f".removed-{os.getpid()}-{path.name.lstrip('.')}")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):  # a link, or a pipe, which rmtree would open and wait for
            os.unlink(path)
            return
        os.rename(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)  # removes links, and follows none


def _aside(target: Path) -> Path:
    target = target if target.name else target.absolute()  # "." has no name
    return target.with_name(f".replaced-{target.name}")


def _folder_of(path: Path, within: str | os.PathLike[str] | None = None) -> contextlib.AbstractContextManager[int]:
    """The descriptor of the folder that a path lies in, reached from `within` without a link."""
    return _opened(path.parent, path.parent if within is None else Path(within))


@contextlib.contextmanager
def _opened(path: Path, within: Path) -> Iterator[int]:
    """Context manager: the descriptor of a folder, reached from `within` name by name."""
    if not path.is_relative_to(within) or ".." in path.relative_to(within).parts:
        raise UnreadableFile(f"Expected a place inside of {within}, got {path}: the record that names it is not ours.")
    descriptor = os.open(within, _SEARCH)
    try:
        place = within
        for name in path.relative_to(within).parts:
            place = place / name
            try:
                inner = os.open(name, _SEARCH | os.O_NOFOLLOW, dir_fd=descriptor)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise _unreadable(place, _kind(os.lstat(place).st_mode), "a folder") from error
                raise
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _check_plain(path: Path, folder: int) -> None:
    mode = os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode
    if not stat.S_ISREG(mode):
        raise _unreadable(path, _kind(mode), "a file")


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Context manager: turn an `OSError` into a sentence, but for that of a missing file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise ForbiddenFile(f"Could not read {path}: permission denied. Change its permissions.") from error
    except OSError as error:
        raise UnreadableFile(f"Could not read {path} ({error.strerror}): restore it from a copy.") from error


def _remove_at(name: str, folder: int) -> bool:
    """Remove a name that is no folder's; return False where it is a folder's."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
        return False
    return True


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a device")


def _unreadable(path: Path, found: str, wanted: str) -> UnreadableFile:
    follows = ", and Workhorse follows no links in its folders" if found == "a link" else ""
    return UnreadableFile(f"Expected {wanted} in {path}, got {found}{follows}: put {wanted} there, or remove it.")
