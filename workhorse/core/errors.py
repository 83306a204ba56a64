"""Errors a user can act on: one sentence that says what was expected, what came, where, and what to do."""

import difflib
import re
from collections.abc import Iterable, Sequence

__all__ = ["TaskError", "UsageError", "last_frames", "nearest", "unknown"]


class UsageError(ValueError):
    """The user's input cannot be used. The command line prints the message and exits with code 2.

    Raise it at the rim, before any work is lost. The message says what was expected, what was given, where, and what
    to do about it. Everything that is *not* the user's to mend stays an ordinary exception and keeps its traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows instead of a traceback through our code: the sentence and its notes."""
        return [f"{type(self).__name__}: {self}", *getattr(self, "__notes__", [])]


class TaskError(UsageError):
    """The user's environment raised, ended its process, or broke its contract: one sentence, and what helps to find it.

    Attributes:
        message: the sentence.
        traceback: of the environment's own code, whole; "" where nothing was raised.
        program: Python source that plays the episode again up to the fault; "" where no episode was under way.
        slot: of the fault; None where it belongs to no slot's step.
        is_kept: the traceback lies in a file that a note of the error names.
    """

    def __init__(self, message: str, traceback: str = "", program: str = "", slot: int | None = None) -> None:
        super().__init__(message)
        self.message, self.traceback, self.program, self.slot = message, traceback, program, slot
        self.is_kept = False


_FRAME = re.compile(r'^  File "(?P<file>[^"]*)", line ', re.MULTILINE)
_NOT_THE_USERS = re.compile(r"/workhorse/|/gymnasium/(core\.py|wrappers/|envs/registration\.py)|/importlib/|^<frozen ")


def last_frames(traceback: str, count: int = 2) -> str:
    """Return the last frames of a printed traceback that are in the user's code, and the error below them.

    Example:
        >>> print(last_frames('''Traceback (most recent call last):
        ...   File "/x/workhorse/environments/gymnasium_worker.py", line 1, in _step
        ...   File "/home/me/mytask.py", line 7, in step
        ...     return self.height / self.area
        ... ZeroDivisionError: division by zero'''))
          File "/home/me/mytask.py", line 7, in step
            return self.height / self.area
        ZeroDivisionError: division by zero
    """
    newest = traceback[max(traceback.rfind("Traceback (most recent call last):"), 0) :]
    starts = [match.start() for match in _FRAME.finditer(newest)]
    if not starts:
        return newest.strip()
    blocks = [newest[begin:end] for begin, end in zip(starts, [*starts[1:], len(newest)], strict=True)]
    lines = blocks[-1].rstrip().splitlines()
    length = next((at for at, line in enumerate(lines) if at and not line.startswith("    ")), len(lines))
    blocks[-1] = "".join(line + "\n" for line in lines[:length])
    theirs = [block for block in blocks if not _NOT_THE_USERS.search(_FRAME.match(block)["file"])]  # type: ignore[index]
    return "".join((theirs or blocks)[-count:]) + "\n".join(lines[length:])


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names closest to a misspelt one, best first, upper and lower case alike.

    A name that differs in case alone is what was meant, and comes alone.

    Example:
        >>> nearest("halfcheetah", ["HalfCheetah-v5", "Hopper-v5"])
        ['HalfCheetah-v5']
        >>> nearest("PPO", ["trpo", "ppo"])
        ['ppo']
    """
    folded = {option.lower(): option for option in known}
    if name.lower() in folded:
        return [folded[name.lower()]]
    matches = difflib.get_close_matches(name.lower(), folded, n=count, cutoff=0.5)
    return [folded[match] for match in matches]


def unknown(what: str, name: str, known: Sequence[str], see: str) -> UsageError:
    """The error for a name that is not in a registry, with the nearest names and where to see them all.

    Example:
        >>> print(unknown("task", "Hoper-v5", ["Hopper-v5", "Ant-v5"], "workhorse tasks"))
        Unknown task 'Hoper-v5'. Did you mean Hopper-v5? `workhorse tasks` lists them all.
    """
    close = nearest(name, known)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return UsageError(f"Unknown {what} {name!r}.{hint} `{see}` lists them all.")
