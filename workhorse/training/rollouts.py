"""Rollouts of a policy: the one collector of consecutive steps, for host environments and for pure ones.

Slots are never reset between rollouts: an episode goes on from one iteration into the next, and where the environment
stands is part of the run's state. Everything drawn is drawn from the address (root, stream, iteration, step, slot).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from workhorse.core.algorithm import Action, Actor, Algorithm, Carry, Extras, Key, OffPolicy, OnPolicy
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Rollout
from workhorse.environments.batch import episode_keys
from workhorse.environments.protocol import BeginsAgain, HostEnv, JaxEnv, failure_reason
from workhorse.networks.heads import task_action
from workhorse.training.loop import Failures

__all__ = [
    "Collected",
    "Collector",
    "Ended",
    "JaxCollector",
    "Slots",
    "actor_of",
    "collect_program",
    "make_collector",
]


class Slots(NamedTuple):
    """State of the slots of the training environment.

    Attributes:
        environment: a snapshot of a host environment, or the state of a JAX one.
        obs: what each slot acts on next, (B, ...).
        episode_return, episode_length: of each slot's episode so far.
        carry: what the algorithm remembers in each slot.
    """

    environment: PyTree
    obs: PyTree
    episode_return: PyTree
    episode_length: PyTree
    carry: Carry = ()


class Ended(NamedTuple):
    """The episodes that ended in a rollout, (T, B): return and length where `flag` is set, and those the task ended."""

    flag: PyTree
    terminated: PyTree
    episode_return: PyTree
    episode_length: PyTree


class Collected(NamedTuple):
    """A rollout (T, B), where it left the slots, and the episodes that ended in it."""

    rollout: Rollout
    slots: Slots
    ended: Ended
    failures: Failures = ()


class Collector(ABC):
    """Collects rollouts of some steps of every slot. Made by `make_collector`.

    Attributes:
        steps: of each slot in a rollout.
    """

    steps: int

    @abstractmethod
    def start(self, actor: Actor) -> Slots:
        """Return every slot at the beginning of an episode."""

    @abstractmethod
    def collect(self, actor: Actor, slots: Slots, iteration: int) -> Collected:
        """Return a rollout from where the slots stand; the number of the iteration is part of what is drawn."""

    def notes(self) -> Sequence[str]:
        """Return what the user should know of the environment, each sentence once."""
        return ()

    def close(self) -> None:  # noqa: B027  a pure environment has nothing to free
        """Free the environment."""


def make_collector(
    algorithm: OnPolicy | OffPolicy,
    env: HostEnv | JaxEnv,
    root: int,
    num_slots: int | None = None,
    steps: int | None = None,
) -> Collector:
    """Return what collects an algorithm's rollouts on an environment.

    Args:
        algorithm: what acts.
        env: the environment; a host environment has its slots.
        root: the run's seed.
        num_slots: slots; by default the algorithm's.
        steps: of each slot in a rollout; by default those of an iteration.
    """
    if isinstance(env, HostEnv):
        return HostCollector(algorithm, env, root, steps)
    return JaxCollector(algorithm, env, root, num_slots, steps)


class HostCollector(Collector):
    """Rollouts on a host environment: one compiled call acts for all slots, the environment steps them together."""

    def __init__(self, algorithm: OnPolicy | OffPolicy, env: HostEnv, root: int, steps: int | None = None) -> None:
        self._algorithm, self._env, self._root = algorithm, env, root
        self.steps = steps or algorithm.rollout_steps
        self._left: PyTree = None

    def start(self, actor: Actor) -> Slots:
        size = self._env.num_slots
        obs = self._env.reset(episode_keys(self._env, self._root, "reset", 0, 0, np.arange(size)))
        return self._leave(obs, np.zeros(size), np.zeros(size, np.int64), begun(self._algorithm, actor, size))

    def _leave(self, obs: np.ndarray, total: np.ndarray, length: np.ndarray, carry: Carry) -> Slots:
        """Return where the environment is now."""
        self._left = self._env.snapshot()
        return Slots(self._left, obs, total, length, carry)

    def _go_to(self, slots: Slots, actor: Actor) -> Slots:
        """Bring the environment to `slots`, unless it is there already.

        Restoring is dear where episodes have to be played again. An environment that can only begin its episodes again
        leaves every slot at the beginning of one.
        """
        here, self._left = self._left, None
        if slots.environment is here:
            return slots
        self._env.restore(slots.environment)
        if not isinstance(self._env, BeginsAgain) or self._env.spec.resume != "episode":
            return slots
        size = self._env.num_slots
        carry = begun(self._algorithm, actor, size)
        return Slots(slots.environment, self._env.observations, np.zeros(size), np.zeros(size, np.int64), carry)

    def collect(self, actor: Actor, slots: Slots, iteration: int) -> Collected:
        _, obs, total, length, carry = self._go_to(slots, actor)
        at_start, key = carry, draw(root_key(self._root), "act", iteration)
        taken: list[tuple[PyTree, ...]] = []
        over: list[tuple[np.ndarray, ...]] = []
        failures: list[str] = []
        cuts = _first_ends(self._algorithm)
        for time in range(self.steps):
            action, sent, carry, extras = _act(self._algorithm, actor, carry, obs, key, time)
            step = self._env.step(np.asarray(sent))
            if cuts is not None:
                is_cut = (cuts == iteration * self.steps + time + 1) & ~step.terminated
                step = step._replace(truncated=step.truncated | is_cut)
            total, length = total + step.reward, length + 1
            ended = step.terminated | step.truncated
            taken.append((obs, action, step.reward, step.terminated, step.truncated, step.next_obs, extras))
            over.append((ended, step.terminated, total, length))
            obs = step.next_obs
            if ended.any():
                for slot in np.flatnonzero(step.measures["failed"][: self._algorithm.num_envs]).tolist():
                    why = failure_reason(self._env, slot)
                    failures.append(f"slot {slot}, step {time} of iteration {iteration}: {why}")
                which = np.flatnonzero(ended)
                obs = np.array(obs)  # what a step returned may be read-only
                obs[which] = self._env.reset(
                    episode_keys(self._env, self._root, "reset", iteration, time + 1, which), which
                )
                total, length = np.where(ended, 0.0, total), np.where(ended, 0, length)
                carry = _begun_again(self._algorithm, actor, carry, ended) if jax.tree.leaves(carry) else carry
        rollout = Rollout(*(_stack(column) for column in zip(*taken, strict=True)), carry=at_start)  # type: ignore[call-arg]
        after = self._leave(obs, total, length, carry)
        return Collected(rollout, after, Ended(*map(np.stack, zip(*over, strict=True))), tuple(failures))

    def notes(self) -> Sequence[str]:
        return self._env.notes() if isinstance(self._env, BeginsAgain) else ()

    def close(self) -> None:
        self._env.close()


class JaxCollector(Collector):
    """Rollouts on a pure environment, each one compiled program.

    Attributes:
        env: the environment.
    """

    def __init__(
        self,
        algorithm: OnPolicy | OffPolicy,
        env: JaxEnv,
        root: int,
        num_slots: int | None = None,
        steps: int | None = None,
    ) -> None:
        self._algorithm, self.env, self._root = algorithm, env, root_key(root)
        self._num_slots, self.steps = num_slots or algorithm.num_slots, steps or algorithm.rollout_steps

    def start(self, actor: Actor) -> Slots:
        size = self._num_slots
        slots = _start(self.env, size, draw(self._root, "reset"))
        return slots._replace(carry=begun(self._algorithm, actor, size))

    def collect(self, actor: Actor, slots: Slots, iteration: int) -> Collected:
        number = np.uint32(iteration)
        return Collected(*_collect(self.env, self._algorithm, self.steps, actor, slots, self._root, number))


# The compiled programs. An algorithm is an argument of them and no constant in them: its sizes and switches select the
# program and its floats are data, so that every run of a process with the same sizes shares one program, whatever its
# seed and its learning rate.


@jax.jit
def actor_of(algorithm: Algorithm, state: PyTree) -> Actor:
    """Return what acting needs of a state, compiled once for all algorithms of the same sizes and switches."""
    return algorithm.actor(state)


@partial(jax.jit, static_argnums=2)
def begun(algorithm: Algorithm, actor: Actor, num_slots: int) -> Carry:
    """Return what every slot remembers at the start of an episode."""
    return _carries(algorithm, actor, num_slots)


def _carries(algorithm: Algorithm, actor: Actor, num_slots: int) -> Carry:
    return jax.vmap(lambda slot: algorithm.begin(actor, slot))(jnp.arange(num_slots))


@jax.jit
def _begun_again(algorithm: Algorithm, actor: Actor, carry: Carry, ended: jax.Array) -> Carry:
    return jax.tree.map(partial(_where_ended, ended), _carries(algorithm, actor, len(ended)), carry)


@jax.jit
def _act(
    algorithm: Algorithm, actor: Actor, carry: Carry, obs: jax.Array, key: Key, time: jax.Array
) -> tuple[Action, Action, Carry, Extras]:
    """Return what every slot does, in the algorithm's numbers and in the task's, and what is kept of it."""
    keys = slot_keys(jax.random.fold_in(key, time), obs.shape[0])

    def act_one(carry: Carry, obs: jax.Array, key: Key) -> tuple[Action, Action, Carry, Extras]:
        action, carry, extras = algorithm.act(actor, carry, obs, key, explore=True)
        return action, task_action(algorithm.spec, action), carry, extras

    return jax.vmap(act_one)(carry, obs.astype(jnp.float32), keys)


@partial(jax.jit, static_argnums=(0, 1))
def _start(env: JaxEnv, num_slots: int, key: Key) -> Slots:
    """Begin an episode in every slot, from the key of the stream "reset"."""
    keys = slot_keys(jax.random.fold_in(jax.random.fold_in(key, 0), 0), num_slots)
    states, obs = jax.vmap(env.reset)(keys)
    return Slots(states, obs, jnp.zeros(num_slots, jnp.float64), jnp.zeros(num_slots, jnp.int64))


@partial(jax.jit, static_argnums=(0, 2))
def _collect(
    env: JaxEnv, algorithm: Algorithm, steps: int, actor: Actor, slots: Slots, root: Key, iteration: jax.Array
) -> tuple[Rollout, Slots, Ended]:
    return collect_program(env, algorithm, steps, actor, slots, root, iteration)


def collect_program(
    env: JaxEnv, algorithm: Algorithm, steps: int, actor: Actor, slots: Slots, root: Key, iteration: jax.Array
) -> tuple[Rollout, Slots, Ended]:
    """Take some steps of every slot, and begin again where an episode ended."""
    num_slots = slots.obs.shape[0]
    act_key, reset_key = draw(root, "act", iteration), draw(root, "reset", iteration)
    cuts = _first_ends(algorithm)

    def advance(slots: Slots, time: jax.Array) -> tuple[Slots, tuple[Rollout, Ended]]:
        action, sent, carry, extras = _act(algorithm, actor, slots.carry, slots.obs, act_key, time)
        keys = slot_keys(jax.random.fold_in(reset_key, time + 1), num_slots)
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)  # a reset must not repeat a step's draws
        states, step = jax.vmap(env.step)(slots.environment, sent, step_keys)
        if cuts is not None:
            is_cut = (cuts == iteration.astype(jnp.int64) * steps + time + 1) & ~step.terminated
            step = step._replace(truncated=step.truncated | is_cut)
        ended = step.terminated | step.truncated
        total, length = slots.episode_return + step.reward, slots.episode_length + 1
        fresh, fresh_obs = jax.vmap(env.reset)(keys)
        where_ended = partial(_where_ended, ended)
        after = Slots(
            jax.tree.map(where_ended, fresh, states),
            where_ended(fresh_obs, step.next_obs),
            jnp.where(ended, 0.0, total),
            jnp.where(ended, 0, length),
            jax.tree.map(where_ended, _carries(algorithm, actor, num_slots), carry),
        )
        taken = Rollout(slots.obs, action, step.reward, step.terminated, step.truncated, step.next_obs, extras)
        return after, (taken, Ended(ended, step.terminated, total, length))

    after, (rollout, ended) = jax.lax.scan(advance, slots, jnp.arange(steps))
    return rollout._replace(carry=slots.carry), after, ended


def _first_ends(algorithm: Algorithm) -> np.ndarray | None:
    return algorithm.first_ends() if isinstance(algorithm, OnPolicy) else None


def _where_ended(ended: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(ended.reshape(-1, *[1] * (old.ndim - 1)), new, old)


def slot_keys(key: Key, num_slots: int) -> Key:
    """Return one key a slot."""
    return jax.vmap(lambda slot: jax.random.fold_in(key, slot))(jnp.arange(num_slots))


def _stack(column: tuple[PyTree, ...]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *column)
