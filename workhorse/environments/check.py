"""Does an environment keep the promises of `protocol`? `check_env` runs it and names the first one it breaks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core import numerics  # noqa: F401
from workhorse.core.spec import Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.batch import episode_keys
from workhorse.environments.protocol import HostEnv, JaxEnv

__all__ = ["PROMISES", "BrokenPromise", "check_env"]

PROMISES = {
    "spec": "the spec, and a pure environment itself, are hashable, and it describes the task",
    "shapes": "shapes and dtypes are those of the spec and the protocol",
    "flags": "terminated and truncated are bool, one a slot, and kept apart",
    "finite": "observations and rewards are finite",
    "clock": "truncated comes with step max_episode_steps of an episode, and not before",
    "equal keys": "equal keys and actions give equal episodes, whatever was done before",
    "different keys": "different keys give different episodes",
    "successor": "next_obs is the true successor, also where the slot was started again",
    "reset observation": "obs is the reset observation where the slot was started again, and next_obs elsewhere",
    "slot order": "permuting the slots permutes the result and changes nothing else",
    "slot subsets": "stepping some slots and then the others equals stepping all",
    "snapshot": "a restored snapshot goes on as spec.resume says",
    "returned arrays": "a later call does not write into returned arrays",
    "close": "close may be called twice",
    "state": "a step keeps the state's tree, shapes and dtypes",
    "jit": "a compiled function gives what the plain one gives",
    "vmap": "mapping over slots gives what a loop over them gives",
    "compilation": "a second call, or one with a step's own state, compiles nothing",
}

_HOST_LIMIT = 1100
_NO_CLOCK_LIMIT = 200


class BrokenPromise(AssertionError):
    """An environment does not do what its protocol says; `promise` is the key of `PROMISES`."""

    def __init__(self, task: str, promise: str, found: str) -> None:
        super().__init__(f"{task} breaks the promise {promise!r} ({PROMISES[promise]}): {found}.")
        self.promise = promise


def check_env(
    env: HostEnv | JaxEnv | Callable[[], HostEnv | JaxEnv],
    *,
    single_start: bool = False,
    early_truncation: bool = False,
) -> None:
    """Run an environment through its contract.

    Args:
        env: an environment, which is *used up*: it is stepped, reset and, if it is a host environment, closed. Or a
            function that makes a fresh one, and then snapshots are restored in a second environment too. Host
            environments should have at least 3 slots, or the promises about slots are only half tested.
        single_start: the task starts from one state and draws nothing, so different keys give equal episodes.
        early_truncation: the task may truncate before its clock runs out.

    Raises:
        BrokenPromise: the first promise that does not hold, and what was seen instead.

    What a run of random actions does not reach is not checked: a clock longer than the episodes get, for one. Where
    `spec.resume` is "episode", the task is not deterministic and promises about equal bits are skipped.
    """
    given: Any = env
    made = not isinstance(given, type) and isinstance(given, JaxEnv)  # every HostEnv is one by its names
    factory: Any = None if made else given
    first: Any = given if factory is None else factory()
    if isinstance(first, HostEnv):
        _HostCheck(first, factory, single_start, early_truncation).run()
    elif isinstance(first, JaxEnv):
        _JaxCheck(first, single_start, early_truncation).run()
    else:
        raise TypeError(
            f"check_env takes a HostEnv, a JaxEnv or a function that makes one, not {type(first).__name__}."
        )


def random_actions(spec: EnvSpec, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Actions of `shape` (before the action's own axis), uniform in the bounds, or in [-1, 1] where there are none."""
    if isinstance(spec.action, Discrete):
        return rng.integers(spec.action.count, size=shape)
    low, high = np.array(spec.action.low), np.array(spec.action.high)
    low, high = np.where(np.isfinite(low), low, -1.0), np.where(np.isfinite(high), high, 1.0)
    return rng.uniform(low, high, (*shape, spec.action.size))


def check_clock(spec: EnvSpec, steps: int, truncated: bool, early_truncation: bool, where: str) -> None:
    """Raise unless `truncated`, after `steps` steps of an episode, is what the clock says."""
    limit = spec.max_episode_steps
    if limit is not None and steps >= limit and not truncated:
        raise BrokenPromise(spec.task, "clock", f"step {steps} of {limit} {where} was not truncated")
    if limit is not None and steps < limit and truncated and not early_truncation:
        raise BrokenPromise(spec.task, "clock", f"step {steps} of {limit} {where} was truncated")


