"""Any Gymnasium environment as a `HostEnv`: slots in worker processes, with no change to the environment."""

import importlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.machine import available_cores
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.actions import idle_actions
from workhorse.environments.constructors import registered
from workhorse.environments.gymnasium_processes import LocalGroup, RemoteGroup, portable
from workhorse.environments.gymnasium_spaces import Fault
from workhorse.environments.gymnasium_worker import EnvironmentRecipe, Unreachable, in_worker

__all__ = ["EnvironmentFault", "GymnasiumAdapter", "is_registered", "registered_ids"]


def is_registered(id: str) -> bool:
    """Return whether Gymnasium knows a task; "module:id" imports module first, as `gymnasium.make` does.

    Raises:
        UsageError: the module cannot be imported.
    """
    return _find(id) is not None


def registered_ids() -> list[str]:
    """Return every id in Gymnasium's registry, in alphabetical order."""
    return sorted(gymnasium.registry)


def _find(id: str) -> Any:
    module = id.rpartition(":")[0]
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise UsageError(
                f"Task {id!r}: importing the module {module!r} raised {type(error).__name__}: {error}; "
                "check its name and that it lies on the Python path."
            ) from error
    return registered(id)


class EnvironmentFault(RuntimeError):
    """Traceback of a user's environment, from the process it ran in; the cause of a `UsageError`."""


