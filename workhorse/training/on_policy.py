"""The loop of on-policy learning: a rollout of all slots, then one update; on a host environment or as JAX programs.

Slots are never reset between rollouts: an episode goes on from one iteration into the next, and where the environment
stands is part of the run's state. Everything drawn is drawn from the address (root, stream, iteration, step, slot).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core.addresses import host_keys
from workhorse.core.algorithm import Key
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Rollout
from workhorse.environments.protocol import BeginsAgain, HostEnv, JaxEnv
from workhorse.training.evolve import Evaluation
from workhorse.training.gather import Lanes
from workhorse.training.learning import actor_of
from workhorse.training.workforce import evaluation_work, num_chunks

__all__ = [
    "Ended",
    "HostRollouts",
    "JaxRollouts",
    "OnPolicy",
    "Learnt",
    "Progress",
    "Rollouts",
    "Slots",
    "iteration_program",
    "rollout_program",
]


class Slots(NamedTuple):
    """Where the slots of the training environment stand.

    Attributes:
        environment: a snapshot of a host environment, or the state of a JAX one.
        obs: what each slot acts on next, (B, D).
        episode_return, episode_length: of each slot's episode so far.
    """

    environment: Any
    obs: Any
    episode_return: Any
    episode_length: Any


class Progress(NamedTuple):
    """Where a run stands: the learner, the counters, and the slots."""

    learner: Any
    iteration: np.ndarray
    env_steps: np.ndarray
    held_out_steps: np.ndarray
    slots: Slots


class Ended(NamedTuple):
    """The episodes that ended in a rollout, (T, B): return and length where `flag` is set, and whether by the task."""

    flag: Any
    terminated: Any
    episode_return: Any
    episode_length: Any


class Learnt(NamedTuple):
    """What an iteration came to.

    Attributes:
        learner, slots: after it.
        ended: the training episodes that ended in it.
        measured: metrics of the update, scalars.
        failures: a sentence for each simulation that broke.
    """

    learner: Any
    slots: Slots
    ended: Ended
    measured: Mapping[str, Any]
    failures: tuple[str, ...] = ()


class Rollouts(Protocol):
    """Does an algorithm's iterations on a training environment."""

    def start(self) -> Slots:
        """Every slot at the beginning of an episode."""
        ...

    def learn(self, learner: Any, slots: Slots, iteration: int) -> Learnt:
        """Gather a rollout with the learner's policy, and update the learner once."""
        ...

    def gather(self, actor: Any, slots: Slots, iteration: int) -> tuple[Rollout, Slots, Ended, tuple[str, ...]]:
        """A rollout (T, B), where it left the slots, the episodes that ended, a sentence for each that broke."""
        ...

    def close(self) -> None: ...


