"""Bytes between a coordinator and its workers, counted by worker, iteration and purpose."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

__all__ = ["TrafficCounter", "TrafficRow"]


class TrafficRow(NamedTuple):
    """Bytes of messages between the coordinator and one worker; what carries them (frames, headers) is not in it.

    Attributes:
        iteration: the iteration under way when the message was sent.
        worker: the worker's name.
        purpose: "set up", "state", "updates", "orders", "parameters", "reports" or "evaluation".
        sent: bytes from the coordinator to the worker.
        received: bytes from the worker to the coordinator.
    """

    iteration: int
    worker: str
    purpose: str
    sent: int
    received: int


class TrafficCounter:
    """Counters of bytes; `rows` returns those since the last call."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, str, str], list[int]] = defaultdict(lambda: [0, 0])

    def sent(self, iteration: int, worker: str, purpose: str, size: int) -> None:
        self._counts[iteration, worker, purpose][0] += size

    def received(self, iteration: int, worker: str, purpose: str, size: int) -> None:
        self._counts[iteration, worker, purpose][1] += size

    def rows(self) -> list[TrafficRow]:
        """Return the counts since the last call, and start from zero."""
        rows = [TrafficRow(*key, *counts) for key, counts in self._counts.items()]
        self._counts.clear()
        return rows
