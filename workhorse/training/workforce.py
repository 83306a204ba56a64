"""Processes that play an iteration's episodes: this one's lanes, or anything else that gives the same answers."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from workhorse.core.algorithm import Population, State
from workhorse.core.types import Moments, Returns
from workhorse.training.episodes import Episodes, Work, num_chunks, numbered
from workhorse.training.lanes import Lanes, LaneWork
from workhorse.training.loop import Message
from workhorse.training.population import Blocks, BlockThreads, PopulationPrograms

__all__ = ["NextIteration", "Local", "Tally", "Workforce", "tally", "training_work"]


class Tally(NamedTuple):
    """A training chunk in few numbers: all that leaves the process that played it.

    Attributes:
        fitness: what the search climbs, an episode, in the chunk's order, idle slots left out; float32.
        steps: environment steps.
        returns: mean, sum of squared deviations, least and greatest of the raw returns.
        observations: moments of the observations acted on, float64.
        failures: one sentence for each episode whose simulation broke.
        at_one_bound: share of actions at one bound, see `action_bounds`.
        behaviour: what the algorithm says that an episode was like, float16 (E, k).
    """

    fitness: np.ndarray
    steps: int
    returns: tuple[float, float, float, float]
    observations: Moments
    failures: tuple[str, ...]
    at_one_bound: float = math.nan
    behaviour: np.ndarray | None = None


class NextIteration:
    """The iteration after the one that is played, where a lag lets it begin before that one is over.

    Attributes:
        iteration: its number.
        episodes: its episodes.
        due: the returns whose step leads to its state.
        goes_on: tells from the steps of the iteration before it, as far as they are in, whether it may begin.
    """

    def __init__(
        self, iteration: int, episodes: range, due: Returns, goes_on: Callable[[int], bool], step: Callable[[], State]
    ) -> None:
        self.iteration, self.episodes, self.due, self.goes_on = iteration, episodes, due, goes_on
        self._step, self._lock = step, threading.Lock()
        self._state: list[State] = []

    @property
    def state(self) -> State:
        """Its state as far as acting goes; it is computed by whoever asks first."""
        with self._lock:
            if not self._state:
                self._state.append(self._step())
            return self._state[0]


class Workforce(ABC):
    """Plays all chunks of an iteration. Which of them ran where changes no bit of the result."""

    num_slots: int
    is_distributed: bool = False

    @abstractmethod
    def play(
        self, state: State, iteration: int, episodes: range, following: NextIteration | None = None
    ) -> list[Tally]:
        """Return every training chunk of these episodes of an iteration, in order.

        Whoever finds nothing left to do may begin what follows, which the next call then asks for.
        """

    def forget(self) -> None:  # noqa: B027  most begin nothing early
        """Give up what was begun of an iteration that was to follow."""

    @abstractmethod
    def evaluate(self, state: State, iteration: int, num_episodes: int) -> list[Episodes]:
        """Return noiseless episodes of the unperturbed policy, by chunks, in order."""

    def announce(self, iteration: int, returns: Returns, goes_on: bool) -> None:  # noqa: B027  most have nobody to tell
        """Take note that the iteration's episodes are complete and the state is about to move by `returns`.

        `goes_on` says that the next iteration follows at once. It is a forecast: nothing goes wrong if it does not.
        """

    @property
    @abstractmethod
    def blocks(self) -> Blocks:
        """Function that computes the blocks of the update's sum."""

    def metrics(self) -> dict[str, float]:
        """Return numbers of this iteration that say what the work cost: no part of the result."""
        return {}

    def messages(self) -> Sequence[Message]:
        """Return the messages since the last call."""
        return ()

    def core_seconds(self) -> Mapping[str, float] | None:
        """Return the seconds that cores of each kind were held since the last call; None for the run's own threads."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Let the workers go."""


class Local(Workforce):
    """The lanes of this process, and its threads for the blocks of an update."""

    def __init__(self, programs: PopulationPrograms, lanes: Lanes, threads: int = 1) -> None:
        self.num_slots = lanes.num_slots
        self._programs = programs
        self._lanes = lanes
        self._blocks = BlockThreads(threads)
        self._ahead: tuple[tuple[int, range], LaneWork] | None = None

    @property
    def blocks(self) -> Blocks:
        return self._blocks

    def play(
        self, state: State, iteration: int, episodes: range, following: NextIteration | None = None
    ) -> list[Tally]:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == (iteration, episodes):
            batch = ahead[1]
            batch.may_begin = lambda: True
            self._lanes.look_again()
        else:
            self._drop(ahead)
            batch = self._lanes.give(self._batch(state, iteration, episodes))
        if following is not None and self._lanes.size > 1:  # a single lane is never left without work
            try:
                after = self._batch(following.state, following.iteration, following.episodes)
            except BaseException:
                batch.stop.set()
                raise
            after.may_begin = lambda: following.goes_on(batch.steps)
            self._ahead = (following.iteration, following.episodes), self._lanes.give(after)
        return [tally(self._programs.algorithm, found) for found in batch.results()]

    def forget(self) -> None:
        self._drop(self._ahead)
        self._ahead = None

    def evaluate(self, state: State, iteration: int, num_episodes: int) -> list[Episodes]:
        return self._lanes.evaluate(self._programs.actor(state), iteration, num_episodes)

    def close(self) -> None:
        self.forget()
        self._blocks.close()
        self._lanes.close()

    def _batch(self, state: State, iteration: int, episodes: range) -> LaneWork:
        algorithm, slots = self._programs.algorithm, self.num_slots
        chunks, limit = range(num_chunks(len(episodes), slots)), algorithm.episode_steps(state)
        works = (training_work(algorithm, iteration, slots, chunk, limit, episodes) for chunk in chunks)
        return LaneWork(self._programs.actor(self._programs.acting(state)), works)

    def _drop(self, ahead: tuple[tuple[int, range], LaneWork] | None) -> None:
        if ahead is not None:
            ahead[1].stop.set()
            self._lanes.look_again()


def training_work(
    algorithm: Population, iteration: int, num_slots: int, chunk: int, limit: int | None, episodes: range
) -> Work:
    """Return one chunk of these episodes of an iteration; `limit` is the algorithm's `episode_steps`."""
    chosen = numbered(chunk, len(episodes), num_slots)
    numbers = np.where(chosen < 0, -1, chosen + episodes.start).astype(np.int32)
    members = np.where(chosen < 0, -1, numbers // algorithm.episodes_per_member).astype(np.int32)
    starts = np.where(chosen < 0, -1, algorithm.starts(numbers)).astype(np.int32)
    return Work("reset", iteration, members, starts, limit, True)


def tally(algorithm: Population, episodes: Episodes) -> Tally:
    """Return the few numbers that a chunk's episodes come to."""
    ran = episodes.length > 0
    returns, length = episodes.returns[ran], episodes.length[ran]
    mean = math.fsum(returns) / len(returns)
    deviation = math.fsum((value - mean) ** 2 for value in returns)
    return Tally(
        np.asarray(algorithm.fitness(returns, length), np.float32),
        int(length.sum()),
        (mean, deviation, float(returns.min()), float(returns.max())),
        episodes.observations,
        episodes.failures,
        episodes.at_one_bound,
        None if episodes.last_obs is None else algorithm.describe(episodes.last_obs[ran]),
    )