class OnPolicy:
    """Iterations of an algorithm that reads rollouts: gather one with the newest policy, then update once."""

    def __init__(self, algorithm: Any, root: int, rollouts: Rollouts, lanes: Lanes) -> None:
        self.algorithm = algorithm
        self.root = root
        self.rollouts = rollouts
        self.lanes = lanes

    def start(self) -> Progress:
        """The state before the first iteration."""
        zero = np.zeros((), np.int64)
        learner = _init(self.algorithm, draw(root_key(self.root), "init"))
        return Progress(learner, zero, zero, zero, self.rollouts.start())

    def iterate(
        self, progress: Progress, goes_on: Callable[[int], bool] = lambda env_steps: False
    ) -> tuple[Progress, dict[str, Any], tuple[str, ...]]:
        """One iteration: (state after it, metrics, a sentence for each simulation that failed)."""
        iteration = int(progress.iteration)
        return self._after(progress, self.rollouts.learn(progress.learner, progress.slots, iteration))

    def _after(self, progress: Progress, learnt: Learnt) -> tuple[Progress, dict[str, Any], tuple[str, ...]]:
        """The state after an iteration, its metrics, a sentence for each simulation that failed."""
        steps = self.algorithm.rollout_steps * self.algorithm.num_envs
        held_out = self.algorithm.rollout_steps * self.algorithm.held_out_envs
        after = Progress(
            learnt.learner,
            progress.iteration + 1,
            progress.env_steps + steps,
            progress.held_out_steps + held_out,
            learnt.slots,
        )
        metrics = {"steps": steps, "held_out_steps": int(after.held_out_steps), "failed_episodes": len(learnt.failures)}
        metrics |= _episodes(learnt.ended, self.algorithm.num_envs, self.algorithm.spec.max_episode_steps)
        metrics |= {name: value.item() for name, value in jax.device_get(dict(learnt.measured)).items()}
        return after, metrics, learnt.failures

    def evaluate(self, progress: Progress, num_episodes: int) -> Evaluation:
        """Episodes of the likeliest action, on the raw reward, to the task's own clock."""
        actor, iteration = actor_of(self.algorithm, progress.learner), int(progress.iteration)
        chunks = range(num_chunks(num_episodes, self.lanes.num_slots))
        works = (evaluation_work(iteration, num_episodes, self.lanes.num_slots, chunk) for chunk in chunks)
        found = self.lanes.run(actor, works)
        return Evaluation(
            np.concatenate([chunk.fitness for chunk in found])[:num_episodes],
            np.concatenate([chunk.length for chunk in found])[:num_episodes],
            tuple(failure for chunk in found for failure in chunk.failures),
        )

    # What a run asks of whoever does its work: here that is this process, and it is all that is there to say.

    @property
    def num_slots(self) -> int:
        """Slots of the training environment."""
        return self.algorithm.num_slots

    def metrics(self) -> dict[str, float]:
        """Nothing beside the iteration's own."""
        return {}

    def traffic(self) -> list[tuple[int, str, str, int, int]]:
        """No messages."""
        return []

    def core_seconds(self) -> None:
        """The run's own threads are all."""

    def close(self) -> None:
        """Free the environments."""
        self.rollouts.close()
        self.lanes.close()


def _episodes(ended: Ended, num_envs: int, clock: int | None) -> dict[str, float]:
    """Mean, best and worst raw return of the training episodes that ended, and their mean length; NaN without any.

    Beside them how many were truncated, how many of these before the clock ran out, and how many terminated just when
    it did.
    """
    flag = np.asarray(ended.flag)[:, :num_envs]
    returns = np.asarray(ended.episode_return)[:, :num_envs][flag]
    lengths = np.asarray(ended.episode_length)[:, :num_envs][flag]
    if not len(returns):
        nothing = float("nan")
        names = ("training_return", "training_return_std", "training_return_max", "training_return_min")
        counts = ("episodes", "truncated_episodes", "truncated_early", "terminated_at_clock")
        return {**dict.fromkeys(counts, 0), **dict.fromkeys((*names, "episode_length"), nothing)}
    terminated = np.asarray(ended.terminated)[:, :num_envs][flag]
    at_clock = lengths == clock
    return {
        "episodes": len(returns),
        "truncated_episodes": int((~terminated).sum()),
        "truncated_early": 0 if clock is None else int((~terminated & ~at_clock).sum()),
        "terminated_at_clock": int((terminated & at_clock).sum()),
        "training_return": float(returns.mean()),
        "training_return_std": float(returns.std()),
        "training_return_max": float(returns.max()),
        "training_return_min": float(returns.min()),
        "episode_length": float(lengths.mean()),
    }


