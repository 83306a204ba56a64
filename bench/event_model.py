"""Model of an iteration on a cluster that nobody has at hand: messages and episodes as events in simulated time.

An iteration has C chunks of episodes. A coordinator hands them out one by one to whoever is free, workers answer with
a scalar an episode, and when the last answer is in, everybody moves to the next iteration. What is modelled:

- the coordinator's processor and each direction of its link serve one message after another;
- a message takes latency + bytes / bandwidth, every worker has a link of its own, every chunk a time of its own;
- *scalars*: each worker is told every member's return once an iteration and rebuilds the update itself, alone or
  with the other processes of its node; *parameters*: the coordinator updates while everybody waits, and sends all of
  them to each worker that has something to do;
- optionally the iteration's message reaches each node once, along a tree, and its processes share it.

What is *not* modelled: deaths and joins, chunks issued a second time, congestion between links, cores that slow each
other down through shared memory or caches, chunks whose length depends on the members they hold, work of the next
iteration begun before this one is over, and updates that an idle worker has not made when it is needed again. The
coordinator has a core of its own, which is not among the `cores`.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import count
from typing import Literal

import numpy as np

from workhorse.statistics.intervals import mean_interval

__all__ = [
    "Breakdown",
    "Cluster",
    "Exchange",
    "Network",
    "Prediction",
    "Update",
    "Workload",
    "lockstep_seconds",
    "lognormal_seconds",
    "predict",
    "sweep",
]

Exchange = Literal["scalars", "parameters"]
CORES = (1, 2, 4, 8, 18, 36, 72, 144, 288, 576, 1_000, 1_440, 3_000, 5_760, 10_000)


def _require_positive(owner: object, *names: str) -> None:
    for name in names:
        if not getattr(owner, name) > 0:
            raise ValueError(f"{type(owner).__name__}.{name} must be positive: got {getattr(owner, name)}.")


def _require_not_negative(owner: object, *names: str) -> None:
    for name in names:
        if not getattr(owner, name) >= 0:
            raise ValueError(f"{type(owner).__name__}.{name} must not be negative: got {getattr(owner, name)}.")


@dataclass(frozen=True)
class Workload:
    """Work of an iteration.

    Attributes:
        num_members: members of the population; half as many mirrored pairs.
        episodes_per_chunk: episodes a worker is asked for at a time. With fewer chunks than cores the others idle.
        num_params: parameters of the policy.
        observation_size: D, numbers in an observation.
        chunk_seconds: what whole chunks took on one core, seconds; each chunk draws one of them.
        episodes_per_member: episodes each member is judged by.
    """

    num_members: int
    episodes_per_chunk: int
    num_params: int
    observation_size: int
    chunk_seconds: tuple[float, ...]
    episodes_per_member: int = 1

    def __post_init__(self) -> None:
        _require_positive(self, "num_members", "episodes_per_chunk", "num_params", "episodes_per_member")
        if not self.chunk_seconds or not min(self.chunk_seconds) > 0:
            raise ValueError("Workload.chunk_seconds must hold at least one time, all of them positive.")

    @property
    def num_chunks(self) -> int:
        """Chunks of an iteration; the last may be partly filled, and takes accordingly less time."""
        return -(-self.num_members * self.episodes_per_member // self.episodes_per_chunk)

    def told_bytes(self, exchange: Exchange) -> int:
        """Return the bytes a worker must be told once an iteration, without the header."""
        if exchange == "scalars":
            return 4 * self.num_members + self._moments_bytes
        return 4 * self.num_params + 8 * self.observation_size

    @property
    def answer_bytes(self) -> int:
        """Bytes of a chunk's answer, without the header."""
        return 4 * self.episodes_per_chunk + self._moments_bytes

    @property
    def _moments_bytes(self) -> int:
        return 8 * (1 + 2 * self.observation_size)

    def draw_seconds(self, rng: np.random.Generator) -> np.ndarray:
        """Seconds on one core of each chunk of an iteration."""
        seconds = rng.choice(np.asarray(self.chunk_seconds, np.float64), self.num_chunks)
        filled = self.num_members * self.episodes_per_member / self.episodes_per_chunk
        seconds[-1] *= 1 - (self.num_chunks - filled)
        return seconds


