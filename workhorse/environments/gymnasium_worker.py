"""One worker's share of a Gymnasium task: the environments of its slots, and the program of a worker process.

`SlotGroup` runs in a worker process behind a pipe (`main`), or in the caller's own process where the task's factory
cannot be reached from another one. Nothing here imports JAX.
"""

import contextlib
import copy
import json
import multiprocessing.spawn
import numbers
import os
import signal
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np

from workhorse.core.errors import TaskError
from workhorse.core.modules import import_module
from workhorse.core.spec import EnvSpec
from workhorse.environments.actions import random_actions
from workhorse.environments.gymnasium_spaces import Observations, action_space, shown
from workhorse.environments.wrappers import make_environment

__all__ = [
    "EnvironmentRecipe",
    "SlotGroup",
    "Unreachable",
    "episode_seed",
    "in_worker",
    "main",
    "step_digest",
]

PROBE_STEPS = 10

LONGEST_EPISODE = 100_000
"""Steps after which an episode of a task without a clock is truncated, so that nothing waits for ever. The longest
clock of a task in wide use is a quarter of it."""


class Unreachable(Exception):
    """The task's factory cannot be found from this process."""


@dataclass(frozen=True)
class EnvironmentRecipe:
    """Recipe to make the task anywhere: Gymnasium's spec, with its factory as a place to import it from.

    Attributes:
        task: the id the user gave, for messages.
        spec: Gymnasium's own record; its entry point is None where `place` says where to find it.
        module: imported first, for "module:id"; None otherwise.
        place: (module, qualified name) of a factory that was registered as an object or lives in `__main__`.
        main_path: file of the caller's `__main__` where the factory lives there.
        options: of the task, see `workhorse.environments.wrappers`.
    """

    task: str
    spec: Any
    module: str | None
    place: tuple[str, str] | None
    main_path: str | None
    options: dict[str, Any]


@dataclass
class _Slot:
    env: gymnasium.Env
    seed: int = 0
    steps: int = 0
    obs: np.ndarray = field(default_factory=lambda: np.empty(0))


def episode_seed(key: np.ndarray) -> int:
    """Return the seed, below 2**31, that an episode's key names; many environments keep only 32 bits of a seed."""
    return int(np.random.SeedSequence([int(word) for word in key]).generate_state(1)[0] >> 1)


def step_digest(obs: np.ndarray, reward: float, terminated: bool, truncated: bool) -> int:
    """Return 32 bits of all that a step returned, to find the first step in which a replay differs."""
    rest = np.array([reward, terminated, truncated], np.float64)
    return zlib.crc32(rest.data, zlib.crc32(np.ascontiguousarray(obs).data))


