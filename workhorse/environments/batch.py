"""B slots of a pure environment behind the interface of a host environment, so that one loop serves both kinds."""

import functools
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from workhorse.core.addresses import host_keys
from workhorse.core.digest import flatten_arrays, restore_arrays
from workhorse.core.randomness import draw
from workhorse.core.spec import EnvSpec
from workhorse.core.types import Step, Tried
from workhorse.environments.actions import idle_actions
from workhorse.environments.protocol import HostEnv, JaxEnv

__all__ = ["JaxBatch", "as_batch", "episode_keys", "step_rows"]

LANES = 16
"""Numbers that a vector instruction takes at most, 16 of single precision."""


class JaxBatch:
    """Host environment of B slots that are stepped by one compiled program of a pure environment.

    All of `HostEnv`'s contract holds, except for the kind of keys: an episode's key is a JAX key, and the key of its
    t-th step, t from 1, is `fold_in(key, t)`. `episode_keys` gives the right kind for either environment.

    Args:
        env: pure environment of one slot. Equal ones share their compiled programs.
        num_slots: number of slots B.
    """

    def __init__(self, env: JaxEnv, num_slots: int) -> None:
        self._env, self._num_slots = env, num_slots
        self._keys = np.zeros((num_slots, 2), np.uint32)
        self._times = np.zeros(num_slots, np.uint32)  # steps since the reset
        self._states, self._obs = None, np.zeros(0)  # until the first reset
        self._over = np.ones(num_slots, bool)  # slots that must be reset before they are stepped

    @property
    def spec(self) -> EnvSpec:
        """The task."""
        return self._env.spec

    @property
    def num_slots(self) -> int:
        """Number of slots B."""
        return self._num_slots

    def reset(self, keys: np.ndarray | PRNGKeyArray, slots: np.ndarray | None = None) -> np.ndarray:
        """Start an episode in each of `slots` and return its first observation.

        Args:
            keys: typed JAX keys (n,), or their data, uint32 (n, 2), which NumPy can index.
            slots: which slots; all where None.
        """
        mask = self._mask(slots)
        self._keys[_every(slots)] = _key_data(keys)
        if self._states is None:
            self._states, obs = _reset(self._env, self._keys)
        else:
            self._states, obs = _reset_some(self._env, self._keys, mask, (self._states, self._obs))
        self._times[mask], self._over[mask] = 0, False
        self._obs = np.array(obs)
        return self._obs[_every(slots)].copy()

    def step(
        self,
        actions: np.ndarray,
        slots: np.ndarray | None = None,
        reset_keys: np.ndarray | PRNGKeyArray | None = None,
    ) -> Step:
        """Step `slots` alone; see `HostEnv`. A reward or an observation that is not finite marks a slot as failed."""
        mask, chosen = self._mask(slots), _every(slots)
        self._times[mask] += 1
        every_action = idle_actions(self.spec.action, self._num_slots).astype(actions.dtype)
        every_action[chosen] = actions
        # One shape for any number of slots: a program compiled for each would cost more than the idle slots' steps.
        states, stepped = _step(self._env, self._states, every_action, self._keys, self._times)
        self._states = states if (mask | self._over).all() else _select(mask, states, self._states)
        reward, terminated, truncated, next_obs = (
            np.array(part)[chosen] for part in (stepped.reward, stepped.terminated, stepped.truncated, stepped.next_obs)
        )
        rows = next_obs.reshape(len(next_obs), -1)
        failed = ~(np.isfinite(reward) & np.isfinite(rows).all(axis=1))
        reward[failed], next_obs[failed] = 0.0, self._obs[chosen][failed]
        self._obs[chosen] = next_obs
        terminated, truncated = terminated & ~failed, truncated | failed
        self._over[chosen] = terminated | truncated
        measures = {name: np.array(value)[chosen] for name, value in stepped.measures.items()}
        obs, ended = next_obs, np.flatnonzero(terminated | truncated)
        if reset_keys is not None and len(ended):
            obs = next_obs.copy()
            obs[ended] = self.reset(_key_data(reset_keys)[ended], np.arange(self._num_slots)[chosen][ended])
        return Step(obs, reward, terminated, truncated, next_obs, {**measures, "failed": failed})

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return everything the next steps depend on, as named arrays."""
        return {name: array.copy() for name, array in flatten_arrays(self._parts()).items()}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Put a snapshot's arrays back; the same bits follow."""
        states, obs = jax.eval_shape(partial(_reset, self._env), self._keys)
        template = {**self._parts(), "states": states, "obs": np.zeros(obs.shape, obs.dtype)}
        found = restore_arrays(template, arrays, f"the snapshot of {self.spec.task}")
        self._states, self._obs, self._keys, self._times = (found[name] for name in ("states", "obs", "keys", "times"))
        self._over[:] = False  # not known; none of them is stepped unasked then

    def states(self, slots: np.ndarray | None = None) -> np.ndarray:
        """Return the slots' states as rows of numbers, every leaf in its order; see `Simulator`."""
        return np.array(_rows(self._states))[_every(slots)]

    def rollout(
        self, states: np.ndarray, plans: np.ndarray, keys: np.ndarray | None = None, *, observed: bool = False
    ) -> Tried:
        """Try plans in copies of the task, in one compiled program; see `Simulator`."""
        if keys is None:
            keys = np.zeros((len(states), 2), np.uint32)
        return Tried(
            *(None if leaf is None else np.asarray(leaf) for leaf in _try(self._env, observed, states, plans, keys))
        )

    def physics(self, states: np.ndarray) -> np.ndarray:
        """Return the numbers of the state's leaves called `physics`; all real ones where none is called so.

        A task that has velocities among its positions says in `physics_order` which numbers come first here.
        """
        return states[:, _motion(self._env)]

    def with_physics(self, states: np.ndarray, physics: np.ndarray) -> np.ndarray:
        """Return rows with other such numbers."""
        changed = np.array(np.broadcast_to(states, (len(physics), states.shape[1])))
        changed[:, _motion(self._env)] = physics
        return changed

    def close(self) -> None:
        """Free the states."""
        self._states, self._obs = None, np.zeros(0)

    def _parts(self) -> dict[str, Any]:
        return {"states": self._states, "obs": self._obs, "keys": self._keys, "times": self._times}

    def _mask(self, slots: np.ndarray | None) -> np.ndarray:
        mask = np.zeros(self._num_slots, bool)
        mask[_every(slots)] = True
        return mask