@dataclass(frozen=True)
class Network:
    """Cost of a message. The defaults are assumptions: Ethernet of 10 Gb/s, calls through a Python framework.

    Attributes:
        latency_s: from one process to another, whatever the size.
        bytes_per_second: of a worker's link, or of a node's where `fan_out` is set.
        coordinator_bytes_per_second: of the coordinator's link, each way.
        coordinator_cpu_s_per_message: processor time for a message sent or received.
        header_bytes: what every message has around its numbers.
        fan_out: 0: the coordinator tells each worker itself. k: it tells k nodes, each of which tells k more, and
            a node's processes share what came; orders still go straight to each worker.
    """

    latency_s: float = 500e-6
    bytes_per_second: float = 1.25e9
    coordinator_bytes_per_second: float = 1.25e9
    coordinator_cpu_s_per_message: float = 100e-6
    header_bytes: int = 256
    fan_out: int = 0

    def __post_init__(self) -> None:
        _require_positive(self, "bytes_per_second", "coordinator_bytes_per_second")
        _require_not_negative(self, "latency_s", "coordinator_cpu_s_per_message", "header_bytes", "fan_out")

    @staticmethod
    def ideal() -> Network:
        """Messages that cost nothing: what the other parts of the model leave to be lost."""
        return Network(0.0, math.inf, math.inf, 0.0, 0)


