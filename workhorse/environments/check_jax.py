"""The checks of `check_env` for pure environments."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core import numerics  # noqa: F401
from workhorse.core.spec import Box
from workhorse.core.types import Step
from workhorse.environments.actions import random_actions
from workhorse.environments.promises import BrokenPromise, check_clock, check_spaces, horizon
from workhorse.environments.protocol import JaxEnv

__all__ = ["JaxCheck"]


class JaxCheck:
    """One run of `check_env` over a pure environment. Each method tests what its name says.

    Compiled, plain and mapped calls may differ in the last bits, because XLA fuses them differently: they are compared
    to 1e-6, one step at a time from equal states. Everything else is compared exactly.
    """

    def __init__(self, env: JaxEnv, single_start: bool, early_truncation: bool) -> None:
        self.env, self.spec = env, env.spec
        self.single_start, self.early_truncation = single_start, early_truncation
        self.horizon = horizon(self.spec)
        self.root = jax.random.key(0)
        self.traces = {"reset": 0, "step": 0}
        self.reset = jax.jit(partial(self.counted, "reset", env.reset))
        self.step = jax.jit(partial(self.counted, "step", env.step))

    def run(self) -> None:
        self.check_spec()
        actions = random_actions(self.spec.action, (4, self.horizon), np.random.default_rng(0))
        self.actions = jnp.asarray(actions, jnp.float32 if isinstance(self.spec.action, Box) else jnp.int32)
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
        check_spaces(self.spec)

    def check_shapes(self) -> None:
        state, obs = self.env.reset(self.key(0))
        following, step = self.env.step(state, self.actions[0, 0], self.key(1))
        shape = self.spec.observation.shape
        for name, value in (("reset's observation", obs), ("obs", step.obs), ("next_obs", step.next_obs)):
            if value.shape != shape or not jnp.issubdtype(value.dtype, jnp.floating):
                raise self.broken("shapes", f"{name} is {value.dtype} {value.shape}, expected float {shape}")
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
