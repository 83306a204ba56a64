"""Points of parameter space on a host environment, side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from workhorse.core.addresses import host_keys
from workhorse.core.randomness import root_key
from workhorse.diagnostics.points import Episodes, Point, action_keys, actions, episodes_of_halves, next_episodes
from workhorse.environments.protocol import HostEnv
from workhorse.training.gather import Stopped

__all__ = ["HostPlayer"]


class _Table:
    """Where P points stand: what each of their slots (P, 2, n) plays, and what was found of each point."""

    def __init__(self, count: int, half: int, limit: int) -> None:
        shape = (count, 2, half)
        self.limit = limit
        self.points: list[Point | None] = [None] * count
        self.wanted = np.zeros((count, 2), np.int64)
        self.pairs = np.zeros((count, 1), np.int64)
        self.begun = np.zeros((count, 2), np.int64)
        self.first_lengths = np.full(shape, limit, np.int64)
        self.playing = np.zeros(shape, np.bool_)
        self.number, self.length = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.earned = np.zeros(shape)
        self.returns: list[tuple[dict[int, float], dict[int, float]]] = [({}, {}) for _ in range(count)]
        self.steps, self.failed = [0] * count, [0] * count

    def seat(self, place: int, point: Point) -> None:
        """Make a place a point's."""
        self.points[place], self.pairs[place] = point, point.pairs
        self.begun[place], self.first_lengths[place] = 0, self.limit
        self.returns[place], self.steps[place], self.failed[place] = ({}, {}), 0, 0

    def begin(self) -> tuple[np.ndarray, ...]:
        """Begin what can be begun: the (place, half, slot) of each."""
        wanted = episodes_of_halves(self.first_lengths, self.pairs, self.first_lengths.shape[-1])
        self.wanted = wanted * np.array([[point is not None] for point in self.points])
        starts, number = next_episodes(self.playing, self.begun, self.wanted)
        self.begun += starts.sum(-1)
        self.playing |= starts
        self.number[starts], self.length[starts], self.earned[starts] = number[starts], 0, 0.0
        return np.nonzero(starts)

    def end(self, places: np.ndarray, halves: np.ndarray, slots: np.ndarray, failed: np.ndarray) -> None:
        """Note the episodes that ended."""
        self.playing[places, halves, slots] = False
        number, length = self.number[places, halves, slots], self.length[places, halves, slots]
        first = number < self.first_lengths.shape[-1]  # such an episode is in the slot of its own number
        self.first_lengths[places[first], halves[first], slots[first]] = length[first]
        earned = self.earned[places, halves, slots]
        for row, (place, half) in enumerate(zip(places.tolist(), halves.tolist(), strict=True)):
            self.returns[place][half][int(number[row])] = float(earned[row])
            self.steps[place] += int(length[row])
            self.failed[place] += int(failed[row])

    def over(self) -> Iterator[tuple[Point, Episodes]]:
        """What was found of the points that are over; their places become free."""
        wanted = episodes_of_halves(self.first_lengths, self.pairs, self.first_lengths.shape[-1])
        idle = ~self.playing.any((1, 2)) & (self.begun >= wanted).all(1)
        for place in np.flatnonzero(idle):
            point = self.points[place]
            if point is None:
                continue
            returns = [np.array([half[number] for number in range(len(half))]) for half in self.returns[place]]
            lengths = self.first_lengths[place].copy()
            self.points[place] = None
            yield point, Episodes((returns[0], returns[1]), lengths, self.steps[place], self.failed[place])


class HostPlayer:
    """Plays points on a host environment: one compiled call acts for all points, the environment steps what runs.

    A point that is over makes room for the next, so that the simulator always has most of its slots to step.
    """

    def __init__(self, algorithm: Any, actor: Any, env: HostEnv, slots: int, root: int) -> None:
        self._algorithm, self._actor, self._env = algorithm, actor, env
        self._root, self._half = root, slots // 2
        self._count = env.num_slots // slots
        self._policies = jax.jit(jax.vmap(ravel_pytree(actor.policy)[1]))

    def play(
        self, points: Iterator[Point], stop: threading.Event, progress: Callable[[int], None]
    ) -> Iterator[tuple[Point, Episodes]]:
        limit = self._env.spec.max_episode_steps
        assert limit is not None
        table = _Table(self._count, self._half, limit)
        obs = np.zeros((self._count, 2, self._half, *self._env.spec.observation.shape))
        policies, keys, changed = None, None, True
        while not stop.is_set():
            if changed:
                if self._fill(table, points):
                    policies, keys = self._placed(table)
                self._begin(table, obs)
                if not table.playing.any():
                    return
            action = np.asarray(self._act(policies, keys, table, obs))
            changed = self._step(table, obs, action, progress)
            if changed:
                yield from table.over()
        raise Stopped

    def close(self) -> None:
        self._env.close()

    def _fill(self, table: _Table, points: Iterator[Point]) -> bool:
        """Give free places to points; whether there was one."""
        free = [place for place, point in enumerate(table.points) if point is None]
        seated = list(zip(free, points, strict=False))  # `free` is asked first: no point is taken without a place
        for place, point in seated:
            table.seat(place, point)
        return bool(seated)

    def _placed(self, table: _Table) -> tuple[Any, Any]:
        """Policies and keys of the places; those of a free one are never looked at."""
        params = np.zeros((self._count, _size(self._actor)), np.float32)
        addresses = np.zeros(self._count, np.uint32)
        for place, point in enumerate(table.points):
            if point is not None:
                params[place], addresses[place] = point.params, point.address
        return self._policies(params), action_keys(root_key(self._root), addresses)

    def _begin(self, table: _Table, obs: np.ndarray) -> None:
        places, halves, slots = table.begin()
        if not len(places):
            return
        addresses = np.array([point.address if point else 0 for point in table.points])[places]
        numbers = table.number[places, halves, slots]
        rows = np.ravel_multi_index((places, halves, slots), table.playing.shape)
        obs[places, halves, slots] = self._env.reset(host_keys(self._root, "reset", addresses, halves, numbers), rows)

    def _act(self, policies: Any, keys: Any, table: _Table, obs: np.ndarray) -> Any:
        flat = (self._count, 2 * self._half)
        episode = (2 * table.number + np.arange(2)[:, None]).reshape(flat).astype(np.int32)
        return actions(
            self._algorithm,
            self._actor,
            policies,
            keys,
            obs.reshape(*flat, -1).astype(np.float32),
            episode,
            table.length.reshape(flat).astype(np.int32),
        )

    def _step(self, table: _Table, obs: np.ndarray, action: np.ndarray, progress: Callable[[int], None]) -> bool:
        """Step what runs; whether an episode ended."""
        at = np.nonzero(table.playing)
        rows = np.ravel_multi_index(at, table.playing.shape)
        step = self._env.step(action.reshape(-1, *action.shape[2:])[rows], rows)
        table.earned[at] += step.reward
        table.length[at] += 1
        obs[at] = step.next_obs
        progress(len(rows))
        ended = step.terminated | step.truncated
        if not ended.any():
            return False
        table.end(at[0][ended], at[1][ended], at[2][ended], step.measures["failed"][ended])
        return True


def _size(actor: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(actor.policy))
