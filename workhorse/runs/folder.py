"""The run folder, which holds everything of one run.

runs/<id>/ manifest.json status.json metrics.parquet checkpoints/<iteration>/ policy/ evaluations/ videos/
           tensorboard/ run.log lock
"""

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from workhorse.core.errors import UsageError
from workhorse.core.files import (
    UnreadableFile,
    check_parts,
    is_there,
    list_folder,
    open_lock,
    open_to_read,
    read_file,
    remove,
    write_file,
    writing,
)
from workhorse.core.records import build
from workhorse.runs.manifest import Manifest, owner_of, utc_now
from workhorse.runs.sealed import read_record, write_record

__all__ = ["RunFolder", "RunRow", "Status", "list_runs", "run_row"]

_LISTED = "`workhorse runs` lists the runs there are."
_WITHOUT_STATUS = "The run goes on without it, and writes it anew"
_FILES = ("manifest.json", "status.json", "ledger.json", "warnings.json", "metrics.parquet", "report.html", "lock")
_FOLDERS = (
    *("checkpoints", "milestones", "segments", "evaluations", "videos", "tensorboard"),
    *("diagnostics", "traffic"),
)
_LOCK_PATIENCE_S = 0.5
_held: set[int] = set()


@dataclass(frozen=True)
class Status:
    """Progress of a run, rewritten as it goes on, so that listing runs reads one small file each.

    Attributes:
        state: "running", "finished", "stopped" (by the user) or "failed".
        iteration: iterations completed.
        env_steps: environment steps taken.
        last_return: the newest mean return; None before the first episode ended, or where it is not finite.
        updated: UTC time in ISO 8601.
    """

    state: str
    iteration: int
    env_steps: int
    last_return: float | None = None
    updated: str = ""


@dataclass(frozen=True)
class RunRow:
    """One line of `workhorse runs`.

    Attributes:
        status: the `Status` state; "interrupted" where it says running but no process holds the run, "new" before the
            first status, "unknown" where that is damaged, "unreadable" where the manifest is, or is of another format.
        env_steps, last_return: None where not known.
        age_s: seconds since the run was created.
    """

    id: str
    path: Path
    task: str
    algorithm: str
    seed: int | None
    status: str
    env_steps: int | None
    last_return: float | None
    age_s: float


