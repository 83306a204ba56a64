"""Model of a cluster whose nodes are one worker process each, with lanes, runs of chunks, and a lag.

The crew that hands out chunks is the real one (`workhorse.distributed.crew`), driven in simulated time. What is
modelled:

- a chunk's episodes step together in a lane: a step takes `call_s`, `act_s` for each living slot (one thread acts), and
  `sim_s` for each living slot over the lane's threads, rounded up to whole slots a thread;
- every call of a chunk's step holds Python's lock, for which the lanes of a node queue;
- a node plays its runs of chunks in their order, a chunk in each free lane; an update takes all of its cores;
- a message takes the coordinator's processor and then a latency; the coordinator also has `iteration_s` of its own;
- without a lag an iteration begins when the last chunk of the one before is in; with a lag of 1, workers go on with it
  once all chunks are given out, and never further.

What is *not* modelled: deaths, cores that slow each other down through shared memory, congestion of links.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace

import numpy as np

from workhorse.distributed.crew import Crew, Job
from workhorse.training.lanes import lane_threads

__all__ = ["Costs", "Nodes", "chunk_seconds", "iteration_seconds", "useful_seconds", "with_lock"]


@dataclass(frozen=True)
class Costs:
    """Seconds of one core: of a living slot's simulation and acting, of a step of a chunk, of a member's parameters."""

    sim_s: float
    act_s: float
    call_s: float
    begin_s: float


@dataclass(frozen=True)
class Nodes:
    """Cluster and messages.

    Attributes:
        count: nodes, each with a worker.
        cores: of a node.
        message_cpu_s: coordinator's processor time of a message sent or received.
        latency_s: of a message.
        update_core_s: core-seconds of an update; a node shares them among its cores.
        iteration_s: coordinator's own time of an iteration: merging, encoding, checkpoint.
    """

    count: int
    cores: int
    message_cpu_s: float
    latency_s: float
    update_core_s: float
    iteration_s: float


def chunk_seconds(lengths: np.ndarray, threads: int, costs: Costs) -> float:
    """Seconds of a chunk in a lane of so many threads.

    n living slots take ceil(n / threads) rounds of a step. With lengths in falling order, the sum of that over all
    steps is the sum of every `threads`-th length.

    Example:
        >>> costs = Costs(sim_s=1.0, act_s=0.0, call_s=0.0, begin_s=0.0)
        >>> chunk_seconds(np.array([10, 4, 7]), 1, costs), chunk_seconds(np.array([10, 4, 7]), 2, costs)
        (21.0, 14.0)
    """
    falling = np.sort(lengths)[::-1]
    rounds, steps = falling[::threads].sum(), falling.sum()
    return float(costs.sim_s * rounds + costs.act_s * steps + costs.call_s * falling[0] + costs.begin_s * len(lengths))


def with_lock(costs: Costs, lengths: np.ndarray, threads: int, lanes: int) -> Costs:
    """Return the costs of a lane among others of its process, all of whose calls hold Python's lock.

    Mean-value analysis of a closed queue: each of the lanes computes for Z seconds, then holds the lock for `call_s`.

    Example:
        >>> lone = Costs(sim_s=1e-3, act_s=0.0, call_s=1e-4, begin_s=0.0)
        >>> [round(1e3 * with_lock(lone, np.full(4, 100), 1, lanes).call_s, 2) for lanes in (1, 18, 100)]
        [0.1, 0.17, 6.0]
    """
    alone = chunk_seconds(lengths, threads, replace(costs, call_s=0.0, begin_s=0.0))
    think, queue, hold = alone / lengths.max(), 0.0, costs.call_s
    for others in range(1, lanes + 1):
        hold = float(costs.call_s * (1 + queue))
        queue = others * hold / (think + hold)
    return replace(costs, call_s=hold)


def useful_seconds(lengths: np.ndarray, costs: Costs) -> float:
    """Core-seconds of the episodes without waiting, calls and messages."""
    return float(lengths.sum() * (costs.sim_s + costs.act_s) + len(lengths) * costs.begin_s)


class _Node:
    """A worker: lanes, the runs of chunks it has, and how far its state has moved."""

    def __init__(self, shares: list[int]) -> None:
        self.shares = shares
        self.free = [(0.0, lane) for lane in range(len(shares))]
        self.at = 0

    def play(self, now: float, update_s: float, iteration: int, seconds: list[dict[int, float]]) -> float:
        """Return when a run of chunks that comes now is done; `seconds` are a chunk's by the lane's threads."""
        begun = now
        if iteration > self.at:
            behind, self.at = iteration - self.at, iteration
            begun += behind * update_s
            self.free = [(max(free, now) + behind * update_s, lane) for free, lane in self.free]
        heapq.heapify(self.free)
        done = begun
        for chunk in seconds:
            free, lane = heapq.heappop(self.free)
            ended = max(free, begun) + chunk[self.shares[lane]]
            heapq.heappush(self.free, (ended, lane))
            done = max(done, ended)
        return done


def iteration_seconds(
    episodes: list[np.ndarray], slots: int, costs: Costs, nodes: Nodes, lag: int, warm: int = 2
) -> float:
    """Seconds of an iteration, the mean of those after the first `warm`.

    Args:
        episodes: lengths of the episodes of each iteration.
        slots: episodes of a chunk.
        costs: of a chunk.
        nodes: the cluster.
        lag: 0 or 1.
        warm: iterations that are left out.
    """
    shares = lane_threads(nodes.cores, max(1, len(episodes[0]) // slots))
    kinds = {threads: with_lock(costs, episodes[0][:slots], threads, len(shares)) for threads in set(shares)}
    chunks = [
        [
            {threads: chunk_seconds(lengths[first : first + slots], threads, cost) for threads, cost in kinds.items()}
            for first in range(0, len(lengths), slots)
        ]
        for lengths in episodes
    ]
    return _Run(chunks, shares, nodes, lag).seconds(warm)


class _Run:
    def __init__(self, chunks: list[list[dict[int, float]]], shares: list[int], nodes: Nodes, lag: int) -> None:
        self._chunks, self._nodes, self._lag = chunks, nodes, lag
        self._crew: Crew[None] = Crew(patience_floor_s=1e9, never_waits=bool(lag))
        self._workers = {f"n{number}": _Node(shares) for number in range(nodes.count)}
        for name in self._workers:
            self._crew.join(name, len(shares))
        self._jobs = [Job("reset", number, len(found), number) for number, found in enumerate(chunks)]
        self._events: list[tuple[float, int, str, Job, range]] = []
        self._count = self._processor = 0.0

    def seconds(self, warm: int) -> float:
        ended, under_way = [], 0
        self._begin(0)
        self._hand_out(0.0)
        begun = 1
        while under_way < len(self._jobs):
            now, _, name, job, chunks = heapq.heappop(self._events)
            self._processor = max(self._processor, now) + self._nodes.message_cpu_s
            self._crew.answer(name, job, chunks, [None] * len(chunks), self._processor)
            while under_way < begun and self._crew.complete(self._jobs[under_way]):
                self._crew.results(self._jobs[under_way])
                under_way += 1
                ended.append(self._processor)
                self._processor += self._nodes.iteration_s
                if under_way == begun and begun < len(self._jobs):
                    self._begin(begun)
                    begun += 1
            may = self._lag and begun < len(self._jobs) and begun == under_way + 1
            if may and self._crew.all_handed_out(self._jobs[under_way]):
                self._begin(begun)
                begun += 1
            self._hand_out(self._processor)
        return (ended[-1] - ended[warm - 1]) / (len(ended) - warm)

    def _begin(self, number: int) -> None:
        self._crew.begin(self._jobs[number], len(self._chunks[number]))

    def _hand_out(self, now: float) -> None:
        for order in self._crew.orders(now):
            self._processor = max(self._processor, now) + self._nodes.message_cpu_s
            there, iteration = self._processor + self._nodes.latency_s, order.job.iteration
            seconds = [self._chunks[iteration][chunk] for chunk in order.chunks]
            update_s = self._nodes.update_core_s / self._nodes.cores
            done = self._workers[order.worker].play(there, update_s, iteration, seconds)
            self._count += 1
            heapq.heappush(
                self._events, (done + self._nodes.latency_s, int(self._count), order.worker, order.job, order.chunks)
            )
