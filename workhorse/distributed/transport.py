"""Interface of a transport: the little that a coordinator needs, so that Ray is one way among others."""

from typing import NamedTuple, Protocol

__all__ = ["Arrived", "Event", "Gone", "Received", "Transport"]


class Arrived(NamedTuple):
    """A worker that can be sent messages."""

    worker: str


class Gone(NamedTuple):
    """A worker that will answer no more, and the reason."""

    worker: str
    reason: str


class Received(NamedTuple):
    """A worker's answer to a message; a worker answers its messages in their order."""

    worker: str
    message: bytes


Event = Arrived | Gone | Received


class Transport(Protocol):
    """Carries bytes to workers and back, and says who comes and goes."""

    def poll(self, timeout_s: float) -> list[Event]:
        """Return what happened since the last call; wait up to `timeout_s` if nothing has."""
        ...

    def send(self, worker: str, message: bytes, attachment: bytes = b"") -> None:
        """Send a message to a worker, with bytes that others may get too. A worker that is gone shows in `poll`."""
        ...

    def dismiss(self, worker: str, replace: bool) -> None:
        """End a worker; `replace` tells whether another may be started in its place."""
        ...

    def arriving(self) -> int:
        """Return the number of workers that were started and may yet arrive."""
        ...

    def exhausted(self) -> str | None:
        """Return why no worker can come any more; None while one may come, also from a machine that may yet join."""
        ...

    def close(self) -> None:
        """End every worker."""
        ...