def as_batch(env: HostEnv | JaxEnv, num_slots: int) -> HostEnv:
    """Return a host environment as it is, and `num_slots` slots of a pure one."""
    return env if isinstance(env, HostEnv) else JaxBatch(env, num_slots)


def episode_keys(env: HostEnv, root: int, stream: str, *indices: int | np.ndarray) -> np.ndarray:
    """Return the keys of the episodes at an address, of the kind that `env.reset` takes.

    Args:
        env: a `JaxBatch`, or a host environment.
        root: the run's seed.
        stream: one of `workhorse.core.addresses.STREAMS`.
        indices: of the address, integers or integer arrays that broadcast.

    Returns:
        `host_keys` (*broadcast, 2), uint64, for a host environment; for a `JaxBatch` the data of the JAX keys that
        `draw` gives, uint32 of the same shape.
    """
    if not isinstance(env, JaxBatch):
        return host_keys(root, stream, *indices)
    rows = np.broadcast_arrays(*(np.asarray(index, np.uint32) for index in indices))
    count = rows[0].size
    width = -(-count // env.num_slots) * env.num_slots  # one width serves nearly all: each is a program of its own
    padded = np.zeros((len(rows), width), np.uint32)
    padded[:, :count] = [row.ravel() for row in rows]
    flat = _folded(np.int64(root), stream, padded)
    return np.asarray(flat)[:count].reshape(*rows[0].shape, 2)


def step_rows(env: JaxEnv, states: Any, actions: Any, keys: Any) -> tuple[Any, Step]:
    """Step every row once, with bits that do not depend on how many rows there are.

    *A compiled loop takes rows several at a time and the last ones singly*, and a sine has other last bits in the one
    than in the other: so rows are filled up to a multiple of `LANES`.
    """
    count = jax.tree.leaves(actions)[0].shape[0]
    missing = -count % LANES

    def filled(leaf: Any) -> Any:
        return jnp.concatenate([leaf, jnp.repeat(leaf[:1], missing, axis=0)]) if missing else leaf

    stepped = jax.vmap(env.step)(*jax.tree.map(filled, (states, actions, keys)))
    return jax.tree.map(lambda leaf: leaf[:count], stepped) if missing else stepped


def _every(slots: np.ndarray | None) -> np.ndarray | slice:
    return slice(None) if slots is None else slots


def _key_data(keys: np.ndarray | PRNGKeyArray) -> np.ndarray:
    if isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(keys))
    if keys.dtype != np.uint32:
        raise TypeError(f"JaxBatch takes JAX keys or their uint32 data, not {keys.dtype}: use episode_keys.")
    return np.asarray(keys)