@dataclass(frozen=True)
class Update:
    """Cost of an update to a process: fixed_s + pairs * parameters * seconds_per_element.

    Attributes:
        seconds_per_element: to make one component of one perturbation again and add it.
        fixed_s: whatever the size.
        block_size: parameters that one process of a node makes for all of them; None where nothing is shared. With
            B blocks and W processes the slowest makes ceil(B / W) of them: *fewer parameters than a block cannot be
            shared at all.*
        serial_s: seconds of an iteration in which nobody runs episodes (metrics, a checkpoint, an evaluation).
    """

    seconds_per_element: float = 0.0
    fixed_s: float = 0.0
    block_size: int | None = None
    serial_s: float = 0.0

    def __post_init__(self) -> None:
        _require_not_negative(self, "seconds_per_element", "fixed_s", "serial_s")
        if self.block_size is not None:
            _require_positive(self, "block_size")

    def seconds(self, workload: Workload, processes: int) -> float:
        """Seconds of an update that so many processes of a node share.

        Example:
            >>> work = Workload(1_000, 1, 150_000, 4, (1.0,))
            >>> update = Update(seconds_per_element=1e-8, block_size=2_048)
            >>> [round(update.seconds(work, processes), 3) for processes in (1, 2, 3, 16)]
            [0.75, 0.379, 0.256, 0.051]
        """
        size = workload.num_params
        if self.block_size is not None:
            blocks = math.ceil(math.ceil(size / self.block_size) / processes)
            size = min(size, blocks * self.block_size)
        return self.fixed_s + (workload.num_members // 2) * size * self.seconds_per_element


@dataclass(frozen=True)
class Cluster:
    """Cores that an iteration runs on.

    Attributes:
        cores: workers, each of one core.
        cores_per_node: workers of a machine, which may share the update.
        core_variation: standard deviation of the cores' slowness, whose mean is 1; drawn anew each iteration,
            log-normal.
    """

    cores: int
    cores_per_node: int = 16
    core_variation: float = 0.0

    def __post_init__(self) -> None:
        _require_positive(self, "cores", "cores_per_node")
        _require_not_negative(self, "core_variation")

    def draw_slowness(self, rng: np.random.Generator) -> np.ndarray:
        """Return how many times longer than measured each core takes."""
        spread = math.log1p(self.core_variation**2)
        return np.exp(math.sqrt(spread) * rng.standard_normal(self.cores) - spread / 2)


@dataclass(frozen=True)
class Breakdown:
    """Seconds of a worker's iteration by cause, the mean over all workers, idle ones too. The parts add up to it.

    Attributes:
        episodes: running chunks.
        update: moving the learner, or waiting while the coordinator does.
        network: messages under way, and waiting for a link.
        coordination: waiting for the coordinator's processor, and for what it does alone.
        waiting: nothing left to do until the last answer is in: stragglers, and workers without a chunk.
    """

    episodes: float
    update: float
    network: float
    coordination: float
    waiting: float


@dataclass(frozen=True)
class Prediction:
    """An iteration on a cluster, the mean over simulated ones.

    Attributes:
        cores: workers, the coordinator's core not counted.
        exchange: what travels.
        num_chunks: chunks of an iteration; no more workers than that can be busy.
        iteration_s: seconds.
        interval_s: Student's 95 % interval of `iteration_s` over the simulated iterations: what chance in the chunks'
            times leaves open, *not* what the model leaves out.
        speed_up: seconds of one core that runs all chunks and the update with no message, over `iteration_s`.
        efficiency: speed_up / cores.
        bytes_to_a_worker: bytes that reach a worker's process in an iteration, the mean over workers.
        bytes_from_coordinator: bytes that leave the coordinator's link in an iteration.
        bytes_to_coordinator: bytes that reach it.
        where: where the time goes.
    """

    cores: int
    exchange: Exchange
    num_chunks: int
    iteration_s: float
    interval_s: tuple[float, float]
    speed_up: float
    efficiency: float
    bytes_to_a_worker: float
    bytes_from_coordinator: int
    bytes_to_coordinator: int
    where: Breakdown

    @property
    def limit(self) -> str:
        """Name of the part of `where`, other than episodes, that takes most of the time."""
        parts = asdict(self.where)
        del parts["episodes"]
        return max(parts, key=lambda name: parts[name])

    def efficiency_beside(self, fewer: Prediction) -> float:
        """Core-seconds of an iteration on fewer cores, over those here."""
        return fewer.cores * fewer.iteration_s / (self.cores * self.iteration_s)


def predict(
    workload: Workload,
    network: Network,
    update: Update,
    cluster: Cluster,
    exchange: Exchange,
    rng: np.random.Generator,
    num_iterations: int = 10,
) -> Prediction:
    """Predict the duration of an iteration, and the causes of it.

    Without messages and with C chunks of equal time c on N cores it is ceil(C / N) c + U, U the update's seconds; the
    speed-up (C c + U) / (ceil(C / N) c + U) cannot pass (C c + U) / (c + U). Episodes of unequal length add about half
    of a long chunk at the end; messages add their processor time and bytes at the one coordinator.

    Args:
        workload: the chunks and their times.
        network: what messages cost.
        update: what moving the learner costs.
        cluster: how many workers, on what nodes.
        exchange: "scalars" or "parameters".
        rng: where the chunks' times are drawn.
        num_iterations: independent iterations to simulate, at least 1.

    Returns:
        The prediction. *Compare exchanges and sizes with generators of one seed:* the chunks' times are then equal.

    Raises:
        ValueError: another exchange, or no iteration.

    Example:
        >>> work = Workload(num_members=1_000, episodes_per_chunk=4, num_params=30_000, observation_size=17,
        ...                 chunk_seconds=(0.5,))
        >>> update = Update(seconds_per_element=1e-8)
        >>> found = predict(work, Network.ideal(), update, Cluster(100), "scalars", np.random.default_rng(0))
        >>> round(found.iteration_s, 3), round(found.speed_up, 1), round(found.efficiency, 3)  # 3 rounds, and 0.15 s
        (1.65, 75.8, 0.758)
        >>> found.where.episodes, round(found.where.update, 3), found.where.waiting, found.limit
        (1.25, 0.15, 0.25, 'waiting')

    Source: the exchange of scalars is algorithm 2 of Salimans et al. 2017, "Evolution strategies as a scalable
    alternative to reinforcement learning" (arXiv 1703.03864); that of parameters is in the code published with it.
    """
    if exchange not in ("scalars", "parameters"):
        raise ValueError(f"The exchange must be 'scalars' or 'parameters': got {exchange!r}.")
    if num_iterations < 1:
        raise ValueError(f"A prediction needs at least 1 iteration: got {num_iterations}.")
    found = []
    alone_s = 0.0
    for seconds in [workload.draw_seconds(rng) for _ in range(num_iterations)]:  # before anything else is drawn
        alone_s += (seconds.sum() + update.seconds(workload, 1) + update.serial_s) / num_iterations
        iteration = _Iteration(workload, network, update, cluster, exchange, seconds, cluster.draw_slowness(rng))
        iteration.run()
        found.append(iteration)
    interval = mean_interval([iteration.ended for iteration in found])
    where = np.mean([iteration.where() for iteration in found], axis=0)
    last = found[-1]
    return Prediction(
        cores=cluster.cores,
        exchange=exchange,
        num_chunks=workload.num_chunks,
        iteration_s=interval.value,
        interval_s=(interval.low, interval.high),
        speed_up=float(alone_s / interval.value),
        efficiency=float(alone_s / interval.value / cluster.cores),
        bytes_to_a_worker=last.bytes_to_workers / cluster.cores,
        bytes_from_coordinator=last.bytes_out,
        bytes_to_coordinator=last.bytes_in,
        where=Breakdown(*map(float, where)),
    )


def sweep(
    workload: Workload,
    network: Network,
    update: Update,
    exchange: Exchange,
    cores: Iterable[int] = CORES,
    cores_per_node: int = 16,
    core_variation: float = 0.0,
    num_iterations: int = 10,
    seed: int = 0,
) -> list[Prediction]:
    """`predict` for several numbers of cores; the chunks' times are the same for each of them.

    Example:
        >>> work = Workload(64, 4, 102, 17, (0.5,))
        >>> [round(found.speed_up, 3) for found in sweep(work, Network.ideal(), Update(), "scalars", (1, 3, 16, 64))]
        [1.0, 2.667, 16.0, 16.0]
    """
    clusters = [Cluster(number, cores_per_node, core_variation) for number in cores]
    return [
        predict(workload, network, update, cluster, exchange, np.random.default_rng(seed), num_iterations)
        for cluster in clusters
    ]


def lognormal_seconds(mean_s: float, deviation_s: float, size: int = 999) -> tuple[float, ...]:
    """Times of chunks of which only mean and standard deviation are known: evenly spaced quantiles of a log-normal.

    The quantiles are scaled to have exactly this mean; their deviation falls short by what the ends beyond the first
    and last quantile would add.

    Example:
        >>> seconds = np.array(lognormal_seconds(2.0, 0.5))
        >>> round(float(seconds.mean()), 6), round(float(seconds.std()), 2), round(float(seconds.max()), 2)
        (2.0, 0.5, 4.36)
    """
    if deviation_s == 0:
        return (mean_s,)
    spread = math.sqrt(math.log1p((deviation_s / mean_s) ** 2))
    normal = statistics.NormalDist()
    quantiles = np.exp(spread * np.array([normal.inv_cdf((rank + 0.5) / size) for rank in range(size)]))
    return tuple((quantiles * (mean_s / quantiles.mean())).tolist())


def lockstep_seconds(
    episode_steps: Iterable[int],
    episodes_per_chunk: int,
    slot_step_s: float,
    call_s: float,
    begin_s: float,
    rng: np.random.Generator,
    size: int = 2_000,
) -> tuple[float, ...]:
    """Times of chunks whose episodes step together on one core, from the lengths of episodes.

    seconds = call_s * max(steps) + slot_step_s * sum(steps) + begin_s * episodes: each round costs one call for all
    and a step for each episode still running. Small chunks pay the call more often, large ones end at different times.

    Args:
        episode_steps: lengths of single episodes, a sample.
        episodes_per_chunk: episodes drawn from it for each chunk.
        slot_step_s: an episode's share of a step.
        call_s: what a step costs once for the chunk.
        begin_s: an episode's reset and its member's parameters.
        rng: where episodes are drawn.
        size: chunks to draw.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> [round(lockstep_seconds([500], slots, 4e-4, 2e-4, 1e-3, rng, 1)[0] / slots, 3) for slots in (1, 2, 4, 64)]
        [0.301, 0.251, 0.226, 0.203]
    """
    steps = rng.choice(np.asarray(list(episode_steps), np.float64), (size, episodes_per_chunk))
    seconds = call_s * steps.max(axis=1) + slot_step_s * steps.sum(axis=1) + begin_s * episodes_per_chunk
    return tuple(seconds.tolist())


class _Coordinator:
    """A processor and a link in two directions, each of which serves one message after another."""

    def __init__(self, network: Network, now: float) -> None:
        self._network = network
        self._slower = min(network.bytes_per_second, network.coordinator_bytes_per_second)
        self.processor_free = self.link_out_free = self.link_in_free = now

    def send(self, now: float, num_bytes: int) -> tuple[float, float]:
        """When the message has left the processor, and when it is there."""
        self.processor_free = max(now, self.processor_free) + self._network.coordinator_cpu_s_per_message
        begun = max(self.processor_free, self.link_out_free)
        self.link_out_free = begun + num_bytes / self._network.coordinator_bytes_per_second
        return self.processor_free, begun + num_bytes / self._slower + self._network.latency_s

    def receive(self, now: float, num_bytes: int) -> tuple[float, float]:
        """When a message whose first byte comes now is there, and when it has left the processor."""
        begun = max(now, self.link_in_free)
        self.link_in_free = begun + num_bytes / self._network.coordinator_bytes_per_second
        there = begun + num_bytes / self._slower
        self.processor_free = max(there, self.processor_free) + self._network.coordinator_cpu_s_per_message
        return there, self.processor_free


class _Iteration:
    """One iteration, from the moment all answers of the last one are in until all of its own are."""

    def __init__(
        self,
        workload: Workload,
        network: Network,
        update: Update,
        cluster: Cluster,
        exchange: Exchange,
        seconds: np.ndarray,
        slowness: np.ndarray,
    ) -> None:
        self._workload, self._network, self._cluster, self._exchange = workload, network, cluster, exchange
        self._seconds, self._slowness = seconds.tolist(), slowness.tolist()
        self._serial_s = update.serial_s
        self._alone_s = update.seconds(workload, 1) if exchange == "parameters" else 0.0
        sharing = min(cluster.cores, cluster.cores_per_node)
        self._rebuild_s = update.seconds(workload, sharing) if exchange == "scalars" else 0.0
        self._coordinator = _Coordinator(network, self._serial_s + self._alone_s)
        self._told = network.header_bytes + workload.told_bytes(exchange)
        self._chunk, self._number = 0, count()
        self._events: list[tuple[float, int, int, float]] = []
        self._episodes, self._update, self._under_way, self._queued = (np.zeros(cluster.cores) for _ in range(4))
        self.bytes_out = self.bytes_in = self.bytes_to_workers = 0
        self.ended = 0.0

    def run(self) -> None:
        """Hand out chunks, take answers, and tell those without a chunk, until nothing is left."""
        workers = range(min(self._cluster.cores, len(self._seconds)))
        told_at, begun = self._spread(), self._serial_s + self._alone_s
        for worker in workers:
            self._order(begun, worker, told_at[worker // self._cluster.cores_per_node] if told_at else None)
        if self._exchange == "scalars" and not told_at and len(workers) < self._cluster.cores:
            self._events.append((self._coordinator.processor_free, -1, len(workers), math.nan))
        heapq.heapify(self._events)
        while self._events:
            now, _, worker, finished = heapq.heappop(self._events)
            if math.isnan(finished):
                self._tell_idle(now, worker)
            else:
                self._answer(now, worker, finished)
        self.ended = max(self._coordinator.processor_free, self._coordinator.link_out_free)

    def where(self) -> tuple[float, ...]:
        """The fields of a `Breakdown`."""
        update = self._update.mean() + self._alone_s
        coordination = self._queued.mean() + self._serial_s
        known = (self._episodes.mean(), update, self._under_way.mean(), coordination)
        return *known, max(0.0, self.ended - sum(known))

    def _spread(self) -> list[float]:
        """When the iteration's message is at each node; empty where the coordinator tells each worker itself."""
        fan_out, network = self._network.fan_out, self._network
        if not fan_out:
            return []
        at: list[float] = []
        for node in range(-(-self._cluster.cores // self._cluster.cores_per_node)):
            if node < fan_out:
                self.bytes_out += self._told
                at.append(self._coordinator.send(0.0, self._told)[1])
                continue
            parent, turn = node // fan_out - 1, node % fan_out + 1
            at.append(at[parent] + turn * self._told / network.bytes_per_second + network.latency_s)
        self.bytes_to_workers = self._told * self._cluster.cores
        return at

    def _order(self, now: float, worker: int, told_at: float | None = None, first: bool = True) -> None:
        """Send a worker the next chunk, with the iteration's message unless that came, or comes, another way."""
        size = self._told if first and told_at is None else self._network.header_bytes
        self.bytes_out += size
        self.bytes_to_workers += size
        sent, there = self._coordinator.send(now, size)
        begun = there if told_at is None else max(there, told_at)
        computing = self._seconds[self._chunk] * self._slowness[worker]
        learning = self._rebuild_s * self._slowness[worker] if first else 0.0
        self._chunk += 1
        self._queued[worker] += sent - now
        self._under_way[worker] += begun - sent
        self._update[worker] += learning
        self._episodes[worker] += computing
        finished = begun + learning + computing
        heapq.heappush(self._events, (finished + self._network.latency_s, next(self._number), worker, finished))

    def _answer(self, now: float, worker: int, finished: float) -> None:
        size = self._network.header_bytes + self._workload.answer_bytes
        self.bytes_in += size
        there, handled = self._coordinator.receive(now, size)
        self._under_way[worker] += there - finished
        self._queued[worker] += handled - there
        if self._chunk < len(self._seconds):
            self._order(handled, worker, first=False)

    def _tell_idle(self, now: float, worker: int) -> None:
        """Tell a worker without a chunk how the learner moves, whenever the coordinator has nothing better to do."""
        free = max(self._coordinator.processor_free, self._coordinator.link_out_free)
        if free <= now:
            self.bytes_out += self._told
            self.bytes_to_workers += self._told
            self._coordinator.send(now, self._told)
            free = max(self._coordinator.processor_free, self._coordinator.link_out_free)
            worker += 1
        if worker < self._cluster.cores:
            heapq.heappush(self._events, (free, next(self._number), worker, math.nan))
