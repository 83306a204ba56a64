"""Record episodes into a log: those of a policy, those of random actions, and those that a replay kept.

Steps come from the collectors of `rollouts`, so that a log has what training would have seen: the true successor of
every step, both kinds of end apart. A slot whose last episode was still going on when enough steps were there leaves an
episode that has neither end.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.algorithms.actor_critic.sac import LOG_STD as SAC_LOG_STD
from workhorse.algorithms.actor_critic.sac import SAC
from workhorse.algorithms.actor_critic.sac_n import LOG_STD as SAC_N_LOG_STD
from workhorse.algorithms.actor_critic.sac_n import SACN
from workhorse.algorithms.value_based.dqn import DQN
from workhorse.core.algorithm import Action, Actor, Algorithm, Carry, Key, OnPolicy, Population
from workhorse.core.errors import UsageError
from workhorse.core.spec import ActionSpace, Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete
from workhorse.data.log_findings import OwnSteps
from workhorse.environments import registry as environments
from workhorse.environments.protocol import HostEnv, JaxEnv
from workhorse.math.distributions import TanhGaussian
from workhorse.networks.heads import task_action
from workhorse.training.off_policy import OffPolicyLoop, ReplayData
from workhorse.training.rollouts import make_collector

__all__ = ["UNKNOWN_LIMIT", "PolicyPlay", "RandomPlay", "Recorded", "own_steps", "record", "replay_steps", "slots_for"]

MOST_SLOTS = 64
EPISODES_PER_SLOT = 10
"""Whole episodes that each slot should see at the least, so that few of a log are broken off by its end."""
UNKNOWN_LIMIT = 1000
"""Steps of an episode where the task has no clock."""
OWN_STEPS, OWN_SLOTS, OWN_BEGINS = 4096, 32, 4
"""Random steps that a log is compared with, the slots that take them, and initial observations of each slot."""
CHUNK_STEPS = 512
"""Steps of each slot in a rollout."""


class Recorded(NamedTuple):
    """Columns of a `Dataset`, by its names."""

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_obs: np.ndarray
    begins: np.ndarray
    log_prob: np.ndarray | None = None


# What collectors and players of episodes ask of an algorithm, for those that only act. Actions are the task's own.


@functools.partial(jax.tree_util.register_dataclass, data_fields=["algorithm"], meta_fields=["explore", "num_envs"])
@dataclass(frozen=True)
class PolicyPlay:
    """A trained policy that acts in the task's own numbers.

    Attributes:
        algorithm: what was trained.
        explore: act with the exploration that the algorithm has; else take the likeliest action.
        num_envs: slots.
    """

    algorithm: Algorithm
    explore: bool
    num_envs: int = 1

    @property
    def spec(self) -> EnvSpec:
        return replace(self.algorithm.spec, action=self.algorithm.spec.task_action, unscaled=None)

    def begin(self, actor: Actor, slot: Any) -> Carry:
        """Return what a slot remembers; of a population, the policy without perturbation."""
        return self.algorithm.begin(actor, -jnp.ones_like(slot) if isinstance(self.algorithm, Population) else slot)

    def act(self, actor: Actor, carry: Carry, obs: Any, key: Key, *, explore: bool) -> tuple[Action, Carry, Any]:
        """Return the action, what the slot remembers, and the log density of the action, () where it is not known."""
        algorithm = self.algorithm
        action, after, extras = algorithm.act(actor, carry, obs, key, explore=self.explore)
        density = _log_density(algorithm, actor, carry, obs, action, extras, key) if self.explore else ()
        return task_action(algorithm.spec, action), after, density


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["spec", "num_envs"])
@dataclass(frozen=True)
class RandomPlay:
    """Uniformly random actions; standard normal ones, clipped, in components of a `Box` that lack a bound.

    Attributes:
        spec: of the task.
        num_envs: slots.
    """

    spec: EnvSpec
    num_envs: int = 1

    def begin(self, actor: Actor, slot: Any) -> Carry:
        return ()

    def act(self, actor: Actor, carry: Carry, obs: Any, key: Key, *, explore: bool) -> tuple[Action, Carry, Any]:
        return _uniform(self.spec.action, key), carry, _uniform_log_density(self.spec.action)


def _uniform(space: ActionSpace, key: Key) -> jax.Array:
    match space:
        case Discrete(count):
            return jax.random.randint(key, (), 0, count)
        case MultiDiscrete(counts):
            return jax.random.randint(key, (space.size,), 0, jnp.asarray(counts))
        case MultiBinary(size):
            return jax.random.bernoulli(key, 0.5, (size,)).astype(jnp.int8)
    low, high = (np.reshape(bound, space.shape).astype(np.float32) for bound in (space.low, space.high))
    bounded = np.isfinite(low) & np.isfinite(high)
    even = jax.random.uniform(key, space.shape, jnp.float32)
    drawn = jnp.where(bounded, np.where(bounded, low, 0) + np.where(bounded, high - low, 0) * even, 0)
    normal = jax.random.normal(jax.random.fold_in(key, 1), space.shape, jnp.float32)
    return jnp.clip(jnp.where(bounded, drawn, normal), low, high)


def _uniform_log_density(space: ActionSpace) -> Any:
    """Return the log density of every action, or its log probability; () where a component has no bounds."""
    match space:
        case Discrete(count):
            return jnp.float32(-math.log(count))
        case MultiDiscrete(counts):
            return jnp.float32(-sum(map(math.log, counts)))
        case MultiBinary(size):
            return jnp.float32(-size * math.log(2))
    widths = np.subtract(space.high, space.low)
    return jnp.float32(-np.log(widths).sum()) if np.isfinite(widths).all() and (widths > 0).all() else ()


def _log_density(
    algorithm: Algorithm, actor: Actor, carry: Carry, obs: Any, action: Action, extras: Any, key: Key
) -> Any:
    """Return the log density of an action that was drawn with this key, *in the task's own numbers*.

    A policy that is tanh of a Gaussian is drawn from once more, with the same key: of the action alone the density
    could not be told where tanh has rounded to 1. Returns () for an algorithm whose density is not known: one of
    clipped Gaussians, noise that is added to a deterministic policy, noisy weights.
    """
    spec = algorithm.spec
    if isinstance(algorithm, SAC):
        given = TanhGaussian.bounded(actor.policy(algorithm.seen(actor.scaling, obs)), *SAC_LOG_STD)
        return _of_box(spec, actor, given.sample(key)[1])
    if isinstance(algorithm, SACN):
        outputs = actor.policy(algorithm.seen(actor.scaling, obs)[None], actor.statistics)[0]
        held = carry.next(jax.random.split(key)[0], algorithm.hold_noise)
        return _of_box(spec, actor, TanhGaussian.bounded(outputs, *SAC_N_LOG_STD).at(held.value)[1])
    if isinstance(algorithm, DQN) and not algorithm.noisy:
        assert isinstance(spec.action, Discrete)
        best = algorithm.act(actor, carry, obs, key, explore=False)[0]
        epsilon = jnp.where(actor.is_warming_up, 1.0, actor.epsilon)
        return jnp.log(epsilon / spec.action.count + (1 - epsilon) * (action == best)).astype(jnp.float32)
    if isinstance(algorithm, OnPolicy) and not isinstance(spec.action, Box) and hasattr(extras, "log_prob"):
        return extras.log_prob.astype(jnp.float32)
    return ()


def _of_box(spec: EnvSpec, actor: Any, log_density: jax.Array) -> jax.Array:
    """Return a density on [-1, 1] as one in the task's numbers; actions of the warm-up are uniform."""
    assert isinstance(spec.action, Box)
    half = np.ones(1) if spec.unscaled is None else spec.unscaled.middle_and_half()[1]
    uniform = -spec.action.size * math.log(2)
    return (jnp.where(actor.is_warming_up, uniform, log_density) - np.log(half).sum()).astype(jnp.float32)


