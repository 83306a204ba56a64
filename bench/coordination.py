"""Processor time of coordinating thousands of workers: `python bench/coordination.py`.

The crew that a cluster run uses, driven in simulated time: episodes take no time here, only the crew's own calls are
real, and their processor time is measured. Chunks take log-normal times, one worker in a hundred is five times slower,
and every iteration some workers die in the middle of a chunk and as many join. After each event the coordinator asks
for orders and for the moment a chunk becomes late, as it would on a cluster.

Then the whole coordinator (`Cluster`) is driven by a transport whose workers answer at once with messages made
beforehand: encoding orders and the update, decoding, checking and merging the answers are in it, the learner's own
update and what carries the bytes (Ray) are not.
"""

import argparse
import heapq
import itertools
import json
import math
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from record import head

from workhorse.distributed.crew import Answer, Crew, Job, Order
from workhorse.distributed.messages import Report, decode_assignment, decode_control, encode_control
from workhorse.distributed.transport import Arrived, Event, Received
from workhorse.statistics.intervals import mean_interval

TARGET_WORKERS, TARGET_S = 1_440, 0.020
NODES, NODE_LANES, EPISODES = 80, 4, 10_000
SLOW_SHARE, SLOWNESS = 0.01, 5.0
CHUNK_S, VARIATION = 1.0, 0.6
ANSWERED, DIED, JOINED, LATE = range(4)


class Load:
    """A crew and its simulated workers.

    Args:
        workers: how many there are at the start, and on average after.
        chunks_per_worker: chunks of an iteration, over workers.
        turnover: share of the workers that die in an iteration, and that join.
        rng: everything that chance decides.
        per_answer: what else a coordinator does with an answer (decoding its bytes): called with the order inside the
            measured time, and its value is the chunks' results. None for a crew's calls alone.
    """

    def __init__(
        self,
        workers: int,
        chunks_per_worker: float,
        turnover: float,
        rng: np.random.Generator,
        per_answer: Callable[[Order], Any] | None = None,
    ) -> None:
        self._rng, self._turnover, self._per_answer = rng, turnover, per_answer
        self._num_chunks = max(1, round(workers * chunks_per_worker))
        self._crew = Crew()
        self._slowness: dict[str, float] = {}
        self._lengths: list[float] = []
        self._free: dict[str, float] = {}
        self._events: list[tuple[float, int, int, Any]] = []
        self._number, self._named, self._alarm = count(), count(), math.inf
        self._now, self._timer_s = 0.0, timer_s()
        self.spent_s = 0.0
        self.answers: dict[Answer, int] = dict.fromkeys(Answer, 0)
        for worker in [self._hire() for _ in range(workers)]:
            self._act(self._crew.join, worker)

    @property
    def crew(self) -> Crew:
        return self._crew

    @property
    def simulated_s(self) -> float:
        return self._now

    def iterate(self, iteration: int) -> float:
        """Do one iteration and return the processor seconds of the crew's calls."""
        before, job = self.spent_s, Job("reset", iteration, self._num_chunks, iteration)
        self._plan_turnover()
        lengths = CHUNK_S * np.exp(_SPREAD * self._rng.standard_normal(self._num_chunks) - _SPREAD**2 / 2)
        self._lengths = lengths.tolist()  # a chunk's length does not depend on its worker
        self._act(self._crew.begin, job, self._num_chunks)
        while not self._crew.complete(job):
            self._now, _, kind, what = heapq.heappop(self._events)
            if kind == ANSWERED and what.worker in self._slowness:  # else it died before it could answer
                self.answers[self._act(self._take, what)] += 1
            elif kind == DIED and self._slowness:
                worker = list(self._slowness)[int(what * len(self._slowness))]
                del self._slowness[worker]
                self._act(self._crew.leave, worker)
            elif kind == JOINED:
                self._act(self._crew.join, self._hire())
            elif kind == LATE:
                self._alarm = math.inf
                self._act(None)
        results = self._act(self._crew.results, job)
        assert len(results) == self._num_chunks and None not in results
        return self.spent_s - before

    def _take(self, order: Order) -> Answer:
        result = list(order.chunks) if self._per_answer is None else self._per_answer(order)
        if not self._crew.asked(order.worker, order.job, order.chunks):
            raise RuntimeError(f"The crew forgot what it asked for: {order}.")
        return self._crew.answer(order.worker, order.job, order.chunks, result, self._now)

    def _act(self, call: Callable[..., Any] | None, *arguments: Any) -> Any:
        """Call the crew, then ask for orders as a coordinator does after every event; only this is measured."""
        begun = time.process_time()
        value = call(*arguments) if call is not None else None
        orders, late_at = self._crew.orders(self._now), self._crew.late_at()
        self.spent_s += time.process_time() - begun - self._timer_s
        for order in orders:
            length = sum(self._lengths[chunk] for chunk in order.chunks) * self._slowness[order.worker]
            self._free[order.worker] = max(self._free.get(order.worker, 0.0), self._now) + length
            self._at(self._free[order.worker], ANSWERED, order)
        if late_at is not None and late_at < self._alarm:
            # rounding may let a chunk be late an instant after its own moment: time has to move on all the same
            self._alarm = max(late_at, math.nextafter(self._now, math.inf))
            self._at(self._alarm, LATE, None)
        return value

    def _plan_turnover(self) -> None:
        expected_s = CHUNK_S * self._num_chunks / max(1, len(self._slowness))
        size = self._rng.poisson(self._turnover * len(self._slowness))
        for kind in (DIED, JOINED):
            for moment, share in self._rng.random((size, 2)).tolist():
                self._at(self._now + moment * expected_s, kind, share)

    def _hire(self) -> str:
        worker = f"worker-{next(self._named)}"
        self._slowness[worker] = SLOWNESS if self._rng.random() < SLOW_SHARE else 1.0
        return worker

    def _at(self, moment: float, kind: int, what: Any) -> None:
        heapq.heappush(self._events, (moment, next(self._number), kind, what))


