"""Whole episodes of many policies at once: points of parameter space, all through one wide batch of simulations.

A point has E slots of its own, in two halves. How many episodes a half plays is decided by how long the first ones of
the *other* half were, never by its own: with n = E / 2 first episodes a half, of lengths l,

    episodes of a half = max(n, round(pairs / 2 / mean(l of the other half)))

The choice of the episodes that count is so independent of their returns, and the mean of each half, and the mean of the
two, is without bias. Playing until the steps are used up, and counting what was finished, would favour short episodes,
the more the fewer episodes a point has.

While an episode of the other half still runs it counts as long as the task's clock allows, which makes the number too
small for the moment and never too large: slots need not wait. Every episode has an address (point, half, number), so
that its bits do not depend on the points that are played beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from workhorse.algorithms.policy_gradient.policy_gradient import PolicyActor, PolicyGradient
from workhorse.core.algorithm import Action, Carry, Key
from workhorse.core.randomness import draw, root_key
from workhorse.environments.batch import JaxBatch, episode_keys
from workhorse.environments.protocol import HostEnv
from workhorse.networks.heads import task_action
from workhorse.training.episodes import Stopped
from workhorse.training.lanes import Turns, finished

__all__ = ["NARROW", "WIDTH", "Player", "Point", "PointEpisodes", "episodes_of_halves", "play"]

WIDTH = 512
"""Slots of a player; with fewer the simulator's threads are idle. With two points or more side by side the width does
not change a point's bits; a single point would be another program, which rounds otherwise."""

NARROW = 64
"""Slots of a player where each is a simulator of its own, in worker processes."""


class Point(NamedTuple):
    """A policy to play.

    Attributes:
        number: of the point, for the caller.
        address: of its randomness; points of equal address have the same starts and the same noise of actions.
        params: of the policy, float32 (d,).
        pairs: steps to play, about; 0 for one episode a slot.
    """

    number: int
    address: int
    params: np.ndarray
    pairs: int


class PointEpisodes(NamedTuple):
    """The episodes of a point.

    Attributes:
        returns: undiscounted raw returns of each half's episodes, in the order of their numbers.
        first_lengths: steps of each half's first episodes, (2, E / 2).
        steps: of all episodes.
        failed: episodes whose simulation broke; they count, with the rewards up to there.
    """

    returns: tuple[np.ndarray, np.ndarray]
    first_lengths: np.ndarray
    steps: int
    failed: int