# Recording.


def slots_for(steps: int, limit: int | None) -> int:
    """Return the number of slots that play side by side.

    Example:
        >>> slots_for(1_000_000, 1000), slots_for(20_000, 200), slots_for(50, 1000)
        (64, 10, 1)
    """
    return min(max(steps // (EPISODES_PER_SLOT * (limit or UNKNOWN_LIMIT)), 1), MOST_SLOTS)


def record(play: PolicyPlay | RandomPlay, actor: Actor, env: HostEnv | JaxEnv, steps: int, seed: int) -> Recorded:
    """Return exactly `steps` steps of episodes, in the slots of `play`, slot after slot.

    Args:
        play: what acts.
        actor: of its algorithm; nothing for random actions.
        env: the task, with as many slots where it is a host environment.
        steps: to record.
        seed: root of initial states and actions.

    Raises:
        UsageError: a simulation broke.
    """
    each = -(-steps // play.num_envs)
    rounds = -(-each // CHUNK_STEPS)
    acting: Any = play  # it has what a collector asks of an algorithm
    collector = make_collector(acting, env, seed, play.num_envs, -(-each // rounds))
    slots, kept, finals = collector.start(actor), [], []
    for number in range(rounds):
        found = collector.collect(actor, slots, number)
        if found.failures:
            raise UsageError(f"A simulation broke while the log was recorded, {found.failures[0]}: try another --seed.")
        slots, rollout = found.slots, jax.tree.map(np.asarray, found.rollout)
        ended = rollout.terminated | rollout.truncated
        finals.append(rollout.next_obs[ended].astype(np.float32))
        log_prob = rollout.extras if isinstance(rollout.extras, np.ndarray) else None
        numbers = [column.astype(np.float32) for column in (rollout.obs, rollout.reward)]
        kept.append((numbers[0], rollout.action, numbers[1], rollout.terminated, rollout.truncated, log_prob))
    columns = list(zip(*kept, strict=True))
    obs, action, reward, terminated, truncated = (np.concatenate(column) for column in columns[:5])
    log_prob = None if kept[0][5] is None else np.concatenate(columns[5])
    ended = terminated | truncated
    place = np.cumsum(ended.ravel()).reshape(ended.shape) - 1
    newest = np.asarray(slots.obs).astype(np.float32)
    action = action.astype(_DTYPES[type(play.spec.action)])
    nowhere = np.zeros_like(ended)
    return _joined(
        Parts(obs, action, reward, terminated, truncated, nowhere, place, np.concatenate(finals), newest, log_prob),
        steps,
    )


_DTYPES = {Box: np.float32, Discrete: np.int64, MultiDiscrete: np.int64, MultiBinary: np.int8}
"""Of the actions of each kind of space in a log."""


def own_steps(task: str, options: Mapping[str, Any], threads: int) -> OwnSteps:
    """Return steps of random play of a task, and initial observations, that a log of it is compared with."""
    spec, steps, firsts = None, None, []
    for number in range(OWN_BEGINS + 1):
        env = environments.make(task, OWN_SLOTS, threads, **options)
        try:
            spec = replace(env.spec, action=env.spec.task_action, unscaled=None)
            # a step of every slot begins an episode in each
            taken = record(RandomPlay(spec, OWN_SLOTS), (), env, OWN_SLOTS if number else OWN_STEPS, number)
        finally:
            if isinstance(env, HostEnv):
                env.close()
        if number:
            firsts.append(taken.obs)
        else:
            steps = taken
    assert spec is not None and steps is not None
    return OwnSteps(spec, np.concatenate(firsts), steps.obs, steps.reward)


class Parts(NamedTuple):
    """Steps (T, B) of slots that go on from one episode into the next.

    Attributes:
        broken: the episode was broken off after this step, without an end.
        place: of the observation after the step in `finals`, where the episode ended or was broken off.
        finals: (F, ...).
        newest: what each slot came to after its last step, (B, ...).
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    broken: np.ndarray
    place: np.ndarray
    finals: np.ndarray
    newest: np.ndarray
    log_prob: np.ndarray | None = None


def _joined(parts: Parts, steps: int) -> Recorded:
    """Return the first `steps` steps, slot after slot, and the observation that each episode came to."""
    time, count = parts.reward.shape

    def flat(column: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.swapaxes(column, 0, 1).reshape(time * count, *column.shape[2:])[:steps])

    terminated, truncated = flat(parts.terminated), flat(parts.truncated) & ~flat(parts.terminated)
    has_final = terminated | truncated | flat(parts.broken)
    is_last = has_final.copy()
    is_last[time - 1 :: time] = True
    is_last[-1] = True
    last = np.flatnonzero(is_last)
    final_obs = np.empty((len(last), *parts.obs.shape[2:]), parts.obs.dtype)
    known, place = has_final[last], flat(parts.place)
    final_obs[known] = parts.finals[place[last[known]]]
    for row in np.flatnonzero(~known):
        slot, at = divmod(int(last[row]), time)
        final_obs[row] = parts.newest[slot] if at == time - 1 else parts.obs[at + 1, slot]
    begins = np.append(0, last[:-1] + 1).astype(np.int64)
    log_prob = None if parts.log_prob is None else flat(parts.log_prob)
    return Recorded(
        flat(parts.obs), flat(parts.action), flat(parts.reward), terminated, truncated, final_obs, begins, log_prob
    )


def replay_steps(loop: OffPolicyLoop, first: int, data: ReplayData) -> Recorded:
    """Return the steps that a replay still holds of those before a state, as episodes of the task's own actions.

    Args:
        loop: its replay was restored from a checkpoint.
        first: number of the first step of a slot that the replay still holds.
        data: what the loop kept with the state up to which steps are wanted.
    """
    arrays, size, spec = loop.arrays, loop.size, loop.algorithm.spec
    times = np.arange(first, int(data.cursor.count))
    names = ["obs", "action", "reward", "terminated", "truncated", "final", "finals_before", "broken"]
    rows = arrays.read(names, times)
    ended = rows["terminated"] | rows["truncated"]
    # a row is marked where what came before it was broken off; after the last row is where the slots stand
    broken = np.repeat(np.append(rows["broken"][1:], False)[:, None], size.num_slots, axis=1) & ~ended
    before = rows["finals_before"]
    number = np.where(
        ended,
        before[:, None] + rows["final"],
        np.append(before[1:], 0)[:, None] - size.num_slots + np.arange(size.num_slots),
    )
    wanted = np.unique(number[ended | broken])
    finals = arrays.read(["finals"], wanted)["finals"]
    place = np.searchsorted(wanted, np.where(ended | broken, number, 0))
    own = rows["action"]
    action = np.asarray(_in_task_numbers(spec, own.reshape(-1, *own.shape[2:]))).reshape(own.shape)
    newest = np.asarray(data.slots.obs).astype(np.float32)
    flags = rows["terminated"], rows["truncated"]
    return _joined(
        Parts(rows["obs"], action, rows["reward"], *flags, broken, place, finals, newest), len(times) * size.num_slots
    )


@functools.partial(jax.jit, static_argnums=0)
def _in_task_numbers(spec: EnvSpec, action: jax.Array) -> jax.Array:
    return jax.vmap(functools.partial(task_action, spec))(action)
