"""Any Gymnasium environment as a `HostEnv`: slots in worker processes, with no change to the environment."""

import traceback
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import gymnasium
import numpy as np

from workhorse.core.errors import TaskError, UsageError
from workhorse.core.machine import available_cores
from workhorse.core.modules import import_module
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.actions import idle_actions
from workhorse.environments.constructors import registered
from workhorse.environments.episode_program import episode_program
from workhorse.environments.gymnasium_processes import LocalGroup, RemoteGroup, portable
from workhorse.environments.gymnasium_worker import (
    EnvironmentRecipe,
    Unreachable,
    episode_seed,
    in_worker,
    step_digest,
)
from workhorse.environments.wrappers import check_shared_options

__all__ = ["GymnasiumAdapter", "is_registered", "registered_ids"]


def is_registered(id: str) -> bool:
    """Return whether Gymnasium knows a task; "module:id" imports module first, as `gymnasium.make` does.

    Raises:
        UsageError: the module cannot be imported.
    """
    return _find(id) is not None


def registered_ids(task: str = "") -> list[str]:
    """Return every id in Gymnasium's registry, in alphabetical order; those of `task`'s module first, as module:id."""
    module = task.rpartition(":")[0]
    theirs = [f"{module}:{id}" for id, spec in gymnasium.registry.items() if module and _module_of(spec) == module]
    return [*sorted(theirs), *sorted(gymnasium.registry)]


def _module_of(spec: Any) -> str:
    entry = spec.entry_point
    return entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")


def _find(id: str) -> Any:
    module, _, name = id.rpartition(":")
    if module:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name not in (module, module.split(".")[0]):  # the module is there, and imports one that is not
                raise _import_error(id, module, error) from error
            hint = f" Write {module[:-3]}:{name}, without .py." if module.endswith(".py") else ""
            raise UsageError(
                f"Task {id!r}: importing the module {module!r} raised ModuleNotFoundError, as it is neither installed "
                f"nor in the current folder: run the command in the folder that holds it, or put that folder on "
                f"PYTHONPATH.{hint}"
            ) from error
        except Exception as error:
            raise _import_error(id, module, error) from error
    return registered(id)


