"""What each worker has of the learner's state, and what it must be sent to play an iteration's chunks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from workhorse.core.algorithm import State
from workhorse.core.digest import digest
from workhorse.core.types import Returns
from workhorse.distributed.messages import encode_state, encode_update
from workhorse.distributed.updates import UpdateLog
from workhorse.training.population import PopulationPrograms

__all__ = ["HeldState", "Missing", "StateLedger"]


@dataclass
class HeldState:
    """What a worker will have once everything sent to it is done.

    Attributes:
        at: the iteration of its state; None: it has none.
        oldest: with a lag it keeps the state before that one too, but none before this one.
    """

    at: int | None = None
    oldest: int = 0


class Missing(NamedTuple):
    """What a worker lacks: an attachment (a state, or parameters), its iteration, or updates."""

    attachment: bytes = b""
    state_at: int = 0
    updates: tuple[bytes, ...] = ()


class StateLedger:
    """States by iteration as far as acting goes, the updates between them, and their digests."""

    def __init__(self, programs: PopulationPrograms, exchange: Literal["scalars", "parameters"]) -> None:
        self.is_scalars = exchange == "scalars"
        self.digests: dict[int, int] = {}
        self._programs = programs
        self._log = UpdateLog(self.digests)
        self._sources: dict[int, Callable[[], State]] = {}
        self._encoded: tuple[int, bytes] = (-1, b"")

    def know(self, at: int, state: State) -> None:
        """Take note of the state at an iteration; those before it are forgotten."""
        state = self._programs.acting(state)
        self._sources = {known: source for known, source in self._sources.items() if known > at}
        self._sources[at] = lambda: state
        if self.is_scalars and at not in self.digests:
            self.digests[at] = digest(state)

    def expect(self, at: int, source: Callable[[], State]) -> None:
        """Take note of a state that is still computed: `source` waits for it."""
        self._sources[at] = source

    def tell(self, iteration: int, due: Returns, workers: Iterable[HeldState]) -> None:
        """Keep the update that leads on from an iteration; it goes to the workers with their next orders."""
        if self.is_scalars:
            reached = [worker.at for worker in workers if worker.at is not None]
            self._log.add(iteration, encode_update(iteration, due), reached)

    def reaches(self, at: int, worker: HeldState) -> bool:
        """Tell whether updates alone bring a worker to an iteration."""
        return self._log.reaches(at, worker.at)

    def send(self, at: int, worker: HeldState) -> Missing:
        """Return what a worker lacks of an iteration's state, and take note that it will have it."""
        if not self.is_scalars:
            has_it, worker.at = worker.at == at, at
            return Missing() if has_it else Missing(self._bytes(at), at)
        if worker.at is not None and self._log.reaches(at, worker.at):
            missing, worker.at = Missing(updates=self._log.between(worker.at, at)), at
            return missing
        if worker.at is not None and max(worker.oldest, worker.at - self._programs.lags) <= at < worker.at:
            return Missing()
        worker.at = worker.oldest = at
        return Missing(self._bytes(at), at)

    def limit(self, at: int) -> int | None:
        """Return the most steps of an iteration's episodes; workers that have the state know them."""
        return None if self.is_scalars else self._programs.algorithm.episode_steps(self._sources[at]())

    def proof(self, at: int) -> int | None:
        """Return the digest that a worker's state must have; None where it is not known any more."""
        if at not in self.digests and at in self._sources:
            self.digests[at] = digest(self._programs.acting(self._sources[at]()))
        return self.digests.get(at)

    def _bytes(self, at: int) -> bytes:
        if self._encoded[0] != at:
            state = self._sources[at]()
            self._encoded = (at, encode_state(state if self.is_scalars else self._programs.actor(state)))
        return self._encoded[1]
