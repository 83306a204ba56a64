"""Workers in threads of this process: for tests, and for trying out what a cluster would do."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Protocol

from workhorse.distributed.transport import Arrived, Event, Gone, Received
from workhorse.distributed.worker import Worker

__all__ = ["InProcess"]


class Handler(Protocol):
    """Anything that answers messages; a `Worker` is one."""

    def handle(self, message: bytes, attachment: bytes = b"") -> bytes: ...

    def close(self) -> None: ...


class InProcess:
    """A transport whose workers are threads.

    Args:
        num_workers: how many are there from the start.
        make: makes a worker from its name.
        side_by_side: messages that a worker is handed at once.
        closed: whether no thread joins by itself once all are gone.
    """

    def __init__(
        self, num_workers: int, make: Callable[[str], Handler] = Worker, closed: bool = False, side_by_side: int = 2
    ) -> None:
        self._make = make
        self._closed = closed
        self._events: queue.Queue[Event] = queue.Queue()
        self._inboxes: dict[str, queue.Queue[tuple[bytes, bytes] | None]] = {}
        self._threads: list[threading.Thread] = []
        self._count = 0
        self._side_by_side = side_by_side
        for _ in range(num_workers):
            self.add()

    def add(self) -> str:
        """A new worker joins; its name."""
        name = f"thread-{self._count}"
        self._count += 1
        inbox: queue.Queue[tuple[bytes, bytes] | None] = queue.Queue()
        self._inboxes[name] = inbox
        thread = threading.Thread(target=self._serve, args=(name, inbox), name=name, daemon=True)
        self._threads.append(thread)
        self._events.put(Arrived(name))
        thread.start()
        return name

    def kill(self, name: str, reason: str = "it was killed") -> None:
        """A worker vanishes: what it was doing is never answered."""
        inbox = self._inboxes.pop(name, None)
        if inbox is not None:
            for _ in range(self._side_by_side):
                inbox.put(None)
            self._events.put(Gone(name, reason))

    @property
    def workers(self) -> tuple[str, ...]:
        """Those that live."""
        return tuple(self._inboxes)

    def poll(self, timeout_s: float) -> list[Event]:
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=max(timeout_s, 0.0)))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events

    def send(self, worker: str, message: bytes, attachment: bytes = b"") -> None:
        if worker in self._inboxes:
            self._inboxes[worker].put((message, attachment))

    def dismiss(self, worker: str, replace: bool) -> None:
        self.kill(worker, "it was dismissed")
        if replace:
            self.add()

    def arriving(self) -> int:
        return self._events.qsize()

    def exhausted(self) -> str | None:
        return "every thread is gone" if self._closed and not self._inboxes and self._events.empty() else None

    def close(self) -> None:
        for name in list(self._inboxes):
            self.kill(name)
        for thread in self._threads:
            thread.join(timeout=60)

    def _serve(self, name: str, inbox: queue.Queue[tuple[bytes, bytes] | None]) -> None:
        worker = self._make(name)
        others = [
            threading.Thread(target=self._answer, args=(name, inbox, worker), daemon=True)
            for _ in range(self._side_by_side - 1)
        ]
        for other in others:
            other.start()
        try:
            self._answer(name, inbox, worker)
            for other in others:
                other.join()
        finally:
            worker.close()

    def _answer(self, name: str, inbox: queue.Queue[tuple[bytes, bytes] | None], worker: Handler) -> None:
        while (sent := inbox.get()) is not None:
            answer = worker.handle(*sent)
            if name in self._inboxes:
                self._events.put(Received(name, answer))
