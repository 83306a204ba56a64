"""The loop of evolution strategies: a population's episodes in chunks, then one update."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from workhorse.core.algorithm import Algorithm, Population, State
from workhorse.core.types import Returns
from workhorse.environments import registry as environments
from workhorse.training.episodes import EpisodePlayer, Lanes, evaluation_of, make_player, num_chunks, num_lanes
from workhorse.training.loop import Evaluation, Failures, GoesOn, Loop, Message, Progress
from workhorse.training.population import PopulationPrograms
from workhorse.training.workforce import Local, Tally, Workforce

if TYPE_CHECKING:
    from workhorse.training.plan import Plan

__all__ = ["Evolve", "chunk_player", "chunk_size", "slots_of"]


def chunk_size(num_episodes: int, at_most: int = 64) -> int:
    """Return the slots of a chunk: an even number of chunks of equal size, as few as `at_most` slots allow.

    It depends on the population alone, never on the machine: a chunk's size is part of the result's bits.

    Example:
        >>> chunk_size(1), chunk_size(16), chunk_size(64), chunk_size(80), chunk_size(460)
        (1, 8, 32, 40, 58)
    """
    pairs_of_chunks = -(-num_episodes // (2 * at_most))
    return -(-num_episodes // (2 * pairs_of_chunks))


def slots_of(plan: Plan, algorithm: Population) -> int:
    """Return the slots of a chunk of a plan."""
    return plan.slots or chunk_size(algorithm.num_members * algorithm.episodes_per_member)


def chunk_player(plan: Plan, algorithm: Population, threads: int) -> EpisodePlayer:
    """Return a player of a plan's chunks with its own environment and simulation threads."""
    num_slots = slots_of(plan, algorithm)
    env = environments.make(plan.task, num_slots, threads, **plan.task_options)
    return make_player(algorithm, env, num_slots, plan.seed)


class Evolve(Loop):
    """Iterations of a population algorithm: evaluate every member, then update once.

    The population is never held: each chunk's members are made from their addresses, judged and forgotten; what is
    kept is four bytes an episode.
    """

    def __init__(self, programs: PopulationPrograms, workforce: Workforce) -> None:
        self.algorithm: Population = programs.algorithm
        self.num_slots = workforce.num_slots
        self.is_distributed = workforce.is_distributed
        self._programs = programs
        self._workforce = workforce

    @staticmethod
    def on_this_machine(plan: Plan, algorithm: Algorithm, threads: int) -> Evolve:
        """Return the loop with one or two lanes of this process, which share the simulation threads."""
        assert isinstance(algorithm, Population)
        programs = PopulationPrograms(algorithm, plan.seed)
        chunks = num_chunks(algorithm.num_members * algorithm.episodes_per_member, slots_of(plan, algorithm))
        count = num_lanes(threads, chunks)
        shares = [threads // count + (number < threads % count) for number in range(count)]
        lanes = Lanes([chunk_player(plan, algorithm, share) for share in shares])
        return Evolve(programs, Local(programs, lanes, threads))

    def start(self) -> Progress:
        return Progress(self._programs.init(), np.zeros((), np.int64), np.zeros((), np.int64))

    def iterate(
        self, progress: Progress, goes_on: GoesOn = lambda env_steps: False
    ) -> tuple[Progress, dict[str, float], Failures]:
        iteration = int(progress.iteration)
        tallies = self._play(progress.state, iteration)
        returns = self.returns_of(tallies)
        steps = sum(chunk.steps for chunk in tallies)
        self._workforce.announce(iteration, returns, goes_on(int(progress.env_steps) + steps))
        begun = time.perf_counter()
        state, update = self._programs.update(progress.state, iteration, returns, self._workforce.blocks())
        update["update_s"] = time.perf_counter() - begun
        failures = tuple(failure for chunk in tallies for failure in chunk.failures)
        after = Progress(state, progress.iteration + 1, progress.env_steps + steps)
        return after, {"steps": steps, "failed_episodes": len(failures), **_population(tallies), **update}, failures

    def _play(self, state: State, iteration: int) -> list[Tally]:
        """Return the chunks of the population, and those of the members that its steps call for."""
        algorithm = self.algorithm
        first = algorithm.num_members * algorithm.episodes_per_member
        tallies = self._workforce.play(state, iteration, range(first))
        more = algorithm.more_members(sum(chunk.steps for chunk in tallies)) * algorithm.episodes_per_member
        return tallies + self._workforce.play(state, iteration, range(first, first + more)) if more else tallies

    def returns_of(self, tallies: list[Tally]) -> Returns:
        """Return what the algorithm reads, from all chunks of an iteration in their order."""
        fitness = np.concatenate([chunk.fitness for chunk in tallies]).reshape(-1, self.algorithm.episodes_per_member)
        return Returns(
            fitness.astype(np.float64).mean(axis=1).astype(np.float32),
            np.float64(sum(chunk.steps for chunk in tallies) / fitness.size),
            self._programs.merge([chunk.observations for chunk in tallies]),
        )

    def evaluate(self, progress: Progress, num_episodes: int) -> Evaluation:
        chunks = self._workforce.evaluate(progress.state, int(progress.iteration), num_episodes)
        return evaluation_of(chunks, num_episodes)

    def metrics(self) -> dict[str, float]:
        return self._workforce.metrics()

    def messages(self) -> Sequence[Message]:
        return self._workforce.messages()

    def core_seconds(self) -> Mapping[str, float] | None:
        return self._workforce.core_seconds()

    def close(self) -> None:
        self._workforce.close()


def _population(tallies: list[Tally]) -> dict[str, float]:
    """Return mean, spread, best and worst raw return of the population's episodes, and their mean length.

    Where actions have bounds, also the share of them that lie at one bound.
    """
    count, mean, deviation = 0, 0.0, 0.0
    for chunk in tallies:
        size = len(chunk.fitness)
        apart, count = chunk.returns[0] - mean, count + size
        mean += apart * size / count
        deviation += chunk.returns[1] + apart * apart * (count - size) * size / count
    shares = [chunk.at_one_bound for chunk in tallies if not math.isnan(chunk.at_one_bound)]
    return {
        **({"actions_at_one_bound": sum(shares) / len(shares)} if shares else {}),
        "training_return": mean,
        "training_return_std": math.sqrt(deviation / count),
        "training_return_max": max(chunk.returns[3] for chunk in tallies),
        "training_return_min": min(chunk.returns[2] for chunk in tallies),
        "episode_length": sum(chunk.steps for chunk in tallies) / count,
    }
