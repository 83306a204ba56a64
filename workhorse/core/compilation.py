"""Folder of compiled programs, kept from one start of Python to the next.

Compiling takes most of the time to a run's first iteration. JAX can keep compiled programs on disk; this module says
where, and whether the folder may be used. *What lies there is machine code that will be executed*: so the folder has to
belong to this user, and nobody else may be able to write to it.

A program's bits depend on the versions of JAX and its compiler, on the processor, which decides the instructions, and
on the number of threads of XLA, by which it splits sums. JAX's own keys hold the program, the version of its compiler
and its flags. The rest is in the folder's name, because a home folder may be shared by several machines.
"""

import contextlib
import hashlib
import os
import platform
import stat
import sys
from importlib import metadata
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "MOST_BYTES", "MOST_PROGRAMS", "compiled_folder", "prune"]

CACHE_VARIABLE = "WORKHORSE_COMPILE_CACHE"
"""Environment variable: `off` (or 0) keeps no programs; a path is the folder to keep them in."""

MOST_BYTES, MOST_PROGRAMS = 1 << 28, 4096
"""Bounds above which the programs used longest ago are deleted. One takes 5 kB to 0.5 MB, a run has 10 to 50."""

_PROCESSOR_LINES = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",  # x86
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",  # ARM
)  # fmt: skip


def compiled_folder() -> Path | None:
    """Return this machine's folder of compiled programs, made if needed; None where there is none that may be used.

    None where the user has switched it off; where the folder cannot be made or written, as in a read-only home; and
    where it belongs to another user, or another user could write to it.
    """
    asked = os.environ.get(CACHE_VARIABLE, "")
    if asked.lower() in ("0", "off", "no", "false"):
        return None
    root = Path(asked) if asked else _user_cache() / "workhorse" / "compiled"
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: no home folder can be determined
        root = root.expanduser().absolute()
        if not _is_ours(_nearest_folder(root), shared_is_fine=True):
            return None  # root with another user's home must not leave folders there, or execute what lies there
        folder = root / _key()
        for made in (*reversed([part for part in root.parents if not part.exists()]), root, folder):
            made.mkdir(mode=0o700, exist_ok=True)
        if all(_is_ours(part) for part in (root, folder)) and os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return folder
    return None


def prune(folder: Path, most_bytes: int = MOST_BYTES, most_programs: int = MOST_PROGRAMS) -> None:
    """Delete the programs used longest ago, of all versions, until those left are within both bounds.

    Safe beside processes that read and write there: a program that is gone is compiled anew.

    Args:
        folder: what `compiled_folder` returned; the folders of other versions and processors lie beside it.
        most_bytes: bound of their sizes together.
        most_programs: bound of their number.
    """
    found = []
    for path in folder.parent.glob("jax-*/*-cache"):
        with contextlib.suppress(OSError):
            state = path.lstat()
            # many disks write the time of a reading down once a day: enough to tell last month's programs
            found.append((max(state.st_atime, state.st_mtime), state.st_size, path))
    size, number = sum(size for _, size, _ in found), len(found)
    for _, bytes_of_one, path in sorted(found):
        if size <= most_bytes and number <= most_programs:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        size, number = size - bytes_of_one, number - 1
    for other in folder.parent.glob("jax-*"):
        if other != folder:
            with contextlib.suppress(OSError):  # not empty
                other.rmdir()


def _user_cache() -> Path:
    """Return the folder in which this system's programs keep what they can make again."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(configured):
        return Path(configured)
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def _nearest_folder(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _is_ours(folder: Path, shared_is_fine: bool = False) -> bool:
    """Tell whether a folder, a link to one followed, is this user's and no other can write to it."""
    state = folder.stat()
    if shared_is_fine:
        return state.st_uid in (0, os.geteuid())
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & 0o022


def _key() -> str:
    """Return the folder's name: the versions, and a digest of the processor and XLA's number of threads."""
    threads = os.environ.get("PJRT_NPROC", f"all of {os.cpu_count()}")
    digest = hashlib.sha256(f"{_processor()}\nthreads: {threads}".encode()).hexdigest()
    return f"jax-{metadata.version('jax')}-{metadata.version('jaxlib')}-{digest[:16]}"


def _processor() -> str:
    """Return what tells one kind of processor from another; the machine's name where the system does not say it."""
    lines = []
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():  # the end of the first core
                break
            if line.partition(":")[0].strip() in _PROCESSOR_LINES:
                lines.append(line.strip())
    return "\n".join([platform.machine(), *(lines or [platform.node()])])
