"""Keep what libraries print about themselves off the screen, and show it where they fail."""

import contextlib
import os
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["quiet_libraries"]

_WORKHORSE = Path(__file__).resolve().parents[1]
_OF_GYMNASIUM = r".*WARN: "
"""Beginning of the warnings of Gymnasium's logger, which are given in the name of whoever called it."""


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Context manager: hide warnings of libraries, and what their compiled parts write to the standard error.

    A simulator, a video driver and an encoder warn of deprecated attributes and missing variables, which a user can do
    nothing about. What Python code writes to `sys.stderr`, and warnings of files that are not installed, such as the
    user's own task, are shown as always. *Where the work raises, all that was hidden is shown*, for it may say why.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_OF_GYMNASIUM)
        warnings.showwarning = _only_of_users(warnings.showwarning)
        with tempfile.TemporaryFile() as hidden, _redirected(hidden.fileno()) as shown:
            try:
                yield
            except BaseException:
                hidden.seek(0)
                os.write(shown, hidden.read())
                raise


def _only_of_users(show: Callable[..., None]) -> Callable[..., None]:
    """Return what shows a warning of a file that lies where packages are not installed, and no other."""
    installed = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")} | {str(_WORKHORSE)})

    def shown(message: Any, category: Any, filename: str, *rest: Any, **more: Any) -> None:
        if not os.path.abspath(filename).startswith(installed):
            show(message, category, filename, *rest, **more)

    return shown


@contextlib.contextmanager
def _redirected(target: int) -> Iterator[int]:
    """Context manager: descriptor 2 is another file, `sys.stderr` goes where it went; yields a descriptor for that."""
    stream = sys.stderr
    stream.flush()
    kept = os.dup(2)
    try:
        os.dup2(target, 2)
        if _is_descriptor(stream, 2):
            sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1, encoding=stream.encoding, errors=stream.errors)
        yield kept
    finally:
        if sys.stderr is not stream:
            sys.stderr.close()
            sys.stderr = stream
        os.dup2(kept, 2)
        os.close(kept)


def _is_descriptor(stream: object, number: int) -> bool:
    """Tell whether a stream writes to a file descriptor; one of a notebook or of a test does not."""
    try:
        return stream.fileno() == number  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
