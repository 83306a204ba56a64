"""The arrays of a replay, which programs write in place, and their rows on disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from workhorse.core.algorithm import OffPolicy
from workhorse.core.errors import UsageError
from workhorse.core.machine import describe_hardware
from workhorse.core.spec import EnvSpec
from workhorse.data import replay
from workhorse.data.replay import Cursor, ReplayRows, Size
from workhorse.training.loop import Progress, Segments

__all__ = ["ReplayArrays", "check_replay_memory", "replay_bytes", "size_of"]

MEMORY_SHARE = 0.8
"""Share of the machine's memory that replays may take."""


class ReplayArrays:
    """The arrays of a replay, of which there is one copy: every program that writes them is given them to keep.

    *So an iteration can only go on from the progress that the arrays belong to*: the newest one, the start, or the one
    that was restored.

    Attributes:
        size: of the replay.
    """

    def __init__(self, size: Size, spec: EnvSpec) -> None:
        self.size, self._spec = size, spec
        # what the last program returned, the arrays first; made when they are needed, for an evaluation needs none
        self._results: deque[tuple[ReplayRows, Any]] = deque(maxlen=1)
        self._held: tuple[int, int] = (0, 0)  # steps of a slot and final observations, ever

    @property
    def rows(self) -> ReplayRows:
        """The arrays. *Keep no view of them*: a program that is given an array of which there is a view copies it."""
        if not self._results:
            self._results.append((replay.empty_rows(self.size, self._spec.observation, self._spec.action), None))
        return self._results[0][0]

    def given_to(self, program: Callable[..., tuple[ReplayRows, Any]], *arguments: Any) -> Any:
        """Call a program that takes the arrays first and returns them first; keep them, and return the rest.

        *Ctrl-C may come between any two steps of Python*: for one, between the program's return and the line that
        would keep its result, when the arrays that it was given are gone. `extend` over `map` is a single step.
        """
        self._results.extend(map(program, (self.rows,), *((one,) for one in arguments)))
        return self._results[0][1]

    def hold(self, count: int | None = None, finals: int | None = None) -> None:
        """Note how many steps of a slot, and how many final observations, were ever written."""
        before = self._held
        self._held = before[0] if count is None else count, before[1] if finals is None else finals

    def require(self, cursor: Cursor) -> None:
        """Raise a `RuntimeError` where the arrays do not hold the steps of a progress; begin again for the start."""
        wanted = int(cursor.count), int(cursor.finals)
        if wanted == (0, 0):
            self._held = wanted
        if wanted != self._held:
            raise RuntimeError(
                f"The replay holds {self._held[0]:,} steps a slot, and the progress was made with {wanted[0]:,}: an "
                "iteration can only follow the newest one, the start, or a checkpoint with its replay."
            )

    def read(self, names: Sequence[str], numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Return rows of some arrays by their numbers, as many at a time as an iteration writes."""
        step, found = self.size.spare, []
        arrays = {name: getattr(self.rows, name) for name in names}
        for begin in range(0, max(len(numbers), 1), step):
            some = numbers[begin : begin + step]
            places = {name: np.resize(some % length, step) for name, length in self._lengths(names).items()}
            taken = jax.device_get(_taken(arrays, places))
            found.append({name: array[: len(some)] for name, array in taken.items()})
        return {name: np.concatenate([one[name] for one in found]) for name in names}

    def put_back(self, numbers: np.ndarray, given: Mapping[str, np.ndarray]) -> None:
        """Write rows of a checkpoint by their numbers; `hold` notes that they are there."""
        step, lengths = self.size.spare, self._lengths(list(given))
        for begin in range(0, len(numbers), step):
            some = slice(begin, begin + step)
            count = len(numbers[some])
            places = {name: np.full(step, length) for name, length in lengths.items()}  # beyond the end: dropped
            parts = {name: np.zeros((step, *array.shape[1:]), array.dtype) for name, array in given.items()}
            for name, array in given.items():
                places[name][:count], parts[name][:count] = numbers[some] % lengths[name], array[some]
            self.given_to(_put, places, parts)

    def _lengths(self, names: Sequence[str]) -> dict[str, int]:
        other = {"obs": self.size.rows + 1, "finals": self.size.final_rows}
        return {name: other.get(name, self.size.rows) for name in names}

    def segments(self) -> dict[str, Segments]:
        """Return the arrays as append-only rows, by name."""
        return {"replay": _Steps(self), "final_observations": _Finals(self)}

    def clear(self) -> None:
        """Free the memory."""
        self._results.clear()


class _Steps:
    """The steps of a replay, a row of all slots at a time, as append-only rows."""

    def __init__(self, arrays: ReplayArrays) -> None:
        self._arrays = arrays

    def cursor(self, progress: Progress) -> tuple[int, int]:
        cursor: Cursor = progress.data.cursor
        return int(cursor.first), int(cursor.count)

    def read(self, begin: int, end: int) -> dict[str, np.ndarray]:
        return self._arrays.read(_OF_A_STEP, np.arange(begin, end))

    def restore(self, begin: int, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        time = begin
        for part in parts:
            self._arrays.put_back(time + np.arange(len(part["reward"])), {name: part[name] for name in _OF_A_STEP})
            time += len(part["reward"])
        self._arrays.hold(count=time)


class _Finals:
    """The final observations of a replay, as append-only rows."""

    def __init__(self, arrays: ReplayArrays) -> None:
        self._arrays = arrays

    def cursor(self, progress: Progress) -> tuple[int, int]:
        ever = int(progress.data.cursor.finals)
        return max(ever - self._arrays.size.finals, 0), ever

    def read(self, begin: int, end: int) -> dict[str, np.ndarray]:
        return self._arrays.read(["finals"], np.arange(begin, end))

    def restore(self, begin: int, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
        number = begin
        for part in parts:
            self._arrays.put_back(number + np.arange(len(part["finals"])), {"finals": part["finals"]})
            number += len(part["finals"])
        self._arrays.hold(finals=number)


_OF_A_STEP = tuple(name for name in ReplayRows._fields if name != "finals")
"""Arrays of `ReplayRows` that have a row for each time."""


@jax.jit
def _taken(arrays: dict[str, jax.Array], places: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return rows of arrays."""
    return {name: array[places[name]] for name, array in arrays.items()}


@partial(jax.jit, donate_argnums=0)
def _put(rows: ReplayRows, places: dict[str, jax.Array], given: dict[str, jax.Array]) -> tuple[ReplayRows, None]:
    """Write rows of arrays; what lies beyond the end of an array is dropped."""
    put = {name: getattr(rows, name).at[places[name]].set(part, mode="drop") for name, part in given.items()}
    return rows._replace(**put), None


def size_of(algorithm: OffPolicy) -> Size:
    """Return the size of an algorithm's replay."""
    return Size.of(algorithm.replay_capacity, algorithm.num_envs, algorithm.rollout_steps)


def replay_bytes(algorithm: OffPolicy) -> int:
    """Return the bytes of an algorithm's replay."""
    return replay.bytes_needed(size_of(algorithm), algorithm.spec.observation, algorithm.spec.action)


def check_replay_memory(algorithm: OffPolicy, num_runs: int = 1) -> None:
    """Raise a `UsageError` where the replays of runs in one process do not fit into the machine's memory."""
    needed, there = num_runs * replay_bytes(algorithm), describe_hardware().memory_bytes
    if not there or needed <= MEMORY_SHARE * there:
        return
    fits = int(algorithm.replay_capacity * MEMORY_SHARE * there / needed)
    of = "" if num_runs == 1 else f" in each of {num_runs} runs in one process"
    task = algorithm.spec.task
    raise UsageError(
        f"{type(algorithm).__name__}.replay_capacity of {algorithm.replay_capacity:,} steps of {task}{of} needs "
        f"{needed / 2**30:,.1f} GiB, and this machine has {there / 2**30:,.1f}: about {fits:,} steps would fit, which "
        "leaves a fifth of the memory to everything else. Lower replay_capacity to that."
    )
