"""Ray workers of this machine against its in-process loop: `python bench/cluster.py [--rounds 5] [--seconds 10]`.

Workers have one core each, as nodes of one core would. HalfCheetah-v5, linear policy, 64 members in 2 chunks. All
arrangements are set up at once and take turns within a round, so that what else the machine does falls on all of them
alike; the ratios are taken round by round. It also measures what the simulation is fed with: seconds of a chunk, the
rate at which an update is rebuilt, and the time of a message there and back.
"""

import argparse
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from record import head

from workhorse.core.algorithm import Population
from workhorse.distributed.cluster import Cluster
from workhorse.distributed.crew import Job
from workhorse.distributed.messages import NOTHING, Assignment, Report
from workhorse.distributed.ray_transport import RayTransport
from workhorse.math import noise
from workhorse.statistics.intervals import mean_interval
from workhorse.training.evolve import Evolve
from workhorse.training.loop import Loop, make_loop
from workhorse.training.plan import Plan
from workhorse.training.population import PopulationPrograms

PLAN = Plan("HalfCheetah-v5", {}, "openai-es", {"num_pairs": 32}, 0)
MANY = Plan("HalfCheetah-v5", {}, "openai-es", {"num_pairs": 32}, 0, 4)

LARGE_PARAMS = 997_972
LARGE = Plan(
    "CartPole-v1",
    {"max_episode_steps": 20},
    "openai-es",
    {"num_pairs": 16, "policy": "mlp", "hidden": (1000, 990)},
    0,
    4,
)


class Arrangement:
    """A loop that has been warmed up, and its speed."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.progress = loop.start()
        for _ in range(2):
            self.iterate()

    def iterate(self) -> None:
        self.progress, _, _ = self.loop.iterate(self.progress)

    def steps_per_second(self, seconds: float) -> float:
        begun, steps = time.perf_counter(), int(self.progress.env_steps)
        while time.perf_counter() - begun < seconds:
            self.progress, _, _ = self.loop.iterate(self.progress, lambda env_steps: True)
        return (int(self.progress.env_steps) - steps) / (time.perf_counter() - begun)

    def close(self) -> None:
        self.loop.close()


class OnRay(Arrangement):
    """The loop of a plan with Ray workers."""

    def __init__(self, plan: Plan, workers: int) -> None:
        algorithm = plan.make_algorithm(plan.spec())
        assert isinstance(algorithm, Population)
        programs = PopulationPrograms(algorithm, plan.seed)
        self.cluster = Cluster(plan, programs, RayTransport(workers, 1), "scalars")
        super().__init__(Evolve(programs, self.cluster))


class Child:
    """The in-process loop in a process of its own, in which there is no Ray."""

    def __init__(self, threads: int) -> None:
        words = [sys.executable, __file__, "--serve", str(threads)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def steps_per_second(self, seconds: float) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _answer(self) -> float:
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())


def serve(threads: int) -> None:
    """Answer each line, a number of seconds, with a speed: what a `Child` does."""
    arrangement = Arrangement(make_loop(PLAN, PLAN.spec(), threads))
    print(0.0, flush=True)
    for line in sys.stdin:
        print(arrangement.steps_per_second(float(line)), flush=True)
    arrangement.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    in_process = {"in process, 1 thread": Child(1), "in process, 2 threads": Child(2)}
    start_ray()
    on_ray = {"Ray, 1 worker": OnRay(PLAN, 1), "Ray, 2 workers": OnRay(PLAN, 2)}
    arrangements = in_process | on_ray
    rounds = []
    for number in range(arguments.rounds):
        found = {name: one.steps_per_second(arguments.seconds) for name, one in arrangements.items()}
        rounds.append(found)
        print(f"round {number}: " + ", ".join(f"{name} {speed:,.0f}" for name, speed in found.items()), flush=True)
    pairs = {
        "2 Ray workers / 1": ("Ray, 2 workers", "Ray, 1 worker"),
        "Ray / in process, 1 thread": ("Ray, 1 worker", "in process, 1 thread"),
        "Ray / in process, 2 threads": ("Ray, 2 workers", "in process, 2 threads"),
        "2 threads in process / 1": ("in process, 2 threads", "in process, 1 thread"),
    }
    ratios = {}
    for name, (one, other) in pairs.items():
        found = mean_interval(np.array([speeds[one] / speeds[other] for speeds in rounds]))
        ratios[name] = {"value": found.value, "interval": [found.low, found.high]}
        print(f"{name}: {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")
    gains = np.array(
        [
            (speeds["Ray, 2 workers"] / speeds["Ray, 1 worker"])
            / (speeds["in process, 2 threads"] / speeds["in process, 1 thread"])
            for speeds in rounds
        ]
    )
    found = mean_interval(gains)
    ratios["gain of workers / of threads"] = {"value": found.value, "interval": [found.low, found.high]}
    print(f"gain of 2 workers / of 2 threads: {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")
    spent = {name: float(np.median(chunk_times(one))) for name, one in on_ray.items()}
    latency, message_cpu_s = round_trip(on_ray["Ray, 1 worker"].cluster)
    for one in arrangements.values():
        one.close()
    chunks = chunk_seconds()
    rates = rebuild_rate()
    updates = {workers: update_seconds(workers) for workers in (1, 2)}
    print(
        f"update of {LARGE_PARAMS:,} parameters and 32 members: "
        + ", ".join(f"{n} processes {s:.2f} s" for n, s in updates.items())
    )
    record = {
        **head(f"python bench/cluster.py --rounds {arguments.rounds} --seconds {arguments.seconds:g}"),
        "task": "HalfCheetah-v5, linear, 64 members in 2 chunks of 32",
        "rounds": rounds,
        "ratios": ratios,
        "episodes_per_chunk": 4,
        "chunk_seconds": chunks,
        "rebuild_elements_per_second": rates,
        "update_seconds_by_processes": {"num_params": LARGE_PARAMS, "members": 32, "seconds": updates},
        "call_latency_s": latency / 2,
        "message_cpu_s": message_cpu_s,
        "chunk_seconds_by_arrangement": spent,
    }
    (Path(__file__).parent / "results" / "cluster.json").write_text(json.dumps(record, indent=1))


def start_ray() -> None:
    """Start Ray on this machine and tell it of 3 cores, so that both arrangements of workers can stay."""
    import ray

    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    if sys.platform == "linux":
        options["_node_ip_address"] = "127.0.0.2"
    ray.init(address="local", num_cpus=3, **options)


def round_trip(cluster: Cluster) -> tuple[float, float]:
    """Median seconds of an order for nothing, there and back, and the coordinator's processor seconds for it."""
    (name,) = cluster._crew.workers
    member, times = cluster._members[name], []
    at = member.held.at
    assert at is not None
    busy = time.process_time()
    for _ in range(200):
        begun = time.perf_counter()
        cluster._transport.send(name, Assignment(Job("reset", at, 0, 0), NOTHING, member.turn, None, at).encode())
        member.turn += 1
        while not cluster._transport.poll(1.0):
            pass
        times.append(time.perf_counter() - begun)
    return float(np.median(times)), (time.process_time() - busy) / len(times)


