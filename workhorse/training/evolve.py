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
from workhorse.training.episodes import EpisodePlayer, evaluation_of, make_player, num_chunks
from workhorse.training.lanes import Lanes, lane_threads
from workhorse.training.loop import Evaluation, Failures, GoesOn, Loop, Message, Progress
from workhorse.training.population import PopulationPrograms
from workhorse.training.workforce import Local, NextIteration, Tally, Workforce

if TYPE_CHECKING:
    from workhorse.training.plan import Plan

__all__ = ["Evolve", "chunk_player", "chunk_size", "make_lanes", "slots_of"]


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


def make_lanes(plan: Plan, algorithm: Population, threads: int) -> Lanes:
    """Return lanes for a plan's chunks that share a number of simulation threads."""
    chunks = num_chunks(algorithm.num_members * algorithm.episodes_per_member, slots_of(plan, algorithm))
    return Lanes([chunk_player(plan, algorithm, share) for share in lane_threads(threads, chunks)])


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
        self._expected: State = None

    @staticmethod
    def on_this_machine(plan: Plan, algorithm: Algorithm, threads: int) -> Evolve:
        """Return the loop with one or two lanes of this process, which share the simulation threads."""
        assert isinstance(algorithm, Population)
        programs = PopulationPrograms(algorithm, plan.seed)
        return Evolve(programs, Local(programs, make_lanes(plan, algorithm, threads), threads))

    def start(self) -> Progress:
        return Progress(self._programs.init(), np.zeros((), np.int64), np.zeros((), np.int64))

    def iterate(
        self, progress: Progress, goes_on: GoesOn = lambda env_steps: False
    ) -> tuple[Progress, dict[str, float], Failures]:
        learn = self._with_lag if self._programs.lags else self._without_lag
        state, tallies, update = learn(progress, goes_on)
        steps = sum(chunk.steps for chunk in tallies)
        failures = tuple(failure for chunk in tallies for failure in chunk.failures)
        after = Progress(state, progress.iteration + 1, progress.env_steps + steps)
        self._expected = state
        return after, {"steps": steps, "failed_episodes": len(failures), **_population(tallies), **update}, failures

    def _without_lag(self, progress: Progress, goes_on: GoesOn) -> tuple[State, list[Tally], dict[str, float]]:
        iteration = int(progress.iteration)
        tallies = self._play(progress.state, iteration)
        returns, steps = self.returns_of(tallies), sum(chunk.steps for chunk in tallies)
        self._workforce.announce(iteration, returns, goes_on(int(progress.env_steps) + steps))
        begun = time.perf_counter()
        state, update = self._programs.update(progress.state, iteration, returns, self._workforce.blocks)
        return state, tallies, update | {"update_s": time.perf_counter() - begun}

    def _with_lag(self, progress: Progress, goes_on: GoesOn) -> tuple[State, list[Tally], dict[str, float]]:
        """The step is known before the population is judged: whoever runs out of episodes begins the next one's."""
        programs, iteration, before = self._programs, int(progress.iteration), int(progress.env_steps)
        if progress.state is not self._expected:
            self._workforce.forget()
        due, update = programs.due(progress.state, None), {}

        def step() -> State:
            begun = time.perf_counter()
            state, metrics = programs.step(progress.state, iteration, due, self._workforce.blocks)
            update.update(metrics, update_s=time.perf_counter() - begun)
            return state

        episodes = range(self.algorithm.num_members * self.algorithm.episodes_per_member)
        following = NextIteration(iteration + 1, episodes, due, lambda steps: goes_on(before + steps), step)
        tallies = self._workforce.play(progress.state, iteration, episodes, following)
        return programs.kept(following.state, self.returns_of(tallies)), tallies, update

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
            self._behaviour(tallies),
        )

    def _behaviour(self, tallies: list[Tally]) -> np.ndarray | tuple[()]:
        """Return what the members' episodes were like, (P, k); nothing where the algorithm does not ask."""
        told = [chunk.behaviour for chunk in tallies if chunk.behaviour is not None]
        if not told:
            return ()
        rows = np.concatenate(told).astype(np.float32)
        return rows.reshape(-1, self.algorithm.episodes_per_member, rows.shape[1]).mean(1).astype(np.float16)

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