def episodes_of_halves(first_lengths: np.ndarray, pairs: int | np.ndarray, least: int) -> np.ndarray:
    """Return the episodes of each half, (..., 2), from the lengths of both halves' first ones, (..., 2, n).

    Example:
        >>> episodes_of_halves(np.array([[10, 10], [40, 60]]), 1000, 2)
        array([10, 50])
    """
    other = first_lengths.sum(-1)[..., ::-1]
    return np.maximum((pairs * first_lengths.shape[-1] + other) // (2 * other), least)  # rounded


def play(
    players: Sequence[Player],
    points: Iterable[Point],
    found: Callable[[Point, PointEpisodes], None],
    progress: Callable[[int], None] = lambda env_steps: None,
) -> None:
    """Play every point, each by whichever player has room, all players at once.

    Args:
        players: of equal make.
        points: to be played.
        found: is told each point's episodes, one call at a time.
        progress: is told the number of steps just taken, one call at a time.
    """
    lock, stop = threading.Lock(), threading.Event()
    queue = Turns(points)

    def told(env_steps: int) -> None:
        with lock:
            progress(env_steps)

    def busy(player: Player) -> None:
        for point, episodes in player.play(queue, stop, told):
            with lock:
                found(point, episodes)

    if len(players) == 1:  # on the caller's thread, where Ctrl-C arrives
        busy(players[0])
        return
    with ThreadPoolExecutor(len(players)) as pool:
        finished([pool.submit(busy, player) for player in players], stop)


class Player:
    """Plays points side by side: one compiled call acts for all of them, the environment steps the slots that run.

    A point that is over makes room for the next, so that the simulator always has most of its slots to step.

    Args:
        algorithm, actor: of the policies; a point's parameters take the place of the actor's own.
        env: environment with a clock, closed by `close`.
        slots: slots of a point, even.
        root: of all that is drawn.
    """

    def __init__(self, algorithm: PolicyGradient, actor: PolicyActor, env: HostEnv, slots: int, root: int) -> None:
        self._algorithm, self._actor, self._env = algorithm, actor, env
        self._root, self._half = root, slots // 2
        self._count = env.num_slots // slots
        flat, unravel = ravel_pytree(actor.policy)
        self._size, self._policies = flat.size, jax.jit(jax.vmap(unravel))

    def play(
        self, points: Iterator[Point], stop: threading.Event, progress: Callable[[int], None]
    ) -> Iterator[tuple[Point, PointEpisodes]]:
        """Play points until there are none left.

        Raises:
            Stopped: `stop` was set.
        """
        limit = self._env.spec.max_episode_steps
        assert limit is not None  # or an episode need never end
        table = _Table(self._count, self._half, limit)
        obs = np.zeros((len(table.playing), *self._env.spec.observation.shape))
        actor, keys = self._placed(table)
        carry, changed = self._no_carry(), True
        while not stop.is_set():
            if changed:
                if self._fill(table, points):
                    actor, keys = self._placed(table)
                self._begin(table, obs)
                if not table.playing.any():
                    return
            action, carry = self._act(actor, keys, carry, table, obs)
            changed = self._step(table, obs, np.asarray(action), progress)
            if changed:
                yield from table.over()
        raise Stopped

    def close(self) -> None:
        """Free the environment."""
        self._env.close()

    def _no_carry(self) -> Carry:
        """Return zeros of the shape that the algorithm remembers in each slot: every episode begins its own."""
        of_slot = jax.eval_shape(lambda: _begun(self._algorithm, self._actor))
        shape = (self._count, 2 * self._half)
        return jax.tree.map(lambda leaf: jnp.zeros((*shape, *leaf.shape), leaf.dtype), of_slot)

    def _fill(self, table: _Table, points: Iterator[Point]) -> bool:
        """Give free places to points; return False where there was none of either."""
        free = [place for place, point in enumerate(table.points) if point is None]
        seated = list(zip(free, points, strict=False))  # `free` is asked first: no point is taken without a place
        for place, point in seated:
            table.seat(place, point)
        return bool(seated)

    def _placed(self, table: _Table) -> tuple[PolicyActor, Key]:
        """Return an actor with a policy for each place, and keys (P,); those of a free place are never looked at."""
        params = np.zeros((self._count, self._size), np.float32)
        for place, point in enumerate(table.points):
            if point is not None:
                params[place] = point.params
        actor = self._actor._replace(policy=self._policies(params))
        return actor, _action_keys(root_key(self._root), table.addresses)

    def _begin(self, table: _Table, obs: np.ndarray) -> None:
        rows = table.begin()
        if not len(rows):
            return
        address, side, number = table.addresses[table.place[rows]], table.side[rows], table.number[rows]
        # Each kind keeps the addresses it always had, so that a landscape stopped before goes on to the same bits.
        indices = (address, 2 * number + side) if isinstance(self._env, JaxBatch) else (address, side, number)
        obs[rows] = self._env.reset(episode_keys(self._env, self._root, "reset", *indices), rows)

    def _act(self, actor: PolicyActor, keys: Key, carry: Carry, table: _Table, obs: np.ndarray) -> tuple[Action, Carry]:
        shape = (self._count, 2 * self._half)
        seen = obs.reshape(*shape, *obs.shape[1:]).astype(np.float32)
        episode, time = (2 * table.number + table.side).reshape(shape), table.length.reshape(shape)
        return _actions(self._algorithm, actor, keys, carry, seen, episode, time)

    def _step(self, table: _Table, obs: np.ndarray, action: np.ndarray, progress: Callable[[int], None]) -> bool:
        """Step the slots that run; return False where no episode ended."""
        rows = np.flatnonzero(table.playing)
        step = self._env.step(action.reshape(-1, *action.shape[2:])[rows], rows)
        table.earned[rows] += step.reward
        table.length[rows] += 1
        obs[rows] = step.next_obs
        progress(len(rows))
        ended = step.terminated | step.truncated
        if not ended.any():
            return False
        table.end(rows[ended], step.measures["failed"][ended])
        return True


class _Table:
    """State of P points: the episode in each of their slots, rows of (P, 2, n), and what was found of each point."""

    def __init__(self, count: int, half: int, limit: int) -> None:
        self.shape, self.limit = (count, 2, half), limit
        self.points: list[Point | None] = [None] * count
        self.addresses = np.zeros(count, np.uint32)
        self.pairs = np.zeros((count, 1), np.int64)
        # A free place has begun all that it wants, like one whose point is over.
        self.begun, self.wanted = (np.full((count, 2), half, np.int64) for _ in range(2))
        self.first_lengths = np.full(self.shape, limit, np.int64)
        self.returns = np.zeros((count, 2, half))  # by number; widened as numbers grow
        self.steps, self.failed = np.zeros(count, np.int64), np.zeros(count, np.int64)
        rows = np.arange(count * 2 * half)
        self.place, self.side = rows // (2 * half), (rows // half % 2).astype(np.int32)
        self.playing = np.zeros(len(rows), np.bool_)
        self.number, self.length = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.int32)
        self.earned = np.zeros(len(rows))

    def seat(self, place: int, point: Point) -> None:
        """Give a place to a point."""
        self.points[place], self.addresses[place], self.pairs[place] = point, point.address, point.pairs
        self.begun[place], self.first_lengths[place] = 0, self.limit
        self.steps[place] = self.failed[place] = 0
        self.wanted[place] = episodes_of_halves(self.first_lengths[place], point.pairs, self.shape[-1])

    def begin(self) -> np.ndarray:
        """Begin an episode in every free slot that may, in their order; return their rows."""
        free = ~self.playing.reshape(self.shape)
        number = self.begun[..., None] + free.cumsum(-1) - 1
        starts = free & (number < self.wanted[..., None])
        self.begun += starts.sum(-1)
        rows = np.flatnonzero(starts)
        self.playing[rows], self.number[rows] = True, number.ravel()[rows]
        self.length[rows], self.earned[rows] = 0, 0.0
        return rows

    def end(self, rows: np.ndarray, failed: np.ndarray) -> None:
        """Note the episodes that ended."""
        self.playing[rows] = False
        place, number, length = self.place[rows], self.number[rows], self.length[rows]
        first = number < self.shape[-1]  # such an episode is in the slot of its own number
        self.first_lengths.reshape(-1)[rows[first]] = length[first]
        while number.max() >= self.returns.shape[-1]:
            self.returns = np.concatenate([self.returns, np.zeros_like(self.returns)], -1)
        self.returns[place, self.side[rows], number] = self.earned[rows]
        np.add.at(self.steps, place, length)
        np.add.at(self.failed, place, failed)
        self.wanted = episodes_of_halves(self.first_lengths, self.pairs, self.shape[-1])

    def over(self) -> Iterator[tuple[Point, PointEpisodes]]:
        """Yield the points that are over, and free their places."""
        idle = ~self.playing.reshape(len(self.points), -1).any(1) & (self.begun >= self.wanted).all(1)
        for place in np.flatnonzero(idle):
            point = self.points[place]
            if point is None:
                continue
            halves = [self.returns[place, side, : self.begun[place, side]].copy() for side in (0, 1)]
            lengths, steps = self.first_lengths[place].copy(), int(self.steps[place])
            self.points[place] = None
            yield point, PointEpisodes((halves[0], halves[1]), lengths, steps, int(self.failed[place]))


