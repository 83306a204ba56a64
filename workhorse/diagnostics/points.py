"""Whole episodes of many policies at once: points of parameter space, all through one wide batch of simulations.

A point has E slots of its own, in two halves. How many episodes a half plays is decided by how long the first ones of
the *other* half were, never by its own: with n = E / 2 first episodes a half, of lengths l,

    episodes of a half = max(n, round(pairs / 2 / mean(l of the other half)))

Which episodes count is so independent of what they come to, so that the mean of each half, and the mean of the two, is
without bias. Playing until the steps are used up, and counting what was finished, would favour short episodes, by as
much as the point has few of them.

While an episode of the other half still runs it counts as long as the task's clock allows, which makes the number too
small for the moment and never too large: slots need not wait. What is played has an address (point, half, number), so
that it does not depend on which points are played side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from workhorse.core.randomness import draw
from workhorse.training.gather import Stopped

__all__ = [
    "NARROW",
    "WIDTH",
    "Episodes",
    "Player",
    "Point",
    "action_keys",
    "actions",
    "episodes_of_halves",
    "next_episodes",
    "play",
]

WIDTH = 512
"""Slots of a player: fewer leave the simulator's threads idle. From two points side by side on it is no part of their
bits; a single one would be another program, which rounds otherwise."""

NARROW = 64
"""Slots of a player where each is a simulator of its own, in worker processes."""


class Point(NamedTuple):
    """A policy to play.

    Attributes:
        number: of the point, for whoever asked.
        address: of its randomness; points of equal address meet the same starts and the same noise of actions.
        params: of the policy, float32 (d,).
        pairs: about how many steps to play; 0 for one episode a slot.
    """

    number: int
    address: int
    params: np.ndarray
    pairs: int


class Episodes(NamedTuple):
    """What a point's episodes gave.

    Attributes:
        returns: undiscounted raw returns of each half's episodes, in the order of their numbers.
        first_lengths: steps of each half's first episodes, (2, E / 2).
        steps: of all episodes.
        failed: episodes whose simulation broke; they count, with what they had earned.
    """

    returns: tuple[np.ndarray, np.ndarray]
    first_lengths: np.ndarray
    steps: int
    failed: int


class Player(Protocol):
    """Plays points, several at a time."""

    def play(
        self, points: Iterator[Point], stop: threading.Event, progress: Callable[[int], None]
    ) -> Iterator[tuple[Point, Episodes]]: ...

    def close(self) -> None: ...


def episodes_of_halves(first_lengths: Any, pairs: Any, least: int) -> Any:
    """Episodes of each half, (..., 2), from the lengths of both halves' first ones, (..., 2, n); NumPy's or JAX's.

    Example:
        >>> episodes_of_halves(np.array([[10, 10], [40, 60]]), 1000, 2)
        array([10, 50])
    """
    other = first_lengths.sum(-1)[..., ::-1]
    wanted = (pairs * first_lengths.shape[-1] + other) // (2 * other)  # rounded
    return first_lengths.__array_namespace__().maximum(wanted, least)


def next_episodes(playing: Any, begun: Any, wanted: Any) -> tuple[Any, Any]:
    """Which slots (P, 2, n) begin an episode now, and its number in its half: free ones in their order."""
    free = ~playing
    number = begun[..., None] + free.cumsum(-1) - 1
    return free & (number < wanted[..., None]), number


def play(
    players: Sequence[Player],
    points: Iterable[Point],
    found: Callable[[Point, Episodes], None],
    progress: Callable[[int], None] = lambda env_steps: None,
) -> None:
    """Play every point, each by whichever player has room, all players at once.

    Args:
        players: of equal make.
        points: to be played.
        found: is told what each point's episodes gave, one call at a time.
        progress: is told how many steps were just taken, one call at a time.
    """
    lock, stop = threading.Lock(), threading.Event()
    queue = _Queue(points)

    def told(env_steps: int) -> None:
        with lock:
            progress(env_steps)

    def busy(player: Player) -> None:
        for point, episodes in player.play(queue, stop, told):
            with lock:
                found(point, episodes)

    if len(players) == 1:
        busy(players[0])
        return
    with ThreadPoolExecutor(len(players)) as pool:
        futures = [pool.submit(busy, player) for player in players]
        for future in futures:
            future.add_done_callback(lambda done: stop.set() if done.exception() else None)
        try:
            for future in futures:
                future.result()
        except BaseException:
            stop.set()
            failures = [future.exception() for future in futures]
            for failure in failures:
                if failure is not None and not isinstance(failure, Stopped):
                    raise failure from None
            raise


class _Queue:
    """Points, taken by several threads."""

    def __init__(self, points: Iterable[Point]) -> None:
        self._points, self._lock = iter(points), threading.Lock()

    def __iter__(self) -> _Queue:
        return self

    def __next__(self) -> Point:
        with self._lock:
            return next(self._points)


# The compiled programs. As in the loops of training, an algorithm is an argument of them and no constant in them.


@jax.jit
def action_keys(root: Any, addresses: Any) -> Any:
    """The key of each point's actions, (P,)."""
    return jax.vmap(lambda address: draw(root, "act", address))(addresses)


@jax.jit
def actions(algorithm: Any, actor: Any, policies: Any, keys: Any, obs: Any, episode: Any, time: Any) -> Any:
    """What every slot does, (P, E, ...): each point's policy on its slots' observations."""

    def of_point(policy: Any, key: Any, obs: Any, episode: Any, time: Any) -> Any:
        def of_slot(obs: Any, episode: Any, time: Any) -> Any:
            step_key = jax.random.fold_in(jax.random.fold_in(key, episode), time)
            return algorithm.act(actor._replace(policy=policy), (), obs, step_key, explore=True)[0]

        return jax.vmap(of_slot)(obs, episode, time)

    return jax.vmap(of_point)(policies, keys, obs, episode, time)
