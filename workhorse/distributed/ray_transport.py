"""Messages carried by Ray: one actor a worker, one call a message, bytes in, bytes out. Only here is Ray imported.

Ray moves its calls in its own framing; inside them are our bytes and nothing else. A large attachment that many
workers are sent (a whole state) is put into Ray's object store once and fetched once a node.
"""

import contextlib
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from workhorse.core.errors import UsageError
from workhorse.core.machine import available_cores
from workhorse.distributed.transport import Arrived, Event, Gone, Received

__all__ = ["RayTransport", "RayWorker", "connect", "join"]

SIDE_BY_SIDE = 3
"""Calls that a worker's process takes at once: two assignments, and to leave."""

LOOK_EVERY_S = 2.0
"""Seconds between two looks at the nodes of the cluster."""

ATTACHED_FROM = 65_536
"""Bytes from which an attachment travels through the object store."""

LEAVE_WITHIN_S = 2.0
"""Seconds in which workers may tidy up when a run ends."""

FALSE_STARTS = 3
"""Workers in a row that may die before they answer until their node gets no more."""

BARRED_FOR_S = 300.0
"""Seconds in which a node gets no worker after one could not take part; it may be repaired meanwhile."""

CONNECT_WITHIN_S = 5.0
"""Seconds in which an address must answer."""


_made_here = False
"""True once `connect` has made a cluster that no other machine can reach."""


class RayWorker:
    """Ray actor around a `Worker`."""

    def __init__(self, name: str, threads: int) -> None:
        from workhorse.distributed.worker import Worker

        self._worker = Worker(name, threads)

    def here(self) -> bool:
        """Return once the actor has a process."""
        return True

    def leave(self) -> None:
        """Free what would outlive the process."""
        self._worker.close()

    def handle(self, message: bytes, attachment: bytes) -> bytes:
        """Return the answer to a message."""
        return self._worker.handle(message, attachment)


def connect(address: str, note: Callable[[str], None] = lambda sentence: None) -> str:
    """Connect this process to a Ray cluster.

    Args:
        address: HOST:PORT of a head; "auto" for the cluster this machine is part of, or a new one on this machine if it
            is part of none; "local" for a new one on this machine.
        note: is told what was found.

    Returns:
        The cluster's address, for `workhorse worker --join`.

    Raises:
        UsageError: Ray is missing, nothing answers at the address, or this machine is no part of that cluster.
    """
    global _made_here
    ray = _ray()
    if ray.is_initialized():
        return ray.get_runtime_context().gcs_address
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": None}
    if address not in ("auto", "local"):
        _check_answers(address, ", or auto, or local")
        quiet.pop("include_dashboard")
        with _as_usage_error(address):
            ray.init(address=address, **quiet)
    else:
        found = False
        if address == "auto":
            quiet.pop("include_dashboard")
            with contextlib.suppress(ConnectionError):
                ray.init(address="auto", **quiet)
                found = True
        if not found:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            quiet |= {"include_dashboard": False}
            # an address of this machine alone: nothing outside it can be part of a cluster made in passing
            here = {"_node_ip_address": "127.0.0.2"} if sys.platform == "linux" else {}
            ray.init(address="local", num_cpus=available_cores(), **here, **quiet)
            _made_here = bool(here)
    where = ray.get_runtime_context().gcs_address
    nodes = [node for node in ray.nodes() if node["Alive"]]
    cores = sum(node["Resources"].get("CPU", 0) for node in nodes)
    note(f"Ray cluster at {where}: {len(nodes)} node(s), {cores:.0f} cores")
    return where


def join(address: str, cores: int | None) -> int:
    """Make this machine a node of a cluster until it is stopped; return the exit code of Ray's node.

    Raises:
        UsageError: Ray is missing, or nothing answers at the address.
    """
    import subprocess

    if cores is not None and cores < 1:
        raise UsageError(f"--cores must be at least 1: got {cores}.")
    _ray()
    _check_answers(address)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}", "--block"]
    command += ["--disable-usage-stats", f"--num-cpus={cores or available_cores()}"]
    return subprocess.call(command)


