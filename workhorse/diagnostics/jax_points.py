"""Points of parameter space on a pure environment: a group of them is one compiled program."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from workhorse.core.randomness import draw, root_key
from workhorse.diagnostics.points import (
    WIDTH,
    Episodes,
    Point,
    action_keys,
    actions,
    episodes_of_halves,
    next_episodes,
)
from workhorse.environments.protocol import JaxEnv
from workhorse.training.gather import Stopped

__all__ = ["JaxPlayer"]


class JaxPlayer:
    """Plays points of at most so many pairs: a group of them is one compiled program, from first reset to last end."""

    def __init__(self, algorithm: Any, actor: Any, env: JaxEnv, slots: int, root: int, pairs: int) -> None:
        self._algorithm, self._actor, self._env = algorithm, actor, env
        self._root, self._half = root, slots // 2
        self._count = WIDTH // slots
        self._most = max(pairs // 2 + 1, self._half)  # episodes of a half, if each were a single step
        self._policies = jax.jit(jax.vmap(ravel_pytree(actor.policy)[1]))

    def play(
        self, points: Iterator[Point], stop: threading.Event, progress: Callable[[int], None]
    ) -> Iterator[tuple[Point, Episodes]]:
        while group := [point for _, point in zip(range(self._count), points, strict=False)]:
            if stop.is_set():
                raise Stopped
            full = group + [group[0]._replace(pairs=0)] * (self._count - len(group))
            policies = self._policies(np.stack([point.params for point in full]))
            addresses = np.array([point.address for point in full], np.uint32)
            pairs = np.array([[point.pairs] for point in full], np.int64)
            found = _whole(
                self._env,
                self._algorithm,
                self._actor,
                policies,
                addresses,
                pairs,
                root_key(self._root),
                self._half,
                self._most,
            )
            returns, begun, lengths, steps = map(np.asarray, found)
            for place, point in enumerate(group):
                halves = [returns[place, half, : begun[place, half]] for half in (0, 1)]
                failed = int(sum((~np.isfinite(half)).sum() for half in halves))
                progress(int(steps[place]))
                yield point, Episodes((halves[0], halves[1]), lengths[place], int(steps[place]), failed)

    def close(self) -> None:
        pass


class _Loop(NamedTuple):
    """What the program of a group carries, axes (P, 2, n) unless said."""

    states: Any
    obs: Any
    playing: Any
    number: Any
    length: Any
    earned: Any
    first_lengths: Any
    begun: Any  # (P, 2)
    returns: Any  # (P, 2, most)
    steps: Any  # (P,)


@partial(jax.jit, static_argnums=(0, 7, 8))
def _whole(
    env: JaxEnv, algorithm: Any, actor: Any, policies: Any, addresses: Any, pairs: Any, root: Any, half: int, most: int
) -> tuple[Any, Any, Any, Any]:
    """Returns (P, 2, most), how many of them there are (P, 2), first lengths (P, 2, n) and steps (P,) of a group."""
    count, limit = len(addresses), env.spec.max_episode_steps
    assert limit is not None
    shape = (count, 2, half)
    act_keys = action_keys(root, addresses)
    reset_keys = jax.vmap(lambda address: draw(root, "reset", address))(addresses)
    place, side = jnp.arange(count)[:, None, None], jnp.arange(2)[None, :, None]

    def wanted(loop: _Loop) -> Any:
        return episodes_of_halves(loop.first_lengths, pairs, half)

    def goes_on(loop: _Loop) -> Any:
        return loop.playing.any() | (loop.begun < wanted(loop)).any()

    def advance(loop: _Loop) -> _Loop:
        starts, new = next_episodes(loop.playing, loop.begun, wanted(loop))
        number, length = jnp.where(starts, new, loop.number), jnp.where(starts, 0, loop.length)
        earned, playing = jnp.where(starts, 0.0, loop.earned), loop.playing | starts
        episode = (2 * number + side).astype(jnp.int32)
        keys = _over_slots(lambda key, episode: jax.random.fold_in(key, episode))(reset_keys, episode)
        fresh, fresh_obs = _every(env.reset)(keys)

        def where_begun(new: Any, old: Any) -> Any:
            return jnp.where(starts.reshape(*shape, *[1] * (old.ndim - 3)), new, old)

        states, obs = jax.tree.map(where_begun, (fresh, fresh_obs), (loop.states, loop.obs))
        flat = (count, 2 * half)
        seen = obs.reshape(*flat, -1).astype(jnp.float32)
        action = actions(algorithm, actor, policies, act_keys, seen, episode.reshape(flat), length.reshape(flat))
        action = action.reshape(*shape, *action.shape[2:])
        step_keys = _every(lambda key, time: jax.random.fold_in(key, time + 1))(keys, length)
        states, step = _every(env.step)(states, action, step_keys)
        earned, length = earned + jnp.where(playing, step.reward, 0.0), length + playing
        ended = playing & (step.terminated | step.truncated)
        return _Loop(
            states,
            step.next_obs,
            playing & ~ended,
            number,
            length,
            earned,
            jnp.where(ended & (number < half), length, loop.first_lengths),
            loop.begun + starts.sum(-1),
            loop.returns.at[place, side, jnp.where(ended, number, most)].set(earned, mode="drop"),
            loop.steps + playing.sum((1, 2)),
        )

    some_keys = _over_slots(lambda key, slot: key)(reset_keys, jnp.zeros(shape, jnp.int32))
    states, obs = _every(env.reset)(some_keys)
    zero = jnp.zeros(shape, jnp.int64)
    start = _Loop(
        states,
        obs,
        jnp.zeros(shape, bool),
        zero,
        zero,
        jnp.zeros(shape, jnp.float64),
        jnp.full(shape, limit, jnp.int64),
        jnp.zeros((count, 2), jnp.int64),
        jnp.zeros((count, 2, most), jnp.float64),
        jnp.zeros(count, jnp.int64),
    )
    end = jax.lax.while_loop(goes_on, advance, start)
    return end.returns, end.begun, end.first_lengths, end.steps


def _every(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one slot, of all (P, 2, n)."""
    return jax.vmap(jax.vmap(jax.vmap(function)))


def _over_slots(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a point's key and one slot, of all (P,) and (P, 2, n)."""
    return jax.vmap(jax.vmap(jax.vmap(function, in_axes=(None, 0)), in_axes=(None, 0)))