_SPREAD = math.sqrt(math.log1p(VARIATION**2))


def measure(
    workers: int,
    chunks_per_worker: float,
    turnover: float,
    iterations: int,
    per_answer: Callable[[Order], Any] | None = None,
) -> dict:
    """Processor seconds of an iteration, over iterations; the first is left out, for it has no history to judge by."""
    load = Load(workers, chunks_per_worker, turnover, np.random.default_rng(0), per_answer)
    joining_s = load.spent_s
    first_s = load.iterate(0)
    spent = [load.iterate(iteration) for iteration in range(1, iterations + 1)]
    interval, chunks = mean_interval(spent), round(workers * chunks_per_worker)
    return {
        "workers": workers,
        "chunks": chunks,
        "iterations": iterations,
        "cpu_s": {"value": interval.value, "low": interval.low, "high": interval.high, "method": interval.method},
        "cpu_s_most": max(spent),
        "cpu_us_per_chunk": 1e6 * interval.value / chunks,
        "cpu_s_first_iteration": first_s,
        "cpu_s_joining": joining_s,
        "simulated_s_per_iteration": load.simulated_s / (iterations + 1),
        "reissued": load.crew.reissued,
        "returned": load.crew.returned,
        "answers": {answer.value: number for answer, number in load.answers.items()},
    }


class Prompt:
    """A transport whose workers answer as soon as they are asked, with messages made from one template."""

    def __init__(self, num_workers: int, lanes: int, template: Report) -> None:
        self._template = template
        self._lanes = lanes
        self.messages = 0
        """Assignments answered so far."""
        self._waiting: list[tuple[str, bytes]] = []
        self._events: list[Event] = [Arrived(f"w{n}") for n in range(num_workers)]
        self.cluster: Any = None
        self.spent_s = 0.0

    def send(self, worker: str, message: bytes, attachment: bytes = b"") -> None:
        self._waiting.append((worker, message))

    def poll(self, timeout_s: float) -> list[Event]:
        begun = time.process_time()
        events, self._events = self._events, []
        for worker, message in self._waiting:
            if decode_control(message) is not None:
                answer = encode_control(
                    {"answer": "ready", "host": worker, "process": 1, "cores": 1, "lanes": self._lanes}
                )
            else:
                asked = decode_assignment(message)
                proof = self.cluster._ledger.digests.get(asked.at, 0)
                results = self._template.results * len(asked.chunks)
                answer = self._template._replace(
                    job=asked.job, chunks=asked.chunks, at=asked.at, digest=proof, results=results
                ).encode()
                self.messages += 1
            events.append(Received(worker, answer))
        self._waiting = []
        self.spent_s += time.process_time() - begun
        return events

    def dismiss(self, worker: str, replace: bool) -> None:
        raise RuntimeError(f"{worker} was let go: the load is not what it should be")

    def arriving(self) -> int:
        return 0

    def exhausted(self) -> str | None:
        return None

    def close(self) -> None:
        pass