# The compiled programs. As in the loops of training, an algorithm is an argument of them and no constant in them.


def _begun(algorithm: PolicyGradient, actor: PolicyActor) -> Carry:
    return algorithm.begin(actor, jnp.int32(-1))  # a policy that is no member of a population


@jax.jit
def _action_keys(root: Key, addresses: np.ndarray) -> Key:
    """Return the key of each point's actions, (P,)."""
    return jax.vmap(lambda address: draw(root, "act", address))(addresses)


@jax.jit
def _actions(
    algorithm: PolicyGradient,
    actor: PolicyActor,
    keys: Key,
    carry: Carry,
    obs: jax.Array,
    episode: jax.Array,
    time: jax.Array,
) -> tuple[Action, Carry]:
    """Return the action of every slot, (P, E, ...), by its point's policy, and what each slot remembers after it."""

    def of_slot(
        actor: PolicyActor, key: Key, carry: Carry, obs: jax.Array, episode: jax.Array, time: jax.Array
    ) -> tuple[Action, Carry]:
        carry = jax.tree.map(lambda new, old: jnp.where(time == 0, new, old), _begun(algorithm, actor), carry)
        step_key = jax.random.fold_in(jax.random.fold_in(key, episode), time)
        action, carry, _ = algorithm.act(actor, carry, obs, step_key, explore=True)
        return task_action(algorithm.spec, action), carry

    of_point = jax.vmap(of_slot, in_axes=(None, None, 0, 0, 0, 0))
    each: tuple[int | None, ...] = PolicyActor(0, None, None)  # type: ignore[arg-type]
    return jax.vmap(of_point, in_axes=(each, 0, 0, 0, 0, 0))(actor, keys, carry, obs, episode, time)
