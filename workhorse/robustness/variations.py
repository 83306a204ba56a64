"""Play a policy on changed versions of its task, thousands of episodes side by side.

Every episode has a slot of its own with its own physics, noise, delay, repeat and clock. The e-th episode of every
variation starts from the same address, so that variations differ by what was changed and not by luck.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.errors import UsageError
from workhorse.core.spec import EnvSpec
from workhorse.environments.actions import idle_actions
from workhorse.environments.batch import JaxBatch, as_batch, episode_keys
from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.perturbations import Physics, reset_spread, set_physics
from workhorse.environments.protocol import HostEnv
from workhorse.environments.registry import make
from workhorse.robustness.episodes import Earned, play
from workhorse.runs.policy import Policy

__all__ = ["Variation", "Workbench"]

Memory = tuple[np.ndarray, ...] | None
"""State of a recurrent policy, one row an episode; None before the first step."""

MOST_SLOTS = 4096
"""Largest number of simulations in a batch. A Hopper takes 4 KB; beyond a thousand the time of each falls no more."""
MOST_CONTACT_SLOTS = 2048
"""The limit where contact forces are read: such a simulation keeps a whole MjData, 0.2 to 0.5 MB."""
MOST_HOSTED_SLOTS = 64
"""The limit for Gymnasium environments, whose size is unknown."""


@dataclass(frozen=True)
class Variation:
    """A changed version of a task; the defaults change nothing.

    Attributes:
        body_mass, friction, gravity, actuator_strength: factors; see `environments.mujoco.perturbations.Physics`.
        observation_noise: standard deviation of the normal noise on what the policy sees, in standard deviations of
            each component.
        action_delay: steps by which an action comes late. Until the first arrives the action is zero, or the nearest
            to it within the bounds; the first action of a `Discrete` task.
        action_repeat: the policy chooses in every such step, and its action is held in between.
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
        """Return the part that the simulator must know."""
        return Physics(self.body_mass, self.friction, self.gravity, self.actuator_strength)

    def steps(self, max_episode_steps: int) -> int:
        """Return the most steps of an episode, at least 1, given the task's own limit."""
        return max(1, round(self.time_limit * max_episode_steps))


class _Block(NamedTuple):
    """Episodes that are played at the same time; those of a variation are consecutive rows.

    Attributes:
        units: (variation, its rows).
        episodes: number of the episode in each row, (n,).
    """

    units: list[tuple[Variation, slice]]
    episodes: NDArray[np.int64]

    def each(self, read: Callable[[Variation], object]) -> np.ndarray:
        """Return `read(variation)` for every row, (n,)."""
        return np.array([read(variation) for variation, rows in self.units for _ in range(rows.start, rows.stop)])


class Workbench:
    """Player of one policy on variations of its task.

    The policy acts for one variation at a time, on a matrix of `episodes` rows, because the bits of a matrix product
    depend on its size. So a variation's returns have the same bits whatever else is played, on any number of threads.

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
        self, policy: Policy, task: str, task_options: Mapping[str, object], *, episodes: int, seed: int, threads: int
    ) -> None:
        self._policy, self._task, self._options = policy, task, dict(task_options)
        self.episodes, self._seed, self._threads = episodes, seed, threads
        self.env = as_batch(make(task, 1, 1, **self._options), 1)  # only looked at
        try:
            self.limit = _checked(policy, self.env.spec)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the environment that was looked at."""
        self.env.close()

    def run(
        self,
        variations: Sequence[Variation],
        scale: np.ndarray | None = None,
        seen: list[np.ndarray] | None = None,
    ) -> dict[Variation, Earned]:
        """Return what the policy earns on each variation.

        Args:
            variations: different ones.
            scale: standard deviation of each component of the observation, (D,); needed where one has noise.
            seen: a list to which the observations acted on are appended, one array (n, D) a step.
        """
        earned = {variation: Earned.zeros(self.episodes) for variation in variations}
        limit = max((variation.steps(self.limit) for variation in variations), default=self.limit)
        for block in _blocks(variations, self.episodes, _most_slots(self.env)):
            found = self._play(block, limit, scale, seen)
            for variation, rows in block.units:
                for whole, part in zip(earned[variation], found, strict=True):
                    whole[block.episodes[rows]] = part[rows]
        return earned

    def _play(
        self,
        block: _Block,
        limit: int,
        scale: np.ndarray | None,
        seen: list[np.ndarray] | None,
    ) -> Earned:
        """Play a block's episodes until the last has ended."""
        count = len(block.episodes)
        limits = block.each(lambda variation: variation.steps(self.limit))
        noise = _Noise(self._seed, block, scale)
        actions = idle_actions(self.env.spec.action, count)
        memory: list[Memory] = [None] * len(block.units)
        queue = _DelayedActions(actions, np.minimum(block.each(lambda variation: variation.action_delay), limits))

        def act(obs: NDArray[np.float64], time: int, living: NDArray[np.intp]) -> tuple[np.ndarray, NDArray[np.bool_]]:
            if seen is not None:
                seen.append(obs[living])
            refused = self._choose(block, noise.on(obs, living), time, living, actions, memory)
            return queue.push(actions)[living], refused[living]

        options = self._options if limit == self.limit else {**self._options, "max_episode_steps": limit}
        env = as_batch(make(self._task, count, self._threads, **options), count)
        try:
            return play(env, self._reset(env, block), act, limits)
        finally:
            env.close()

    def _reset(self, env: HostEnv, block: _Block) -> np.ndarray:
        """Start the block's episodes, each with the physics and the initial state of its variation."""
        keys = episode_keys(env, self._seed, "evaluate", 0, block.episodes)
        if not isinstance(env, BatchTask):
            return env.reset(keys)
        set_physics(env, [Physics(*row) for row in block.each(lambda variation: variation.physics)])
        return reset_spread(env, keys, block.each(lambda variation: variation.initial_state))

    def _choose(
        self,
        block: _Block,
        obs: NDArray[np.float64],
        time: int,
        living: NDArray[np.intp],
        actions: np.ndarray,
        memory: list[Memory],
    ) -> NDArray[np.bool_]:
        """Write new actions and each unit's memory over the held ones; return the rows the policy refuses, (n,)."""
        alive, refused = np.zeros(len(obs), np.bool_), np.zeros(len(obs), np.bool_)
        alive[living] = True
        for unit, (variation, rows) in enumerate(block.units):
            if time % variation.action_repeat == 0 and alive[rows].any():
                actions[rows], refused[rows], memory[unit] = _predict(self._policy, obs[rows], memory[unit])
        return refused


