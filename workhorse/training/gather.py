"""Whole episodes of a chunk of members, on a host environment or as one JAX program.

A chunk is the unit of work: a fixed number of slots, one episode each, named by addresses alone. What comes back does
not depend on which process ran it, on how many threads, or on what ran before.

Chunks run in two lanes at a time: while one lane's simulations step (the simulator releases Python's lock), the other
acts. With one lane the simulator's threads would sleep whenever Python acts, and waking them costs more than acting.
"""

import copy
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core.addresses import host_keys
from workhorse.core.algorithm import Key
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Moments
from workhorse.environments.protocol import HostEnv, JaxEnv
from workhorse.math import moments

__all__ = [
    "Episodes",
    "Gather",
    "HostGather",
    "JaxGather",
    "Lanes",
    "Stopped",
    "Work",
    "addressed",
    "found_episodes",
    "num_lanes",
    "whole_episodes",
]


BEGUN_TOGETHER = 8
"""Members whose parameters are made at once."""


class Work(NamedTuple):
    """One chunk's episodes, by address.

    Attributes:
        stream: where initial states are drawn from, "reset" in training and "evaluate" in evaluation.
        iteration: the iteration the episodes belong to.
        members: member of the population in each slot, int32 (B,); negative: the unperturbed policy.
        episodes: number of each episode within the iteration, int32 (B,); negative: the slot stays idle.
        limit: steps after which an episode is cut, or None for the task's own clock alone.
        explore: whether actions carry exploration noise.
    """

    stream: str
    iteration: int
    members: np.ndarray
    episodes: np.ndarray
    limit: int | None
    explore: bool


class Episodes(NamedTuple):
    """What a chunk's episodes gave, row by row as in `Work`; an idle slot has length 0.

    Attributes:
        fitness: undiscounted sum of raw rewards, float64 (B,).
        length: steps, int32 (B,).
        observations: moments of the observations acted on, merged slot by slot, float64.
        failures: one sentence for each slot whose simulation broke.
    """

    fitness: np.ndarray
    length: np.ndarray
    observations: Moments
    failures: tuple[str, ...]


class Stopped(Exception):
    """A chunk was given up because another lane failed or the user interrupted."""


class Gather(Protocol):
    """Runs chunks of a fixed number of slots, one at a time."""

    num_slots: int

    def __call__(self, actor: Any, work: Work, stop: threading.Event | None = None) -> Episodes: ...

    def close(self) -> None: ...


def num_lanes(num_threads: int, num_chunks: int) -> int:
    """Lanes that pay: two, unless there is but one thread or one chunk."""
    return min(2, num_threads, num_chunks)


class Lanes:
    """Several gatherers, each busy with a chunk of its own; which lane runs a chunk changes no bit of it."""

    def __init__(self, gathers: list[Gather]) -> None:
        self.num_slots = gathers[0].num_slots
        self._gathers = gathers
        self._pool = ThreadPoolExecutor(len(gathers)) if len(gathers) > 1 else None

    def run(self, actor: Any, works: Iterable[Work]) -> list[Episodes]:
        """Every chunk's episodes, in the order of the chunks.

        Raises:
            Whatever a chunk raised, after the other lanes have stopped.
        """
        if self._pool is None:
            return [self._gathers[0](actor, work) for work in works]
        stop, turns, lock = threading.Event(), enumerate(works), threading.Lock()
        found: dict[int, Episodes] = {}

        def lane(gather: Gather) -> None:
            for number, work in _taking_turns(turns, lock):
                found[number] = gather(actor, work, stop)

        lanes = [self._pool.submit(lane, gather) for gather in self._gathers]
        try:
            for future in lanes:
                future.add_done_callback(lambda done: stop.set() if done.exception() else None)
            for future in lanes:
                future.result()
        except BaseException:
            stop.set()
            failures = [future.exception() for future in lanes]
            for failure in failures:
                if failure is not None and not isinstance(failure, Stopped):
                    raise failure from None
            raise
        return [found[number] for number in sorted(found)]

    def close(self) -> None:
        """End the lanes' threads and environments."""
        if self._pool is not None:
            self._pool.shutdown()
        for gather in self._gathers:
            gather.close()


def _taking_turns(turns: Iterator[tuple[int, Work]], lock: threading.Lock) -> Iterator[tuple[int, Work]]:
    while True:
        with lock:
            turn = next(turns, None)
        if turn is None:
            return
        yield turn


class _Stepping(NamedTuple):
    """What a host chunk carries from step to step on the device: it is donated, so nothing is copied."""

    carry: Any
    observations: Moments
    time: jax.Array


class _Alive(NamedTuple):
    """The rows of the acting program whose slots still run: as numbers here, as a mask on the device."""

    rows: np.ndarray
    mask: jax.Array


