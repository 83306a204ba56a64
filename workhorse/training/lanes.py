"""Lanes: threads that each play one chunk of episodes at a time.

There are two at least: while one lane's simulations step (the simulator releases Python's lock), the other acts. With
one lane the simulator's threads would sleep whenever Python acts, and waking them costs more than acting.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

from workhorse.core.algorithm import Actor
from workhorse.training.episodes import EpisodePlayer, Episodes, Stopped, Work, evaluation_work, num_chunks

__all__ = ["LaneWork", "Lanes", "Turns", "finished", "lane_threads"]

T = TypeVar("T")


def lane_threads(num_threads: int, num_chunks: int) -> list[int]:
    """Return the simulation threads of each lane: two lanes, more where each can have four threads.

    There are no more lanes than threads or chunks. A lane's threads wait for its slowest slot in every step, and stand
    still while it acts: so they are few.

    Example:
        >>> lane_threads(1, 8), lane_threads(2, 8), lane_threads(7, 8), lane_threads(18, 8), lane_threads(18, 3)
        ([1], [1, 1], [4, 3], [5, 5, 4, 4], [6, 6, 6])
    """
    count = min(max(2, num_threads // 4), num_threads, num_chunks)
    return [num_threads // count + (number < num_threads % count) for number in range(count)]


class LaneWork:
    """Chunks that were given to lanes together, and their episodes as they come in.

    Attributes:
        may_begin: asked before each chunk, whether lanes may take it; while not, what was given later waits too.
        seconds: what each chunk took, in the order in which they came in.
    """

    def __init__(self, actor: Actor, works: Iterable[Work], may_begin: Callable[[], bool] = lambda: True) -> None:
        self.actor = actor
        self.may_begin = may_begin
        self.works = list(works)
        self.futures: list[Future[Episodes]] = [Future() for _ in self.works]
        self.stop = threading.Event()
        self.seconds: list[float] = []

    @property
    def steps(self) -> int:
        """Environment steps of the chunks that are in."""
        there = [found for found in self.futures if found.done() and not found.exception()]
        return sum(int(found.result().length.sum()) for found in there)

    def results(self) -> list[Episodes]:
        """Return every chunk's episodes, in the order of the chunks, once all are in.

        Raises:
            Whatever a chunk raised, after the other lanes have stopped.
        """
        return finished(self.futures, self.stop)


class Lanes:
    """Several players, each busy with a chunk of its own; which of them plays a chunk changes no bit of it.

    Lanes are threads that take chunks from one queue, so that those of the next batch follow those of this one without
    a pause.
    """

    def __init__(self, players: list[EpisodePlayer]) -> None:
        self.num_slots = players[0].num_slots
        self.size = len(players)
        self._players = players
        self._queue: deque[tuple[LaneWork, int]] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def run(self, actor: Actor, works: Iterable[Work]) -> list[Episodes]:
        """Return every chunk's episodes, in the order of the chunks, ahead of whatever waits.

        Raises:
            Whatever a chunk raised, after the other lanes have stopped.
        """
        return self.give(LaneWork(actor, works), ahead=True).results()

    def give(self, batch: LaneWork, ahead: bool = False) -> LaneWork:
        """Put a batch at the end of the queue, or at its front with `ahead`, and return it."""
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._serve, args=(player,), daemon=True) for player in self._players
            ]
            for thread in self._threads:
                thread.start()
        chunks = [(batch, number) for number in range(len(batch.works))]
        with self._changed:
            self._queue = deque([*chunks, *self._queue] if ahead else [*self._queue, *chunks])
            self._changed.notify_all()
        return batch

    def look_again(self) -> None:
        """Ask `may_begin` anew."""
        with self._changed:
            self._changed.notify_all()

    def evaluate(self, actor: Actor, iteration: int, num_episodes: int, explore: bool = False) -> list[Episodes]:
        """Return the chunks of an evaluation."""
        chunks, slots = range(num_chunks(num_episodes, self.num_slots)), self.num_slots
        return self.run(actor, (evaluation_work(iteration, num_episodes, slots, chunk, explore) for chunk in chunks))

    def close(self) -> None:
        """Give up what is not played yet, and end the lanes' threads and environments."""
        with self._changed:
            self._closed = True
            for batch, _ in self._queue:
                batch.stop.set()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for player in self._players:
            player.close()

    # --- in a lane's thread ---

    def _serve(self, player: EpisodePlayer) -> None:
        while (taken := self._take()) is not None:
            batch, number = taken
            try:
                if batch.stop.is_set():
                    raise Stopped
                begun = time.perf_counter()
                ((_, found),) = player.play(batch.actor, [(number, batch.works[number])], batch.stop)
                batch.seconds.append(time.perf_counter() - begun)
                batch.futures[number].set_result(found)
            except BaseException as error:  # whoever waits for the chunk is told
                batch.futures[number].set_exception(error)
            self.look_again()

    def _take(self) -> tuple[LaneWork, int] | None:
        """Wait for a chunk that may begin; None once the lanes are closed and nothing is left."""
        with self._changed:
            while True:
                if self._queue and (self._queue[0][0].stop.is_set() or self._queue[0][0].may_begin()):
                    return self._queue.popleft()
                if self._closed and not self._queue:
                    return None
                self._changed.wait()


class Turns(Iterator[T]):
    """Items of one iterator, taken by several threads."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items, self._lock = iter(items), threading.Lock()

    def __next__(self) -> T:
        with self._lock:
            return next(self._items)


def finished(lanes: Sequence[Future[T]], stop: threading.Event) -> list[T]:
    """Return the results of lanes, in order.

    Raises:
        Whatever a lane raised, after the others were stopped.
    """
    try:
        for lane in lanes:
            lane.add_done_callback(lambda done: stop.set() if done.exception() else None)
        return [lane.result() for lane in lanes]
    except BaseException:
        stop.set()
        failures = [lane.exception() for lane in lanes]  # waits: `Stopped` is the others' answer, not the cause
        for failure in failures:
            if failure is not None and not isinstance(failure, Stopped):
                raise failure from None
        raise
