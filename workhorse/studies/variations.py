"""Changed versions of a task, thousands of episodes side by side: what a policy earns on each.

Every episode has a slot of its own with its own physics, noise, delay, repeat and clock. The e-th episode of every
variation starts from the same address, so that variations differ by what was changed and not by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import Discrete, EnvSpec, idle_actions
from workhorse.core.types import Step
from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.perturbations import Physics, reset_spread, set_physics
from workhorse.environments.protocol import HostEnv, JaxEnv
from workhorse.environments.registry import make
from workhorse.runs.policy import Policy

__all__ = ["Earned", "Variation", "Workbench"]

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

MOST_SLOTS = 4096
"""Simulations in one batch. A Hopper's takes 4 KB; beyond a thousand nothing gets faster a simulation."""
MOST_CONTACT_SLOTS = 2048
"""The same where contact forces are read: such a simulation keeps a whole MjData, 0.2 to 0.5 MB."""
MOST_HOSTED_SLOTS = 64
"""The same where a simulation is a Gymnasium environment, of a size that nobody knows."""


@dataclass(frozen=True)
class Variation:
    """A changed version of a task; the defaults change nothing.

    Attributes:
        body_mass, friction, gravity, actuator_strength: factors, see `environments.mujoco.perturbations.Physics`.
        observation_noise: standard deviation of the normal noise on what the policy sees, in standard deviations of
            each component.
        action_delay: steps by which an action comes late. Until the first arrives the action is zero, or the nearest
            to it within the bounds; the first action of a `Discrete` task.
        action_repeat: the policy is asked in every so-many-th step and its action held in between.
        time_limit: factor of the steps an episode may take; the return is over the changed horizon.
        initial_state: factor of the initial state's deviation from the model's pose.
    """

    body_mass: float = 1.0
    friction: float = 1.0
    gravity: float = 1.0
    actuator_strength: float = 1.0
    observation_noise: float = 0.0
    action_delay: int = 0
    action_repeat: int = 1
    time_limit: float = 1.0
    initial_state: float = 1.0

    @property
    def physics(self) -> Physics:
        """The part that the simulator must know."""
        return Physics(self.body_mass, self.friction, self.gravity, self.actuator_strength)

    def steps(self, max_episode_steps: int) -> int:
        """The steps an episode may take, at least 1, given the task's own limit."""
        return max(1, round(self.time_limit * max_episode_steps))


class Earned(NamedTuple):
    """What a policy earned on one variation, a row an episode.

    Attributes:
        returns: undiscounted sums of raw rewards, (episodes,); up to where the simulation broke, if it did.
        lengths: steps, (episodes,).
        broken: whether the simulation broke, or showed the policy what it cannot act on, (episodes,).
    """

    returns: Floats
    lengths: NDArray[np.int64]
    broken: Flags


class _Slots(Protocol):
    """The simulations of one block. Step rows are those of `living`, in its order; no slot resets by itself."""

    def reset(self) -> np.ndarray: ...

    def step(self, actions: np.ndarray, living: Rows) -> Step: ...

    def close(self) -> None: ...


class _Block(NamedTuple):
    """Episodes that run at the same time: a unit is one variation's, in consecutive rows.

    Attributes:
        units: (variation, its rows).
        episodes: number of the episode in each row, (n,).
    """

    units: list[tuple[Variation, slice]]
    episodes: NDArray[np.int64]

    def each(self, read: Callable[[Variation], Any]) -> np.ndarray:
        """What `read` says of the variation of every row, (n,)."""
        return np.array([read(variation) for variation, rows in self.units for _ in range(rows.start, rows.stop)])


