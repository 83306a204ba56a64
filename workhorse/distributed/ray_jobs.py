"""Workers of a study, carried by Ray: an actor of one core each, and no more of them than there are jobs."""

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from workhorse.distributed.ray_transport import LOOK_EVERY_S, RayTransport

__all__ = ["Handler", "RayJobs"]


class Handler(Protocol):
    """Anything that answers messages, and is made from a name and the node that it is on."""

    def handle(self, message: bytes, attachment: bytes = b"") -> bytes: ...

    def close(self) -> None: ...


class RayJobs(RayTransport):
    """`RayTransport` whose workers come and go with the jobs that there are.

    Args:
        make: makes what answers a worker's messages, on its node, from its name and the node's.
        limit: most workers; None for as many as the cluster has cores.
        note: is told what a user should know.
    """

    def __init__(
        self,
        make: Callable[[str, str], Handler],
        limit: int | None = None,
        note: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        super().__init__(1, 1, note)
        self._limit = limit
        self._class = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_actor(make))
        self._room, self._counted_at = 0, -math.inf

    def room(self) -> int:
        """Return the number of workers that the cluster can have now: its cores, or the limit."""
        now = time.monotonic()
        if now - self._counted_at >= LOOK_EVERY_S:
            alive = [node for node in self._ray.nodes() if node["Alive"] and node["NodeID"] not in self._barred]
            self._room, self._counted_at = sum(int(node["Resources"].get("CPU", 0)) for node in alive), now
        return min(self._room, self._limit or self._room)

    def dismiss(self, worker: str, replace: bool) -> None:
        super().dismiss(worker, replace)
        self._counted_at = -math.inf

    def want(self, workers: int) -> None:
        """Start no workers beyond this number, or beyond the limit; those that are there stay."""
        self._wanted = max(1, min(workers, self._limit or workers))

    def _say_room(self, room: int) -> None:
        if self._limit is not None and self._wanted == self._limit:  # more jobs than cores is nothing to say
            super()._say_room(room)


def _actor(make: Callable[[str, str], Handler]) -> Any:
    """Return the class of Ray actors around what `make` makes."""

    class RayJobWorker:
        def __init__(self, name: str, threads: int) -> None:
            import ray

            self._worker = make(name, ray.get_runtime_context().get_node_id()[:16])

        def here(self) -> bool:
            return True

        def leave(self) -> None:
            self._worker.close()

        def handle(self, message: bytes, attachment: bytes) -> bytes:
            return self._worker.handle(message, attachment)

    return RayJobWorker