@contextmanager
def heard(cluster: Cluster, hear: Callable[[str, Report], None]) -> Iterator[None]:
    """Context manager: `hear` is told of every report, with its worker's name, before the cluster weighs it."""
    weigh = cluster._weigh

    def weighing(name: str, report: Report, size: int) -> None:
        hear(name, report)
        weigh(name, report, size)

    cluster._weigh = weighing
    try:
        yield
    finally:
        cluster._weigh = weigh


def chunk_times(arrangement: OnRay) -> list[float]:
    """Seconds of the chunks of three iterations, as the workers see them: the mean of those played together."""
    found: list[float] = []

    def note(name: str, report: Report) -> None:
        found.extend([report.episodes_s / len(report.chunks)] * len(report.chunks))

    with heard(arrangement.cluster, note):
        for _ in range(3):
            arrangement.iterate()
    return found


def chunk_seconds() -> list[float]:
    """Seconds of chunks of 4 episodes on one core, as one worker sees them."""
    arrangement = OnRay(MANY, 1)
    found = chunk_times(arrangement)
    arrangement.close()
    return found


def update_seconds(workers: int) -> float:
    """Seconds a worker of one core spends on an update beside others; the median of 6 iterations."""
    arrangement = OnRay(LARGE, workers)
    while arrangement.cluster._crew.size < workers:
        arrangement.iterate()
    for _ in range(2):
        arrangement.iterate()
    found: dict[tuple[str, int], float] = {}

    def note(name: str, report: Report) -> None:
        job = (name, report.job.iteration)  # a worker updates once an iteration, with its first chunk
        found[job] = max(found.get(job, 0.0), report.updates_s)

    with heard(arrangement.cluster, note):
        while len(found) < 6 * workers:
            arrangement.iterate()
    arrangement.close()
    return float(np.median(list(found.values())))


def rebuild_rate() -> float:
    """Normal numbers drawn, weighed and summed a second, on one core."""
    block = jax.jit(noise.weighted_block, static_argnums=3)
    weights, key = jnp.ones((1, 64), jnp.float32), jax.random.key(0)
    block(key, weights, 0, 10**6).block_until_ready()
    begun = time.perf_counter()
    for number in range(8):
        block(key, weights, number, 10**6).block_until_ready()
    rate = 8 * 64 * noise.BLOCK_SIZE / (time.perf_counter() - begun)
    print(f"rebuilding: {rate / 1e6:,.0f} million pair-parameters a second")
    return rate


if __name__ == "__main__":
    main()