def whole_coordinator(
    workers: int, observation_size: int, episodes: int = 8, chunks: int = 0, lanes: int = 1, iterations: int = 20
) -> dict:
    """Processor seconds of an iteration of the whole coordinator, by default with a chunk for every worker."""
    from workhorse.algorithms import registry
    from workhorse.core.algorithm import Population
    from workhorse.core.spec import Box, EnvSpec
    from workhorse.core.types import Moments
    from workhorse.distributed.cluster import Cluster
    from workhorse.training.evolve import Evolve
    from workhorse.training.plan import Plan
    from workhorse.training.population import PopulationPrograms
    from workhorse.training.workforce import Tally

    spec = EnvSpec("load", Box.unbounded(observation_size), Box((-1.0,) * 6, (1.0,) * 6), 1000)
    chunks = chunks or workers
    pairs = chunks * episodes // 2
    algorithm = registry.make("openai-es", spec, {"num_pairs": pairs})
    assert isinstance(algorithm, Population)
    programs = PopulationPrograms(algorithm, 0)
    plan = Plan("load", {}, "openai-es", {}, 0, episodes)
    rng = np.random.default_rng(0)
    steps, seen = 1000 * episodes, rng.normal(size=(2, observation_size))
    tally = Tally(
        rng.normal(size=episodes).astype(np.float32),
        steps,
        (0.0, 1.0, -1.0, 1.0),
        Moments(np.float64(steps), seen[0], seen[1] ** 2),
        (),
    )
    transport = Prompt(workers, lanes, Report(Job("reset", 0, 0, 0), range(1), 0, 0, 1.0, 0.0, (tally,)))
    # nobody is late here: the whole load arrives at once
    cluster = Cluster(plan, programs, transport, "scalars", patience_floor_s=1e9)
    transport.cluster = cluster
    loop, state = Evolve(programs, cluster), programs.init()
    spent = []
    for iteration in range(iterations + 2):
        begun, elsewhere = time.process_time(), transport.spent_s
        returns = loop.returns_of(cluster.play(state, iteration, range(2 * pairs)))
        cluster.announce(iteration, returns, goes_on=iteration > 0)
        cluster.metrics()
        cluster.messages()
        spent.append(time.process_time() - begun - (transport.spent_s - elsewhere))
    cluster.close()
    interval = mean_interval(spent[2:])
    return {
        "workers": workers,
        "lanes": lanes,
        "chunks": chunks,
        "messages_per_iteration": transport.messages / (iterations + 2),
        "episodes_per_chunk": episodes,
        "observation_size": observation_size,
        "iterations": iterations,
        "cpu_s": {"value": interval.value, "low": interval.low, "high": interval.high, "method": interval.method},
    }


def timer_s(calls: int = 50_000) -> float:
    """Processor seconds that measuring adds to whatever is measured, which are taken off."""
    begun = time.process_time()
    for _ in range(calls):
        time.process_time()
    return (time.process_time() - begun) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[100, 300, 1_000, 1_440, 3_000, 10_000])
    parser.add_argument("--chunks-per-worker", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument(
        "--turnover", type=float, default=0.001, help="share of workers that die, and join, an iteration"
    )
    parser.add_argument("--iterations", type=int, default=30)
    arguments = parser.parse_args()
    rows, growths = [], {}
    for chunks_per_worker, workers in itertools.product(arguments.chunks_per_worker, arguments.workers):
        row = measure(workers, chunks_per_worker, arguments.turnover, arguments.iterations)
        rows.append({"chunks_per_worker": chunks_per_worker} | row)
        cpu = row["cpu_s"]
        print(
            f"{workers:>6,} workers, {row['chunks']:>6,} chunks: {1e3 * cpu['value']:7.2f} ms "
            f"[{1e3 * cpu['low']:.2f}, {1e3 * cpu['high']:.2f}] an iteration, "
            f"{row['cpu_us_per_chunk']:.1f} us a chunk; "
            f"issued twice {row['reissued']:,}, returned {row['returned']:,}",
            flush=True,
        )
    for chunks_per_worker in arguments.chunks_per_worker:
        own = [row for row in rows if row["chunks_per_worker"] == chunks_per_worker]
        if own[1:]:
            sizes, times = np.log([[row["workers"], row["cpu_s"]["value"]] for row in own]).T
            growths[chunks_per_worker] = float(np.polyfit(sizes, times, 1)[0])
            print(f"{chunks_per_worker:g} chunks a worker: time grows as workers^{growths[chunks_per_worker]:.2f}")
    whole = [whole_coordinator(workers, size) for size in (17, 348) for workers in arguments.workers if workers >= 1000]
    for row in whole:
        cpu = row["cpu_s"]
        print(
            f"{row['workers']:>6,} workers, one chunk each, observations of {row['observation_size']}: the whole "
            f"coordinator {1e3 * cpu['value']:.1f} ms [{1e3 * cpu['low']:.1f}, {1e3 * cpu['high']:.1f}] an iteration"
        )
    nodes = [
        whole_coordinator(NODES, size, episodes, EPISODES // episodes, NODE_LANES)
        for size in (17, 348)
        for episodes in (64, 16)
    ]
    for row in nodes:
        cpu = row["cpu_s"]
        print(
            f"{NODES} workers of {NODE_LANES} lanes, {EPISODES:,} episodes in {row['chunks']} chunks, observations of "
            f"{row['observation_size']}: {row['messages_per_iteration']:.0f} orders, the whole coordinator "
            f"{1e3 * cpu['value']:.1f} ms [{1e3 * cpu['low']:.1f}, {1e3 * cpu['high']:.1f}] an iteration"
        )
    file = Path(__file__).parent / "results" / "coordination.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        json.dumps(
            {
                **head(" ".join(["python bench/coordination.py", *sys.argv[1:]])),
                "chunk_seconds": {"distribution": "log-normal", "mean": CHUNK_S, "variation": VARIATION},
                "slow_workers": {"share": SLOW_SHARE, "times_slower": SLOWNESS},
                "turnover": arguments.turnover,
                "timer_s_taken_off_per_event": timer_s(),
                "target": {"workers": TARGET_WORKERS, "cpu_s": TARGET_S},
                "growth_exponents": growths,
                "rows": rows,
                "whole": whole,
                "nodes": nodes,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
