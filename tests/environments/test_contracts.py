"""Every environment keeps the protocol's promises, and `check_env` names each promise that a broken one breaks."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.core.addresses import host_generator
from workhorse.core.spec import ActionSpace, Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete
from workhorse.core.types import Step
from workhorse.environments import probes, registry
from workhorse.environments.check import PROMISES, BrokenPromise, check_env

SINGLE_START = {"BanditProbe", "QuadraticProbe", "ResetLeakProbe", "TerminationProbe", "TimeLimitProbe"}
SLOW = {
    "HalfCheetah-v5",
    "Swimmer-v5",
    "InvertedDoublePendulum-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "Ant-v5",
    "Walker2d-v5",
    "Pusher-v5",
}


def made(id: str) -> Any:
    try:
        return registry.make(id, 3, 2) if registry.TASKS[id].kind == "mujoco" else registry.make(id)
    except ModuleNotFoundError as error:  # of our own modules only
        if "workhorse.environments" in str(error):
            pytest.skip(f"{id} is not written yet")
        raise


@pytest.mark.parametrize(
    "id", [pytest.param(id, marks=pytest.mark.slow if id in SLOW else ()) for id in registry.TASKS]
)
def test_every_registered_task_keeps_its_promises(id: str) -> None:
    check_env(lambda: made(id))


@pytest.mark.parametrize(
    ("id", "options"),
    [
        ("CartPole-v1", {"max_episode_steps": 5, "sutton_barto_reward": True}),
        ("Acrobot-v1", {"torque_noise_max": 1.0, "max_episode_steps": 20}),
        ("MountainCar-v0", {"max_episode_steps": None}),
    ],
)
def test_options_keep_the_promises(id: str, options: dict[str, Any]) -> None:
    check_env(registry.make(id, **options))


@pytest.mark.parametrize("name", probes.__all__)
def test_every_probe_keeps_its_promises(name: str) -> None:
    check_env(getattr(probes, name)(), single_start=name in SINGLE_START)


def test_a_second_call_compiles_nothing() -> None:
    """Counted by JAX itself, over environments made anew: equal environments share one compilation."""
    for id, task in registry.TASKS.items():
        if task.kind != "classic":
            continue
        step = jax.jit(lambda env, state, action, key: env.step(state, action, key), static_argnums=0)
        for _ in range(2):
            env: Any = registry.make(id)
            state, _ = env.reset(jax.random.key(0))
            action = jnp.zeros(env.spec.action.size, jnp.float32) if isinstance(env.spec.action, Box) else jnp.int32(1)
            for _ in range(3):
                state, _ = step(env, state, action, jax.random.key(0))
        assert step._cache_size() == 1, id


class Slots:
    """A right host environment in NumPy: per slot a position, a clock, noise from the key. Broken ones change it."""

    limit = 12
    spec = EnvSpec("Slots-v0", Box.unbounded(2), Box((-1.0,), (1.0,)), limit)

    def __init__(self) -> None:
        self.num_slots = 4
        self.x, self.clock = np.zeros((4, 2)), np.zeros(4, np.int64)
        self.closed = 0

    def start(self, keys: np.ndarray, slots: np.ndarray) -> np.ndarray:
        for key, slot in zip(keys, slots, strict=True):
            self.x[slot] = host_generator(key).uniform(-1, 1, 2)
            self.clock[slot] = 0
        return self.x[slots].copy()

    def move(self, actions: np.ndarray, slots: np.ndarray) -> None:
        self.x[slots] = 1.1 * self.x[slots] + 0.1 * actions
        self.clock[slots] += 1

    def reset(self, keys: np.ndarray, slots: np.ndarray | None = None) -> np.ndarray:
        return self.start(keys, np.arange(4) if slots is None else slots)

    def step(self, actions: np.ndarray, slots: Any = None, reset_keys: Any = None) -> Step:
        slots = np.arange(4) if slots is None else slots
        self.move(actions, slots)
        following = self.x[slots].copy()
        terminated = np.max(np.abs(following), axis=1) > 1.8
        truncated = self.clock[slots] >= self.limit
        ended = terminated | truncated
        obs = following.copy()
        if reset_keys is not None and np.any(ended):
            obs[ended] = self.start(reset_keys[ended], slots[ended])
        return Step(obs, -np.sum(following**2, axis=1), terminated, truncated, following, {})

    def snapshot(self) -> dict[str, np.ndarray]:
        return {"x": self.x.copy(), "clock": self.clock.copy()}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.x, self.clock = arrays["x"].copy(), arrays["clock"].copy()

    def close(self) -> None:
        self.closed += 1


def test_a_right_host_environment_passes() -> None:
    check_env(Slots)
    check_env(Slots())


def changing(**change: Callable[[Step], Any]) -> type[Slots]:
    """Slots whose steps are altered field by field."""

    class Changed(Slots):
        def step(self, actions: np.ndarray, slots: Any = None, reset_keys: Any = None) -> Step:
            step = super().step(actions, slots, reset_keys)
            return step._replace(**{name: function(step) for name, function in change.items()})

    return Changed


class Unhashable(Slots):
    spec = replace(Slots.spec, options=(("maze", [1, 2]),))


class ShortReset(Slots):
    def reset(self, keys: np.ndarray, slots: Any = None) -> np.ndarray:
        return super().reset(keys, slots)[:, :1]


class LateClock(Slots):
    limit = 13


class EarlyClock(Slots):
    limit = 11


class OneFlag(Slots):
    def step(self, *arguments: Any) -> Step:
        step = super().step(*arguments)
        ended = step.terminated | step.truncated
        return step._replace(terminated=ended, truncated=ended)


class Memory(Slots):
    """Carries something from one episode to the next."""

    total = 0.0

    def start(self, keys: np.ndarray, slots: np.ndarray) -> np.ndarray:
        self.total += 1e-6
        self.x[slots] = super().start(keys, slots) + self.total
        return self.x[slots].copy()


class Deaf(Slots):
    """Gives its keys no ear."""

    def start(self, keys: np.ndarray, slots: np.ndarray) -> np.ndarray:
        return super().start(np.zeros_like(keys), slots)


class WrongReset(Slots):
    """Returns the successor where it should return the reset observation."""

    def step(self, actions: np.ndarray, slots: Any = None, reset_keys: Any = None) -> Step:
        step = super().step(actions, slots, reset_keys)
        return step._replace(obs=step.next_obs.copy())


class NumberedSlots(Slots):
    def start(self, keys: np.ndarray, slots: np.ndarray) -> np.ndarray:
        self.x[slots] = 0.1 * slots[:, None] + super().start(keys, slots)
        return self.x[slots].copy()


class UnsortedSlots(Slots):
    """Takes the slots it is given for a set."""

    def step(self, actions: np.ndarray, slots: Any = None, reset_keys: Any = None) -> Step:
        return super().step(actions, None if slots is None else np.sort(slots), reset_keys)


class CoupledSlots(Slots):
    """Stepping some moves the others."""

    def move(self, actions: np.ndarray, slots: np.ndarray) -> None:
        super().move(actions, slots)
        others = np.setdiff1d(np.arange(4), slots)
        self.x[others] += 1e-3


class ForgetsClock(Slots):
    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        super().restore({**arrays, "clock": np.zeros(4, np.int64)})


class SharedSnapshot(Slots):
    def snapshot(self) -> dict[str, np.ndarray]:
        return {"x": self.x, "clock": self.clock}


class OneBuffer(Slots):
    buffer = None

    def step(self, *arguments: Any) -> Step:
        step = super().step(*arguments)
        if self.buffer is None or self.buffer.shape != step.reward.shape:
            self.buffer = step.reward.copy()
        self.buffer[:] = step.reward
        return step._replace(reward=self.buffer)


class ClosesOnce(Slots):
    def close(self) -> None:
        super().close()
        if self.closed > 1:
            raise RuntimeError("closed already")


BROKEN_HOSTS: list[tuple[str, type[Slots]]] = [
    ("spec", Unhashable),
    ("shapes", ShortReset),
    ("shapes", changing(obs=lambda step: step.obs.astype(np.float16))),
    ("shapes", changing(reward=lambda step: step.reward.astype(np.float32))),
    ("shapes", changing(reward=lambda step: step.reward[:, None])),
    ("flags", changing(terminated=lambda step: step.terminated.astype(int))),
    ("flags", changing(truncated=lambda step: bool(step.truncated.all()))),
    ("flags", OneFlag),
    ("finite", changing(reward=lambda step: np.where(step.truncated, np.nan, step.reward))),
    ("finite", changing(next_obs=lambda step: np.where(step.truncated[:, None], np.inf, step.next_obs))),
    ("clock", LateClock),
    ("clock", EarlyClock),
    ("clock", changing(truncated=lambda step: step.truncated & False)),
    ("clock", changing(truncated=lambda step: step.truncated | step.terminated)),
    ("equal keys", Memory),
    ("different keys", Deaf),
    ("successor", changing(next_obs=lambda step: step.obs.copy())),
    ("reset observation", WrongReset),
    ("slot order", NumberedSlots),
    ("slot order", UnsortedSlots),
    ("slot subsets", CoupledSlots),
    ("snapshot", ForgetsClock),
    ("snapshot", SharedSnapshot),
    ("returned arrays", OneBuffer),
    ("close", ClosesOnce),
]


@pytest.mark.parametrize(("promise", "env"), BROKEN_HOSTS)
def test_a_broken_host_environment_is_named(promise: str, env: type[Slots]) -> None:
    with pytest.raises(BrokenPromise, match=f"^Slots-v0 breaks the promise '{promise}'") as caught:
        check_env(env)
    assert caught.value.promise == promise


class WalkState(NamedTuple):
    x: Any
    clock: Any


@dataclass(frozen=True)
class Walk:
    """A right pure environment. `broken` names what is wrong with it."""

    broken: str = ""

    @cached_property
    def spec(self) -> EnvSpec:
        spec = EnvSpec("Walk-v0", Box.unbounded(2), Box((-1.0,), (1.0,)), 12)
        if self.broken == "spec":
            return replace(spec, resume="journal")
        return replace(spec, options=(("maze", [1]),)) if self.broken == "hash" else spec

    def reset(self, key: Any) -> tuple[WalkState, Any]:
        x = jax.random.uniform(key, (2,), jnp.float64, -1, 1)
        if self.broken == "deaf":
            x = jnp.zeros(2, jnp.float64)
        clock = 0 if self.broken == "weak" else jnp.zeros((), jnp.int32)
        return WalkState(x, clock), x.astype(jnp.float32)

    def step(self, state: WalkState, action: Any, key: Any) -> tuple[Any, Step]:
        x, clock = 1.02 * state.x + 0.1 * action, state.clock + 1
        if self.broken == "plain" and not isinstance(x, jax.core.Tracer):
            x = x + 1.0
        if self.broken == "weak":
            clock = jax.lax.convert_element_type(clock, jnp.int64)
        if self.broken == "impure":
            x = jax.pure_callback(
                lambda x: x + calls_made(), jax.ShapeDtypeStruct((2,), jnp.float64), x, vmap_method="sequential"
            )
        obs = x.astype(jnp.float32)
        truncated = clock >= {"late": 13, "early": 11}.get(self.broken, 12)
        terminated = jnp.zeros((), bool)
        reward = -jnp.sum(x**2)
        match self.broken:
            case "reward":
                reward = reward.astype(jnp.float32)
            case "nan":
                reward = jnp.where(clock > 5, jnp.nan, reward)
            case "flag":
                terminated = terminated.astype(jnp.int32)
            case "obs":
                obs = obs[None]
            case "resets":
                obs = jnp.where(truncated, jnp.float32(0), obs)
            case "grows":
                return (x, clock), Step(obs, reward, terminated, truncated, obs, {})
            case "float":
                clock = clock.astype(jnp.float32)
        following = x.astype(jnp.float32) if self.broken == "resets" else obs
        return WalkState(x, clock), Step(obs, reward, terminated, truncated, following, {})


calls: list[int] = []


def calls_made() -> float:
    calls.append(1)
    return 1e-9 * len(calls)


def slanted_under_vmap(env: Walk) -> Any:
    """Walk whose mapped steps differ from the plain ones."""

    @jax.custom_batching.custom_vmap
    def slant(x: Any) -> Any:
        return x

    @slant.def_vmap
    def _(axis_size: int, in_batched: Any, x: Any) -> Any:
        return x + 1.0, True

    @dataclass(frozen=True)
    class Slanted(Walk):
        def step(self, state: WalkState, action: Any, key: Any) -> tuple[Any, Step]:
            state, step = super().step(state, action, key)
            return state, step._replace(reward=slant(step.reward))

    return Slanted()


BROKEN_JAX = {
    "spec": "spec",
    "hash": "spec",
    "obs": "shapes",
    "reward": "shapes",
    "flag": "flags",
    "grows": "state",
    "float": "state",
    "weak": "compilation",
    "plain": "jit",
    "impure": "equal keys",
    "deaf": "different keys",
    "nan": "finite",
    "resets": "reset observation",
    "late": "clock",
    "early": "clock",
}


def test_a_right_pure_environment_passes() -> None:
    check_env(Walk())
    check_env(Walk)
    check_env(Walk("deaf"), single_start=True)
    check_env(Walk("early"), early_truncation=True)


@pytest.mark.parametrize("broken", BROKEN_JAX)
def test_a_broken_pure_environment_is_named(broken: str) -> None:
    with pytest.raises(BrokenPromise, match=f"^Walk-v0 breaks the promise '{BROKEN_JAX[broken]}'"):
        check_env(Walk(broken))


def test_a_step_that_maps_differently_is_named() -> None:
    with pytest.raises(BrokenPromise, match=r"^Walk-v0 breaks the promise 'vmap'"):
        check_env(slanted_under_vmap(Walk()))


@dataclass(frozen=True)
class Shaped(Walk):
    """Observations of shape (1, 2) and actions of another kind."""

    action: ActionSpace = field(default_factory=lambda: Discrete(2))

    @property
    def spec(self) -> EnvSpec:  # type: ignore[override]
        return EnvSpec("Shaped-v0", Box((-9.0,) * 2, (9.0,) * 2, (1, 2)), self.action, 12)

    def reset(self, key: Any) -> tuple[WalkState, Any]:
        state, obs = super().reset(key)
        return state, obs[None]

    def step(self, state: WalkState, action: Any, key: Any) -> tuple[Any, Step]:
        least, most = (np.array([-1.0, 5.0]), np.array([1.0, 35.0])) if isinstance(self.action, Box) else (0, 1)
        if isinstance(self.action, MultiDiscrete):
            most = np.array(self.action.counts) - 1
        assert action.shape == {Discrete: (), Box: (2, 1)}.get(type(self.action), (2,))
        action = action.reshape(-1)
        outside = (action < least) | (action > most)
        state, step = super().step(state, jnp.where(outside.any(), jnp.nan, action.sum()), key)
        return state, step._replace(obs=step.obs[None], next_obs=step.next_obs[None])


@pytest.mark.parametrize(
    "action", [Discrete(2), MultiDiscrete((2, 5)), MultiBinary(2), Box((-1.0, 5.0), (1.0, 35.0), (2, 1))], ids=str
)
def test_each_kind_of_action_is_checked_inside_its_space(action: ActionSpace) -> None:
    check_env(Shaped(action=action))


@pytest.mark.parametrize(
    "action",
    [Discrete(0), MultiDiscrete(()), MultiDiscrete((2, 0)), MultiBinary(0), Box((1.0,), (0.0,))],
    ids=str,
)
def test_a_space_with_nothing_in_it_is_named(action: Any) -> None:
    with pytest.raises(BrokenPromise, match=r"^Shaped-v0 breaks the promise 'spec' .* is no space or an empty one"):
        check_env(Shaped(action=action))


def test_every_promise_is_broken_by_some_test() -> None:
    assert set(PROMISES) == {promise for promise, _ in BROKEN_HOSTS} | set(BROKEN_JAX.values()) | {"vmap"}


def test_what_is_no_environment_is_refused() -> None:
    with pytest.raises(TypeError, match=r"takes a HostEnv, a JaxEnv or a function that makes one, not int"):
        check_env(lambda: 3)  # type: ignore[arg-type, return-value]
