"""The checks of `check_env` for host environments."""

from collections.abc import Callable
from typing import Any

import numpy as np

from workhorse.core.types import Step
from workhorse.environments.actions import random_actions
from workhorse.environments.batch import episode_keys
from workhorse.environments.promises import BrokenPromise, check_clock, check_spaces, horizon
from workhorse.environments.protocol import HostEnv

__all__ = ["HostCheck"]


class HostCheck:
    """One run of `check_env` over a host environment. Each method tests what its name says."""

    def __init__(
        self, env: HostEnv, factory: Callable[[], Any] | None, single_start: bool, early_truncation: bool
    ) -> None:
        self.env, self.factory = env, factory
        self.single_start, self.early_truncation = single_start, early_truncation
        self.spec, self.slots = env.spec, np.arange(env.num_slots)
        self.deterministic = env.spec.resume != "episode"
        self.horizon = horizon(self.spec)

    def run(self) -> None:
        self.check_spec()
        rng = np.random.default_rng(0)
        self.actions = random_actions(self.spec.action, (self.horizon, len(self.slots)), rng)
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
        check_spaces(self.spec)

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
        shape = (count, *self.spec.observation.shape)
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
        actions = np.repeat(self.actions[:20, :1], len(self.slots), axis=1)  # so that only the keys differ
        for episode in range(4):
            trace = [_rows(self.env.reset(self.keys(1000 + episode)))]
            for t in range(min(20, self.horizon)):
                step = self.env.step(actions[t], None, self.keys(2000 + t))
                trace += [_rows(step.next_obs), step.reward[:, None]]
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


def _rows(obs: np.ndarray) -> np.ndarray:
    return obs.reshape(len(obs), -1)


def _equal(left: Any, right: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
