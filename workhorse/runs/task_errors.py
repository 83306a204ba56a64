"""An environment that raised: where its traceback lies, how its episode is played again, and how the run goes on."""

import contextlib
from collections.abc import Iterator

from workhorse.core.errors import TaskError, UsageError, last_frames
from workhorse.core.files import write_file, writing
from workhorse.runs import checkpoint
from workhorse.runs.folder import RunFolder

__all__ = ["task_errors_kept"]

TRACEBACK = "traceback.txt"
EPISODE = "episode.py"


@contextlib.contextmanager
def task_errors_kept(folder: RunFolder, *, trains: bool = True) -> Iterator[None]:
    """Context manager: where the task raises, write what helps into the run folder and add to the error where it is.

    Args:
        folder: of the run.
        trains: the run is under way, and can be gone on with.
    """
    try:
        yield
    except TaskError as error:
        with contextlib.suppress(UsageError):  # a full disk must not hide the error itself
            _keep(error, folder)
        saved = checkpoint.saved_iterations(folder) if trains else []
        if saved:
            error.add_note(
                f"The state of iteration {saved[-1]} is saved: `workhorse resume {folder.path}` goes on from there."
            )
        raise


def _keep(error: TaskError, folder: RunFolder) -> None:
    if error.traceback:
        with writing("the traceback", folder.path / TRACEBACK):
            write_file(folder.path / TRACEBACK, f"{error.message}\n\n{error.traceback}".encode())
        error.add_note(f"{last_frames(error.traceback)}\nThe whole traceback is in {folder.path / TRACEBACK}.")
    if error.program:
        with writing("the episode", folder.path / EPISODE):
            write_file(folder.path / EPISODE, error.program.encode())
        error.add_note(f"`python {folder.path / EPISODE}` plays this episode again, with Gymnasium alone.")
    error.is_kept = True