def _import_error(id: str, module: str, error: Exception) -> TaskError:
    return TaskError(
        f"Task {id!r}: importing the module {module!r} raised {type(error).__name__}: {error}; mend the module, or "
        "install what it needs.",
        traceback.format_exc(),
    )


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

    Snapshots are journals: the key of each slot's episode, its actions so far, and a digest of what each step
    returned. `restore` makes the environment again, seeds it, repeats the actions and compares every step. Where the
    task calls itself non-deterministic, two short episodes with one seed differ, or *a replay differs, now or when an
    earlier snapshot was restored*, `spec.resume` is "episode": `restore` starts the slots' episodes again and
    `observations` holds what they start from. `notes` says then which step differed.

    Args:
        id: the task, "FrozenLake-v1", or "module:id" to import module first.
        num_slots: B.
        num_threads: worker processes, at most one a slot; 0 for one a core.
        options: keyword arguments for `gymnasium.make`, and those of `workhorse.environments.wrappers`.

    Raises:
        UsageError: the task is unknown.
        TaskError: it cannot be made, or has a space that is not supported; or, from any call, the environment raised,
            returned nonsense or ended its process. The adapter is closed after such an error.

    Source: Gymnasium's `AsyncVectorEnv` for the idea. Differs from it by resetting in the same step, by keeping the
    true successor, by stepping subsets of slots, and by seeds that belong to episodes.
    """

    def __init__(self, id: str, num_slots: int = 1, num_threads: int = 0, **options: Any) -> None:
        if num_slots < 1 or num_threads < 0:
            raise UsageError(
                f"{id}: num_slots must be at least 1 and num_threads at least 0: {num_slots}, {num_threads}."
            )
        check_shared_options(id, options)
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
        self._digests: list[list[int]] = [[] for _ in range(num_slots)]
        self._differed = np.zeros((0, 2), np.int64)
        self._notes: list[str] = []
        self._entry, self._options = spec.entry_point, options

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
        try:
            replies = self._ask(requests, "stepping")
        except TaskError as error:
            if error.slot is not None:
                played = [*self._journal[error.slot], actions[slots.tolist().index(error.slot)]]
                seed = episode_seed(self._keys[error.slot])
                error.program = episode_program(self._spec, self._entry, self._options, seed, played, error.message)
            raise
        for worker, reply in replies.items():
            rows = self._worker_of[slots] == worker
            obs[rows], reward[rows], terminated[rows], truncated[rows], next_obs[rows] = reply
        for row, slot in enumerate(slots):
            self._journal[slot].append(actions[row])
            self._digests[slot].append(step_digest(next_obs[row], reward[row], terminated[row], truncated[row]))
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
        (sum of length, ...), slot after slot, "digests" uint32 (sum of length,) of their steps, and "differed" int64
        (n, 2), slot and step of a replay that differed: none, or the first of the first restore that had one.
        """
        kept = [action for journal in self._journal for action in journal]
        return {
            "keys": self._keys.copy(),
            "started": self._started.copy(),
            "running": self._running.copy(),
            "length": np.array([len(journal) for journal in self._journal], np.int64),
            "obs": self._obs.copy(),
            "actions": np.stack(kept) if kept else self._no_actions(),
            "digests": np.array([one for digests in self._digests for one in digests], np.uint32),
            "differed": self._differed.copy(),
        }

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Bring every slot back to a snapshot, or with `resume="episode"` to the start of the snapshot's episode.

        Raises:
            UsageError: the snapshot is of another number of slots or another task.
        """
        shape = np.shape(arrays["obs"])
        if shape[:1] != self._obs.shape[:1] or np.size(arrays["obs"]) != self._obs.size:
            raise UsageError(
                f"{self._spec.task}: the snapshot holds observations of shape {shape}, but this environment has "
                f"{self._obs.shape}; restore with the same task, options and number of slots."
            )
        if len(arrays.get("differed", ())) and not len(self._differed):
            self._give_up_replays(np.asarray(arrays["differed"], np.int64), "earlier")
        length = np.asarray(arrays["length"])
        # older snapshots hold flat images and matrices, and no digests
        actions = np.reshape(arrays["actions"], (-1, *self._no_actions().shape[1:]))
        digests = np.asarray(arrays.get("digests", ()), np.uint32)
        self._journal = [list(rows) for rows in np.split(actions, np.cumsum(length)[:-1])]
        self._digests = [[] for _ in self._journal]
        if len(digests) == len(actions):
            self._digests = [rows.tolist() for rows in np.split(digests, np.cumsum(length)[:-1])]
        self._keys, self._started = np.array(arrays["keys"], np.uint64), np.array(arrays["started"], bool)
        self._running = np.array(arrays["running"], bool)
        self._obs = np.array(arrays["obs"], self._dtype).reshape(self._obs.shape)
        if self._spec.resume == "journal":
            differed = self._replay(self._obs.copy())
            if not len(differed):
                return
            self._give_up_replays(differed, "now")
        self._journal, self._digests = [[] for _ in self._journal], [[] for _ in self._journal]
        self._running = self._started.copy()
        self._replay(None)

    def _replay(self, expected: np.ndarray | None) -> np.ndarray:
        """Play every slot's journal again; return (slot, step) of the first that differs, int64 (n, 2), n 0 or 1.

        Args:
            expected: the observations that the slots must end on; None for whatever they show.
        """
        for turn in range(max(len(part) for part in self._parts)):  # the workers replay side by side
            slots = {worker: part[turn] for worker, part in enumerate(self._parts) if turn < len(part)}
            requests = {
                worker: (
                    "replay",
                    (slot, self._keys[slot], self._actions_of(slot), np.array(self._digests[slot], np.uint32)),
                )
                for worker, slot in slots.items()
                if self._started[slot]
            }
            for worker, (obs, step) in self._ask(requests, "replaying").items():
                slot = slots[worker]
                if expected is not None and (step is not None or not np.array_equal(obs, expected[slot])):
                    return np.array([[slot, step or len(self._journal[slot])]], np.int64)
                self._obs[slot] = obs
        return np.zeros((0, 2), np.int64)

    def _actions_of(self, slot: int) -> np.ndarray:
        return np.stack(self._journal[slot]) if self._journal[slot] else self._no_actions()

    def _give_up_replays(self, differed: np.ndarray, when: Literal["now", "earlier"]) -> None:
        """Treat the task as one that is not deterministic, for good, and say why."""
        self._differed = differed
        self._spec = replace(self._spec, resume="episode")
        slot, step = differed[0].tolist()
        seed = episode_seed(self._keys[slot]) if when == "now" else None
        after = "" if seed is None else f" after reset(seed={seed})"
        told = ", as an earlier resume found" if when == "earlier" else ""
        self._notes.append(
            f"{self._spec.task} is not deterministic: step {step} of an episode{after} (slot {slot}) came out "
            f"otherwise when it was played again{told}, so something in it draws from elsewhere than self.np_random. "
            "Episodes under way begin again after every resume, and the run is not reproduced to the bit."
        )

    def notes(self) -> list[str]:
        """Return sentences that a user should know, those since the last call."""
        notes, self._notes = self._notes, []
        return notes

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
            except (UsageError, Unreachable, RuntimeError) as error:
                faults.append(error)
        if not faults:
            return replies
        fault = faults[0]
        if isinstance(fault, Unreachable):
            raise fault
        self.close()
        raise fault

    def _begin(self, slots: np.ndarray, keys: np.ndarray, obs: np.ndarray) -> None:
        self._keys[slots] = keys
        self._started[slots] = self._running[slots] = True
        self._obs[slots] = obs
        for slot in slots:
            self._journal[slot], self._digests[slot] = [], []

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