class HostGather:
    """Episodes on a host environment: the environment steps the living slots, one compiled call acts for all.

    A finished slot is not stepped. The compiled call acts for a fixed number of rows; when three quarters of them
    stand for finished slots, the living ones move on to a program a quarter as wide, so that a few long episodes do
    not pay for many short ones. A row's bits do not depend on the program's width (a test holds it to that).
    """

    def __init__(self, algorithm: Any, env: HostEnv, root: int) -> None:
        self.num_slots = env.num_slots
        self._env = env
        self._root = root
        self._size = env.spec.observation.size
        self._begin = jax.jit(_begin(algorithm, self._size))
        self._act = {explore: jax.jit(_act(algorithm, explore), donate_argnums=1) for explore in (False, True)}
        self._keep = jax.jit(_keep)
        self._merge = jax.jit(lambda slots: moments.merge_all(slots, moments.empty(self._size, jnp.float64)))

    def __call__(self, actor: Any, work: Work, stop: threading.Event | None = None) -> Episodes:
        env, act = self._env, self._act[work.explore]
        fitness, length = np.zeros(self.num_slots), np.zeros(self.num_slots, np.int32)
        failures: list[str] = []
        living = np.flatnonzero(work.episodes >= 0)
        observations = np.zeros((self.num_slots, self._size))
        observations[living] = env.reset(
            host_keys(self._root, work.stream, work.iteration, work.episodes[living]), living
        )
        key = draw(root_key(self._root), "act", work.iteration)
        rows, stepping = np.arange(self.num_slots), self._begin(actor, work.members)
        seen = jax.tree.map(np.array, stepping.observations)
        alive, time = self._alive(rows, living), 0
        while len(living):
            if stop is not None and stop.is_set():
                raise Stopped
            everyone = len(living) == self.num_slots
            watched = observations if len(rows) == self.num_slots else observations[rows]
            action, stepping = act(actor, stepping, watched, alive.mask, work.episodes[rows], key)
            action = np.asarray(action)
            step = env.step(action) if everyone else env.step(action[alive.rows], living)
            time += 1
            if everyone:
                fitness += step.reward
                observations = step.next_obs
            else:
                fitness[living] += step.reward
                observations[living] = step.next_obs
            ended = step.terminated | step.truncated
            if time == work.limit:
                ended = np.ones_like(ended)
            if not ended.any():
                continue
            for slot in living[np.flatnonzero(step.measures["failed"])]:
                failures.append(self._failure(work, int(slot), time))
            length[living[ended]] = time
            if everyone:
                observations = np.array(observations)
            living = living[~ended]
            if 0 < len(living) <= len(rows) // 4:
                _note(seen, rows, stepping.observations)
                chosen = np.concatenate([alive.rows[~ended], np.setdiff1d(np.arange(len(rows)), alive.rows[~ended])])
                chosen = chosen[: len(rows) // 4]
                rows, stepping = rows[chosen], self._keep(stepping, chosen)
            alive = self._alive(rows, living)
        _note(seen, rows, stepping.observations)
        merged = jax.tree.map(np.asarray, self._merge(seen))
        return Episodes(fitness, length, merged, tuple(failures))

    def _alive(self, rows: np.ndarray, living: np.ndarray) -> "_Alive":
        mask = np.isin(rows, living)
        return _Alive(np.flatnonzero(mask), jnp.asarray(mask))

    def close(self) -> None:
        self._env.close()

    def _failure(self, work: Work, slot: int, time: int) -> str:
        reason = getattr(self._env, "failure_reason", lambda _: "the simulation failed")(slot)
        who = f"member {work.members[slot]}" if work.members[slot] >= 0 else "the unperturbed policy"
        return f"{who}, episode {work.episodes[slot]} of iteration {work.iteration}, step {time}: {reason}"


class JaxGather:
    """Episodes on a pure environment: one compiled program from reset to the last slot's end."""

    def __init__(self, algorithm: Any, env: JaxEnv, num_slots: int, root: int) -> None:
        self.num_slots = num_slots
        self._root = root
        self._size = env.spec.observation.size
        self._run = {explore: _compiled(repr(algorithm), algorithm, env, explore) for explore in (False, True)}

    def __call__(self, actor: Any, work: Work, stop: threading.Event | None = None) -> Episodes:
        return found_episodes(work, *self._run[work.explore](*addressed(actor, work, self._root)))

    def rooted(self, root: int) -> "JaxGather":
        """The same compiled programs with another run's addresses."""
        other = copy.copy(self)
        other._root = root
        return other

    def close(self) -> None:
        pass


@functools.lru_cache(maxsize=16)
def _compiled(exactly: str, algorithm: Any, env: JaxEnv, explore: bool) -> Callable[..., Any]:
    """One program for all runs of equal algorithms; `exactly` tells 1 from 1.0, which may make different ones."""
    return jax.jit(whole_episodes(algorithm, env, explore))


def addressed(actor: Any, work: Work, root: int) -> tuple[Any, ...]:
    """What `whole_episodes` takes for a chunk of the run with this root."""
    key = root_key(root)
    limit = np.iinfo(np.int32).max if work.limit is None else work.limit
    reset_key, act_key = draw(key, work.stream, work.iteration), draw(key, "act", work.iteration)
    return actor, work.members, work.episodes, reset_key, act_key, np.int32(limit)


def found_episodes(work: Work, fitness: Any, length: Any, merged: Moments) -> Episodes:
    """What `whole_episodes` gave for a chunk, on the host; a return that is not finite is a failure."""
    fitness = np.asarray(fitness)
    broken = np.flatnonzero(~np.isfinite(fitness))
    failures = tuple(f"episode {work.episodes[slot]}: its return is {fitness[slot]}" for slot in broken)
    return Episodes(fitness, np.asarray(length), jax.tree.map(np.asarray, merged), failures)


def _begin(algorithm: Any, size: int) -> Callable[..., _Stepping]:
    def begin(actor: Any, members: jax.Array) -> _Stepping:
        # a few members at a time: noise and what it is made of would otherwise be held for the whole chunk
        carry = jax.lax.map(lambda member: algorithm.begin(actor, member), members, batch_size=BEGUN_TOGETHER)
        unseen = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (members.shape[0], *leaf.shape)), moments.empty(size, jnp.float32)
        )
        return _Stepping(carry, unseen, jnp.zeros((), jnp.int32))

    return begin