class _DelayedActions:
    """Queue that hands on each row's actions after its own number of steps."""

    def __init__(self, idle: np.ndarray, delays: NDArray[np.int64]) -> None:
        self._delays, self._rows, self._time = delays, np.arange(len(idle)), 0
        self._sent = np.repeat(idle[None], int(delays.max()) + 1, axis=0)

    def push(self, actions: np.ndarray) -> np.ndarray:
        """Send this step's actions and return those that arrive in it."""
        self._sent[self._time % len(self._sent)] = actions
        arriving = (self._time - self._delays) % len(self._sent)
        self._time += 1
        return self._sent[arriving, self._rows]


class _Noise:
    """Normal noise on observations: draw t of episode e is the same in every variation, times its deviation."""

    def __init__(self, seed: int, block: _Block, scale: np.ndarray | None) -> None:
        self._deviation = block.each(lambda variation: variation.observation_noise)
        self._rows = np.flatnonzero(self._deviation > 0)
        numbers, self._episode = np.unique(block.episodes[self._rows], return_inverse=True)
        self._generators = [host_generator(key) for key in host_keys(seed, "perturb", 0, numbers)]
        if len(self._rows) and scale is None:
            raise ValueError("Observation noise needs a scale.")
        self._scale = scale

    def on(self, obs: NDArray[np.float64], living: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return what the policy sees; a new array where there is noise."""
        if not len(self._rows) or not np.isin(self._rows, living).any():
            return obs
        assert self._scale is not None  # as it was checked when there is noise
        drawn = np.stack([generator.standard_normal(obs.shape[1:]) for generator in self._generators])
        noisy = obs.copy()
        deviation = self._deviation[self._rows].reshape(-1, *[1] * (obs.ndim - 1))
        noisy[self._rows] += deviation * np.reshape(np.asarray(self._scale), obs.shape[1:]) * drawn[self._episode]
        return noisy


def _predict(policy: Policy, obs: NDArray[np.float64], state: Memory) -> tuple[np.ndarray, NDArray[np.bool_], Memory]:
    """Return the actions, the rows the policy refuses (beyond float32), which act as on zeros, and its memory."""
    try:
        actions, state = policy.choose(obs, state)
        return actions, np.zeros(len(obs), np.bool_), state
    except UsageError:
        refused = np.array([_refuses(policy, obs[row : row + 1], state, row) for row in range(len(obs))])
        actions, state = policy.choose(np.where(refused.reshape(-1, *[1] * (obs.ndim - 1)), 0.0, obs), state)
        return actions, refused, state


def _refuses(policy: Policy, observation: NDArray[np.float64], state: Memory, row: int) -> bool:
    try:
        policy.choose(observation, state and tuple(part[row : row + 1] for part in state))
    except UsageError:
        return True
    return False


def _blocks(variations: Sequence[Variation], episodes: int, most_slots: int) -> Iterator[_Block]:
    """Yield all episodes of all variations in few blocks, never splitting a variation's part between two."""
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


def _most_slots(env: HostEnv) -> int:
    if isinstance(env, BatchTask):
        return MOST_CONTACT_SLOTS if "cfrc_ext" in env.fields else MOST_SLOTS
    return MOST_SLOTS if isinstance(env, JaxBatch) else MOST_HOSTED_SLOTS


def _checked(policy: Policy, spec: EnvSpec) -> int:
    """Return the task's time limit, after checking that the policy fits the task."""
    policy.check_task(spec)
    if spec.max_episode_steps is None:
        raise UsageError(
            f"Expected a task with a time limit, got {spec.task} without one, whose episodes may never end: "
            "set its option max_episode_steps."
        )
    return spec.max_episode_steps
