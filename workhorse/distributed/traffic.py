"""Bytes between a coordinator and its workers, counted by worker, iteration and purpose."""

from collections import defaultdict

from workhorse.training.loop import Message

__all__ = ["TrafficCounter"]


class TrafficCounter:
    """Counters of bytes; `rows` returns those since the last call."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, str, str], list[int]] = defaultdict(lambda: [0, 0])

    def sent(self, iteration: int, worker: str, purpose: str, size: int) -> None:
        self._counts[iteration, worker, purpose][0] += size

    def received(self, iteration: int, worker: str, purpose: str, size: int) -> None:
        self._counts[iteration, worker, purpose][1] += size

    def rows(self) -> list[Message]:
        """Return the counts since the last call, and start from zero."""
        rows = [Message(*key, *counts) for key, counts in self._counts.items()]
        self._counts.clear()
        return rows
