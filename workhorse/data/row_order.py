"""Order of the rows of a table: which one begins an episode, and whether time goes on within each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workhorse.core.errors import UsageError

__all__ = ["RowOrder"]


class RowOrder:
    """What the rows so far have shown of episodes and times.

    Example:
        >>> order = RowOrder("log.csv", "run", "")
        >>> order.starts(["a", "a", "b"], None, np.zeros(3, bool), 0).tolist()
        [True, False, True]
    """

    def __init__(self, where: str, episode: str, time: str) -> None:
        """Begin with the first row of a file.

        Args:
            where: the file, for messages.
            episode, time: names of the columns; "" for none.
        """
        self._where, self._episode, self._time = where, episode, time
        self._finished: set[str | None] = set()
        self._last_episode: str | None = None
        self._last_time = -np.inf
        self._was_flagged = True
        self._steps = _TimeSteps()

    def starts(
        self, episode: Sequence[str | None] | None, time: np.ndarray | None, flagged: np.ndarray, first: int
    ) -> np.ndarray:
        """Return True for each of the next rows that begins an episode.

        Args:
            episode: of each row.
            time: of each row.
            flagged: whether each row is terminated or truncated.
            first: number of the first of them.

        Raises:
            UsageError: an episode goes on after another one began, or after its end; or time does not rise within one.
        """
        follows = np.append(self._was_flagged, flagged[:-1])
        begins = np.zeros(len(flagged), bool)
        if episode is not None:
            begins = self._changes(episode, first)
            goes_on = np.flatnonzero(~begins & follows)
            if len(goes_on):
                row = goes_on[0]
                raise UsageError(
                    f"Expected the last row of an episode to be the only one that is terminated or truncated in "
                    f"{self._where}, but episode {episode[row]} goes on in row {first + row:,}: correct the flags, "
                    f"or the column `{self._episode}`."
                )
        if time is not None:
            self._take_times(time, begins | follows, episode is None, begins, first)
        self._was_flagged = bool(flagged[-1])
        return begins

    def _changes(self, episode: Sequence[str | None], first: int) -> np.ndarray:
        begins = np.zeros(len(episode), bool)
        for row, name in enumerate(episode):
            if first + row and name == self._last_episode:
                continue
            begins[row] = True
            if name in self._finished:
                raise UsageError(
                    f"Expected the rows of episode {name} to lie together in {self._where}, but it goes on in row "
                    f"{first + row:,} after another one: sort the rows by `{self._episode}` and time."
                )
            self._finished.add(name)
            self._last_episode = name
        return begins

    def _take_times(self, time: np.ndarray, new: np.ndarray, may_fall: bool, begins: np.ndarray, first: int) -> None:
        step = np.diff(time, prepend=self._last_time)
        falls = ~(step > 0) & ~new
        if may_fall:
            begins |= falls
        elif falls.any():
            row = int(falls.argmax())
            raise UsageError(
                f"Expected `{self._time}` to rise within an episode in {self._where}, got {time[row]:g} in row "
                f"{first + row:,} after {time[row] - step[row]:g}: sort the rows by time."
            )
        self._steps.add(step, ~new & ~falls, first)
        self._last_time = float(time[-1])

    def summary(self) -> dict[str, object]:
        """Return what a card says of the times."""
        return {"column": self._time, **self._steps.summary()}


class _TimeSteps:
    """Lengths of the steps of time within episodes: the usual one, and those that are far from it."""

    JUMP = 1.5
    MOST_LISTED = 20

    def __init__(self) -> None:
        self._usual: float | None = None
        self._jumps, self._rows = 0, list[int]()
        self._longest = 0.0

    def add(self, step: np.ndarray, counts: np.ndarray, first: int) -> None:
        chosen = np.flatnonzero(counts)
        if not len(chosen):
            return
        if self._usual is None:  # the median of the first rows stands for that of all
            self._usual = float(np.median(step[chosen]))
        jumps = chosen[step[chosen] > self.JUMP * self._usual]
        self._jumps += len(jumps)
        self._rows += (first + jumps[: self.MOST_LISTED - len(self._rows)]).tolist()
        self._longest = max(self._longest, float(step[chosen].max()))

    def summary(self) -> dict[str, object]:
        return {"usual_step": self._usual, "longest_step": self._longest, "jumps": self._jumps, "jump_rows": self._rows}
