"""Updates that some worker may still lack, and the digests of the states that they lead to."""

from collections.abc import Iterable

__all__ = ["UpdateLog"]

KEPT_BYTES = 2**28
"""Updates kept for workers that are behind; a worker that is further behind is sent the state."""

KEPT_UPDATES = 1_000
"""Updates kept likewise: to make more of them up takes a worker longer than to read a state."""

KEPT_DIGESTS = 1_000
"""Digests kept beyond the oldest update, for reports that come very late."""


class UpdateLog:
    """Encoded updates by iteration.

    Attributes:
        digests: by iteration, the digest of the coordinator's state before it.
    """

    def __init__(self, digests: dict[int, int] | None = None) -> None:
        self.digests: dict[int, int] = {} if digests is None else digests
        self._updates: dict[int, bytes] = {}
        self._bytes = 0
        self._kept_from = 0

    def add(self, iteration: int, update: bytes, reached: Iterable[int]) -> None:
        """Keep an update, and drop those that every worker has, and the oldest where they take too much room.

        Args:
            iteration: the iteration that was learnt from.
            update: the message that tells workers of it.
            reached: the iteration of each worker's state.
        """
        self._updates[iteration] = update
        self._bytes += len(update)
        oldest = min(reached, default=0)
        for kept in list(self._updates):
            if kept >= oldest and self._bytes <= KEPT_BYTES and len(self._updates) <= KEPT_UPDATES:
                break
            self._bytes -= len(self._updates.pop(kept))
            self.digests.pop(kept - KEPT_DIGESTS, None)
        self._kept_from = next(iter(self._updates), max(self.digests, default=0) + 1)

    def reaches(self, at: int, reached: int | None) -> bool:
        """Tell whether updates alone bring a state from `reached` to iteration `at`; None is no state."""
        return reached is not None and (reached == at or self._kept_from <= reached < at)

    def between(self, reached: int, at: int) -> tuple[bytes, ...]:
        """Return the updates that bring a state from one iteration to another, oldest first."""
        return tuple(self._updates[iteration] for iteration in range(reached, at))