@partial(jax.jit, static_argnums=0)
def _reset(env: JaxEnv, keys: Any) -> tuple[Any, Any]:
    return jax.vmap(lambda key: env.reset(jax.random.wrap_key_data(key)))(keys)


@partial(jax.jit, static_argnums=0)
def _reset_some(env: JaxEnv, keys: Any, mask: Any, old: tuple[Any, Any]) -> tuple[Any, Any]:
    return _select(mask, _reset(env, keys), old)


@partial(jax.jit, static_argnums=0)
def _step(env: JaxEnv, states: Any, actions: Any, keys: Any, times: Any) -> tuple[Any, Step]:
    step_keys = jax.vmap(lambda key, time: jax.random.fold_in(jax.random.wrap_key_data(key), time))(keys, times)
    return step_rows(env, states, actions, step_keys)


@jax.jit
def _select(mask: Any, new: Any, old: Any) -> Any:
    """Take the leaves' rows from `new` where `mask`; apart from `_step`, so that its sums are fused as ever."""
    return jax.tree.map(lambda a, b: jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


@functools.lru_cache(maxsize=64)
def _template(env: JaxEnv) -> Any:
    """Shapes and types of a state of one slot."""
    return jax.eval_shape(env.reset, jax.random.key(0))[0]


def _motion(env: JaxEnv) -> np.ndarray:
    """Return the places in a row of the state of motion, positions and then velocities."""
    leaves = jax.tree_util.tree_leaves_with_path(_template(env))
    named = ["physics" in jax.tree_util.keystr(path) for path, _ in leaves]
    if not any(named):
        named = [jnp.issubdtype(leaf.dtype, jnp.floating) for _, leaf in leaves]
    is_own = np.concatenate([np.full(leaf.size, own) for own, (_, leaf) in zip(named, leaves, strict=True)])
    order = getattr(env, "physics_order", None)  # of tasks that do not have them so
    return np.flatnonzero(is_own) if order is None else np.flatnonzero(is_own)[list(order)]


@jax.jit
def _rows(states: Any) -> Any:
    """Return states (B, ...) as rows (B, S)."""
    leaves = jax.tree.leaves(states)
    flat = [leaf.reshape(len(leaf), math.prod(leaf.shape[1:])) for leaf in leaves]  # -1 would not do where one is empty
    return jnp.concatenate([leaf.astype(jnp.float64) for leaf in flat], axis=1)


def _from_rows(env: JaxEnv, rows: Any) -> Any:
    """Return the states that rows (N, S) stand for."""
    leaves, structure = jax.tree.flatten(_template(env))
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = jnp.split(rows, ends, axis=1)
    made = [part.reshape(len(rows), *leaf.shape).astype(leaf.dtype) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, made)


@partial(jax.jit, static_argnums=(0, 1))
def _try(env: JaxEnv, observed: bool, rows: Any, plans: Any, keys: Any) -> Tried:
    def advance(carried: Any, timed: Any) -> Any:
        states, is_broken = carried
        actions, time = timed
        states, step = _step(env, states, actions, keys, jnp.full(len(keys), time, jnp.uint32))
        is_broken = is_broken | ~jnp.isfinite(step.reward)
        reward = jnp.where(is_broken, 0.0, step.reward).astype(jnp.float64)
        return (states, is_broken), (reward, step.terminated | is_broken, step.next_obs if observed else None)

    start = _from_rows(env, rows), jnp.zeros(len(keys), bool)
    times = jnp.arange(1, plans.shape[1] + 1)
    (states, _), (reward, terminated, obs) = jax.lax.scan(advance, start, (jnp.moveaxis(plans, 1, 0), times))
    turned = (None if leaf is None else jnp.moveaxis(leaf, 0, 1) for leaf in (reward, terminated, obs))
    reward, terminated, obs = turned
    return Tried(reward, terminated, _rows(states), obs)


@partial(jax.jit, static_argnums=1)
def _folded(root: Any, stream: str, rows: Any) -> Any:
    return jax.vmap(lambda *index: jax.random.key_data(draw(jax.random.key(root), stream, *index)))(*rows)
