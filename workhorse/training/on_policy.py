"""The loop of on-policy learning: a rollout of all slots, then one update; on a host environment or as JAX programs.

Slots are never reset between rollouts: an episode goes on from one iteration into the next, and where the environment
stands is part of the run's state. Everything drawn is drawn from the address (root, stream, iteration, step, slot).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core.addresses import host_keys
from workhorse.core.algorithm import Key
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Rollout
from workhorse.environments.protocol import HostEnv, JaxEnv
from workhorse.training.evolve import Evaluation
from workhorse.training.gather import Lanes
from workhorse.training.workforce import evaluation_work, num_chunks

__all__ = ["Ended", "HostRollouts", "JaxRollouts", "OnPolicy", "Progress", "Rollouts", "Slots"]


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
    """The episodes that ended in a rollout, (T, B): return and length where `flag` is set."""

    flag: Any
    episode_return: Any
    episode_length: Any


class Rollouts(Protocol):
    """Steps every slot of a training environment."""

    def start(self) -> Slots:
        """Every slot at the beginning of an episode."""
        ...

    def gather(self, actor: Any, slots: Slots, iteration: int) -> tuple[Rollout, Slots, Ended, tuple[str, ...]]:
        """A rollout (T, B), where it left the slots, the episodes that ended, a sentence for each that broke."""
        ...

    def close(self) -> None: ...


class OnPolicy:
    """Iterations of an algorithm that reads rollouts: gather one with the newest policy, then update once."""

    def __init__(self, algorithm: Any, root: int, rollouts: Rollouts, lanes: Lanes) -> None:
        self.algorithm = algorithm
        self._root = root
        self._rollouts = rollouts
        self._lanes = lanes
        self._init = jax.jit(algorithm.init)
        self._actor = jax.jit(algorithm.actor)
        self._update = jax.jit(algorithm.update)

    def start(self) -> Progress:
        """The state before the first iteration."""
        zero = np.zeros((), np.int64)
        learner = self._init(draw(root_key(self._root), "init"))
        return Progress(learner, zero, zero, zero, self._rollouts.start())

    def iterate(
        self, progress: Progress, goes_on: Callable[[int], bool] = lambda env_steps: False
    ) -> tuple[Progress, dict[str, Any], tuple[str, ...]]:
        """One iteration: (state after it, metrics, a sentence for each simulation that failed)."""
        iteration = int(progress.iteration)
        actor = self._actor(progress.learner)
        rollout, slots, ended, failures = self._rollouts.gather(actor, progress.slots, iteration)
        key = draw(root_key(self._root), "update", iteration)
        learner, measured = self._update(progress.learner, rollout, key)
        steps = self.algorithm.rollout_steps * self.algorithm.num_envs
        held_out = self.algorithm.rollout_steps * self.algorithm.held_out_envs
        after = Progress(
            learner, progress.iteration + 1, progress.env_steps + steps, progress.held_out_steps + held_out, slots
        )
        metrics = {"steps": steps, "held_out_steps": int(after.held_out_steps), "failed_episodes": len(failures)}
        metrics |= _episodes(ended, self.algorithm.num_envs)
        metrics |= {name: value.item() for name, value in jax.device_get(measured).items()}
        return after, metrics, failures

    def evaluate(self, progress: Progress, num_episodes: int) -> Evaluation:
        """Episodes of the likeliest action, on the raw reward, to the task's own clock."""
        actor, iteration = self._actor(progress.learner), int(progress.iteration)
        chunks = range(num_chunks(num_episodes, self._lanes.num_slots))
        works = (evaluation_work(iteration, num_episodes, self._lanes.num_slots, chunk) for chunk in chunks)
        found = self._lanes.run(actor, works)
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
        self._rollouts.close()
        self._lanes.close()


def _episodes(ended: Ended, num_envs: int) -> dict[str, float]:
    """Mean, best and worst raw return of the training episodes that ended, and their mean length; NaN without any."""
    flag = np.asarray(ended.flag)[:, :num_envs]
    returns = np.asarray(ended.episode_return)[:, :num_envs][flag]
    lengths = np.asarray(ended.episode_length)[:, :num_envs][flag]
    if not len(returns):
        nothing = float("nan")
        names = ("population_return", "population_return_std", "population_return_max", "population_return_min")
        return {"episodes": 0, **dict.fromkeys((*names, "episode_length"), nothing)}
    return {
        "episodes": len(returns),
        "population_return": float(returns.mean()),
        "population_return_std": float(returns.std()),
        "population_return_max": float(returns.max()),
        "population_return_min": float(returns.min()),
        "episode_length": float(lengths.mean()),
    }


