"""Keep what libraries print about themselves off the screen, and show it where they fail."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

__all__ = ["quiet_libraries"]

_LIBRARIES = (
    r"(gymnasium|pygame|pkg_resources|setuptools|imageio|imageio_ffmpeg|mujoco|glfw|OpenGL|numpy|workhorse)(\.|$)"
)
_OF_GYMNASIUM = r".*WARN: "
"""Beginning of the warnings of Gymnasium's logger, which are given in the name of whoever called it."""


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Context manager: hide warnings of libraries, and what their compiled parts write to the standard error.

    A simulator, a video driver and an encoder warn of deprecated attributes and missing variables, which a user can do
    nothing about. What Python code writes to `sys.stderr` and the warnings of any other module, such as the user's own
    task, are shown as always. *Where the work raises, all that was hidden is shown*, for it may say why.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=_LIBRARIES)
        warnings.filterwarnings("ignore", message=_OF_GYMNASIUM)
        with tempfile.TemporaryFile() as hidden, _redirected(hidden.fileno()) as shown:
            try:
                yield
            except BaseException:
                hidden.seek(0)
                os.write(shown, hidden.read())
                raise


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
