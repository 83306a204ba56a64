"""Environments for the adapter's tests: odd but right ones, and ones that break each part of the contract."""

import os
import random
import signal
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Walk(gymnasium.Env):
    """A right one: a random start, drift by the action, termination beyond 2, seeded noise."""

    observation_space: spaces.Space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space: spaces.Space = spaces.Box(-1, 1, (2,), np.float32)
    dt = 0.25

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 2)
        self.count = 0
        return self.x.copy(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        self.x = self.x + 0.3 * action + 0.1 * self.np_random.normal(size=2)
        return self.x.copy(), float(-np.sum(self.x**2)), bool(np.max(np.abs(self.x)) > 2), False, {}


class Structured(Walk):
    """Dict observations with an image, a Discrete that starts at 2 and a Tuple inside; Discrete(3, start=5) actions."""

    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (2, 2), np.uint8),
            "mode": spaces.Discrete(3, start=2),
            "pair": spaces.Tuple((spaces.Box(-9, 9, (), np.float32), spaces.MultiBinary(2))),
        }
    )
    action_space = spaces.Discrete(3, start=5)

    def seen(self, action: int) -> Any:
        image = np.full((2, 2), 4 * self.count, np.uint8)
        pair = (np.float32(self.x[0]), np.array([1, 0], np.int8))
        return {"image": image, "mode": action - 3, "pair": pair}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.seen(5), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.count += 1
        return self.seen(int(action)), float(action), False, False, {}


class IntegerBox(Walk):
    """Integer actions of shape (2, 2), checked, and echoed as a float32 observation."""

    observation_space = spaces.Box(-3, 3, (2, 2), np.float32)
    action_space = spaces.Box(-3, 3, (2, 2), np.int16)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.x[:, None].repeat(2, 1).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        assert action.dtype == np.int16
        assert self.action_space.contains(action), action
        return action.astype(np.float32), np.float32(0.5), np.bool_(False), False, {}


class Frames:
    """Frames that are stacked when an array is asked for, as lazily stacked ones are."""

    def __init__(self, frames: list[np.ndarray]) -> None:
        self.frames = frames

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.stack(self.frames).astype(dtype)


class Answer(gymnasium.Env):
    """One step, and 1 for the right answer: less for every component of the action that is wrong.

    Its options choose the kinds of its spaces; `dark` shows nothing but zeros. An action outside the action space, or
    of another type, raises.
    """

    OBSERVATIONS: dict[str, spaces.Space] = {
        "vector": spaces.Box(-1, 1, (3,), np.float64),
        "number": spaces.Box(-1, 1, (), np.float32),
        "matrix": spaces.Box(-1, 1, (2, 3), np.float32),
        "image": spaces.Box(0, 255, (4, 3, 2), np.uint8),
        "frames": spaces.Box(0, 255, (2, 4, 3), np.uint8),
        "switches": spaces.MultiBinary((2, 2)),
        "goals": spaces.Dict(
            observation=spaces.Box(-1, 1, (2,), np.float64),
            achieved_goal=spaces.Box(-2, 2, (1,), np.float64),
            desired_goal=spaces.Box(-2, 2, (1,), np.float64),
        ),
    }
    ACTIONS: dict[str, tuple[spaces.Space, Any]] = {
        "discrete": (spaces.Discrete(3, start=10), 12),
        "choices": (spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[0, 5], [-1, 0]]), [[1, 5], [2, 0]]),
        "small choices": (spaces.MultiDiscrete([2, 3], dtype=np.int16), [1, 2]),
        "switches": (spaces.MultiBinary((2, 2)), [[1, 0], [0, 1]]),
        "matrix": (spaces.Box(-1, 1, (2, 2), np.float32), [[0.5, -0.5], [0.25, 0.0]]),
        "bytes": (spaces.Box(1, 5, (2,), np.uint8), [4, 2]),
        "valve": (spaces.Box(0.7, 35.3, (2,), np.float64), [20.0, 20.0]),
        "above": (spaces.Box(5.0, np.inf, (1,), np.float32), [6.0]),
        "whole": (spaces.Box(-(2**63), 2**63 - 1, (1,), np.int64), [3]),
    }

    def __init__(self, observed: str = "vector", acted: str = "discrete", dark: bool = False) -> None:
        self.observed, self.dark = observed, dark
        self.observation_space = self.OBSERVATIONS[observed]
        self.action_space, answer = self.ACTIONS[acted]
        self.answer = np.asarray(answer)

    def see(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        seen = self.observation_space.sample()
        if self.dark:
            seen = {name: 0 * part for name, part in seen.items()} if isinstance(seen, dict) else 0 * seen
        return Frames(list(seen)) if self.observed == "frames" else seen

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.see(), {}

    def step(self, action: Any) -> Any:
        dtype, space = getattr(action, "dtype", type(action)), self.action_space
        if not space.contains(action) or dtype != space.dtype:
            raise ValueError(f"{action!r} of {dtype} is not in {space}")
        wrong = np.abs(np.asarray(action, float) - self.answer)
        if not isinstance(space, spaces.Box):
            wrong = wrong > 0
        return self.see(), 1.0 - float(np.mean(wrong)), True, False, {}


class Words(spaces.Space):
    """A space class of the user's own, which Gymnasium cannot flatten."""

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return "go"

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)


