"""Experts: whoever can be asked what to do in a state, a policy that was trained or a planner that tries plans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from workhorse.algorithms.planning.ilqr import ILQR
from workhorse.core.algorithm import Planner
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import EnvSpec
from workhorse.environments.protocol import HostEnv, Simulator
from workhorse.training.optimised_episodes import OptimisedEpisodes, sized
from workhorse.training.plan_ahead import as_simulator
from workhorse.training.planned_episodes import HostPlanning
from workhorse.training.rollouts import actor_of, begun

__all__ = ["Chooser", "Expert", "MakeExpert", "OpenExpert", "PlanningExpert", "PolicyExpert"]


class Expert(ABC):
    """Answers, in the slots of one environment, what it would do there; made anew for each environment.

    Attributes:
        steps_per_answer: steps of the simulator that an answer takes.
    """

    steps_per_answer: int = 0

    @abstractmethod
    def begin(self, num_slots: int, iteration: int) -> None:
        """Begin an episode in every slot."""

    @abstractmethod
    def answer(self, obs: np.ndarray, living: np.ndarray, episodes: np.ndarray, now: int) -> np.ndarray:
        """Return what it would do in every slot, (B, ...), *in the task's own numbers*; idle slots get anything.

        Asked once in each step of an episode, whoever acts there: an expert may remember what it has seen.

        Args:
            obs: what each slot is about to act on, (B, ...).
            living: numbers of the slots that still play.
            episodes: number of the episode in each slot, part of the address of what an expert draws.
            now: steps since the episodes began.
        """


MakeExpert = Callable[[HostEnv, int], Expert]
"""From an environment and the run's seed to an expert in its slots."""

OpenExpert = Callable[[EnvSpec], MakeExpert]
"""From a task's spec to what makes an expert for it: reads the expert's policy, and refuses one that does not fit."""


class Chooser(Protocol):
    """A policy that chooses for a batch of observations, and may have a memory: `runs.policy.Policy` is one."""

    def choose(self, observation: Any, state: Any = None) -> tuple[np.ndarray, Any]: ...


class PolicyExpert(Expert):
    """A policy that was trained, asked without noise.

    All slots are asked together, in one batch of one size: *a row's last bit may depend on the size of a batch*.
    """

    def __init__(self, policy: Chooser) -> None:
        self._policy, self._memory = policy, None

    def begin(self, num_slots: int, iteration: int) -> None:
        self._memory = None

    def answer(self, obs: np.ndarray, living: np.ndarray, episodes: np.ndarray, now: int) -> np.ndarray:
        action, self._memory = self._policy.choose(obs.astype(np.float32), self._memory)
        return action


class PlanningExpert(Expert):
    """A planner that tries plans from the states that the slots are in, whoever brought them there.

    Its plan is shifted by a step at every answer as if its own action had been carried out. Where another one was, the
    plan is a worse start of the next search, and nothing else.
    """

    def __init__(self, planner: Planner, env: HostEnv, root: int) -> None:
        simulator = as_simulator(planner, env)
        assert isinstance(simulator, Simulator)
        if isinstance(planner, ILQR):
            planner = sized(planner, simulator)
            self._planning: HostPlanning = OptimisedEpisodes(planner, simulator, root)
        else:
            self._planning = HostPlanning(planner, simulator, root)
        self._planner, self._root = planner, root
        self._actor = actor_of(planner, planner.init(draw(root_key(root), "init")))
        self._key, self._carry = root_key(root), None
        self.steps_per_answer = planner.steps_per_action

    def begin(self, num_slots: int, iteration: int) -> None:
        self._carry = begun(self._planner, self._actor, num_slots)
        self._key = draw(root_key(self._root), "plan", iteration)

    def answer(self, obs: np.ndarray, living: np.ndarray, episodes: np.ndarray, now: int) -> np.ndarray:
        where = obs, living, episodes, self._key, now
        _, sent, _, self._carry = self._planning.act(self._actor, self._carry, *where)
        return sent
