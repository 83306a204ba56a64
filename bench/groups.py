"""Time an iteration of ten seeds that share one process, against one process a seed: `python bench/groups.py`.

A process for each seed is timed by one run alone, on one thread: a machine of C cores does C of them at a time. Both
leave out compilation, which a process for each seed pays each time it starts; it is printed too.
"""

import argparse
import threading
import time
from dataclasses import replace

from workhorse.core.machine import available_cores
from workhorse.training.groups import RunGroup, together
from workhorse.training.loop import MakeLoop, make_loop
from workhorse.training.plan import Plan

SEEDS = 10
CASES = (
    ("CartPole-v1", "openai-es", {}),
    ("Pendulum-v1", "openai-es", {}),
    ("CartPole-v1", "ars", {}),
    ("Pendulum-v1", "openai-es", {"policy": "mlp"}),
)


def measured(plan: Plan, iterations: int, threads: int) -> tuple[float, float, float]:
    """Return the seconds to compile, and an iteration of all seeds together, and in processes of their own."""
    begun = time.perf_counter()
    group = RunGroup({seed: replace(plan, seed=seed) for seed in range(SEEDS)}, threads=threads)
    with group.member(0):
        compiled = time.perf_counter() - begun
    ready, ends = threading.Barrier(SEEDS), []

    def one(seed: int, make: MakeLoop) -> None:
        loop = make(replace(plan, seed=seed), group.spec, 1)
        progress, _, _ = loop.iterate(loop.start())  # what each run compiles for itself
        ready.wait()
        begun = time.perf_counter()
        for _ in range(iterations):
            progress, _, _ = loop.iterate(progress)
        ends.append((begun, time.perf_counter()))

    for outcome in together(group, one).values():
        if isinstance(outcome, BaseException):
            raise outcome
    shared = (max(end for _, end in ends) - min(begun for begun, _ in ends)) / iterations
    loop = make_loop(plan, group.spec, 1)
    progress, _, _ = loop.iterate(loop.start())
    begun = time.perf_counter()
    for _ in range(iterations):
        progress, _, _ = loop.iterate(progress)
    return compiled, shared, (time.perf_counter() - begun) / iterations * SEEDS / threads


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--threads", type=int, default=available_cores())
    given = parser.parse_args()
    print(
        f"{SEEDS} seeds, {given.threads} threads; seconds: to compile, an iteration together, in processes of their own"
    )
    for task, algorithm, settings in CASES:
        found = measured(Plan(task, {}, algorithm, settings, 0), given.iterations, given.threads)
        print(f"{task:12} {algorithm:10} {settings!s:18}", *(f"{seconds:8.3f}" for seconds in found), flush=True)


if __name__ == "__main__":
    main()