def _keep(stepping: _Stepping, rows: jax.Array) -> _Stepping:
    carry, seen = jax.tree.map(lambda leaf: leaf[rows], (stepping.carry, stepping.observations))
    return _Stepping(carry, seen, stepping.time)


def _note(seen: Moments, rows: np.ndarray, newest: Moments) -> None:
    """Write the moments of the acting program's rows to their slots."""
    for kept, leaf in zip(seen, newest, strict=True):
        kept[rows] = np.asarray(leaf)


def _act(algorithm: Any, explore: bool) -> Callable[..., tuple[jax.Array, _Stepping]]:
    def act(
        actor: Any, stepping: _Stepping, obs: jax.Array, active: jax.Array, episodes: jax.Array, key: Key
    ) -> tuple[jax.Array, _Stepping]:
        obs = obs.astype(jnp.float32)

        def act_one(carry: Any, obs: jax.Array, episode: jax.Array) -> tuple[jax.Array, Any]:
            step_key = jax.random.fold_in(jax.random.fold_in(key, episode), stepping.time)
            action, carry, _ = algorithm.act(actor, carry, obs, step_key, explore=explore)
            return action, carry

        action, carry = jax.vmap(act_one)(stepping.carry, obs, episodes)
        seen = jax.vmap(moments.observe)(stepping.observations, obs, active)
        return action, _Stepping(carry, seen, stepping.time + 1)

    return act


def whole_episodes(algorithm: Any, env: JaxEnv, explore: bool) -> Callable[..., Any]:
    """A pure function from a chunk's addresses to its (fitness, length, moments): what `JaxGather` compiles."""
    begin, act = _begin(algorithm, env.spec.observation.size), _act(algorithm, explore)

    def run(
        actor: Any, members: jax.Array, episodes: jax.Array, reset_key: Key, act_key: Key, limit: jax.Array
    ) -> tuple[jax.Array, jax.Array, Moments]:
        states, obs = jax.vmap(lambda episode: env.reset(jax.random.fold_in(reset_key, episode)))(episodes)
        active = episodes >= 0
        fitness, length = jnp.zeros(members.shape, jnp.float64), jnp.zeros(members.shape, jnp.int32)

        def unfinished(loop: Any) -> jax.Array:
            return loop[3].any()

        def advance(loop: Any) -> Any:
            states, stepping, obs, active, fitness, length = loop
            action, stepping = act(actor, stepping, obs, active, episodes, act_key)
            # the physics of these tasks draws nothing; a noisy one would be handed its own address
            step_keys = jax.vmap(lambda episode: jax.random.fold_in(reset_key, episode))(episodes)
            step_keys = jax.vmap(lambda step_key: jax.random.fold_in(step_key, stepping.time))(step_keys)
            states, step = jax.vmap(env.step)(states, action, step_keys)
            fitness = fitness + jnp.where(active, step.reward, 0.0)
            length = length + active
            ended = step.terminated | step.truncated | (stepping.time >= limit)
            return states, stepping, step.next_obs, active & ~ended, fitness, length

        start = (states, begin(actor, members), obs, active, fitness, length)
        _, stepping, _, _, fitness, length = jax.lax.while_loop(unfinished, advance, start)
        unseen = moments.empty(env.spec.observation.size, jnp.float64)
        return fitness, length, moments.merge_all(stepping.observations, unseen)

    return run
