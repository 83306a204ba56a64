"""Projection of a measured run to another number of cores, as `workhorse cost --project` prints it.

An iteration has C chunks of episodes; N workers take them one after another, and a coordinator takes the answers. With
chunk times c_i, update seconds U, overhead o, latency l, a message's processor time m, and t = max(m, bytes / speed)
to tell one worker how the state moved:

    worker w begins at     (w + 1) t + l, and rebuilds the update first (scalars) or has waited U for it (parameters)
    each later chunk costs a round trip, 2 (l + m)
    iteration_s          = o + max(last answer, N t, (2 C + idle workers) m)

The last two terms are the coordinator's link and processor, which bound the iteration where messages are many. It has
no queues: `bench/event_model.py` simulates them message by message, and a test holds the two within 8 % of each other,
20 % where large messages wait for the coordinator's link. Left out are deaths, chunks issued twice, congested links,
and cores that slow each other down.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workhorse.runs.cost import Ledger
from workhorse.runs.measured import Measured

__all__ = ["Projection", "project", "projected_ledger"]

LATENCY_S = 500e-6
"""Assumed time of a message from one process to another."""

MESSAGE_CPU_S = 100e-6
"""Assumed processor time of the coordinator for a message: calls through a Python framework."""

BYTES_PER_SECOND = 1.25e9
"""Assumed speed of a link: Ethernet of 10 Gb/s."""

CORES_PER_NODE = 16
"""Assumed processes of a machine, which share an update."""

DRAWS = 10
"""Iterations whose chunk times are drawn; the projection is their mean."""


@dataclass(frozen=True)
class Projection:
    """A whole run on another number of cores.

    Attributes:
        cores: workers; a coordinator comes on top.
        wall_s: seconds of the whole run.
        core_hours: of the workers and the coordinator.
        assumptions: what the numbers rest on, a sentence each.
    """

    cores: int
    wall_s: float
    core_hours: float
    assumptions: tuple[str, ...]


def project(
    measured: Measured, cores: int, exchange: Literal["scalars", "parameters"] = "scalars", told_bytes: int = 0
) -> Projection:
    """Project a measured run to another number of workers.

    The overhead o is the measured iteration less the model of it on the run's own cores with messages that cost
    nothing; it is taken to stay as long as it was.

    Args:
        measured: the run's own numbers.
        cores: workers to project to, at least 1.
        exchange: what a worker is told once an iteration: the members' fitness, or the parameters.
        told_bytes: bytes of it.

    Example:
        >>> run = Measured(iteration_s=160.4, iterations=100, cores=2, num_chunks=80, slots=8, chunk_s=4.0,
        ...     length_variation=0.0, update_s=0.02, update_blocks=3)
        >>> there = project(run, 40, told_bytes=2_560)
        >>> round(there.wall_s), round(there.core_hours, 1)
        (840, 9.6)
        >>> project(run, 1_440).assumptions[0]
        'An iteration has 80 chunks of 8 episodes, so 1,360 of 1,440 cores have nothing to do; smaller chunks, which are
        another run, would use them.'
    """
    if cores < 1:
        raise ValueError(f"A projection needs at least 1 core: got {cores}.")
    draws = _drawn_chunks(measured)
    here = _shared(measured, measured.cores) + _mean_makespan(draws, [0.0] * measured.cores, 0.0)
    overhead_s = measured.iteration_s - here

    telling_s = max(MESSAGE_CPU_S, told_bytes / BYTES_PER_SECOND)
    if exchange == "scalars":
        waited_s, rebuild_s, told = 0.0, _shared(measured, min(cores, CORES_PER_NODE)), cores
    else:
        waited_s, rebuild_s, told = measured.update_s, 0.0, min(cores, measured.num_chunks)
    begins = [(worker + 1) * telling_s + LATENCY_S + rebuild_s for worker in range(min(cores, measured.num_chunks))]
    answered = _mean_makespan(draws, begins, 2 * (LATENCY_S + MESSAGE_CPU_S)) + LATENCY_S + MESSAGE_CPU_S
    messages = 2 * measured.num_chunks + max(0, told - measured.num_chunks)
    busy_s = max(answered, told * telling_s, messages * MESSAGE_CPU_S)
    wall_s = (max(0.0, overhead_s) + waited_s + busy_s) * measured.iterations
    assumptions = _assumptions(measured, cores, exchange, overhead_s)
    return Projection(cores, wall_s, (cores + 1) * wall_s / 3600, assumptions)


def projected_ledger(projection: Projection, ledger: Ledger, kind: str) -> Ledger:
    """Return the ledger of a projected run: its core-hours in the run's own shares of kinds of core.

    Args:
        projection: the projected run.
        ledger: the run's own ledger.
        kind: kind of core to charge where the ledger has no charges.
    """
    there = Ledger(wall_s=projection.wall_s)
    held = dict(ledger.core_seconds) if sum(ledger.core_seconds.values()) else {kind: 1.0}
    total = sum(held.values())
    for name, seconds in held.items():
        there = there.charge(name, seconds / total, projection.core_hours * 3600)
    return there


def _drawn_chunks(measured: Measured) -> list[np.ndarray]:
    """Return the seconds of an iteration's chunks, for each of a few iterations.

    Only the mean is measured, so they are log-normal with a standard deviation that assumes independent lengths of a
    chunk's episodes.
    """
    variation = measured.length_variation / math.sqrt(measured.slots)
    if not variation:
        return [np.full(measured.num_chunks, measured.chunk_s)]
    spread = math.log1p(variation**2)
    rng = np.random.default_rng(0)
    factors = rng.lognormal(-spread / 2, math.sqrt(spread), (DRAWS, measured.num_chunks))
    return list(measured.chunk_s * factors / factors.mean())


def _shared(measured: Measured, processes: int) -> float:
    """Return the seconds of an update whose blocks are shared: the slowest process makes ceil(blocks / processes)."""
    return measured.update_s * math.ceil(measured.update_blocks / processes) / measured.update_blocks


def _mean_makespan(draws: Sequence[np.ndarray], begins: Sequence[float], between_s: float) -> float:
    return sum(_makespan(chunks.tolist(), begins, between_s) for chunks in draws) / len(draws)


def _makespan(chunks: Sequence[float], begins: Sequence[float], between_s: float) -> float:
    """Return when the last chunk ends if each goes to the worker that is free first.

    Args:
        chunks: seconds of each, in the order they are handed out.
        begins: when each worker is free at the start.
        between_s: seconds between two chunks of one worker.

    Example:
        >>> _makespan([3.0, 1.0, 1.0, 2.0], [0.0, 0.0], 0.5)  # the second worker does the last three
        5.0
    """
    free = sorted(begins)
    last = 0.0
    for seconds in chunks:
        ended = free[0] + seconds
        last = max(last, ended)
        heapq.heapreplace(free, ended + between_s)
    return last


def _assumptions(measured: Measured, cores: int, exchange: str, overhead_s: float) -> tuple[str, ...]:
    chunks = f"An iteration has {measured.num_chunks:,} chunks of {measured.slots:,} episodes"
    idle = cores - measured.num_chunks
    if idle > 0:
        chunks += (
            f", so {idle:,} of {cores:,} cores have nothing to do; smaller chunks, which are another run, would use "
            "them."
        )
    else:
        chunks += f", {measured.num_chunks / cores:.1f} for each of {cores:,} cores."
    if overhead_s >= 0:
        beyond = (
            f"What the run spent beyond chunks and update, {overhead_s:.3g} s an iteration, stays as long as it was."
        )
    else:
        beyond = (
            f"On the measured {measured.cores:,} cores the model gives {-overhead_s:.3g} s an iteration more than was "
            "measured; nothing was taken off for it."
        )
    if exchange == "parameters":
        sharing = "the coordinator makes it while everybody waits."
    elif measured.update_blocks == 1:
        sharing = "every worker makes all of it."
    else:
        sharing = (
            f"its {measured.update_blocks} blocks are shared by the {CORES_PER_NODE} processes of a machine, without a "
            "wait."
        )
    return (
        chunks,
        f"A chunk takes {measured.chunk_s:.3g} s on one core of the measured machine, and as long on any core of the "
        "cluster, with all cores of a machine busy; its times are a log-normal with the measured mean and a variation "
        f"of {measured.length_variation:.2f} / sqrt({measured.slots}), as if episodes of a chunk had independent "
        "lengths.",
        beyond,
        f"An update takes one process {measured.update_s:.3g} s; {sharing} Perturbations are made again, not looked "
        "up.",
        f"A message takes {LATENCY_S * 1e3:.3g} ms and {MESSAGE_CPU_S * 1e6:.3g} us of the coordinator's processor; "
        f"links carry {BYTES_PER_SECOND / 1e6:,.0f} MB/s; the {exchange} go to each worker one by one.",
        "No worker dies, no chunk is computed twice, nothing else uses the cores, every long episode is waited for.",
        "Episodes stay as long as they were on average over the run; the coordinator has a core of its own.",
    )