class HostRollouts:
    """Rollouts on a host environment: one compiled call acts for all slots, the environment steps them together."""

    def __init__(self, algorithm: Any, env: HostEnv, root: int) -> None:
        self._env, self._root = env, root
        self._algorithm, self._size = algorithm, env.num_slots
        self._left: Any = None

    def start(self) -> Slots:
        obs = self._env.reset(host_keys(self._root, "reset", 0, 0, np.arange(self._size)))
        return self._leave(obs, np.zeros(self._size), np.zeros(self._size, np.int64))

    def _leave(self, obs: np.ndarray, total: np.ndarray, length: np.ndarray) -> Slots:
        """Where the environment is now."""
        self._left = self._env.snapshot()
        return Slots(self._left, obs, total, length)

    def _go_to(self, slots: Slots) -> Slots:
        """Bring the environment to `slots`, unless that is where it is: bringing back an adapted one replays its
        episodes, and where it can only begin them again, the slots are at their beginning.
        """
        here, self._left = self._left, None
        if slots.environment is here:
            return slots
        self._env.restore(slots.environment)
        if not isinstance(self._env, BeginsAgain) or self._env.spec.resume != "episode":
            return slots
        zeros = np.zeros(self._size)
        return Slots(slots.environment, self._env.observations, zeros, zeros.astype(np.int64))

    def learn(self, learner: Any, slots: Slots, iteration: int) -> Learnt:
        actor = actor_of(self._algorithm, learner)
        rollout, slots, ended, failures = self.gather(actor, slots, iteration)
        learner, measured = _update(self._algorithm, learner, rollout, draw(root_key(self._root), "update", iteration))
        return Learnt(learner, slots, ended, measured, failures)

    def gather(self, actor: Any, slots: Slots, iteration: int) -> tuple[Rollout, Slots, Ended, tuple[str, ...]]:
        """A rollout (T, B), where it left the slots, the episodes that ended, a sentence for each that broke."""
        _, obs, total, length = self._go_to(slots)
        key = draw(root_key(self._root), "act", iteration)
        taken: list[tuple[Any, ...]] = []
        over: list[tuple[np.ndarray, ...]] = []
        failures: list[str] = []
        for time in range(self._algorithm.rollout_steps):
            action, extras = _act(self._algorithm, actor, obs, key, time)
            step = self._env.step(np.asarray(action))
            total, length = total + step.reward, length + 1
            ended = step.terminated | step.truncated
            taken.append((obs, action, step.reward, step.terminated, step.truncated, step.next_obs, extras))
            over.append((ended, step.terminated, total, length))
            obs = step.next_obs
            if ended.any():
                for slot in np.flatnonzero(step.measures["failed"][: self._algorithm.num_envs]):  # not held-out ones
                    failures.append(f"slot {slot}, step {time} of iteration {iteration}: {self._reason(int(slot))}")
                which = np.flatnonzero(ended)
                obs = np.array(obs)
                obs[which] = self._env.reset(host_keys(self._root, "reset", iteration, time + 1, which), which)
                total, length = np.where(ended, 0.0, total), np.where(ended, 0, length)
        columns = [_stack(column) for column in zip(*taken, strict=True)]
        after = self._leave(obs, total, length)
        return Rollout(*columns), after, Ended(*map(np.stack, zip(*over, strict=True))), tuple(failures)

    def close(self) -> None:
        self._env.close()

    def _reason(self, slot: int) -> str:
        return getattr(self._env, "failure_reason", lambda _: "the simulation failed")(slot)


class JaxRollouts:
    """Iterations on a pure environment: rollout and update are one compiled program."""

    def __init__(self, algorithm: Any, env: JaxEnv, root: int) -> None:
        self._root = root_key(root)
        self._algorithm, self._env = algorithm, env

    def start(self) -> Slots:
        return _start(self._env, self._algorithm.num_slots, draw(self._root, "reset"))

    def learn(self, learner: Any, slots: Slots, iteration: int) -> Learnt:
        return Learnt(*_iteration(self._env, self._algorithm, learner, slots, self._root, np.uint32(iteration)))

    def gather(self, actor: Any, slots: Slots, iteration: int) -> tuple[Rollout, Slots, Ended, tuple[str, ...]]:
        """A rollout (T, B) alone, where it left the slots, the episodes that ended."""
        found = _rollout(self._env, self._algorithm, actor, slots, self._root, np.uint32(iteration))
        return *found, ()

    def close(self) -> None:
        pass


# The compiled programs. An algorithm is an argument of them and no constant in them: its sizes and switches select the
# program and its floats are data, so that every run of a process with the same sizes shares one program, whatever its
# seed and its learning rate.


@jax.jit
def _init(algorithm: Any, key: Key) -> Any:
    return algorithm.init(key)


@jax.jit
def _update(algorithm: Any, learner: Any, rollout: Rollout, key: Key) -> tuple[Any, dict[str, jax.Array]]:
    return algorithm.update(learner, rollout, key)