class HostRollouts:
    """Rollouts on a host environment: one compiled call acts for all slots, the environment steps them together."""

    def __init__(self, algorithm: Any, env: HostEnv, root: int) -> None:
        self._env, self._root = env, root
        self._steps, self._size = algorithm.rollout_steps, env.num_slots
        self._act = jax.jit(_act_for_all(algorithm))

    def start(self) -> Slots:
        obs = self._env.reset(host_keys(self._root, "reset", 0, 0, np.arange(self._size)))
        return Slots(self._env.snapshot(), obs, np.zeros(self._size), np.zeros(self._size, np.int64))

    def gather(self, actor: Any, slots: Slots, iteration: int) -> tuple[Rollout, Slots, Ended, tuple[str, ...]]:
        self._env.restore(slots.environment)
        obs, total, length = slots.obs, slots.episode_return.copy(), slots.episode_length.copy()
        key = draw(root_key(self._root), "act", iteration)
        taken: list[tuple[Any, ...]] = []
        over: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        failures: list[str] = []
        for time in range(self._steps):
            action, extras = self._act(actor, obs, key, time)
            step = self._env.step(np.asarray(action))
            total, length = total + step.reward, length + 1
            ended = step.terminated | step.truncated
            taken.append((obs, action, step.reward, step.terminated, step.truncated, step.next_obs, extras))
            over.append((ended, total, length))
            obs = step.next_obs
            if ended.any():
                for slot in np.flatnonzero(step.measures["failed"]):
                    failures.append(f"slot {slot}, step {time} of iteration {iteration}: {self._reason(int(slot))}")
                which = np.flatnonzero(ended)
                obs = np.array(obs)
                obs[which] = self._env.reset(host_keys(self._root, "reset", iteration, time + 1, which), which)
                total, length = np.where(ended, 0.0, total), np.where(ended, 0, length)
        columns = [_stack(column) for column in zip(*taken, strict=True)]
        after = Slots(self._env.snapshot(), obs, total, length)
        return Rollout(*columns), after, Ended(*map(np.stack, zip(*over, strict=True))), tuple(failures)

    def close(self) -> None:
        self._env.close()

    def _reason(self, slot: int) -> str:
        return getattr(self._env, "failure_reason", lambda _: "the simulation failed")(slot)


class JaxRollouts:
    """Rollouts on a pure environment: one compiled program."""

    def __init__(self, algorithm: Any, env: JaxEnv, root: int) -> None:
        self._root, self._size = root, algorithm.num_slots
        self._env = env
        self._run = jax.jit(rollout_program(algorithm, env))

    def start(self) -> Slots:
        return jax.jit(start_program(self._env, self._size))(draw(root_key(self._root), "reset"))

    def gather(self, actor: Any, slots: Slots, iteration: int) -> tuple[Rollout, Slots, Ended, tuple[str, ...]]:
        root = root_key(self._root)
        act_key, reset_key = draw(root, "act", iteration), draw(root, "reset", iteration)
        rollout, after, ended = self._run(actor, slots, act_key, reset_key)
        return rollout, after, ended, ()

    def close(self) -> None:
        pass


def start_program(env: JaxEnv, num_slots: int) -> Callable[[Key], Slots]:
    """Every slot at the beginning of an episode, from the key of the stream "reset"."""

    def start(key: Key) -> Slots:
        keys = _slot_keys(jax.random.fold_in(jax.random.fold_in(key, 0), 0), num_slots)
        states, obs = jax.vmap(env.reset)(keys)
        return Slots(states, obs, jnp.zeros(num_slots, jnp.float64), jnp.zeros(num_slots, jnp.int64))

    return start


def rollout_program(algorithm: Any, env: JaxEnv) -> Callable[..., tuple[Rollout, Slots, Ended]]:
    """`rollout_steps` steps of every slot, each begun again where its episode ended."""
    act = _act_for_all(algorithm)
    num_slots = algorithm.num_slots

    def run(actor: Any, slots: Slots, act_key: Key, reset_key: Key) -> tuple[Rollout, Slots, Ended]:
        def advance(slots: Slots, time: jax.Array) -> tuple[Slots, tuple[Rollout, Ended]]:
            action, extras = act(actor, slots.obs, act_key, time)
            keys = _slot_keys(jax.random.fold_in(reset_key, time + 1), num_slots)
            states, step = jax.vmap(env.step)(slots.environment, action, keys)
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
            return after, (taken, Ended(ended, total, length))

        after, (rollout, ended) = jax.lax.scan(advance, slots, jnp.arange(algorithm.rollout_steps))
        return rollout, after, ended

    return run


def _act_for_all(algorithm: Any) -> Callable[..., tuple[jax.Array, Any]]:
    def act(actor: Any, obs: jax.Array, key: Key, time: jax.Array) -> tuple[jax.Array, Any]:
        keys = _slot_keys(jax.random.fold_in(key, time), obs.shape[0])

        def act_one(obs: jax.Array, key: Key) -> tuple[jax.Array, Any]:
            action, _, extras = algorithm.act(actor, (), obs, key, explore=True)
            return action, extras

        return jax.vmap(act_one)(obs.astype(jnp.float32), keys)

    return act


def _slot_keys(key: Key, num_slots: int) -> Key:
    return jax.vmap(lambda slot: jax.random.fold_in(key, slot))(jnp.arange(num_slots))


def _stack(column: tuple[Any, ...]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *column)
