"""The loop of linear control: find a state of rest, difference the task's own step there, update once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from workhorse.algorithms.planning.lqr import LQR, LQRState
from workhorse.core.algorithm import Algorithm, Key, Metrics
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Linearisation
from workhorse.environments.batch import as_batch, episode_keys
from workhorse.environments.protocol import HostEnv, JaxEnv, Simulator
from workhorse.training.episodes import evaluation_of, make_player
from workhorse.training.lanes import Lanes
from workhorse.training.loop import Evaluation, Failures, GoesOn, Loop, Progress
from workhorse.training.one_step import OneStep, Rest, find_rest, linearised
from workhorse.training.plan_ahead import as_simulator
from workhorse.training.step_length import with_step_norm

if TYPE_CHECKING:
    from workhorse.training.plan import Plan

__all__ = ["LinearControl"]

AT_REST = 1e-6
"""Drift in one step below which a state that was looked for is at rest."""
GIVEN_AT_REST = 1e-4
"""The same of a state that a user typed, with the digits that users type."""
DRAWN_AT_ONCE = 16
"""Initial states whose mean is the first candidate for a target, and episodes of an evaluation side by side."""


class LinearControl(Loop):
    """Iterations of linear control, each of which looks for a target from states of its own.

    Attributes:
        root: the run's seed.
    """

    def __init__(self, algorithm: LQR, root: int, env: HostEnv | JaxEnv) -> None:
        simulator = as_batch(as_simulator(algorithm, env), DRAWN_AT_ONCE)
        assert isinstance(simulator, Simulator)
        self.algorithm: LQR = algorithm
        self.root, self.num_slots = root, simulator.num_slots
        self._env, self._notes = simulator, list[str]()
        self._given = None if algorithm.target is None else self._checked_target(algorithm.target)
        self._lanes = Lanes([make_player(algorithm, env, DRAWN_AT_ONCE, root)])

    @staticmethod
    def on_this_machine(plan: Plan, algorithm: Algorithm, threads: int) -> LinearControl:
        """Return the loop with this many simulation threads, its target checked where one is given."""
        assert isinstance(algorithm, LQR)
        if plan.slots not in (None, DRAWN_AT_ONCE):  # the manifest of a run has the number
            raise UsageError(f"{plan.algorithm} chooses its slots itself: leave slots={plan.slots} out.")
        return plan.opened(DRAWN_AT_ONCE, threads, lambda env: LinearControl(algorithm, plan.seed, env))

    def start(self) -> Progress:
        zero = np.zeros((), np.int64)
        return Progress(_init(self.algorithm, draw(root_key(self.root), "init")), zero, zero)

    def iterate(
        self, progress: Progress, goes_on: GoesOn = lambda env_steps: False
    ) -> tuple[Progress, dict[str, float], Failures]:
        algorithm, iteration = self.algorithm, int(progress.iteration)
        near = self.linearisation(iteration)
        state, measured = _update(algorithm, progress.state, near, draw(root_key(self.root), "update", iteration))
        found = {name: value.item() for name, value in jax.device_get(measured).items()}
        if iteration == 0 and found["controllability_rank"] < len(near.physics):
            self._notes.append(
                f"Actions reach {found['controllability_rank']:.0f} of the {len(near.physics)} dimensions of "
                f"{algorithm.spec.task} near the target: what they cannot reach is left as it is."
            )
        nothing = float("nan")
        unknown = (
            "training_return",
            "training_return_std",
            "training_return_max",
            "training_return_min",
            "episode_length",
        )
        metrics = {"steps": int(near.env_steps), "failed_episodes": 0, **dict.fromkeys(unknown, nothing), **found}
        return Progress(state, progress.iteration + 1, progress.env_steps + near.env_steps), metrics, ()

    def linearisation(self, iteration: int) -> Linearisation:
        """Return the task near the target: the given one, or the best that this iteration's candidates lead to.

        Raises:
            UsageError: no candidate led to a state of rest that does not end the task.
        """
        step, poses = self._drawn(iteration)
        difference = float(self.algorithm.difference)
        if self._given is not None:
            rest = find_rest(step, self._given, difference, moves=False)
            return linearised(step, rest.physics[0], rest.actions[0], difference)
        rest = find_rest(step, self._candidates(poses, iteration), difference)
        is_fit = (rest.drift <= AT_REST) & ~rest.stepped.terminated
        if not is_fit.any():
            self._refuse(rest)
        reward = np.where(is_fit, rest.stepped.reward, -np.inf)
        # rewards that differ by less pay the same, as they do of a cart anywhere on its rail
        is_best = reward >= reward.max() - 1e-6 * (1 + abs(reward.max()))
        distance = np.where(is_best, np.abs(rest.physics - poses.mean(axis=0)).max(axis=1), np.inf)
        found = []
        for place in np.argsort(distance, kind="stable")[: is_best.sum()]:
            found.append(linearised(step, rest.physics[place], rest.actions[place], difference))
            if _is_controllable(found[-1]):
                break
        return (found[-1] if _is_controllable(found[-1]) else found[0])._replace(env_steps=np.int64(step.count))

    def _drawn(self, iteration: int) -> tuple[OneStep, np.ndarray]:
        """Return the task's step, and initial states of it with their velocities set to 0, (n, X)."""
        keys = episode_keys(self._env, self.root, "reset", iteration, np.arange(self.num_slots))
        self._env.reset(keys)
        rows = self._env.states()
        poses = self._env.physics(rows)
        poses[:, poses.shape[1] - poses.shape[1] // 2 :] = 0.0
        return OneStep(self._env, self.algorithm.spec, rows[:1]), poses

    def _candidates(self, poses: np.ndarray, iteration: int) -> np.ndarray:
        """Return the mean of the initial poses, some of these poses, and poses anywhere within half a turn or 3.1 m."""
        count, size = self.algorithm.num_candidates, poses.shape[1]
        random = np.random.default_rng([self.root, iteration]).uniform(-np.pi, np.pi, (count // 2, size))
        random[:, size - size // 2 :] = 0.0
        drawn = poses[np.arange(count - len(random) - 1) % len(poses)]
        return np.vstack([poses.mean(axis=0), drawn, poses.mean(axis=0) + random])

    def _refuse(self, rest: Rest) -> None:
        """Raise what there is to say of candidates of which none rests."""
        place = int(np.argmin(rest.drift))
        if rest.drift[place] <= AT_REST:
            why = "every state of rest that was found ends the task"
        else:
            why = f"the one that comes nearest to it moves by {_most_moved(rest, place)} in one step"
        raise UsageError(
            f"lqr found no state in which {self.algorithm.spec.task} can rest, from {len(rest.physics)} candidates: "
            f"{why}. Give one as target, or more candidates as num_candidates; or take a planner, which needs none."
        )

    def _checked_target(self, target: Sequence[float]) -> np.ndarray:
        """Return a given target as a row of physics.

        Raises:
            UsageError: it has another number of coordinates, or is no equilibrium.
        """
        step, task = self._drawn(0)[0], self.algorithm.spec.task
        if len(target) != step.size:
            raise UsageError(
                f"LQR.target must have the {step.size} coordinates of {task}, {step.size - step.size // 2} positions "
                f"and then {step.size // 2} velocities: got {len(target)} numbers."
            )
        given = np.array([target], np.float64)
        rest = find_rest(step, given, float(self.algorithm.difference), moves=False)
        if not rest.drift[0] <= GIVEN_AT_REST:
            raise UsageError(
                f"LQR.target must be an equilibrium of {task}, a state that an action can hold, but from {target} it "
                f"moves by {_most_moved(rest, 0)} in one step, whatever the action: leave target out to have one "
                "looked for."
            )
        return given

    def evaluate(self, progress: Progress, num_episodes: int) -> Evaluation:
        actor = self.algorithm.actor(progress.state)
        return evaluation_of(self._lanes.evaluate(actor, int(progress.iteration), num_episodes), num_episodes)

    def notes(self) -> Sequence[str]:
        said, self._notes = self._notes, []
        return said

    def close(self) -> None:
        self._lanes.close()
        self._env.close()


def _most_moved(rest: Rest, place: int) -> str:
    """Return by how much the coordinate that moves most does so, and which it is."""
    moved = np.abs(rest.stepped.physics[place] - rest.physics[place])
    coordinate, size = int(np.argmax(moved)), len(moved)
    positions = size - size // 2
    which = f"position {coordinate}" if coordinate < positions else f"velocity {coordinate - positions}"
    return f"{moved[coordinate]:.3g} in coordinate {coordinate} ({which})"


def _is_controllable(near: Linearisation) -> bool:
    """Tell whether actions reach every dimension: no left eigenvector of A is blind to B."""
    values, vectors = np.linalg.eig(near.state_matrix.T)
    reach = np.abs(vectors.T @ near.action_matrix).max(axis=1)
    return bool((reach > 1e-8).all()) and bool(np.isfinite(values).all())


@jax.jit
def _init(algorithm: LQR, key: Key) -> LQRState:
    return algorithm.init(key)


@jax.jit
def _update(algorithm: LQR, state: LQRState, near: Linearisation, key: Key) -> tuple[LQRState, Metrics]:
    after, metrics = algorithm.update(state, near, key)
    return after, with_step_norm(algorithm, state, after, metrics)
