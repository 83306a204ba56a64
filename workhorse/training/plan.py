"""Everything a process must know to take part in a run, as plain JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from workhorse.algorithms import registry as algorithms
from workhorse.core.algorithm import Algorithm
from workhorse.core.errors import UsageError
from workhorse.core.spec import EnvSpec
from workhorse.data.opening import open_dataset
from workhorse.environments import registry as environments
from workhorse.environments.protocol import HostEnv, JaxEnv
from workhorse.training.sources import Sources

__all__ = ["Plan"]

Made = TypeVar("Made")


@dataclass(frozen=True)
class Plan:
    """Everything a run's bits depend on but versions: equal plans give equal results, in any number of processes.

    Attributes:
        task: the task's id.
        task_options: its non-default options.
        algorithm: the algorithm's name.
        settings: options of the algorithm that differ from its defaults.
        seed: root of all randomness.
        slots: episodes of a chunk of a population; None for what `chunk_size` gives.
        sources: what is learnt from beside one's own experience; None for nothing.
    """

    task: str
    task_options: Mapping[str, Any]
    algorithm: str
    settings: Mapping[str, Any]
    seed: int
    slots: int | None = None
    sources: Sources | None = None

    def make_algorithm(self, spec: EnvSpec) -> Algorithm:
        """Return the algorithm, its settings checked.

        Raises:
            UsageError: an unknown algorithm or option, a value out of range, or spaces it cannot take.
        """
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in self.settings.items()}
        return algorithms.make(self.algorithm, spec, settings)

    def with_budget(self, env_steps: int) -> Plan:
        """Return the plan with its annealing schedule set to `env_steps`, where it has one that is not set.

        *A run that begins with another's state has none*: counters go on, and the other's schedule is over.
        """
        if self.sources is not None and self.sources.begun_from:
            return self
        if "anneal_env_steps" not in algorithms.options(self.algorithm) or self.settings.get("anneal_env_steps"):
            return self
        return replace(self, settings={**self.settings, "anneal_env_steps": env_steps})

    def opened(self, slots: int, threads: int, make: Callable[[HostEnv | JaxEnv], Made]) -> Made:
        """Return what `make` builds on an environment of the task, which is closed again where that is refused."""
        env = environments.make(self.task, slots, threads, **self.task_options)
        try:
            return make(env)
        except UsageError:
            if isinstance(env, HostEnv):
                env.close()
            raise

    def spec(self) -> EnvSpec:
        """Return the task's spec, from an environment of one slot that is closed again.

        Raises:
            UsageError: an unknown algorithm, task or option.
        """
        algorithms.entry(self.algorithm)  # before a task is made, which may take long
        if self.sources is not None and not self.sources.evaluate:
            return open_dataset(self.sources.log).spec()
        env = environments.make(self.task, 1, 1, **self.task_options)
        if isinstance(env, HostEnv):
            env.close()
        return env.spec