class RayTransport:
    """Transport with a worker on every node of a cluster, or with a given number of them.

    Nodes that enter the cluster get workers, a worker that dies is replaced while there is room.

    Args:
        workers: how many; None for as many as there is room for.
        threads: simulation threads of a worker; each holds a core. 0 for all cores of its node, or, where more workers
            are wanted than there are nodes, for an equal share of them.
        note: is told what a user should know.
        closed: whether no other machine can join the cluster; by default what `connect` found.
    """

    def __init__(
        self,
        workers: int | None = None,
        threads: int = 0,
        note: Callable[[str], None] = lambda sentence: None,
        closed: bool | None = None,
    ) -> None:
        self._ray = _ray()
        self._closed = _made_here if closed is None else closed
        self._wanted = workers
        self._threads = threads
        self._note = note
        made = self._ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=SIDE_BY_SIDE)
        self._class = made(RayWorker)
        self._actors: dict[str, Any] = {}
        self._arriving: dict[str, Any] = {}
        self._calls: dict[Any, str] = {}
        self._attached: tuple[bytes, Any] = (b"", None)
        self._count = 0
        self._nodes: dict[str, str] = {}
        self._held: dict[str, int] = {}
        self._barred: dict[str, float] = {}
        self._cores: dict[str, float] = {}
        self._last_words = ""
        self._false_starts: dict[str, int] = {}
        self._looked_at = -math.inf
        self._said_room: int | None = None

    def poll(self, timeout_s: float) -> list[Event]:
        self._look()
        events: list[Event] = []
        if not self._calls:
            time.sleep(timeout_s)
            return events
        calls = list(self._calls)
        ready, _ = self._ray.wait(calls, num_returns=1, timeout=timeout_s)
        if ready and len(calls) > 1:
            ready, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        for call in ready:
            event = self._finished(call)
            if event is not None:
                events.append(event)
        return events

    def send(self, worker: str, message: bytes, attachment: bytes = b"") -> None:
        actor = self._actors.get(worker)
        if actor is not None:
            self._calls[actor.handle.remote(message, self._attach(attachment))] = worker

    def dismiss(self, worker: str, replace: bool) -> None:
        if not replace:
            self._bar(worker)
        self._drop(worker)
        self._looked_at = -math.inf

    def arriving(self) -> int:
        return len(self._arriving)

    def exhausted(self) -> str | None:
        if not self._closed or not self._cores or self._actors:
            return None
        if max(self._cores.values()) < self._threads:
            return f"A worker holds {self._threads} cores (--worker-threads), which no machine of the cluster has."
        return self._last_words or "None is started any more." if self._cores.keys() <= self._barred.keys() else None

    def close(self) -> None:
        leaving = [actor.leave.remote() for name, actor in self._actors.items() if name not in self._arriving]
        if leaving:
            self._ray.wait(leaving, num_returns=len(leaving), timeout=LEAVE_WITHIN_S)
        for worker in list(self._actors):
            self._drop(worker)

    # --- within ---

    def _look(self) -> None:
        """Start workers where there is room, and give up waiting for room that is gone."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        self._barred = {node: until for node, until in self._barred.items() if until > now}
        nodes = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in self._ray.nodes() if node["Alive"]}
        self._cores = nodes
        sizes = {node: self._size(cores, len(nodes)) for node, cores in nodes.items()}
        self._say_room(sum(int(cores // sizes[node]) for node, cores in nodes.items()))
        free = {node: cores for node, cores in nodes.items() if node not in self._barred}
        for worker in [name for name in self._arriving if self._nodes[name] not in free]:
            self._drop(worker)
        for worker, node in self._nodes.items():
            if node in free:
                free[node] -= self._held[worker]
        for _ in range(int(min(self._wanted or math.inf, sum(nodes.values()))) - len(self._actors)):
            roomiest = max(
                (node for node in free if free[node] >= sizes[node]), key=lambda one: free[one], default=None
            )
            if roomiest is None:
                return
            self._start(roomiest, sizes[roomiest])
            free[roomiest] -= sizes[roomiest]

    def _size(self, cores: float, num_nodes: int) -> int:
        """Return the cores that a worker of a node holds."""
        sharing = 1 if self._wanted is None else -(-self._wanted // num_nodes)
        return self._threads or max(1, int(cores // sharing))

    def _say_room(self, room: int) -> None:
        if self._wanted is not None and room < self._wanted and self._said_room != room:
            self._said_room = room
            self._note(
                f"{self._wanted} workers of {self._threads or 1} core(s) were asked for, and the cluster has room for "
                f"{room}: going on with {room}. More start as nodes join."
            )

    def _start(self, node: str, cores: int) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        name = f"w{self._count}"
        self._count += 1
        place = NodeAffinitySchedulingStrategy(node, soft=False)
        self._nodes[name], self._held[name] = node, cores
        self._actors[name] = self._class.options(num_cpus=cores, scheduling_strategy=place).remote(name, cores)
        self._arriving[name] = self._actors[name].here.remote()
        self._calls[self._arriving[name]] = name

    def _note_false_start(self, worker: str, reason: str) -> None:
        """Count a worker that died as it started; a node on which they all do gets no more for a while."""
        node = self._nodes[worker]
        self._false_starts[node] = self._false_starts.get(node, 0) + 1
        self._last_words = f"Worker {worker} could not start: {reason}."
        self._note(self._last_words)
        if self._false_starts[node] >= FALSE_STARTS:
            self._false_starts[node] = 0
            self._bar(worker)
            self._note(f"Its node is left alone for {BARRED_FOR_S:.0f} s: {FALSE_STARTS} workers did not start there.")

    def _bar(self, worker: str) -> None:
        self._barred[self._nodes[worker]] = time.monotonic() + BARRED_FOR_S

    def _drop(self, worker: str) -> None:
        actor = self._actors.pop(worker, None)
        self._arriving.pop(worker, None)
        self._nodes.pop(worker, None)
        self._held.pop(worker, None)
        for call in [call for call, name in self._calls.items() if name == worker]:
            del self._calls[call]
        if actor is not None:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)

    def _finished(self, call: object) -> Event | None:
        worker = self._calls.pop(call, None)
        if worker is None or worker not in self._actors:
            return None
        try:
            answer = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            known, reason = worker not in self._arriving, _reason(error)
            if not known:
                self._note_false_start(worker, reason)
            self._drop(worker)
            return Gone(worker, reason) if known else None
        if worker in self._arriving:
            del self._arriving[worker]
            self._false_starts.pop(self._nodes[worker], None)
            return Arrived(worker)
        return Received(worker, answer)

    def _attach(self, attachment: bytes) -> Any:
        if len(attachment) < ATTACHED_FROM:
            return attachment
        if self._attached[0] is not attachment:
            self._attached = (attachment, self._ray.put(attachment))
        return self._attached[1]


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UsageError(
            f"A cluster needs Ray, which cannot be imported ({error}): install it with "
            "`pip install '.[cluster]' -c constraints.txt` in the checkout."
        ) from error
    return ray


def _check_answers(address: str, also: str = "") -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise UsageError(f"A cluster's address must be HOST:PORT, as in 10.0.0.5:6379{also}: got {address!r}.")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_WITHIN_S).close()
    except OSError as error:
        raise UsageError(
            f"Expected the head of a Ray cluster at {address}, but nothing answers there ({error}). Start one with "
            "`ray start --head`, or check the address and the firewall."
        ) from error


@contextlib.contextmanager
def _as_usage_error(address: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"Expected to join the Ray cluster at {address}, but it cannot be joined from here ({first}). This machine "
            f"must be a node of it: run `ray start --address={address}` first, with the same Ray version, and set "
            "RAY_AUTH_MODE=token with the head's token if it has one."
        ) from error


def _reason(error: Exception) -> str:
    """Return the last line of one of Ray's errors that tells a user something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in reversed(lines):
        if "Error" in line or "died" in line or "killed" in line or "dead" in line:
            return line.rstrip(".")
    return lines[0].rstrip(".") if lines else type(error).__name__