class _HostCheck:
    """One run of `check_env` over a host environment. Each method tests what its name says."""

    def __init__(
        self, env: HostEnv, factory: Callable[[], Any] | None, single_start: bool, early_truncation: bool
    ) -> None:
        self.env, self.factory = env, factory
        self.single_start, self.early_truncation = single_start, early_truncation
        self.spec, self.slots = env.spec, np.arange(env.num_slots)
        self.deterministic = env.spec.resume != "episode"
        limit = min(self.spec.max_episode_steps or _NO_CLOCK_LIMIT, _HOST_LIMIT)
        self.horizon = limit + 2
        self.actions = random_actions(self.spec, (self.horizon, len(self.slots)), np.random.default_rng(0))

    def run(self) -> None:
        self.check_spec()
        recorded = self.check_episodes()
        if self.deterministic:
            self.check_equal_keys(recorded)
            self.check_successors(recorded)
            self.check_reset_observations(recorded)
            self.check_slot_order(recorded)
            self.check_slot_subsets(recorded)
        self.check_different_keys()
        self.check_snapshot()
        self.check_close()

    def broken(self, promise: str, found: str) -> BrokenPromise:
        return BrokenPromise(self.spec.task, promise, found)

    def keys(self, episode: int) -> np.ndarray:
        return episode_keys(self.env, 0, "reset", episode, self.slots)

    def check_spec(self) -> None:
        try:
            hash(self.spec)
        except TypeError as error:
            raise self.broken("spec", f"hash(spec) raised {error}") from error
        if self.spec.resume not in ("exact", "journal", "episode"):
            raise self.broken("spec", f"resume is {self.spec.resume!r}")
        if len(self.slots) < 1:
            raise self.broken("spec", f"num_slots is {len(self.slots)}")

    def check_episodes(self) -> tuple[np.ndarray, list[Step]]:
        """Record a run with automatic resets; its shapes, flags, clock, and that nothing is overwritten."""
        first, steps, copies = self.env.reset(self.keys(0)), [], []
        self.check_observations("reset", first, len(self.slots))
        kept = first.copy()
        clock = np.zeros(len(self.slots), int)
        for t in range(self.horizon):
            step = self.env.step(self.actions[t], None, self.keys(t + 1))
            self.check_step(step, f"step {t}", len(self.slots))
            clock += 1
            failed = np.asarray(step.measures.get("failed", np.zeros(len(self.slots), bool)))
            for slot in self.slots[~failed]:
                truncated = bool(step.truncated[slot])
                check_clock(self.spec, int(clock[slot]), truncated, self.early_truncation, f"of slot {slot}")
            clock[step.terminated | step.truncated] = 0
            steps.append(step)
            copies.append([np.copy(part) for part in step[:5]])
        pairs = zip(steps, copies, strict=True)
        if not np.array_equal(first, kept) or not all(_equal(step[:5], copied) for step, copied in pairs):
            raise self.broken("returned arrays", "an array returned earlier changed while the environment was stepped")
        return first, steps

    def check_observations(self, name: str, obs: np.ndarray, count: int) -> None:
        shape = (count, self.spec.observation.size)
        if not isinstance(obs, np.ndarray) or obs.shape != shape:
            raise self.broken("shapes", f"{name} returned observations of shape {np.shape(obs)}, expected {shape}")
        if obs.dtype not in (np.float32, np.float64):
            raise self.broken("shapes", f"{name} returned observations of dtype {obs.dtype}, not float32 or float64")
        if not np.all(np.isfinite(obs)):
            raise self.broken("finite", f"{name} returned observations with NaN or infinity")

    def check_step(self, step: Step, name: str, count: int) -> None:
        self.check_observations(name, step.obs, count)
        self.check_observations(f"{name} (next_obs)", step.next_obs, count)
        if np.shape(step.reward) != (count,) or step.reward.dtype != np.float64:
            found = f"{step.reward.dtype} {np.shape(step.reward)}"
            raise self.broken("shapes", f"{name} returned rewards {found}, expected float64 ({count},)")
        if not np.all(np.isfinite(step.reward)):
            raise self.broken("finite", f"{name} returned a reward that is NaN or infinite")
        for flag in ("terminated", "truncated"):
            value = np.asarray(getattr(step, flag))
            if value.shape != (count,) or value.dtype != bool:
                raise self.broken(
                    "flags", f"{name} returned {flag} {value.dtype} {value.shape}, expected bool ({count},)"
                )
        if np.shares_memory(step.terminated, step.truncated):
            raise self.broken("flags", f"{name} returned one array for terminated and truncated")
        for measure, value in step.measures.items():
            if np.shape(value)[:1] != (count,):
                raise self.broken("shapes", f"{name} returned measures[{measure!r}] of shape {np.shape(value)}")

    def check_equal_keys(self, recorded: tuple[np.ndarray, list[Step]]) -> None:
        again = self.env.reset(self.keys(0))
        if not np.array_equal(again, recorded[0]):
            raise self.broken("equal keys", "two resets with the same keys returned different observations")
        for t, step in enumerate(recorded[1]):
            repeated = self.env.step(self.actions[t], None, self.keys(t + 1))
            if not _equal(step[:5], repeated[:5]):
                raise self.broken("equal keys", f"the same episodes differed at step {t} when they were run again")

    def check_successors(self, recorded: tuple[np.ndarray, list[Step]]) -> None:
        """The first episode of each slot again, without resets: its last successor must be the recorded one."""
        self.env.reset(self.keys(0))
        going = self.slots
        for t, step in enumerate(recorded[1]):
            plain = self.env.step(self.actions[t, going], going)
            if not np.array_equal(plain.next_obs, step.next_obs[going]):
                raise self.broken("successor", f"at step {t} it differs between stepping with and without reset keys")
            if not np.array_equal(plain.obs, plain.next_obs):
                raise self.broken(
                    "reset observation", f"at step {t} obs is not next_obs, though no reset was asked for"
                )
            going = going[~(plain.terminated | plain.truncated)]
            if len(going) == 0:
                return

    def check_reset_observations(self, recorded: tuple[np.ndarray, list[Step]]) -> None:
        checked = 0
        for t, step in enumerate(recorded[1]):
            ended = step.terminated | step.truncated
            if not np.array_equal(step.obs[~ended], step.next_obs[~ended]):
                raise self.broken("reset observation", f"at step {t} obs is not next_obs in a slot that goes on")
            if np.any(ended) and checked < 5:
                checked += 1
                fresh = self.env.reset(self.keys(t + 1)[ended], self.slots[ended])
                if not np.array_equal(step.obs[ended], fresh):
                    raise self.broken("reset observation", f"at step {t} obs is not what reset returns for that key")

    def check_slot_order(self, recorded: tuple[np.ndarray, list[Step]]) -> None:
        order = self.slots[::-1]
        self.env.reset(self.keys(0)[order])
        for t, step in enumerate(recorded[1][:60]):
            permuted = self.env.step(self.actions[t, order], None, self.keys(t + 1)[order])
            if not _equal([part[order] for part in step[:5]], permuted[:5]):
                raise self.broken("slot order", f"episodes moved to other slots differed at step {t}")
        self.env.reset(self.keys(0)[order], order)
        for t, step in enumerate(recorded[1][:60]):
            permuted = self.env.step(self.actions[t, order], order, self.keys(t + 1)[order])
            if not _equal([part[order] for part in step[:5]], permuted[:5]):
                raise self.broken("slot order", f"naming the slots in reverse order changed step {t}")

    def check_slot_subsets(self, recorded: tuple[np.ndarray, list[Step]]) -> None:
        for slots in (self.slots[1::2], self.slots[::2]):
            self.env.reset(self.keys(0)[slots], slots)
        for t, step in enumerate(recorded[1][:60]):
            for slots in (self.slots[1::2], self.slots[::2]):
                part = self.env.step(self.actions[t, slots], slots, self.keys(t + 1)[slots])
                self.check_step(part, f"step {t} of slots {slots.tolist()}", len(slots))
                if not _equal([whole[slots] for whole in step[:5]], part[:5]):
                    raise self.broken("slot subsets", f"slots {slots.tolist()} stepped alone differed at step {t}")

    def check_different_keys(self) -> None:
        if self.single_start:
            return
        seen = set()
        actions = np.repeat(self.actions[:20, :1], len(self.slots), axis=1)
        for episode in range(4):
            trace = [self.env.reset(self.keys(1000 + episode))]
            for t in range(min(20, self.horizon)):
                step = self.env.step(actions[t], None, self.keys(2000 + t))
                trace += [step.next_obs, step.reward[:, None]]
            seen |= {row.tobytes() for row in np.concatenate(trace, axis=1).astype(np.float64)}
        if len(seen) == 1:
            raise self.broken(
                "different keys", "all gave the same one; if the task has a single start, pass single_start=True"
            )

    def check_snapshot(self) -> None:
        env, start = self.env, min(7, self.horizon - 1)
        span = range(start, min(start + 25, self.horizon))
        env.reset(self.keys(0))
        for t in range(start):
            env.step(self.actions[t], None, self.keys(t + 1))
        saved = env.snapshot()
        for name, array in saved.items():
            if not isinstance(array, np.ndarray) or array.dtype == object:
                raise self.broken("snapshot", f"{name!r} is no plain array")
        kept = {name: array.copy() for name, array in saved.items()}
        expected = [env.step(self.actions[t], None, self.keys(t + 1)) for t in span]
        if not _equal(list(kept.values()), list(saved.values())):
            raise self.broken("snapshot", "its arrays changed while the environment was stepped on")
        env.reset(self.keys(3000))
        self.check_restored(env, kept, expected, span, "in the same environment")
        if self.factory is not None:
            fresh = self.factory()
            self.check_restored(fresh, kept, expected, span, "in a fresh environment")
            fresh.close()

    def check_restored(
        self, env: HostEnv, saved: dict[str, np.ndarray], expected: list[Step], span: range, where: str
    ) -> None:
        env.restore(saved)
        for t, step in zip(span, expected, strict=True):
            again = env.step(self.actions[t], None, self.keys(t + 1))
            self.check_step(again, f"step {t} after restore", len(self.slots))
            if self.deterministic and not _equal(step[:5], again[:5]):
                raise self.broken("snapshot", f"restored {where}, step {t} differed")

    def check_close(self) -> None:
        for turn in ("first", "second"):
            try:
                self.env.close()
            except Exception as error:
                raise self.broken("close", f"the {turn} call raised {type(error).__name__}: {error}") from error


