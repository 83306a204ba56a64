"""Errors a user can act on: one sentence that says what was expected, what came, where, and what to do."""

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["UsageError", "nearest", "unknown"]


class UsageError(ValueError):
    """The user's input cannot be used. The command line prints the message and exits with code 2.

    Raise it at the rim, before any work is lost. The message says what was expected, what was given, where, and what
    to do about it. Everything that is *not* the user's to mend stays an ordinary exception and keeps its traceback.
    """


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names closest to a misspelt one, best first, upper and lower case alike.

    Example:
        >>> nearest("halfcheetah", ["HalfCheetah-v5", "Hopper-v5"])
        ['HalfCheetah-v5']
    """
    folded = {option.lower(): option for option in known}
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