class Workbench:
    """A policy, its task, and the addresses of its episodes: `run` says what it earns on variations.

    The policy acts for one variation at a time, a matrix of `episodes` rows, because the bits of a matrix product
    depend on its size: so a variation earns the same bits whatever else runs beside it, on any number of threads.

    Args:
        policy: of the task.
        task: its id.
        task_options: as for `environments.registry.make`.
        episodes: episodes of each variation.
        seed: root of the addresses. Episode e starts at (seed, "evaluate", 0, e).
        threads: simulation threads, or worker processes of a Gymnasium task; 0 for one a core.

    Raises:
        UsageError: the task is unknown, is not the policy's, or has no time limit.
    """

    def __init__(
        self, policy: Policy, task: str, task_options: Mapping[str, Any], *, episodes: int, seed: int, threads: int
    ) -> None:
        self._policy, self._task, self._options = policy, task, dict(task_options)
        self.episodes, self._seed, self._threads = episodes, seed, threads
        self.env = make(task, 1, 1, **self._options)
        try:
            self.limit = _checked(policy, self.env.spec)
        except BaseException:
            self.close()
            raise
        self.peak_slots = 0
        """Slots of the largest block so far."""

    def close(self) -> None:
        """Free the environment that was looked at."""
        if isinstance(self.env, HostEnv):
            self.env.close()

    def run(
        self,
        variations: Sequence[Variation],
        scale: np.ndarray | None = None,
        progress: Callable[[int], None] = lambda _: None,
        seen: list[np.ndarray] | None = None,
    ) -> dict[Variation, Earned]:
        """What the policy earns on each variation.

        Args:
            variations: different ones.
            scale: standard deviation of each component of the observation, (D,); needed where one has noise.
            progress: is told how many episodes have just ended.
            seen: where given, the observations acted on are appended to it, one (n, D) a step.
        """
        earned = {variation: _nothing(self.episodes) for variation in variations}
        limit = max((variation.steps(self.limit) for variation in variations), default=self.limit)
        for block in _blocks(variations, self.episodes, _most_slots(self.env)):
            self.peak_slots = max(self.peak_slots, len(block.episodes))
            slots = self._slots(block, limit)
            try:
                found = self._run(block, slots, scale, progress, seen)
            finally:
                slots.close()
            for variation, rows in block.units:
                for whole, part in zip(earned[variation], found, strict=True):
                    whole[block.episodes[rows]] = part[rows]
        return earned

    def _run(
        self,
        block: _Block,
        slots: _Slots,
        scale: np.ndarray | None,
        progress: Callable[[int], None],
        seen: list[np.ndarray] | None,
    ) -> Earned:
        """Step a block's episodes until the last has ended."""
        count = len(block.episodes)
        found = _nothing(count)
        limits = block.each(lambda variation: variation.steps(self.limit))
        noise = _Noise(self._seed, block, scale)
        actions = idle_actions(self.env.spec.action, count)
        queue = _Queue(actions, np.minimum(block.each(lambda variation: variation.action_delay), limits))
        obs = np.array(slots.reset(), np.float64).reshape(count, -1)  # a policy reads images as vectors
        living, time = np.arange(count), 0
        while len(living):
            if seen is not None:
                seen.append(obs[living])
            refused = self._act(block, noise.on(obs, living), time, living, actions)[living]
            step = slots.step(queue.push(actions)[living], living)
            time += 1
            found.returns[living] += np.where(refused, 0.0, step.reward)
            found.lengths[living] = time
            found.broken[living] = step.measures["failed"] | refused
            obs[living] = step.next_obs.reshape(len(living), -1)
            ended = step.terminated | step.truncated | refused | (time >= limits[living])
            if ended.any():
                living = living[~ended]
                progress(int(ended.sum()))
        return found

    def _act(self, block: _Block, obs: Floats, time: int, living: Rows, actions: np.ndarray) -> Flags:
        """Write the policy's new actions over the held ones; the rows that it cannot act on, (n,)."""
        alive, refused = np.zeros(len(obs), np.bool_), np.zeros(len(obs), np.bool_)
        alive[living] = True
        for variation, rows in block.units:
            if time % variation.action_repeat == 0 and alive[rows].any():
                chosen, refused[rows] = _choose(self._policy, obs[rows])
                actions[rows] = chosen.reshape(-1, *actions.shape[1:])
        return refused

    def _slots(self, block: _Block, limit: int) -> _Slots:
        options = self._options if limit == self.limit else {**self._options, "max_episode_steps": limit}
        env = make(self._task, len(block.episodes), self._threads, **options)
        if isinstance(env, HostEnv):
            return _HostSlots(env, block, self._seed)
        return _JaxSlots(env, block, self._seed)


class _HostSlots:
    """Slots of a host environment, MuJoCo's with the physics of their variations."""

    def __init__(self, env: HostEnv, block: _Block, seed: int) -> None:
        self._env, self._block, self._seed = env, block, seed
        self.close = env.close
        if isinstance(env, BatchTask):
            set_physics(env, [Physics(*row) for row in block.each(lambda variation: variation.physics)])

    def reset(self) -> np.ndarray:
        keys = host_keys(self._seed, "evaluate", 0, self._block.episodes)
        if isinstance(self._env, BatchTask):
            return reset_spread(self._env, keys, self._block.each(lambda variation: variation.initial_state))
        return self._env.reset(keys)

    def step(self, actions: np.ndarray, living: Rows) -> Step:
        return self._env.step(actions, living)


class _JaxSlots:
    """Slots of a pure environment: one compiled step for all of them; the ended ones are stepped and not looked at."""

    def __init__(self, env: JaxEnv, block: _Block, seed: int) -> None:
        root, episodes = draw(root_key(seed), "evaluate", 0), jnp.asarray(block.episodes, jnp.uint32)
        self._keys = jax.vmap(lambda episode: jax.random.fold_in(root, episode))(episodes)
        self._begin = jax.jit(jax.vmap(env.reset))
        self._advance = jax.jit(
            jax.vmap(
                lambda state, action, key, time: env.step(state, action, jax.random.fold_in(key, time)),
                (0, 0, 0, None),
            )
        )
        self._states: Any = None
        self._actions: np.ndarray = idle_actions(env.spec.action, len(block.episodes))
        self._time = 0

    def reset(self) -> np.ndarray:
        self._states, obs = self._begin(self._keys)
        self._obs = np.array(obs, np.float64)
        return self._obs.copy()

    def step(self, actions: np.ndarray, living: Rows) -> Step:
        self._time += 1
        self._actions[living] = actions
        self._states, stepped = self._advance(self._states, self._actions, self._keys, np.uint32(self._time))
        reward, terminated, truncated, obs = (
            np.array(part)[living] for part in (stepped.reward, stepped.terminated, stepped.truncated, stepped.next_obs)
        )
        failed = ~(np.isfinite(reward) & np.isfinite(obs).all(axis=1))
        reward[failed], obs[failed] = 0.0, self._obs[living[failed]]
        self._obs[living] = obs
        return Step(obs, reward, terminated & ~failed, truncated | failed, obs, {"failed": failed})

    def close(self) -> None:
        self._states = None


