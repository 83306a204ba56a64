"""What a process must know to take part in a run, as plain JSON, and what it builds from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax

from workhorse.algorithms import registry as algorithms
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import Box, EnvSpec
from workhorse.environments import registry as environments
from workhorse.environments.protocol import HostEnv
from workhorse.training.evolve import chunk_size
from workhorse.training.gather import Gather, HostGather, JaxGather, Lanes, num_lanes
from workhorse.training.learning import Learning
from workhorse.training.on_policy import HostRollouts, JaxRollouts, OnPolicy
from workhorse.training.workforce import Local, num_chunks

__all__ = ["EVALUATION_SLOTS", "Plan", "local_workforce"]

EVALUATION_SLOTS = 25
"""Episodes of an on-policy run's evaluation that run side by side in one lane."""


@dataclass(frozen=True)
class Plan:
    """Everything a run's bits depend on but versions: equal plans give equal results, in any number of processes.

    Attributes:
        task: the task's id.
        task_options: its non-default options.
        algorithm: the algorithm's name.
        settings: options of the algorithm that differ from its defaults.
        seed: root of all randomness.
        slots: episodes of a chunk; None for what `chunk_size` gives.
    """

    task: str
    task_options: Mapping[str, Any]
    algorithm: str
    settings: Mapping[str, Any]
    seed: int
    slots: int | None = None

    def learning(self, spec: EnvSpec) -> Learning:
        """The algorithm with its compiled steps, its settings checked.

        Raises:
            UsageError: an unknown algorithm or option, a value out of range, or actions it cannot take.
        """
        return Learning(self._make(spec), self.seed)

    @property
    def is_on_policy(self) -> bool:
        """Whether the algorithm reads rollouts of its own newest policy."""
        return algorithms.is_on_policy(self.algorithm)

    def with_budget(self, env_steps: int) -> Plan:
        """The plan as a run of so many steps has it: what is annealed over 0 steps is annealed over these."""
        if "anneal_env_steps" not in algorithms.options(self.algorithm) or self.settings.get("anneal_env_steps"):
            return self
        return replace(self, settings={**self.settings, "anneal_env_steps": env_steps})

    def on_policy(self, spec: EnvSpec, threads: int) -> OnPolicy:
        """The loop of an algorithm that reads rollouts, with so many simulation threads, its settings checked.

        Raises:
            UsageError: an unknown algorithm or option, a value out of range, or actions it cannot take.
        """
        algorithm = self._make(spec)
        env = environments.make(self.task, algorithm.num_slots, threads, **self.task_options)
        if isinstance(env, HostEnv):
            rollouts = HostRollouts(algorithm, env, self.seed)
        else:
            rollouts = JaxRollouts(algorithm, env, self.seed)
        shares = [threads // 2, threads - threads // 2] if threads > 1 else [1]
        lanes = Lanes([self._judge(algorithm, share) for share in shares])
        return OnPolicy(algorithm, self.seed, rollouts, lanes)

    def _judge(self, algorithm: Any, threads: int) -> Gather:
        env = environments.make(self.task, EVALUATION_SLOTS, threads, **self.task_options)
        if isinstance(env, HostEnv):
            return HostGather(algorithm, env, self.seed)
        return JaxGather(algorithm, env, EVALUATION_SLOTS, self.seed)

    def _make(self, spec: EnvSpec) -> Any:
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in self.settings.items()}
        return algorithms.make(self.algorithm, spec, settings)

    def spec(self) -> EnvSpec:
        """The task's spec, from an environment of one slot that is closed again.

        Raises:
            UsageError: an unknown task or option.
        """
        env = environments.make(self.task, 1, 1, **self.task_options)
        if isinstance(env, HostEnv):
            env.close()
        return env.spec

    def bytes_needed(self, spec: EnvSpec) -> int:
        """Bytes that the learner and, of an algorithm that reads rollouts, one rollout take at the least."""
        algorithm = self._make(spec)
        leaves = jax.tree.leaves(jax.eval_shape(algorithm.init, draw(root_key(0), "init")))
        learner = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves if hasattr(leaf.dtype, "itemsize"))
        if not self.is_on_policy:
            return learner
        actions = spec.action.size if isinstance(spec.action, Box) else 1
        numbers = 2 * spec.observation.size + actions + 1  # what was seen, done and given, each four bytes or more
        return learner + 4 * numbers * algorithm.rollout_steps * algorithm.num_slots

    def num_slots(self, algorithm: Any) -> int:
        """Slots of a chunk."""
        return self.slots or chunk_size(algorithm.num_members * algorithm.episodes_per_member)

    def gather(self, learning: Learning, threads: int) -> Gather:
        """What runs one chunk at a time with so many simulation threads."""
        num_slots = self.num_slots(learning.algorithm)
        env = environments.make(self.task, num_slots, threads, **self.task_options)
        if isinstance(env, HostEnv):
            return HostGather(learning.algorithm, env, self.seed)
        return JaxGather(learning.algorithm, env, num_slots, self.seed)


def local_workforce(plan: Plan, learning: Learning, threads: int) -> Local:
    """The lanes of this process, with so many simulation threads among them."""
    algorithm = learning.algorithm
    chunks = num_chunks(algorithm.num_members * algorithm.episodes_per_member, plan.num_slots(algorithm))
    count = num_lanes(threads, chunks)
    shares = [threads // count + (number < threads % count) for number in range(count)]
    return Local(learning, Lanes([plan.gather(learning, share) for share in shares]), threads)