class _JaxCheck:
    """One run of `check_env` over a pure environment. Each method tests what its name says.

    Compiled, plain and mapped calls may differ in the last bits, because XLA fuses them differently: they are compared
    to 1e-6, one step at a time from equal states. Everything else is compared exactly.
    """

    def __init__(self, env: JaxEnv, single_start: bool, early_truncation: bool) -> None:
        self.env, self.spec = env, env.spec
        self.single_start, self.early_truncation = single_start, early_truncation
        self.horizon = min(self.spec.max_episode_steps or _NO_CLOCK_LIMIT, _HOST_LIMIT) + 2
        actions = random_actions(self.spec, (4, self.horizon), np.random.default_rng(0))
        self.actions = jnp.asarray(actions, jnp.int32 if isinstance(self.spec.action, Discrete) else jnp.float32)
        self.root = jax.random.key(0)
        self.traces = {"reset": 0, "step": 0}
        self.reset = jax.jit(partial(self.counted, "reset", env.reset))
        self.step = jax.jit(partial(self.counted, "step", env.step))

    def run(self) -> None:
        self.check_spec()
        self.check_shapes()
        self.check_compilation()
        self.check_jit()
        self.check_vmap()
        self.check_equal_keys()
        self.check_different_keys()
        self.check_episodes()

    def counted(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        self.traces[name] += 1
        return function(*arguments)

    def broken(self, promise: str, found: str) -> BrokenPromise:
        return BrokenPromise(self.spec.task, promise, found)

    def key(self, *address: int) -> Any:
        key = self.root
        for index in address:
            key = jax.random.fold_in(key, index)
        return key

    def check_spec(self) -> None:
        try:
            hash((self.env, self.spec))  # compiled programs are told apart by them
        except TypeError as error:
            raise self.broken("spec", f"hash((env, spec)) raised {error}") from error
        if self.spec.resume != "exact":
            raise self.broken("spec", f"resume is {self.spec.resume!r}, but the state of a JaxEnv is all there is")

    def check_shapes(self) -> None:
        state, obs = self.env.reset(self.key(0))
        following, step = self.env.step(state, self.actions[0, 0], self.key(1))
        for name, value in (("reset's observation", obs), ("obs", step.obs), ("next_obs", step.next_obs)):
            if value.shape != (self.spec.observation.size,) or not jnp.issubdtype(value.dtype, jnp.floating):
                expected = f"float ({self.spec.observation.size},)"
                raise self.broken("shapes", f"{name} is {value.dtype} {value.shape}, expected {expected}")
        if step.reward.shape != () or step.reward.dtype != jnp.float64:
            raise self.broken("shapes", f"reward is {step.reward.dtype} {step.reward.shape}, expected float64 ()")
        for flag in ("terminated", "truncated"):
            value = getattr(step, flag)
            if jnp.shape(value) != () or jnp.asarray(value).dtype != bool:
                raise self.broken("flags", f"{flag} is {jnp.asarray(value).dtype} {jnp.shape(value)}, expected bool ()")
        before, after = jax.tree.structure(state), jax.tree.structure(following)
        if before != after:
            raise self.broken("state", f"reset gave {before} and step gave {after}")
        for was, becomes in zip(jax.tree.leaves(state), jax.tree.leaves(following), strict=True):
            if jnp.shape(was) != jnp.shape(becomes) or jnp.asarray(was).dtype != jnp.asarray(becomes).dtype:
                raise self.broken("state", f"a leaf was {_kind(was)} after reset and {_kind(becomes)} after step")

    def check_compilation(self) -> None:
        state, _ = self.reset(self.key(0))
        self.reset(self.key(1))
        for t in range(3):
            state, _ = self.step(state, self.actions[0, t], self.key(t))
        for name, traces in self.traces.items():
            if traces != 1:
                raise self.broken("compilation", f"{name} was compiled {traces} times; look for a leaf of weak type")

    def check_jit(self) -> None:
        state, obs = self.env.reset(self.key(0))
        self.close_to("jit", "reset", (state, obs), self.reset(self.key(0)))
        for t in range(min(3, self.horizon)):
            plain = self.env.step(state, self.actions[0, t], self.key(t))
            self.close_to("jit", f"step {t}", plain, self.step(state, self.actions[0, t], self.key(t)))
            state = plain[0]

    def check_vmap(self) -> None:
        keys = jax.random.split(self.key(5), 4)
        states, obs = jax.jit(jax.vmap(self.env.reset))(keys)
        singles = [self.reset(key) for key in keys]
        self.close_to("vmap", "reset", (states, obs), _stacked(singles))
        mapped = jax.jit(jax.vmap(self.env.step))(states, self.actions[:, 0], keys)
        loop = [self.step(state, self.actions[row, 0], keys[row]) for row, (state, _) in enumerate(singles)]
        self.close_to("vmap", "step", mapped, _stacked(loop))

    def close_to(self, promise: str, name: str, left: Any, right: Any) -> None:
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
            if not np.allclose(np.asarray(_plain(a), np.float64), np.asarray(_plain(b), np.float64), 1e-6, 1e-6):
                raise self.broken(promise, f"{name} differed by more than 1e-6")

    def episode(self, row: int, key: int) -> tuple[np.ndarray, Step]:
        """The reset's observation and all steps of the horizon, past the episode's end where it comes."""
        state, obs = self.reset(self.key(key))
        keys = jax.random.split(self.key(key, 1), self.horizon)
        _, steps = _unroll(self.env, state, self.actions[row], keys)
        return np.asarray(obs), jax.device_get(steps)

    def check_equal_keys(self) -> None:
        first, again = self.episode(0, 7), self.episode(0, 7)
        pairs = zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True)
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in pairs):  # NaN has a promise of its own
            raise self.broken("equal keys", "the same reset key, actions and step keys gave two different episodes")

    def check_different_keys(self) -> None:
        traces = [self.episode(0, key) for key in range(10, 14)]
        seen = {obs.tobytes() + steps.next_obs.tobytes() + steps.reward.tobytes() for obs, steps in traces}
        if len(seen) == 1 and not self.single_start:
            raise self.broken(
                "different keys", "all gave the same one; if the task has a single start, pass single_start=True"
            )

    def check_episodes(self) -> None:
        for row in range(4):
            _, steps = self.episode(row, 20 + row)
            ended = steps.terminated | steps.truncated
            length = int(np.argmax(ended)) + 1 if np.any(ended) else self.horizon
            if not np.all(np.isfinite(steps.next_obs[:length])) or not np.all(np.isfinite(steps.reward[:length])):
                raise self.broken("finite", f"an episode of {length} steps has an observation or a reward that is not")
            if not np.array_equal(steps.obs[:length], steps.next_obs[:length]):
                raise self.broken("reset observation", "obs is not next_obs, though a JaxEnv does not reset by itself")
            for t in range(length):
                check_clock(self.spec, t + 1, bool(steps.truncated[t]), self.early_truncation, f"of episode {row}")


@partial(jax.jit, static_argnums=0)
def _unroll(env: JaxEnv, state: Any, actions: Any, keys: Any) -> Any:
    return jax.lax.scan(lambda carry, inputs: env.step(carry, *inputs), state, (actions, keys))


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key) else leaf


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _kind(leaf: Any) -> str:
    return f"{jnp.asarray(leaf).dtype}{list(jnp.shape(leaf))}"


def _equal(left: Any, right: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