class _Queue:
    """Actions on their way, each row's late by its own number of steps."""

    def __init__(self, idle: np.ndarray, delays: NDArray[np.int64]) -> None:
        self._delays, self._rows, self._time = delays, np.arange(len(idle)), 0
        self._sent = np.repeat(idle[None], int(delays.max()) + 1, axis=0)

    def push(self, actions: np.ndarray) -> np.ndarray:
        """Send this step's actions; those that arrive in it."""
        self._sent[self._time % len(self._sent)] = actions
        arriving = (self._time - self._delays) % len(self._sent)
        self._time += 1
        return self._sent[arriving, self._rows]


class _Noise:
    """Normal noise on observations. The t-th draw of episode e is the same in every variation, times its deviation."""

    def __init__(self, seed: int, block: _Block, scale: np.ndarray | None) -> None:
        self._deviation = block.each(lambda variation: variation.observation_noise)
        self._rows = np.flatnonzero(self._deviation > 0)
        numbers, self._episode = np.unique(block.episodes[self._rows], return_inverse=True)
        self._generators = [host_generator(key) for key in host_keys(seed, "perturb", 0, numbers)]
        if len(self._rows) and scale is None:
            raise ValueError("Observation noise needs a scale.")
        self._scale = scale

    def on(self, obs: Floats, living: Rows) -> Floats:
        """What the policy sees, a new array where there is noise."""
        if not len(self._rows) or not np.isin(self._rows, living).any():
            return obs
        drawn = np.stack([generator.standard_normal(obs.shape[1]) for generator in self._generators])
        noisy = obs.copy()
        noisy[self._rows] += self._deviation[self._rows, None] * self._scale * drawn[self._episode]
        return noisy


def _nothing(count: int) -> Earned:
    return Earned(np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.bool_))


def _choose(policy: Policy, obs: Floats) -> tuple[np.ndarray, Flags]:
    """The policy's actions, and the rows that it refuses (beyond float32), which act as on zeros."""
    try:
        return policy.predict(obs)[0], np.zeros(len(obs), np.bool_)
    except UsageError:
        refused = np.array([_refuses(policy, row) for row in obs])
        return policy.predict(np.where(refused[:, None], 0.0, obs))[0], refused


def _refuses(policy: Policy, observation: Floats) -> bool:
    try:
        policy.predict(observation)
    except UsageError:
        return True
    return False


def _blocks(variations: Sequence[Variation], episodes: int, most_slots: int) -> Iterator[_Block]:
    """All episodes of all variations in as few blocks as hold them, no unit torn."""
    size = min(episodes, most_slots)
    parts = [range(first, min(first + size, episodes)) for first in range(0, episodes, size)]
    units = [(variation, part) for variation in variations for part in parts]
    each = max(1, most_slots // size)
    for first in range(0, len(units), each):
        chosen, placed, row = units[first : first + each], [], 0
        for variation, part in chosen:
            placed.append((variation, slice(row, row + len(part))))
            row += len(part)
        yield _Block(placed, np.concatenate([np.asarray(part) for _, part in chosen]))


def _most_slots(env: HostEnv | JaxEnv) -> int:
    if isinstance(env, BatchTask):
        return MOST_CONTACT_SLOTS if "cfrc_ext" in env.fields else MOST_SLOTS
    return MOST_HOSTED_SLOTS if isinstance(env, HostEnv) else MOST_SLOTS


def _checked(policy: Policy, spec: EnvSpec) -> int:
    """The task's time limit, once the policy is seen to fit the task."""
    policy.check_observation_size(spec.observation.size, spec.task)
    mine, its = policy.action, spec.action
    sizes = [action.count if isinstance(action, Discrete) else action.size for action in (mine, its)]
    if type(mine) is not type(its) or sizes[0] != sizes[1]:
        raise UsageError(
            f"Expected a policy for the actions of {spec.task}, {its}, got one for {mine}: use it on {policy.task}."
        )
    if spec.max_episode_steps is None:
        raise UsageError(
            f"Expected a task with a time limit, got {spec.task} without one, whose episodes may never end: "
            "set its option max_episode_steps."
        )
    return spec.max_episode_steps
