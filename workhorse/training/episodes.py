"""Whole episodes, chunk by chunk: the one player of episodes, for host environments and for pure ones.

A chunk is the unit of work: a fixed number of slots, one episode each, named by addresses alone. What comes back does
not depend on which process ran it, on how many threads, or on what ran before.
"""

import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from workhorse.core.algorithm import Action, Actor, Algorithm, Carry, Key, Population
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Moments
from workhorse.environments.batch import episode_keys
from workhorse.environments.protocol import HostEnv, JaxEnv, failure_reason
from workhorse.math import moments
from workhorse.networks.heads import task_action
from workhorse.training.action_bounds import EVERY, counted, ends_of, one_sided
from workhorse.training.loop import Evaluation

__all__ = [
    "EpisodePlayer",
    "Episodes",
    "Stopped",
    "Work",
    "evaluation_of",
    "evaluation_work",
    "make_player",
    "num_chunks",
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
        explore: actions carry exploration noise, or are drawn; in an evaluation from a stream of their own.
    """

    stream: str
    iteration: int
    members: np.ndarray
    episodes: np.ndarray
    limit: int | None
    explore: bool

    @property
    def act_stream(self) -> str:
        """Stream that actions are drawn from."""
        return "sample" if self.explore and self.stream == "evaluate" else "act"


class Episodes(NamedTuple):
    """A chunk's episodes, row by row as in `Work`; an idle slot has length 0.

    Attributes:
        returns: undiscounted sum of raw rewards, float64 (B,).
        length: steps, int32 (B,).
        observations: moments of the observations acted on, merged slot by slot, float64.
        failures: one sentence for each slot whose simulation broke.
        at_one_bound: share of the actions looked at that lie at one bound, see `action_bounds`; NaN where none has any.
        last_obs: last observation of each slot, (B, ...), where the algorithm describes episodes by it.
    """

    returns: np.ndarray
    length: np.ndarray
    observations: Moments
    failures: tuple[str, ...]
    at_one_bound: float = float("nan")
    last_obs: np.ndarray | None = None


class Stopped(Exception):
    """A chunk was given up because another lane failed or the user interrupted."""


def num_chunks(num_episodes: int, num_slots: int) -> int:
    """Return the number of chunks that hold `num_episodes` episodes.

    Example:
        >>> num_chunks(16, 8), num_chunks(17, 8)
        (2, 3)
    """
    return -(-num_episodes // num_slots)


def evaluation_work(iteration: int, num_episodes: int, num_slots: int, chunk: int, explore: bool = False) -> Work:
    """Return one chunk of an evaluation: the unperturbed policy to the task's own clock, its actions drawn on demand.

    Initial states come from the address (root, "evaluate", iteration, episode), so an evaluation neither depends on
    the training before it nor changes the training after it.
    """
    members = np.full(num_slots, -1, np.int32)
    return Work("evaluate", iteration, members, numbered(chunk, num_episodes, num_slots), None, explore)


def numbered(chunk: int, total: int, num_slots: int) -> np.ndarray:
    """Return the numbers of a chunk's episodes, int32 (B,); -1 beyond the last of `total`."""
    episodes = chunk * num_slots + np.arange(num_slots, dtype=np.int32)
    return np.where(episodes < total, episodes, -1).astype(np.int32)


def evaluation_of(chunks: list[Episodes], num_episodes: int) -> Evaluation:
    """Return the evaluation that chunks make up, in their order, the idle slots of the last left out.

    Raises:
        RuntimeError: the chunks hold another number of episodes, so they answer another question.
    """
    length = np.concatenate([chunk.length for chunk in chunks])
    played = int((length > 0).sum())
    if played != num_episodes or not length[:num_episodes].all():
        raise RuntimeError(f"An evaluation of {num_episodes} episodes was answered with {played}.")
    return Evaluation(
        np.concatenate([chunk.returns for chunk in chunks])[:num_episodes],
        length[:num_episodes],
        tuple(failure for chunk in chunks for failure in chunk.failures),
    )


class EpisodePlayer(ABC):
    """Plays chunks of a fixed number of slots, one at a time. Made by `make_player`."""

    num_slots: int

    @abstractmethod
    def play(
        self, actor: Actor, works: Iterable[tuple[int, Work]], stop: threading.Event | None = None
    ) -> Iterator[tuple[int, Episodes]]:
        """Play the numbered chunks one after the other.

        Raises:
            Stopped: `stop` was set.
        """

    def close(self) -> None:  # noqa: B027  a pure environment has nothing to free
        """Free the environment."""


def make_player(algorithm: Algorithm, env: HostEnv | JaxEnv, num_slots: int, root: int) -> EpisodePlayer:
    """Return what plays an algorithm's episodes on an environment; `num_slots` is that of a host environment."""
    if isinstance(env, HostEnv):
        return _HostEpisodes(algorithm, env, root)
    return _JaxEpisodes(algorithm, env, num_slots, root)


class _Stepping(NamedTuple):
    """State of a host chunk on the device, from step to step: it is donated, so nothing is copied."""

    carry: Carry
    observations: Moments
    time: jax.Array


class _Alive(NamedTuple):
    """The rows of the acting program whose slots still run: as numbers here, as a mask on the device."""

    rows: np.ndarray
    mask: jax.Array


class _HostEpisodes(EpisodePlayer):
    """Episodes on a host environment: the environment steps the living slots, one compiled call acts for all.

    A finished slot is not stepped. The compiled call acts for a fixed number of rows; when three quarters of them
    stand for finished slots, the living ones move on to a program a quarter as wide, so that a few long episodes do
    not pay for many short ones. A row's bits do not depend on the program's width (a test holds it to that).
    """

    def __init__(self, algorithm: Algorithm, env: HostEnv, root: int) -> None:
        self.num_slots = env.num_slots
        self._env, self._root = env, root
        self._space = env.spec.observation
        self._describes = _describes(algorithm)
        self._begin, self._act, self._keep, self._merge = _host_programs(repr(algorithm), algorithm, self._space.size)

    def play(
        self, actor: Actor, works: Iterable[tuple[int, Work]], stop: threading.Event | None = None
    ) -> Iterator[tuple[int, Episodes]]:
        for number, work in works:
            yield number, self._chunk(actor, work, stop or threading.Event())

    def _chunk(self, actor: Actor, work: Work, stop: threading.Event) -> Episodes:
        env, act = self._env, self._act[work.explore]
        returns, length = np.zeros(self.num_slots), np.zeros(self.num_slots, np.int32)
        failures: list[str] = []
        living = np.flatnonzero(work.episodes >= 0)
        observations = np.zeros((self.num_slots, *self._space.shape))
        observations[living] = env.reset(
            episode_keys(self._env, self._root, work.stream, work.iteration, work.episodes[living]), living
        )
        key = draw(root_key(self._root), work.act_stream, work.iteration)
        ends, at_ends, looked_at = ends_of(env.spec.action), 0, 0
        rows, stepping = np.arange(self.num_slots), self._begin(actor, work.members)
        seen = jax.tree.map(np.array, stepping.observations)
        alive, time = _alive(rows, living), 0
        while len(living):
            if stop.is_set():
                raise Stopped
            everyone = len(living) == self.num_slots
            watched = observations if len(rows) == self.num_slots else observations[rows]
            action, stepping = act(actor, stepping, watched, alive.mask, work.episodes[rows], key)
            action = np.asarray(action) if everyone else np.asarray(action)[alive.rows]
            if ends is not None and time % EVERY == 0:
                at_ends, looked_at = at_ends + counted(ends, action), looked_at + len(action)
            step = env.step(action) if everyone else env.step(action, living)
            time += 1
            if everyone:  # the common case, without the copies that indexing makes
                returns += step.reward
                observations = step.next_obs
            else:
                returns[living] += step.reward
                observations[living] = step.next_obs
            ended = step.terminated | step.truncated
            if time == work.limit:
                ended = np.ones_like(ended)
            if not ended.any():
                continue
            failures += [self._failure(work, slot, time) for slot in living[step.measures["failed"]].tolist()]
            length[living[ended]] = time
            if everyone:
                observations = np.array(observations)  # what a step returned may be read-only
            living = living[~ended]
            if 0 < len(living) <= len(rows) // 4:
                _note(seen, rows, stepping.observations)
                chosen = np.concatenate([alive.rows[~ended], np.setdiff1d(np.arange(len(rows)), alive.rows[~ended])])
                chosen = chosen[: len(rows) // 4]
                rows, stepping = rows[chosen], self._keep(stepping, chosen)
            alive = _alive(rows, living)
        _note(seen, rows, stepping.observations)
        share = one_sided(ends, at_ends, looked_at) if ends is not None else float("nan")
        last_obs = np.array(observations) if self._describes else None
        return Episodes(returns, length, jax.tree.map(np.asarray, self._merge(seen)), tuple(failures), share, last_obs)

    def close(self) -> None:
        self._env.close()

    def _failure(self, work: Work, slot: int, time: int) -> str:
        who = f"member {work.members[slot]}" if work.members[slot] >= 0 else "the unperturbed policy"
        why = failure_reason(self._env, slot)
        return f"{who}, episode {work.episodes[slot]} of iteration {work.iteration}, step {time}: {why}"


def _alive(rows: np.ndarray, living: np.ndarray) -> _Alive:
    mask = np.isin(rows, living)
    return _Alive(np.flatnonzero(mask), jnp.asarray(mask))


class _JaxEpisodes(EpisodePlayer):
    """Episodes on a pure environment: one compiled program from reset to the last slot's end."""

    def __init__(self, algorithm: Algorithm, env: JaxEnv, num_slots: int, root: int) -> None:
        self.num_slots = num_slots
        self._root, self._ends = root, ends_of(env.spec.action)
        self._run = {explore: _compiled(repr(algorithm), algorithm, env, explore) for explore in (False, True)}

    def play(
        self, actor: Actor, works: Iterable[tuple[int, Work]], stop: threading.Event | None = None
    ) -> Iterator[tuple[int, Episodes]]:
        key, no_limit = root_key(self._root), np.iinfo(np.int32).max
        for number, work in works:
            if stop is not None and stop.is_set():
                raise Stopped
            limit = np.int32(no_limit if work.limit is None else work.limit)
            reset_key, act_key = draw(key, work.stream, work.iteration), draw(key, work.act_stream, work.iteration)
            found = self._run[work.explore](actor, work.members, work.episodes, reset_key, act_key, limit)
            returns, length, merged, at_ends, last_obs = jax.tree.map(np.asarray, found)
            broken = np.flatnonzero(~np.isfinite(returns))  # a pure environment cannot say more of what went wrong
            failures = tuple(f"episode {work.episodes[slot]}: its return is {returns[slot]}" for slot in broken)
            share = float("nan") if self._ends is None else one_sided(self._ends, at_ends, int(length.sum()))
            yield number, Episodes(returns, length, merged, failures, share, last_obs)


@functools.lru_cache(maxsize=16)
def _compiled(exactly: str, algorithm: Algorithm, env: JaxEnv, explore: bool) -> Callable[..., tuple[Any, ...]]:
    """One program for all runs of equal algorithms; `exactly` tells 1 from 1.0, which may make different ones."""
    return jax.jit(_whole_episodes(algorithm, env, explore))


@functools.lru_cache(maxsize=16)
def _host_programs(exactly: str, algorithm: Algorithm, size: int) -> tuple[Any, dict[bool, Any], Any, Any]:
    """Programs that begin a chunk, act, keep some rows and merge moments: one set for all lanes of a process."""
    return (
        jax.jit(_begin(algorithm, size)),
        {explore: jax.jit(_act(algorithm, explore), donate_argnums=1) for explore in (False, True)},
        jax.jit(_keep),
        jax.jit(lambda slots: moments.merge_all(slots, moments.empty(size, jnp.float64))),
    )


def _begin(algorithm: Algorithm, size: int) -> Callable[..., _Stepping]:
    def begin(actor: Actor, members: jax.Array) -> _Stepping:
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


def _act(algorithm: Algorithm, explore: bool) -> Callable[..., tuple[jax.Array, _Stepping]]:
    def act(
        actor: Actor, stepping: _Stepping, obs: jax.Array, active: jax.Array, episodes: jax.Array, key: Key
    ) -> tuple[jax.Array, _Stepping]:
        obs = obs.astype(jnp.float32)

        def act_one(carry: Carry, obs: jax.Array, episode: jax.Array) -> tuple[Action, Carry]:
            step_key = jax.random.fold_in(jax.random.fold_in(key, episode), stepping.time)
            action, carry, _ = algorithm.act(actor, carry, obs, step_key, explore=explore)
            return task_action(algorithm.spec, action), carry

        action, carry = jax.vmap(act_one)(stepping.carry, obs, episodes)
        flat = obs.reshape(obs.shape[0], -1)
        seen = jax.vmap(moments.observe)(stepping.observations, flat, active)
        return action, _Stepping(carry, seen, stepping.time + 1)

    return act


def _whole_episodes(algorithm: Algorithm, env: JaxEnv, explore: bool) -> Callable[..., tuple[Any, ...]]:
    """What `_JaxEpisodes` compiles: a pure function of a chunk to its returns, length, moments, counts at bounds."""
    begin, act, ends = _begin(algorithm, env.spec.observation.size), _act(algorithm, explore), ends_of(env.spec.action)
    describes = _describes(algorithm)

    def run(
        actor: Actor, members: jax.Array, episodes: jax.Array, reset_key: Key, act_key: Key, limit: jax.Array
    ) -> tuple[jax.Array, jax.Array, Moments, PyTree, jax.Array | None]:
        states, obs = jax.vmap(lambda episode: env.reset(jax.random.fold_in(reset_key, episode)))(episodes)
        active = episodes >= 0
        returns, length = jnp.zeros(members.shape, jnp.float64), jnp.zeros(members.shape, jnp.int32)

        def unfinished(loop: PyTree) -> jax.Array:
            return loop[3].any()

        def advance(loop: PyTree) -> PyTree:
            states, stepping, obs, active, returns, length, at_ends = loop
            action, stepping = act(actor, stepping, obs, active, episodes, act_key)
            if ends is not None:
                at_ends = jax.tree.map(jnp.add, at_ends, counted(ends, action, active[:, None]))
            # the physics of these tasks draws nothing; a noisy one would be handed its own address
            step_keys = jax.vmap(lambda episode: jax.random.fold_in(reset_key, episode))(episodes)
            step_keys = jax.vmap(lambda step_key: jax.random.fold_in(step_key, stepping.time))(step_keys)
            states, step = jax.vmap(env.step)(states, action, step_keys)
            returns = returns + jnp.where(active, step.reward, 0.0)
            length = length + active
            ended = step.terminated | step.truncated | (stepping.time >= limit)
            newest = step.next_obs
            if describes:  # a slot that is over keeps its last observation
                newest = jnp.where(active.reshape(-1, *[1] * (obs.ndim - 1)), newest, obs)
            return states, stepping, newest, active & ~ended, returns, length, at_ends

        nowhere = () if ends is None else (jnp.zeros(ends.low.shape, jnp.int64),) * 2
        start = (states, begin(actor, members), obs, active, returns, length, nowhere)
        _, stepping, last, _, returns, length, at_ends = jax.lax.while_loop(unfinished, advance, start)
        unseen = moments.empty(env.spec.observation.size, jnp.float64)
        seen = moments.merge_all(stepping.observations, unseen)
        return returns, length, seen, at_ends, last if describes else None

    return run


def _describes(algorithm: Algorithm) -> bool:
    return isinstance(algorithm, Population) and algorithm.behaviour_size > 0
