"""The loop of on-policy learning: a rollout of all slots with the newest policy, then one update."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from workhorse.core.algorithm import Algorithm, Key, Metrics, OnPolicy, State
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import Box
from workhorse.core.types import Rollout
from workhorse.environments import registry as environments
from workhorse.environments.protocol import JaxEnv
from workhorse.training.action_bounds import counted, ends_of, one_sided
from workhorse.training.episodes import evaluation_of, make_player
from workhorse.training.lanes import Lanes
from workhorse.training.loop import Evaluation, Failures, GoesOn, Loop, Progress
from workhorse.training.rollouts import (
    Collector,
    Ended,
    JaxCollector,
    Slots,
    actor_of,
    collect_program,
    make_collector,
)
from workhorse.training.step_length import with_step_norm

if TYPE_CHECKING:
    from workhorse.training.plan import Plan

__all__ = ["EVALUATION_SLOTS", "OnPolicyLoop", "RolloutData", "episode_metrics"]

EVALUATION_SLOTS = 25
"""Episodes of an evaluation that run side by side in one lane."""


class RolloutData(NamedTuple):
    """Data that the loop keeps between iterations: the slots, and the steps taken in held-out ones."""

    held_out_steps: np.ndarray
    slots: Slots


class OnPolicyLoop(Loop):
    """Iterations of an algorithm that learns from rollouts.

    Attributes:
        root: the run's seed.
        collector: collects the rollouts.
        lanes: play the evaluations.
    """

    def __init__(self, algorithm: OnPolicy, root: int, collector: Collector, lanes: Lanes) -> None:
        self.algorithm: OnPolicy = algorithm
        self.root, self.num_slots = root, algorithm.num_slots
        self.collector = collector
        self.lanes = lanes

    @staticmethod
    def on_this_machine(plan: Plan, algorithm: Algorithm, threads: int) -> OnPolicyLoop:
        """Return the loop with this many simulation threads, for the rollouts and then for evaluations."""
        assert isinstance(algorithm, OnPolicy)
        if plan.slots not in (None, algorithm.num_slots):
            raise UsageError(f"{plan.algorithm} acts in num_envs slots: set that, and leave slots={plan.slots} out.")
        env = environments.make(plan.task, algorithm.num_slots, threads, **plan.task_options)
        shares = [threads // 2, threads - threads // 2] if threads > 1 else [1]
        judges = [environments.make(plan.task, EVALUATION_SLOTS, share, **plan.task_options) for share in shares]
        lanes = Lanes([make_player(algorithm, judge, EVALUATION_SLOTS, plan.seed) for judge in judges])
        collector = make_collector(algorithm, env, plan.seed)
        return OnPolicyLoop(algorithm, plan.seed, collector, lanes)

    @staticmethod
    def bytes_needed(algorithm: Algorithm) -> int:
        """Return the bytes of one rollout, each number of it four bytes or more."""
        assert isinstance(algorithm, OnPolicy)
        action = algorithm.spec.action
        numbers = 2 * algorithm.spec.observation.size + (action.size if isinstance(action, Box) else 1) + 1
        return 4 * numbers * algorithm.rollout_steps * algorithm.num_slots

    def start(self) -> Progress:
        zero = np.zeros((), np.int64)
        state = _init(self.algorithm, draw(root_key(self.root), "init"))
        slots = self.collector.start(actor_of(self.algorithm, state))
        return Progress(state, zero, zero, RolloutData(zero, slots))

    def iterate(
        self, progress: Progress, goes_on: GoesOn = lambda env_steps: False
    ) -> tuple[Progress, dict[str, float], Failures]:
        algorithm, iteration, state = self.algorithm, int(progress.iteration), progress.state
        slots, failures = progress.data.slots, ()
        if isinstance(self.collector, JaxCollector):  # rollout and update as one program: the bits are its own
            number, root = np.uint32(iteration), root_key(self.root)
            state, slots, ended, measured, at_ends = _iterate(self.collector.env, algorithm, state, slots, root, number)
        else:
            rollout, slots, ended, failures = self.collector.collect(actor_of(algorithm, state), slots, iteration)
            at_ends = _at_ends(algorithm, rollout.action)
            state, measured = update(algorithm, state, rollout, draw(root_key(self.root), "update", iteration))
        steps, held_out = (algorithm.rollout_steps * count for count in (algorithm.num_envs, algorithm.held_out_envs))
        data = RolloutData(progress.data.held_out_steps + held_out, slots)
        metrics = {"steps": steps, "held_out_steps": int(data.held_out_steps), "failed_episodes": len(failures)}
        metrics |= episode_metrics(ended, algorithm.num_envs, algorithm.spec.max_episode_steps)
        if (ends := ends_of(algorithm.spec.action)) is not None:
            metrics["actions_at_one_bound"] = one_sided(ends, at_ends, steps)
        metrics |= {name: value.item() for name, value in jax.device_get(dict(measured)).items()}
        return Progress(state, progress.iteration + 1, progress.env_steps + steps, data), metrics, failures

    def evaluate(self, progress: Progress, num_episodes: int) -> Evaluation:
        actor = actor_of(self.algorithm, progress.state)
        return evaluation_of(self.lanes.evaluate(actor, int(progress.iteration), num_episodes), num_episodes)

    def sample(self, progress: Progress, num_episodes: int) -> Evaluation:
        actor, iteration = actor_of(self.algorithm, progress.state), int(progress.iteration)
        return evaluation_of(self.lanes.evaluate(actor, iteration, num_episodes, explore=True), num_episodes)

    def observations(self, progress: Progress) -> np.ndarray:
        return np.asarray(progress.data.slots.obs)

    def notes(self) -> Sequence[str]:
        return self.collector.notes()

    def close(self) -> None:
        self.collector.close()
        self.lanes.close()


def episode_metrics(ended: Ended, num_envs: int, clock: int | None) -> dict[str, float]:
    """Return mean, best and worst raw return of the training episodes that ended; NaN without any.

    Also how many were truncated, how many of these before the clock ran out, and how many terminated just when it did.
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


def _at_ends(algorithm: OnPolicy, action: PyTree) -> PyTree:
    """Return how many actions (T, B, ...) lie at each bound, in the slots trained on; nothing where there is none."""
    ends = ends_of(algorithm.spec.action)
    return () if ends is None else counted(ends, action[:, : algorithm.num_envs])


# The compiled programs, of which the algorithm is an argument: see `workhorse.training.rollouts`.


@jax.jit
def _init(algorithm: Algorithm, key: Key) -> State:
    return algorithm.init(key)


@jax.jit
def update(algorithm: Algorithm, state: State, rollout: Rollout, key: Key) -> tuple[State, Metrics]:
    """Return the state after learning from a rollout, and the update's metrics."""
    after, metrics = algorithm.update(state, rollout, key)
    return after, with_step_norm(algorithm, state, after, metrics)


@partial(jax.jit, static_argnums=0)
def _iterate(
    env: JaxEnv, algorithm: OnPolicy, state: State, slots: Slots, root: Key, iteration: jax.Array
) -> tuple[State, Slots, Ended, PyTree, PyTree]:
    """Do an iteration on a pure environment; return state, slots, episodes that ended, metrics, counts at bounds."""
    steps, actor = algorithm.rollout_steps, algorithm.actor(state)
    rollout, slots, ended = collect_program(env, algorithm, steps, actor, slots, root, iteration)
    after, measured = algorithm.update(state, rollout, draw(root, "update", iteration))
    measured = with_step_norm(algorithm, state, after, measured)
    return after, slots, ended, measured, _at_ends(algorithm, rollout.action)