class Unusable(Walk):
    """Spaces that no algorithm takes, by name."""

    SPACES = {
        "text": spaces.Text(5),
        "graph": spaces.Graph(spaces.Box(0, 1, (1,)), None),
        "sequence": spaces.Sequence(spaces.Discrete(2)),
        "empty": spaces.Dict({}),
        "own": Words(),
        "mission": spaces.Dict(image=spaces.Box(0, 255, (2, 2), np.uint8), mission=Words()),
        "nothing": spaces.Box(0, 1, (0,)),
        "none": None,
    }

    def __init__(self, observed: str | None = None, acted: str | None = None) -> None:
        if observed:
            self.observation_space = self.SPACES[observed]  # type: ignore[assignment]
        if acted:
            self.action_space = self.SPACES[acted]  # type: ignore[assignment]


class Refusing(Walk):
    """Raises at its third step, always."""

    def step(self, action: Any) -> Any:
        if self.count == 2:
            raise ValueError(f"refused, object {id(action)}")
        return super().step(action)


class Faulty(Walk):
    """Breaks the contract in the way `fault` names, at step 3 of every episode or in its reset."""

    def __init__(self, fault: str = "none") -> None:
        self.fault = fault
        if fault == "constructor":
            raise OSError("no such track")

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        obs, info = super().reset(seed=seed)
        match self.fault:
            case "reset raises":
                raise KeyError("lost track")
            case "reset bare":
                return obs
            case "reset shape":
                return obs[:1], info
            case "reset dies":
                os._exit(7)
        return obs, info

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        if self.count < 3:
            return obs, reward, False, False, info
        match self.fault:
            case "raises":
                raise ZeroDivisionError("track of length 0")
            case "nan":
                return obs * np.nan, reward, terminated, truncated, info
            case "shape":
                return np.zeros(3), reward, terminated, truncated, info
            case "text":
                return np.array(["a", "b"]), reward, terminated, truncated, info
            case "reward vector":
                return obs, np.zeros(1), terminated, truncated, info
            case "reward nan":
                return obs, float("nan"), terminated, truncated, info
            case "reward none":
                return obs, None, terminated, truncated, info
            case "four":
                return obs, reward, terminated, info
            case "flag":
                return obs, reward, 1, truncated, info
        return obs, reward, terminated, truncated, info


class Dying(Walk):
    """Leaves its process in the 15th step of an episode, by exit or by signal."""

    def __init__(self, how: str = "exit") -> None:
        self.how = how

    def step(self, action: Any) -> Any:
        result = super().step(0 * action)
        if self.count >= 15:
            if self.how == "exit":
                os._exit(3)
            os.kill(os.getpid(), signal.SIGSEGV)
        return (*result[:2], False, *result[3:])


class Moody(Walk):
    """Draws from the process's own randomness, whatever the seed."""

    def step(self, action: Any) -> Any:
        self.x = self.x + random.random()
        return super().step(0 * action)


class LateMoody(Walk):
    """Looks deterministic for 12 steps."""

    def step(self, action: Any) -> Any:
        _, reward, _, truncated, info = super().step(0 * action)
        if self.count > 12:
            self.x = self.x + random.random()
        return self.x.copy(), reward, False, truncated, info


class Flaky(Walk):
    """Raises in its fifth step, once in the life of its process."""

    steps = 0

    def step(self, action: Any) -> Any:
        Flaky.steps += 1
        if Flaky.steps == 5:
            raise ConnectionError("the simulator did not answer")
        return super().step(0 * action)