class SlotGroup:
    """The environments of some slots, stepped one after another.

    Raises:
        Unreachable: from the constructor, where the factory cannot be imported here.
        TaskError: wherever the environment raises or returns what the contract does not allow.
    """

    def __init__(self, recipe: EnvironmentRecipe, slots: list[int]) -> None:
        self._task = recipe.task
        self._make = _factory(recipe)
        self._told = False  # simulators write the same warning for every model: one of them is enough
        self._slots = {slot: _Slot(self._made(slot)) for slot in slots}
        first = self._slots[slots[0]].env
        self._limit = None if first.spec is None else first.spec.max_episode_steps
        self._observations = Observations(self._task, getattr(first, "observation_space", None))
        self._action, self._action_format = action_space(self._task, getattr(first, "action_space", None))

    def describe(self) -> tuple[EnvSpec, np.dtype]:
        """Return the task, without its options, and the dtype of observations.

        The first slot plays two episodes from one seed with equal actions. Where they are equal to the bit, and the
        task does not call itself non-deterministic, a snapshot may be a journal.
        """
        slot = next(iter(self._slots))
        env = self._slots[slot].env
        dt = getattr(env.unwrapped, "dt", None)
        real = isinstance(dt, numbers.Real) and np.isfinite(float(dt)) and float(dt) > 0
        spec = EnvSpec(
            self._task,
            self._observations.box,
            self._action,
            self._limit,
            float(dt) if real else None,  # type: ignore[arg-type]
            resume="journal" if self._is_deterministic(slot) else "episode",
            action_format=self._action_format,
            observation_format=self._observations.format,
        )
        return spec, self._observations.dtype

    def reset(self, slots: list[int], keys: np.ndarray) -> np.ndarray:
        """Start an episode in each slot and return the observations, (n, ...)."""
        return self._rows([self._reset(slot, key) for slot, key in zip(slots, keys, strict=True)])

    def step(
        self, slots: list[int], actions: np.ndarray, keys: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return (obs, reward, terminated, truncated, next_obs); ended slots start again where `keys` are given."""
        obs, next_obs = [], []
        reward, terminated, truncated = np.zeros(len(slots)), np.zeros(len(slots), bool), np.zeros(len(slots), bool)
        for row, slot in enumerate(slots):
            successor, reward[row], terminated[row], truncated[row] = self._step(slot, actions[row])
            next_obs.append(successor)
            ended = terminated[row] or truncated[row]
            obs.append(self._reset(slot, keys[row]) if ended and keys is not None else successor)
        return self._rows(obs), reward, terminated, truncated, self._rows(next_obs)

    def replay(
        self, slot: int, key: np.ndarray, actions: np.ndarray, digests: np.ndarray
    ) -> tuple[np.ndarray, int | None]:
        """Make the slot's environment anew, seed it and repeat `actions`.

        Args:
            digests: `step_digest` of every step as it was; empty where that is not known.

        Returns:
            The observation it ends on, and the first step, from 1, that differs: it goes no further then. None where
            no step does.
        """
        self._slots[slot].env.close()
        self._slots[slot] = _Slot(self._made(slot))
        obs = self._reset(slot, key)
        for number, action in enumerate(actions, 1):
            found = self._step(slot, action)
            obs = found[0]
            if len(digests) and step_digest(*found) != digests[number - 1]:
                return obs, number
        return obs, None

    def close(self) -> None:
        for slot in self._slots.values():
            slot.env.close()
        self._slots = {}

    def _rows(self, rows: list[np.ndarray]) -> np.ndarray:
        return np.stack(rows) if rows else np.zeros((0, *self._observations.box.shape), self._observations.dtype)

    def _made(self, slot: int) -> gymnasium.Env:
        told, self._told = self._told, True
        try:
            with _without_stderr() if in_worker() and (told or slot) else contextlib.nullcontext():
                return self._make()
        except TaskError:
            raise
        except Exception as error:
            raise TaskError(
                f"{self._task} could not be made: {_said(error)} (slot {slot}); check its options and dependencies.",
                traceback.format_exc(),
            ) from error

    def _reset(self, slot: int, key: np.ndarray) -> np.ndarray:
        holder = self._slots[slot]
        seed = holder.seed = episode_seed(key)
        where = f"in reset(seed={seed}), slot {slot}"
        try:
            result = holder.env.reset(seed=seed)
        except Exception as error:
            raise TaskError(
                f"{self._task} raised {_said(error)} {where}; mend the environment.", traceback.format_exc()
            ) from error
        if not isinstance(result, tuple) or len(result) != 2:
            raise TaskError(f"{self._task} returned {shown(result)} {where}; return the pair (observation, info).")
        holder.steps = 0
        holder.obs = self._observations.array(result[0], where)
        return holder.obs

    def _step(self, slot: int, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        holder = self._slots[slot]
        holder.steps += 1
        written = self._action_format.write(self._action, action)
        where = f"at step {holder.steps} of the episode, slot {slot}"
        try:
            found = self._checked_step(holder, written, where)
        except TaskError as error:
            told = str(np.asarray(written).tolist())
            told = f"{where} (reset(seed={holder.seed}), action {told if len(told) <= 100 else told[:97] + '...'})"
            raise TaskError(error.message.replace(where, told), error.traceback, slot=slot) from error
        holder.obs = found[0]
        if self._limit is None and holder.steps >= LONGEST_EPISODE:
            return *found[:3], True
        return found

    def _checked_step(self, holder: _Slot, written: Any, where: str) -> tuple[np.ndarray, float, bool, bool]:
        """Return what an environment's step returned, after checking it."""
        result: Any
        try:
            result = holder.env.step(written)
        except Exception as error:
            if isinstance(error, ValueError) and "to unpack (expected 5" in str(error):
                result = f"something else than five things ({error})"
            else:
                raise TaskError(
                    f"{self._task} raised {_said(error)} {where}; mend the environment.", traceback.format_exc()
                ) from error
        if not isinstance(result, tuple) or len(result) != 5:
            raise TaskError(
                f"{self._task} returned {shown(result)} {where}; step must return the 5-tuple "
                "(observation, reward, terminated, truncated, info)."
            )
        obs, reward, terminated, truncated = result[:4]
        if np.ndim(reward) != 0 or not isinstance(np.asarray(reward).item(), numbers.Real):
            raise TaskError(f"{self._task} returned the reward {shown(reward)} {where}; return one real number.")
        if not np.isfinite(float(reward)):
            raise TaskError(f"{self._task} returned the reward {float(reward)} {where}; rewards must be finite.")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if np.ndim(flag) != 0 or np.asarray(flag).dtype != bool:
                raise TaskError(f"{self._task} returned {name}={shown(flag)} {where}; return True or False.")
        return self._observations.array(obs, where), float(reward), bool(terminated), bool(truncated)

    def _is_deterministic(self, slot: int) -> bool:
        """Return whether two short episodes with one seed and equal actions are equal.

        A failure in them is not reported: it will come again, with its slot and step, when the episode is a real one.
        Up to there, equal steps are all that is asked: a task that raises now and then is not thereby random.
        """
        spec = self._slots[slot].env.spec
        if spec is not None and spec.nondeterministic:
            return False
        try:
            episodes = self._short_episode(slot), self._short_episode(slot)
            return all(one == other for one, other in zip(*episodes, strict=False))
        finally:  # leave no trace: the slot is as new as the others
            self._slots[slot].env.close()
            self._slots[slot] = _Slot(self._made(slot))

    def _short_episode(self, slot: int) -> list[tuple[Any, ...]]:
        """Return what is seen in an episode of random actions; a failure ends it."""
        rng = np.random.default_rng(0)
        seen: list[tuple[Any, ...]] = []
        try:
            seen.append((self._reset(slot, np.array([0, 1], np.uint64)).tobytes(),))
            for _ in range(PROBE_STEPS):
                obs, reward, terminated, truncated = self._step(slot, random_actions(self._action, (), rng))
                seen.append((obs.tobytes(), reward, terminated, truncated))
                if terminated or truncated:
                    break
        except TaskError:
            pass  # what came before it is compared
        return seen


def _factory(recipe: EnvironmentRecipe) -> Callable[[], gymnasium.Env]:
    """A function that makes one environment, or `Unreachable`."""
    try:
        if recipe.main_path is not None and in_worker():
            multiprocessing.spawn.prepare({"init_main_from_path": recipe.main_path})
        if recipe.module is not None:
            import_module(recipe.module)
        spec = copy.copy(recipe.spec)
        if recipe.place is not None:
            module, name = recipe.place
            found: Any = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
            spec.entry_point = found
    except BaseException as error:  # a script run for its definitions may also call sys.exit
        raise Unreachable(_said(error)) from error
    gymnasium.registry.setdefault(spec.id, spec)
    return lambda: make_environment(recipe.task, spec, recipe.options)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Context manager: discard what this process writes to standard error, by Python or past it."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


_worker = False


def in_worker() -> bool:
    """Return whether this process is one of the adapter's workers."""
    return _worker


def main(descriptor: int, parent: int) -> None:
    """Serve one `SlotGroup` over a pipe until it is closed or the parent is gone.

    A request is (name, arguments); a reply ("ok", result), ("fault", message, traceback, slot) or ("unreachable",
    message).
    The first request is ("build", (recipe, slots)).
    """
    global _worker
    _worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    group: SlotGroup | None = None
    result: Any
    with Connection(descriptor) as pipe:
        while True:
            try:
                name, arguments = pipe.recv()
            except (EOFError, OSError):
                break
            except Exception as error:  # an option whose class this process does not know
                pipe.send(("unreachable", _said(error)))
                continue
            if name == "close":
                break
            try:
                if name == "build":
                    group, result = SlotGroup(*arguments), None
                else:
                    result = getattr(group, name)(*arguments)
                pipe.send(("ok", result))
            except Unreachable as error:
                pipe.send(("unreachable", str(error)))
            except TaskError as error:
                pipe.send(("fault", error.message, error.traceback, error.slot))
            except Exception:
                pipe.send(("broken", traceback.format_exc()))
    if group is not None:
        group.close()


def _leave_with(parent: int) -> None:
    """End the process when its parent is gone, even in the middle of a long step."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def command(descriptor: int) -> list[str]:
    """The command line of a worker that sees the modules this process sees."""
    start = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
        "from workhorse.environments.gymnasium_worker import main; main(int(sys.argv[2]), int(sys.argv[3]))"
    )
    return [sys.executable, "-c", start, json.dumps(sys.path), str(descriptor), str(os.getpid())]