@jax.jit
def _act(algorithm: Any, actor: Any, obs: jax.Array, key: Key, time: jax.Array) -> tuple[jax.Array, Any]:
    """What every slot does, and what is kept of it."""
    keys = _slot_keys(jax.random.fold_in(key, time), obs.shape[0])

    def act_one(obs: jax.Array, key: Key) -> tuple[jax.Array, Any]:
        action, _, extras = algorithm.act(actor, (), obs, key, explore=True)
        return action, extras

    return jax.vmap(act_one)(obs.astype(jnp.float32), keys)


@partial(jax.jit, static_argnums=(0, 1))
def _start(env: JaxEnv, num_slots: int, key: Key) -> Slots:
    """Every slot at the beginning of an episode, from the key of the stream "reset"."""
    keys = _slot_keys(jax.random.fold_in(jax.random.fold_in(key, 0), 0), num_slots)
    states, obs = jax.vmap(env.reset)(keys)
    return Slots(states, obs, jnp.zeros(num_slots, jnp.float64), jnp.zeros(num_slots, jnp.int64))


@partial(jax.jit, static_argnums=0)
def _iteration(
    env: JaxEnv, algorithm: Any, learner: Any, slots: Slots, root: Key, iteration: jax.Array
) -> tuple[Any, Slots, Ended, dict[str, jax.Array]]:
    return iteration_program(env, algorithm, learner, slots, root, iteration)


def iteration_program(
    env: JaxEnv, algorithm: Any, learner: Any, slots: Slots, root: Key, iteration: jax.Array
) -> tuple[Any, Slots, Ended, dict[str, jax.Array]]:
    """An iteration on a pure environment: (learner, slots, episodes that ended, metrics)."""
    rollout, slots, ended = rollout_program(env, algorithm, algorithm.actor(learner), slots, root, iteration)
    learner, measured = algorithm.update(learner, rollout, draw(root, "update", iteration))
    return learner, slots, ended, measured


@partial(jax.jit, static_argnums=0)
def _rollout(
    env: JaxEnv, algorithm: Any, actor: Any, slots: Slots, root: Key, iteration: jax.Array
) -> tuple[Rollout, Slots, Ended]:
    return rollout_program(env, algorithm, actor, slots, root, iteration)


def rollout_program(
    env: JaxEnv, algorithm: Any, actor: Any, slots: Slots, root: Key, iteration: jax.Array
) -> tuple[Rollout, Slots, Ended]:
    """`rollout_steps` steps of every slot, each begun again where its episode ended."""
    num_slots = algorithm.num_slots
    act_key, reset_key = draw(root, "act", iteration), draw(root, "reset", iteration)

    def advance(slots: Slots, time: jax.Array) -> tuple[Slots, tuple[Rollout, Ended]]:
        action, extras = _act(algorithm, actor, slots.obs, act_key, time)
        keys = _slot_keys(jax.random.fold_in(reset_key, time + 1), num_slots)
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(
            keys
        )  # a reset must not repeat the last step's draws
        states, step = jax.vmap(env.step)(slots.environment, action, step_keys)
        ended = step.terminated | step.truncated
        total, length = slots.episode_return + step.reward, slots.episode_length + 1
        fresh, fresh_obs = jax.vmap(env.reset)(keys)

        def where_ended(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(ended.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        after = Slots(
            jax.tree.map(where_ended, fresh, states),
            where_ended(fresh_obs, step.next_obs),
            jnp.where(ended, 0.0, total),
            jnp.where(ended, 0, length),
        )
        taken = Rollout(slots.obs, action, step.reward, step.terminated, step.truncated, step.next_obs, extras)
        return after, (taken, Ended(ended, step.terminated, total, length))

    after, (rollout, ended) = jax.lax.scan(advance, slots, jnp.arange(algorithm.rollout_steps))
    return rollout, after, ended


def _slot_keys(key: Key, num_slots: int) -> Key:
    return jax.vmap(lambda slot: jax.random.fold_in(key, slot))(jnp.arange(num_slots))


def _stack(column: tuple[Any, ...]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *column)