class GymnasiumAdapter:
    """B slots of one Gymnasium environment, shared out among worker processes.

    Each worker owns consecutive slots, and each slot is an environment made by `gymnasium.make(id, **options)` with
    its wrappers: `truncated` is `TimeLimit`'s and stays apart from `terminated`. Slots do not depend on one another,
    so results do not depend on the number of workers.

    Observations have their space's shape and actions its kind, see `gymnasium_spaces`: vectors, matrices and images
    stay what they are, a goal environment becomes a `Goal`, other structures become one vector. Actions are rows of
    `spec.action`; `spec.action_format` turns each into what the environment takes, always inside its space. Reset
    seeds are 31 bits drawn from the slot's key.

    A registered factory is imported in the workers by its module and name. One that no other process can import (a
    lambda, a local class, something typed into a prompt) runs in this process, one slot after another, and a warning
    says so once.

    Snapshots are journals: the key of each slot's episode and its actions so far. `restore` makes the environment
    again, seeds it, repeats the actions and compares the observation it ends on. Where the task calls itself
    non-deterministic, or two short episodes with one seed differ, `spec.resume` is "episode": `restore` starts the
    slots' episodes again and `observations` holds what they start from. *An environment that carries something from
    one episode to the next is beyond a journal; the comparison reports it where it shows in the observation.*

    Args:
        id: the task, "FrozenLake-v1", or "module:id" to import module first.
        num_slots: B.
        num_threads: worker processes, at most one a slot; 0 for one a core.
        options: keyword arguments for `gymnasium.make`.

    Raises:
        UsageError: the task is unknown, cannot be made, has a space that is not supported; or, from any call, the
            environment raised, returned nonsense or ended its process. The adapter is closed after such an error.

    Source: Gymnasium's `AsyncVectorEnv` for the idea. Differs from it by resetting in the same step, by keeping the
    true successor, by stepping subsets of slots, and by seeds that belong to episodes.
    """

    def __init__(self, id: str, num_slots: int = 1, num_threads: int = 0, **options: Any) -> None:
        if num_slots < 1 or num_threads < 0:
            raise UsageError(
                f"{id}: num_slots must be at least 1 and num_threads at least 0: {num_slots}, {num_threads}."
            )
        if in_worker():
            raise RuntimeError("A worker process of the Gymnasium adapter cannot make another adapter.")
        spec = _find(id)
        if spec is None:
            raise UsageError(f"Gymnasium knows no task {id!r}; register it, or name its module as 'module:{id}'.")
        self._workers: list[RemoteGroup | LocalGroup] = []
        self._closed = False
        self._num_slots = num_slots
        workers = min(num_threads or available_cores(), num_slots)
        self._parts = [part.tolist() for part in np.array_split(np.arange(num_slots), workers)]
        self._worker_of = np.repeat(np.arange(workers), [len(part) for part in self._parts])
        described, self._dtype = self._start(id, spec, options)
        given = tuple((name, _hashable(options[name])) for name in sorted(options))
        self._spec = replace(described, options=given)
        self._keys = np.zeros((num_slots, 2), np.uint64)
        self._started = np.zeros(num_slots, bool)
        self._running = np.zeros(num_slots, bool)
        self._obs = np.zeros((num_slots, *self._spec.observation.shape), self._dtype)
        self._journal: list[list[np.ndarray]] = [[] for _ in range(num_slots)]

    @property
    def spec(self) -> EnvSpec:
        return self._spec

    @property
    def num_slots(self) -> int:
        return self._num_slots

    @property
    def observations(self) -> np.ndarray:
        """Latest observation of every slot, (B, ...): zeros before the first reset, a restart's after `restore`."""
        return self._obs.copy()

    def reset(self, keys: np.ndarray, slots: np.ndarray | None = None) -> np.ndarray:
        """Start an episode in each of `slots` (all where None) with its key; see `HostEnv`."""
        slots = self._checked_slots(slots)
        keys = _checked_keys(keys, len(slots))
        obs = np.zeros((len(slots), *self._obs.shape[1:]), self._dtype)
        requests = {
            worker: ("reset", (slots[rows].tolist(), keys[rows])) for worker, rows in self._rows_by_worker(slots)
        }
        for worker, reply in self._ask(requests, "resetting").items():
            obs[self._worker_of[slots] == worker] = reply
        self._begin(slots, keys, obs)
        return obs

    def step(self, actions: np.ndarray, slots: np.ndarray | None = None, reset_keys: np.ndarray | None = None) -> Step:
        """Step each of `slots` (all where None), starting ended ones again where `reset_keys` are given; see `HostEnv`.

        Raises:
            ValueError: actions of another shape, not finite or out of range; a slot that was not reset.
        """
        slots = self._checked_slots(slots)
        actions = self._checked_actions(actions, len(slots))
        keys = None if reset_keys is None else _checked_keys(reset_keys, len(slots))
        if not np.all(self._running[slots]):
            waiting = slots[~self._running[slots]].tolist()
            raise ValueError(
                f"{self._spec.task}: slots {waiting} have no episode going on; reset them before stepping."
            )
        n = len(slots)
        obs, next_obs = (np.zeros((n, *self._obs.shape[1:]), self._dtype) for _ in range(2))
        reward, terminated, truncated = np.zeros(n), np.zeros(n, bool), np.zeros(n, bool)
        requests = {
            worker: ("step", (slots[rows].tolist(), actions[rows], None if keys is None else keys[rows]))
            for worker, rows in self._rows_by_worker(slots)
        }
        for worker, reply in self._ask(requests, "stepping").items():
            rows = self._worker_of[slots] == worker
            obs[rows], reward[rows], terminated[rows], truncated[rows], next_obs[rows] = reply
        for slot, action in zip(slots, actions, strict=True):
            self._journal[slot].append(action)
        self._obs[slots] = obs
        ended = terminated | truncated
        if keys is None:
            self._running[slots[ended]] = False
        else:
            self._begin(slots[ended], keys[ended], obs[ended])
        return Step(obs, reward, terminated, truncated, next_obs, {"failed": np.zeros(n, bool)})

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return the journal: keys, flags and last observations of the slots, and all their actions since the reset.

        Arrays: "keys" uint64 (B, 2), "started" and "running" bool (B,), "length" int64 (B,), "obs" (B, ...), "actions"
        (sum of length, ...), slot after slot.
        """
        kept = [action for journal in self._journal for action in journal]
        return {
            "keys": self._keys.copy(),
            "started": self._started.copy(),
            "running": self._running.copy(),
            "length": np.array([len(journal) for journal in self._journal], np.int64),
            "obs": self._obs.copy(),
            "actions": np.stack(kept) if kept else self._no_actions(),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Bring every slot back to a snapshot, or with `resume="episode"` to the start of the snapshot's episode.

        Raises:
            UsageError: the snapshot is of another number of slots or another task, or a replayed slot ends on another
                observation than the recorded one.
        """
        shape = np.shape(arrays["obs"])
        if shape[:1] != self._obs.shape[:1] or np.size(arrays["obs"]) != self._obs.size:
            raise UsageError(
                f"{self._spec.task}: the snapshot holds observations of shape {shape}, but this environment has "
                f"{self._obs.shape}; restore with the same task, options and number of slots."
            )
        exact = self._spec.resume == "journal"
        # older snapshots hold flat images and matrices
        actions = np.reshape(arrays["actions"], (-1, *self._no_actions().shape[1:]))
        journals = np.split(actions, np.cumsum(arrays["length"])[:-1])
        if not exact:
            journals = [journal[:0] for journal in journals]
        started = np.flatnonzero(arrays["started"])
        obs = np.array(arrays["obs"], self._dtype).reshape(self._obs.shape)
        for turn in range(max(len(part) for part in self._parts)):  # the workers replay side by side
            slots = {worker: part[turn] for worker, part in enumerate(self._parts) if turn < len(part)}
            requests = {
                worker: ("replay", (slot, np.asarray(arrays["keys"][slot]), journals[slot]))
                for worker, slot in slots.items()
                if slot in started
            }
            for worker, reply in self._ask(requests, "replaying").items():
                slot = slots[worker]
                if exact and not np.array_equal(reply, obs[slot]):
                    self.close()
                    raise UsageError(
                        f"{self._spec.task}: slot {slot} did not come back to the observation it was saved with after "
                        f"replaying {len(journals[slot])} actions; the environment is not deterministic, so register "
                        "it with nondeterministic=True to restart its episodes instead."
                    )
                obs[slot] = reply
        self._keys = np.array(arrays["keys"], np.uint64)
        self._started = np.array(arrays["started"], bool)
        self._running = np.array(arrays["running"] if exact else arrays["started"], bool)
        self._obs = obs
        self._journal = [list(journal) for journal in journals]

    def close(self) -> None:
        """End every worker process. A second call does nothing."""
        self._closed = True
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.ask_to_close()
        for worker in workers:
            worker.close()

    def _start(self, id: str, spec: Any, options: dict[str, Any]) -> tuple[EnvSpec, np.dtype]:
        """Build the slots, in workers where the factory can be reached there; what the first group is like."""
        recipe, reason = portable(id, spec, options)
        if reason is None:
            self._workers = [RemoteGroup(id, part) for part in self._parts]
            try:
                return self._build(recipe)
            except Unreachable as error:
                reason = str(error)
                self.close()
                self._closed = False
        _warn_once(id, reason)
        self._parts = [list(range(self._num_slots))]
        self._worker_of = np.zeros(self._num_slots, int)
        self._workers = [LocalGroup()]
        return self._build(EnvironmentRecipe(id, spec, None, None, None, options))

    def _build(self, recipe: EnvironmentRecipe) -> tuple[EnvSpec, np.dtype]:
        self._ask({worker: ("build", (recipe, part)) for worker, part in enumerate(self._parts)}, "making")
        return self._ask({0: ("describe", ())}, "making")[0]

    def _ask(self, requests: dict[int, tuple[str, tuple[Any, ...]]], doing: str) -> dict[int, Any]:
        """Send every worker its request, then collect every reply; the first fault in slot order is raised."""
        if self._closed:
            raise ValueError("This GymnasiumAdapter is closed; make a new one.")
        replies: dict[int, Any] = {}
        faults: list[Exception] = []
        for worker, (name, arguments) in requests.items():
            self._workers[worker].send(name, arguments)
        for worker in requests:
            try:
                replies[worker] = self._workers[worker].receive(doing)
            except (Fault, UsageError, Unreachable, RuntimeError) as error:
                faults.append(error)
        if not faults:
            return replies
        fault = faults[0]
        if isinstance(fault, Unreachable):
            raise fault
        self.close()
        if isinstance(fault, Fault):
            raise UsageError(fault.message) from (EnvironmentFault(fault.detail) if fault.detail else None)
        raise fault

    def _begin(self, slots: np.ndarray, keys: np.ndarray, obs: np.ndarray) -> None:
        self._keys[slots] = keys
        self._started[slots] = self._running[slots] = True
        self._obs[slots] = obs
        for slot in slots:
            self._journal[slot] = []

    def _rows_by_worker(self, slots: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        workers = self._worker_of[slots]
        for worker in np.unique(workers):
            yield int(worker), np.flatnonzero(workers == worker)

    def _checked_slots(self, slots: np.ndarray | None) -> np.ndarray:
        if slots is None:
            return np.arange(self._num_slots)
        slots = np.asarray(slots, int)
        inside = np.all((slots >= 0) & (slots < self._num_slots))
        if slots.ndim != 1 or not inside or len(np.unique(slots)) != len(slots):
            raise ValueError(f"slots must be different numbers from 0 to {self._num_slots - 1}, not {slots.tolist()}.")
        return slots

    def _checked_actions(self, actions: np.ndarray, count: int) -> np.ndarray:
        space, task, none = self._spec.action, self._spec.task, self._no_actions()
        actions, shape = np.array(actions), (count, *none.shape[1:])
        if actions.shape != shape:
            raise ValueError(f"{task}: actions must have the shape {shape}, one row a slot, not {actions.shape}.")
        if isinstance(space, Box):
            finite = np.isfinite(actions).all(axis=tuple(range(1, actions.ndim)))
            if not finite.all():
                raise UsageError(
                    f"{task}: an action is NaN or infinite (rows {np.flatnonzero(~finite)}): where a policy gave it, "
                    "it has diverged. Lower the learning rate or the noise."
                )
            return actions.astype(none.dtype)
        most = np.asarray(getattr(space, "count", None) or getattr(space, "counts", 2)) - 1
        if actions.dtype.kind not in "iub" or np.any((actions < 0) | (actions > most)):
            raise ValueError(f"{task}: actions must be integers from 0 to {most.tolist()}, not {actions.tolist()}.")
        return actions.astype(none.dtype)

    def _no_actions(self) -> np.ndarray:
        """Return no rows of actions, of the shape and type that the journal holds."""
        none = idle_actions(self._spec.action, 0)
        return none.astype(np.float64) if isinstance(self._spec.action, Box) else none


_warned: set[str] = set()


def _warn_once(id: str, reason: str) -> None:
    if id not in _warned:
        _warned.add(id)
        warnings.warn(
            f"{id} runs in this process, one slot after another, because its factory cannot be reached from another "
            f"one ({reason}); register an entry point that can be imported, 'module:Class', to use worker processes.",
            stacklevel=5,
        )


def _hashable(value: Any) -> object:
    """Return an option as part of a hashable spec: lists and arrays as tuples, dicts as sorted pairs."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(_hashable(item) for item in value)
    if isinstance(value, dict):
        return tuple(sorted((str(name), _hashable(item)) for name, item in value.items()))
    return value


def _checked_keys(keys: np.ndarray, count: int) -> np.ndarray:
    keys = np.asarray(keys)
    if keys.shape != (count, 2) or keys.dtype != np.uint64:
        raise ValueError(f"keys must be uint64 of shape ({count}, 2), one a slot, not {keys.dtype} {keys.shape}.")
    return keys
