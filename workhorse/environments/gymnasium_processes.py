"""Processes of an adapter's slots: workers, or this one where no other can make the task."""

import contextlib
import copy
import os
import signal
import socket
import subprocess
import sys
import weakref
from multiprocessing.connection import Connection
from typing import Any

from workhorse.core.errors import TaskError, UsageError
from workhorse.environments.gymnasium_worker import EnvironmentRecipe, SlotGroup, Unreachable, command

__all__ = ["LocalGroup", "RemoteGroup", "portable"]


class LocalGroup:
    """Slots in this process, behind the interface of a worker."""

    def __init__(self) -> None:
        self._group: SlotGroup | None = None
        self._request: tuple[str, tuple[Any, ...]] = ("", ())

    def send(self, name: str, arguments: tuple[Any, ...]) -> None:
        self._request = (name, arguments)

    def receive(self, doing: str) -> Any:
        name, arguments = self._request
        if name == "build":
            try:
                self._group = SlotGroup(*arguments)
            except Unreachable as error:  # there is nowhere else to look
                raise UsageError(f"{arguments[0].task} could not be made: {error}.") from error
            return None
        return getattr(self._group, name)(*arguments)

    def ask_to_close(self) -> None:
        pass

    def close(self) -> None:
        if self._group is not None:
            self._group.close()


class RemoteGroup:
    """Slots in a worker process, and the pipe to it."""

    def __init__(self, task: str, slots: list[int]) -> None:
        self._task, self._slots = task, slots
        ours, theirs = socket.socketpair()
        self._pipe = Connection(ours.detach())
        with theirs:
            self._process = subprocess.Popen(
                command(theirs.fileno()), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        self._finalizer = weakref.finalize(self, _end, self._process, self._pipe)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            self._pipe.send((name, arguments))
        except OSError:
            pass  # it died; `receive` says how
        except Exception as error:  # raised before a byte was written: an option that no pipe takes
            raise Unreachable(f"its options cannot be sent to one: {error}") from error

    def receive(self, doing: str) -> Any:
        try:
            while not self._pipe.poll(1.0) and self._process.poll() is None:
                pass
            kind, *rest = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death(doing) from None
        if kind == "ok":
            return rest[0]
        if kind == "fault":
            message, traceback, slot = rest
            raise TaskError(message, traceback, slot=slot)
        if kind == "unreachable":
            raise Unreachable(*rest)
        raise RuntimeError(f"A worker of {self._task} failed while {doing} its slots:\n{rest[0]}")

    def ask_to_close(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(("close", ()))

    def close(self) -> None:
        self._finalizer()

    def _death(self, doing: str) -> TaskError:
        try:
            code = self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            code = None
        how = (
            f"exit code {code}"
            if code is None or code >= 0
            else f"signal {signal.Signals(-code).name}, exit code {code}"
        )
        return TaskError(
            f"{self._task} ended its worker process ({how}) while {doing} slots {_span(self._slots)}; the environment "
            "must not leave the process, so run one episode of it alone to see why."
        )


def _end(process: subprocess.Popen[bytes], pipe: Connection) -> None:
    """Close the pipe, which ends the worker between two requests; kill it if it does not leave within 5 s."""
    pipe.close()
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _span(slots: list[int]) -> str:
    return str(slots[0]) if len(slots) == 1 else f"{slots[0]} to {slots[-1]}"


def portable(id: str, spec: Any, options: dict[str, Any]) -> tuple[EnvironmentRecipe, str | None]:
    """Return the recipe a worker gets, and the reason why it cannot use it, or None."""
    spec = copy.copy(spec)
    spec.vector_entry_point = None
    entry, place, main_path = spec.entry_point, None, None
    if isinstance(entry, str) and entry.startswith("__main__:"):
        place = ("__main__", entry.partition(":")[2])
    elif not isinstance(entry, str):
        place = (getattr(entry, "__module__", "") or "", getattr(entry, "__qualname__", ""))
    module = id.rpartition(":")[0] or None
    if place is not None:
        spec.entry_point = None
        if _found(*place) is None or (not isinstance(entry, str) and _found(*place) is not entry):
            return EnvironmentRecipe(
                id, spec, module, place, None, options
            ), f"{entry!r} is no name of an importable module"
    if place is not None and place[0] == "__main__":
        main_path = getattr(sys.modules["__main__"], "__file__", None)
        if main_path is None or not os.path.isfile(main_path):
            return EnvironmentRecipe(id, spec, module, place, None, options), "it was defined at a prompt"
    return EnvironmentRecipe(id, spec, module, place, main_path, options), None


def _found(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