class RunFolder:
    """One run's folder. Make one with `create` or `open`; it may be passed wherever a path may.

    Attributes:
        path: the folder.
        id: its name.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @staticmethod
    def create(
        root: str | os.PathLike[str] = "runs", id: str | None = None, *, task: str, algorithm: str, seed: int
    ) -> "RunFolder":
        """Make the folder of a new run; it is a run once `write_manifest` was called.

        Args:
            root: the folder that holds the runs; made if missing.
            id: the run's name; by default task, algorithm, seed and the time in UTC, as in
                "HalfCheetah-v5-ars-s3-20261121-142501", with a suffix where that is taken.

        Raises:
            UsageError: the id is taken or is no folder name, or the disk cannot be written.
        """
        if id is not None and (not re.fullmatch(r"[\w.+=@-]+", id) or id.startswith(".")):
            raise UsageError(
                f"Expected a run id of letters, digits and -_.+=@ that does not begin with a dot, got {id!r}: choose "
                "another --id."
            )
        stem = re.sub(r"[^\w.+=@-]+", "-", f"{task}-{algorithm}-s{seed}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
        root = Path(root)
        with writing("a run folder", root):
            root.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 10_000):
            name = id or (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                with writing("a run folder", root / name):
                    try:
                        (root / name).mkdir()
                    except FileExistsError:
                        if id is None:
                            continue
                        raise UsageError(
                            f"Expected a new run id, but {root / name} exists: resume that run, or choose another --id."
                        ) from None
                    for part in ("checkpoints", "evaluations", "videos", "tensorboard"):
                        (root / name / part).mkdir()
            except UsageError:
                with contextlib.suppress(OSError):
                    (root / name).rmdir()
                raise
            return RunFolder(root / name)
        raise UsageError(f"Expected a free run id beginning with {stem} in {root}, found none: pass --id.")

    @staticmethod
    def open(path: str | os.PathLike[str]) -> "RunFolder":
        """Open the folder of a run that exists, and verify its manifest.

        Raises:
            UsageError: nothing is there, it is a file, it is no run, its manifest is damaged or of another format, or a
                folder in it is a link.
        """
        folder = RunFolder(path)
        if not folder.path.exists():
            raise UsageError(f"Expected a run folder in {folder.path}, which does not exist. {_LISTED}")
        if not folder.path.is_dir():
            raise UsageError(f"Expected a run folder, got the file {folder.path}. {_LISTED}")
        if not is_there(folder.path / "manifest.json"):
            raise UsageError(f"Expected a run in {folder.path}, which has no manifest.json: it is no run. {_LISTED}")
        folder.manifest()
        check_parts(folder.path, _FOLDERS, _FILES)
        return folder

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        return f"RunFolder({os.fspath(self.path)!r})"

    @property
    def id(self) -> str:
        return self.path.resolve().name

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def policy(self) -> Path:
        return self.path / "policy"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations"

    @property
    def videos(self) -> Path:
        return self.path / "videos"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.parquet"

    @property
    def has_metrics(self) -> bool:
        """True once metrics were written; a run killed within seconds may have checkpoints and no metrics."""
        return is_there(self.metrics)

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    def manifest(self) -> Manifest:
        """Read the run's manifest.

        Raises:
            UsageError: it is missing, damaged, or of another format version.
        """
        file = self.path / "manifest.json"
        try:
            return Manifest.from_json(read_file(file), file)
        except FileNotFoundError as error:
            raise UsageError(f"Expected a run's manifest in {file}, found none. {_LISTED}") from error

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest; from here on the folder is a run."""
        text = manifest.to_json().encode()
        with writing("the manifest", self.path):
            write_file(self.path / "manifest.json", text)

    def status(self, noted: Callable[[str], None] = lambda sentence: None) -> Status | None:
        """Return the progress of the run; None where none was written, or where it cannot be read.

        Args:
            noted: is told, in a sentence, of a file that cannot be read. The run goes on without it.
        """
        file = self.path / "status.json"
        try:
            return build(
                Status,
                read_record(file, noun="a status", remedy=_WITHOUT_STATUS, owner=owner_of(self.path)),
                str(file),
                _WITHOUT_STATUS,
            )
        except FileNotFoundError:
            return None
        except UsageError as error:
            noted(str(error))
            return None

    def write_status(self, state: str, *, iteration: int, env_steps: int, last_return: float | None = None) -> None:
        """Write the progress of the run. A return that is not finite is stored as none."""
        finite = last_return is not None and abs(float(last_return)) < float("inf")
        status = Status(state, int(iteration), int(env_steps), float(last_return or 0) if finite else None, utc_now())
        with writing("the status", self.path):
            write_record(self.path / "status.json", asdict(status), owner=owner_of(self.path))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run for this process: no other can train in it until the block ends or the process dies.

        The kernel drops the lock with the process, so one left by a killed process is no obstacle.

        Raises:
            UsageError: another process holds it (the message names its id), or the folder cannot be written.
        """
        with writing("the lock", self.path):
            descriptor = open_lock(self.path / "lock")
        _held.add(descriptor)
        try:
            if not _acquired(descriptor):
                raise UsageError(
                    f"Expected to be the only process training in {self.path}, but process {_holder(descriptor)} is: "
                    "wait for it or stop it, or start a new run."
                )
            with writing("the lock", self.path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                self._remove_leftovers()
            yield
        finally:
            _held.discard(descriptor)
            os.close(descriptor)

    def _remove_leftovers(self) -> None:
        """Remove what killed processes were writing; only the holder of the lock may."""
        for pattern in (".tmp-*", ".removed-*"):
            for path in list_folder(self.path, pattern, self.path, hidden=True):
                remove(path)

    def is_locked(self) -> bool:
        """Tell whether a process holds the run now."""
        try:
            descriptor = open_to_read(self.path / "lock")
        except (OSError, UnreadableFile):
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False


def list_runs(root: str | os.PathLike[str] = "runs") -> list[RunRow]:
    """Every run in a folder, newest first, read from two small files each; a damaged run is a row too.

    Raises:
        UsageError: `root` is a file or may not be read.
    """
    try:
        paths = [path for path in Path(root).iterdir() if is_there(path / "manifest.json")]
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise UsageError(f"Expected a folder of runs, got the file {root}. Name the folder that holds them.") from error
    except PermissionError as error:
        raise UsageError(f"Could not read {root}: permission denied. Change its permissions.") from error
    return sorted((run_row(RunFolder(path)) for path in paths), key=lambda row: (row.age_s, row.id))


def run_row(folder: RunFolder) -> RunRow:
    """Return a run's line of `workhorse runs`."""
    try:
        manifest = folder.manifest()
        age_s = time.time() - datetime.fromisoformat(manifest.created).timestamp()
    except (UsageError, ValueError, OverflowError):
        age_s = time.time() - os.lstat(folder.path / "manifest.json").st_mtime
        return RunRow(folder.id, folder.path, "", "", None, "unreadable", None, None, age_s)
    status = folder.status()
    state, env_steps, last_return = "unknown" if is_there(folder.path / "status.json") else "new", None, None
    if status is not None:
        state, env_steps, last_return = status.state, status.env_steps, status.last_return
    if state in ("new", "running", "unknown"):
        state = "running" if folder.is_locked() else "interrupted" if state == "running" else state
    return RunRow(
        folder.id,
        folder.path,
        manifest.task,
        manifest.algorithm,
        manifest.seed,
        state,
        env_steps,
        last_return,
        max(age_s, 0.0),
    )


def _acquired(descriptor: int) -> bool:
    """Try for the lock, patiently enough to outlast a listing that looks at it."""
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode(errors="replace") or "unknown"


def _close_in_child() -> None:
    """Close the locks in a forked worker: a lock lasts as long as any copy of its descriptor."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