class Endless(Walk):
    """Never ends an episode by itself."""

    def step(self, action: Any) -> Any:
        obs, reward, _, truncated, info = super().step(0 * action)
        return obs, reward, False, truncated, info


class Added(gymnasium.RewardWrapper, gymnasium.utils.RecordConstructorArgs):
    """Adds to the reward, then multiplies it, so that the order of two of them shows."""

    def __init__(self, env: gymnasium.Env, added: float = 1.0, times: float = 1.0) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, added=added, times=times)
        super().__init__(env)
        self.added, self.times = added, times

    def reward(self, reward: Any) -> float:
        return (float(reward) + self.added) * self.times


class Breaking(gymnasium.Wrapper):
    """Rewards with NaN in a given step."""

    def __init__(self, env: gymnasium.Env, at: int) -> None:
        super().__init__(env)
        self.at = at

    def reset(self, **given: Any) -> Any:
        self.count = 0
        return super().reset(**given)

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        self.count += 1
        return obs, float("nan") if self.count == self.at else reward, *rest


class Paying(gymnasium.Wrapper):
    """Pays by chance, from a step on; the observations are not touched."""

    def __init__(self, env: gymnasium.Env, begin: int) -> None:
        super().__init__(env)
        self.begin = begin

    def reset(self, **given: Any) -> Any:
        self.count = 0
        return super().reset(**given)

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        self.count += 1
        return obs, random.random() if self.count >= self.begin else reward, *rest


class Raising(gymnasium.Wrapper):
    """Raises once, in the given step of its process's life."""

    steps = 0

    def __init__(self, env: gymnasium.Env, at: int) -> None:
        super().__init__(env)
        self.at = at

    def step(self, action: Any) -> Any:
        Raising.steps += 1
        if Raising.steps == self.at:
            raise ConnectionError("no answer")
        return super().step(action)


class Ending(gymnasium.Wrapper):
    """Has a clock of its own, and says so to nobody."""

    def __init__(self, env: gymnasium.Env, after: int) -> None:
        super().__init__(env)
        self.after, self.count = after, 0

    def reset(self, **given: Any) -> Any:
        self.count = 0
        return super().reset(**given)

    def step(self, action: Any) -> Any:
        obs, reward, terminated, _, info = super().step(action)
        self.count += 1
        return obs, reward, terminated, self.count >= self.after, info


class Stacking(Walk):
    """Has an option of its own by the name of one that every task takes."""

    def __init__(self, frame_stack: int = 1) -> None:
        self.dt = float(frame_stack)


class Scaled(Walk):
    """Takes a function as an option, which need not be one that can be sent to another process."""

    def __init__(self, scale: Callable[[float], float]) -> None:
        self.dt = scale(0.25)


class Remembering(Walk):
    """Writes its observation into one array, for ever the same: the adapter must copy."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        obs, info = super().reset(seed=seed)
        self.memory = obs.copy()
        return self.memory, info

    def step(self, action: Any) -> Any:
        obs, *rest = super().step(action)
        self.memory[:] = obs
        return self.memory, *rest


KINDS = (
    *(Structured, IntegerBox, Answer, Unusable, Refusing, Faulty, Dying, Moody, LateMoody, Flaky, Scaled, Remembering),
    Stacking,
)


def register_endless(id: str, limit: int | None) -> None:
    """Register a task that never ends, for this process alone."""
    gymnasium.register(id, entry_point=lambda: Endless(), max_episode_steps=limit)


def register() -> None:
    """Put all of them into Gymnasium's registry, some as strings and some as objects."""
    for cls in KINDS:
        gymnasium.register(f"weird/{cls.__name__}-v0", entry_point=cls, max_episode_steps=50)
    gymnasium.register("weird/Walk-v0", entry_point="weird_environments:Walk", max_episode_steps=20)
    gymnasium.register("weird/Declared-v0", entry_point=Walk, max_episode_steps=20, nondeterministic=True)
    gymnasium.register("weird/NoClock-v0", entry_point=Endless)
    register_endless("weird/Endless-v0", None)
    gymnasium.register("weird/Lambda-v0", entry_point=lambda: Walk(), max_episode_steps=20)


if "weird/Walk-v0" not in gymnasium.registry:
    register()
