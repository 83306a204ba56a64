"""The loop of planners: whole episodes, each action planned in copies of the task, then the copy learns from them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import PyTree

from workhorse.algorithms.planning.ilqr import ILQR
from workhorse.core.algorithm import Algorithm, Key, Planner
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Demonstrations
from workhorse.environments.protocol import HostEnv, JaxEnv, Simulator
from workhorse.training.episodes import evaluation_work, make_player, num_chunks, numbered
from workhorse.training.loop import Evaluation, Failures, GoesOn, Loop, Progress
from workhorse.training.optimised_episodes import OptimisedEpisodes, sized
from workhorse.training.planned_episodes import Planned, PlanningPlayer, planning_player
from workhorse.training.rollouts import actor_of
from workhorse.training.step_length import with_step_norm

if TYPE_CHECKING:
    from workhorse.training.plan import Plan

__all__ = ["PlanAhead", "as_simulator"]


def as_simulator(algorithm: Algorithm, env: HostEnv | JaxEnv) -> Simulator | JaxEnv:
    """Return the environment as one that can be tried from any state.

    Raises:
        UsageError: it cannot, and the rivals that are left are named.
    """
    if isinstance(env, Simulator) or not isinstance(env, HostEnv):
        return env
    raise UsageError(
        f"{algorithm.name} tries plans in copies of the task, but the simulator of {algorithm.spec.task} cannot be put "
        "into a state, because it goes through the Gymnasium adapter: rivals that need no copies are left, as rules, "
        "pid, random-search, cem, or an evolution strategy such as openai-es."
    )


class PlanAhead(Loop):
    """Iterations of a planner: an episode of each slot, then an update of the copy.

    Nothing is kept between iterations but the copy: every episode begins with a new plan. Environment steps are those
    of the episodes and of all trials.

    Attributes:
        root: the run's seed.
        player: plays the episodes.
    """

    def __init__(self, algorithm: Planner, root: int, env: HostEnv | JaxEnv) -> None:
        self.algorithm: Planner = algorithm
        self.root, self.num_slots = root, algorithm.num_envs
        self._env = env
        simulator = as_simulator(algorithm, env)
        if isinstance(algorithm, ILQR):
            self.algorithm = algorithm = sized(algorithm, simulator)
            self.player: PlanningPlayer = OptimisedEpisodes.of(algorithm, simulator, root)
        else:
            self.player = planning_player(algorithm, simulator, root)
        self._copies = make_player(algorithm, env, algorithm.num_envs, root)

    @staticmethod
    def on_this_machine(plan: Plan, algorithm: Algorithm, threads: int) -> PlanAhead:
        """Return the loop with this many simulation threads."""
        assert isinstance(algorithm, Planner)
        if plan.slots not in (None, algorithm.num_envs):
            raise UsageError(f"{plan.algorithm} acts in num_envs slots: set that, and leave slots={plan.slots} out.")
        return plan.opened(algorithm.num_envs, threads, lambda env: PlanAhead(algorithm, plan.seed, env))

    def start(self) -> Progress:
        zero = np.zeros((), np.int64)
        return Progress(_init(self.algorithm, draw(root_key(self.root), "init")), zero, zero)

    def iterate(
        self, progress: Progress, goes_on: GoesOn = lambda env_steps: False
    ) -> tuple[Progress, dict[str, float], Failures]:
        algorithm, iteration = self.algorithm, int(progress.iteration)
        episodes = np.arange(self.num_slots, dtype=np.int32)
        planned = self.player.play(actor_of(algorithm, progress.state), "reset", iteration, episodes)
        begin = time.perf_counter()
        key = draw(root_key(self.root), "update", iteration)
        state, measured = _update(algorithm, progress.state, planned.taken, key)
        measured = {name: value.item() for name, value in jax.device_get(dict(measured)).items()}
        update_s = time.perf_counter() - begin
        executed = int(planned.length.sum())
        steps = executed * (1 + algorithm.steps_per_action)
        metrics: dict[str, float] = {"steps": steps, "failed_episodes": len(planned.failures)}
        metrics |= _episode_metrics(planned) | self._measures(planned)
        metrics |= measured | {"copy_return": self._copy_return(state, iteration), "update_s": update_s}
        after = Progress(state, progress.iteration + 1, progress.env_steps + steps)
        return after, metrics, planned.failures

    def evaluate(self, progress: Progress, num_episodes: int) -> Evaluation:
        """Play planned episodes; `measures` tell what planning cost."""
        actor, found = actor_of(self.algorithm, progress.state), list[Planned]()
        for chunk in range(num_chunks(num_episodes, self.num_slots)):
            episodes = numbered(chunk, num_episodes, self.num_slots)
            found.append(self.player.play(actor, "evaluate", int(progress.iteration), episodes))
        returns, length, error = (
            np.concatenate([getattr(one, name) for one in found])[:num_episodes]
            for name in ("returns", "length", "error")
        )
        seconds = sum(one.seconds[0] for one in found), sum(one.seconds[1] for one in found)
        failures = tuple(failure for one in found for failure in one.failures)
        whole = found[0]._replace(returns=returns, length=length, error=error, seconds=seconds)
        return Evaluation(returns, length, failures, self._measures(whole))

    def planned_actions(self, progress: Progress, episode: int) -> np.ndarray:
        """Return the actions of one planned episode of `evaluate`, (length, ...), *in the algorithm's own numbers*."""
        actor = actor_of(self.algorithm, progress.state)
        episodes = np.full(self.num_slots, -1, np.int32)
        episodes[0] = episode
        planned = self.player.play(actor, "evaluate", int(progress.iteration), episodes)
        return np.asarray(planned.taken.action).reshape(-1, self.num_slots, *planned.taken.action.shape[1:])[
            : planned.length[0], 0
        ]

    def _measures(self, planned: Planned) -> dict[str, float]:
        """Return what planning cost, and how far it was from what came."""
        simulated, passed = planned.seconds
        return {
            "planning_steps_per_action": self.algorithm.steps_per_action,
            "planning_error": float(planned.error.max()),
            **({"real_time_factor": simulated / passed} if simulated > 0 else {}),
        }

    def _copy_return(self, state: PyTree, iteration: int) -> float:
        """Return the mean return of the copy's own episodes, one a slot."""
        work = evaluation_work(iteration, self.num_slots, self.num_slots, 0)
        _, episodes = next(iter(self._copies.play(actor_of(self.algorithm, state), [(0, work)])))
        return float(episodes.returns.mean())

    def close(self) -> None:
        if isinstance(self._env, HostEnv):
            self._env.close()


def _episode_metrics(planned: Planned) -> dict[str, float]:
    returns = planned.returns
    return {
        "planning_return": float(returns.mean()),
        "training_return": float(returns.mean()),
        "training_return_std": float(returns.std()),
        "training_return_max": float(returns.max()),
        "training_return_min": float(returns.min()),
        "episode_length": float(planned.length.mean()),
    }


# The compiled programs, of which the algorithm is an argument: see `workhorse.training.rollouts`.


@jax.jit
def _init(algorithm: Algorithm, key: Key) -> PyTree:
    return algorithm.init(key)


@jax.jit
def _update(algorithm: Algorithm, state: PyTree, taken: Demonstrations, key: Key) -> tuple[PyTree, dict[str, Any]]:
    after, metrics = algorithm.update(state, taken, key)
    return after, with_step_norm(algorithm, state, after, metrics)
