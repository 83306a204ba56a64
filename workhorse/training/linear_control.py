"""The loop of linear control: find a state of rest, difference the task's own step there, update once.

A simulator's derivatives are those of the task only if frame-skip, clipping and integrator are the task's own, so no
model is differentiated: copies of the task take one step each from slightly different states (`Simulator.rollout`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from workhorse.algorithms.planning.lqr import LQR, LQRState, num_components
from workhorse.core.algorithm import Algorithm, Key, Metrics
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import Box, EnvSpec, MultiDiscrete
from workhorse.core.types import Linearisation
from workhorse.environments import registry as environments
from workhorse.environments.batch import as_batch, episode_keys
from workhorse.environments.protocol import HostEnv, JaxEnv, Simulator
from workhorse.training.episodes import Lanes, evaluation_of, make_player
from workhorse.training.loop import Evaluation, Failures, GoesOn, Loop, Progress
from workhorse.training.plan_ahead import as_simulator
from workhorse.training.step_length import with_step_norm

if TYPE_CHECKING:
    from workhorse.training.plan import Plan

__all__ = ["LinearControl", "OneStep", "Stepped", "find_rest", "linearised"]

AT_REST = 1e-6
"""Drift in one step below which a state that was looked for is at rest."""
GIVEN_AT_REST = 1e-4
"""The same of a state that a user typed, with the digits that users type."""
WIDER = 1e-3
"""Distance at which observations are differenced: those of many tasks are float32, 1e-5 apart in nothing but noise."""
SMOOTH = 0.05
"""Part of an observation's derivative that may depend on the distance, or on what is no physics; else it is ignored."""
DRAWN_AT_ONCE = 16
"""Initial states whose mean is the first candidate for a target, and episodes of an evaluation side by side."""
ROUNDS = 20
"""Most steps of Levenberg and Marquardt from a candidate to a state of rest."""


class Stepped(NamedTuple):
    """What became of N one-step trials: physics (N, X), reward (N,), terminated (N,), observation after it (N, D)."""

    physics: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    obs: np.ndarray


class OneStep:
    """The task's own step as a function of physics (N, X) and actions (N, U) of the algorithm's own numbers.

    An action that is a choice is laid on [-1, 1]: the step is interpolated between those of the first and the last choice,
    component by component, *which is exact where forces are proportional to actions*. Every trial is counted.

    Attributes:
        count: steps of the simulator so far.
    """

    def __init__(self, env: Simulator, spec: EnvSpec, row: np.ndarray) -> None:
        self._env, self._spec, self._row = env, spec, row
        self.size, self.num_actions = env.physics(row).shape[1], num_components(spec.action)
        self.count = 0

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest action, (U,) each."""
        space = self._spec.action
        if isinstance(space, Box):
            return np.array(space.low), np.array(space.high)
        return -np.ones(self.num_actions), np.ones(self.num_actions)

    def __call__(self, physics: np.ndarray, actions: np.ndarray) -> Stepped:
        space, (count, size) = self._spec.action, actions.shape
        if isinstance(space, Box):
            middle, half = (np.float64(part) for part in space.middle_and_half())
            if self._spec.unscaled is not None:
                middle, half = (np.ravel(part).astype(np.float64) for part in self._spec.unscaled.middle_and_half())
                return self._tried(physics, middle + half * actions)
            return self._tried(physics, actions)
        # all at the first choice, all at the last, and each alone at the last
        corners = np.vstack([np.zeros((1, size)), np.ones((1, size)), np.eye(size)[: size if size > 1 else 0]])
        found = self._tried(np.tile(physics, (len(corners), 1)), np.repeat(corners, count, axis=0))
        weights = np.zeros((len(corners), count))
        weights[:2] = 0.5
        if size == 1:
            weights[0], weights[1] = (1 - actions[:, 0]) / 2, (1 + actions[:, 0]) / 2
        else:  # middle + sum of u_j (step with j at its last choice - step with all at their first) / 2
            weights[0] -= actions.sum(axis=1) / 2
            weights[2:] = actions.T / 2
        return Stepped(*(_mixed(weights, leaf) for leaf in found))

    def _tried(self, physics: np.ndarray, actions: np.ndarray) -> Stepped:
        """Try actions (N, U): a box's own numbers, or 0 and 1 for the first and the last choice of each component."""
        space, count = self._spec.task_action, len(physics)
        if isinstance(space, Box):
            plans = actions.reshape(count, 1, *space.shape)
        elif isinstance(space, MultiDiscrete):
            plans = (actions * (np.array(space.counts) - 1)).astype(np.int64)[:, None]
        elif hasattr(space, "count"):
            plans = (actions * (space.count - 1)).astype(np.int64)
        else:
            plans = actions.astype(np.int8)[:, None]
        tried = self._env.rollout(self._env.with_physics(self._row, physics), plans, observed=True)
        self.count += count
        obs = np.asarray(tried.next_obs, np.float64).reshape(count, -1)
        return Stepped(self._env.physics(tried.states), tried.reward[:, 0], tried.terminated[:, 0], obs)


def _mixed(weights: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    """Return the weighted sums over corners of what they led to; true where any was, for flags."""
    corners = leaf.reshape(*weights.shape, *leaf.shape[1:])
    if leaf.dtype == bool:
        return corners.any(axis=0)
    return (weights.reshape(*weights.shape, *[1] * (leaf.ndim - 1)) * corners).sum(axis=0)


def linearised(step: OneStep, physics: np.ndarray, action: np.ndarray, difference: float) -> Linearisation:
    """Return the derivatives of a task at a state and an action, by central differences of its own step.

    A and B are differenced at `difference`. An observation is seen only *after* a step, so its derivatives M with respect
    to (x, u) are C [A B], and C = M pinv([A B]), both differenced at `WIDER`. A component for which this does not hold, or
    whose derivative depends on the distance, is no smooth function of the physics: its row is 0.
    """
    size, both = step.size, step.size + step.num_actions
    offsets = np.vstack([distance * sign * np.eye(both) for distance in (difference, WIDER) for sign in (1, -1)])
    at = np.concatenate([physics, action]) + np.vstack([np.zeros(both), offsets])
    found = step(at[:, :size], at[:, size:])
    narrow, wide = (
        [(leaf[begin : begin + both] - leaf[begin + both : begin + 2 * both]).T / (2 * distance) for leaf in found[::3]]
        for begin, distance in ((1, difference), (1 + 2 * both, WIDER))
    )
    observation_matrix = wide[1] @ np.linalg.pinv(wide[0], rcond=1e-8)
    least = SMOOTH * (1.0 + np.abs(wide[1]).max(axis=1))
    # single precision is all that many tasks give: what the shorter distance makes of it is no jump
    rounding = np.abs(found.obs).max(axis=0) * np.finfo(np.float32).eps / difference
    is_smooth = (np.abs(wide[1] - narrow[1]).max(axis=1) <= least + rounding) & (
        np.abs(wide[1] - observation_matrix @ wide[0]).max(axis=1) <= least
    )
    return Linearisation(
        state_matrix=narrow[0][:, :size],
        action_matrix=narrow[0][:, size:],
        observation_matrix=np.where(is_smooth[:, None], observation_matrix, 0.0),
        physics=physics,
        obs=found.obs[0],
        action=action,
        drift=np.abs(found.physics[0] - physics).max(),
        reward=np.float64(found.reward[0]),
        env_steps=np.int64(step.count),
    )


class Rest(NamedTuple):
    """States that Levenberg and Marquardt came to, (N, X), the actions that hold them, (N, U), and the steps there."""

    physics: np.ndarray
    actions: np.ndarray
    stepped: Stepped

    @property
    def drift(self) -> np.ndarray:
        """The most that a coordinate of each moves in a step, (N,)."""
        return np.abs(self.stepped.physics - self.physics).max(axis=1)


def find_rest(step: OneStep, starts: np.ndarray, difference: float, *, moves: bool = True) -> Rest:
    """Return the states of rest that are found from `starts` (N, X), whose velocities are 0.

    Steps of Levenberg and Marquardt on |f(x, u) - x|^2, over the positions and the action within its bounds, the
    derivatives by differences of one step. A position is moved rather than an action: a pose that rests by itself is
    found where there is one nearby, and what is left is held.

    Args:
        step: the task's.
        starts: first states.
        difference: distance of the states that are compared.
        moves: positions may change; else only the action that holds a state is looked for.
    """
    count, size = starts.shape
    free = size - size // 2 if moves else 0
    scale = np.concatenate([np.ones(free), np.full(step.num_actions, 0.03)])
    low, high = (bound + sign * 2 * difference for bound, sign in zip(step.bounds(), (1, -1), strict=True))
    physics, actions = starts.copy(), np.clip(np.zeros((count, step.num_actions)), low, high)
    damping, best = np.full(count, 1e-8), np.full(count, np.inf)
    kept = (physics.copy(), actions.copy())
    slopes, residual = np.zeros((count, size, len(scale))), np.zeros((count, size))
    whole: Stepped | None = None
    for _ in range(ROUNDS):
        around = np.stack([np.concatenate([physics, actions], axis=1)] * (1 + len(scale)))
        places = np.r_[:free, size : size + step.num_actions]
        around[1 + np.arange(len(scale)), :, places] += difference
        flat = around.reshape(-1, size + step.num_actions)
        found = step(flat[:, :size], flat[:, size:])
        moved = (found.physics - flat[:, :size]).reshape(1 + len(scale), count, size)
        here = Stepped(*(leaf.reshape(1 + len(scale), count, *leaf.shape[1:])[0] for leaf in found))
        error = np.where(np.isfinite(moved[0]).all(axis=1), np.square(moved[0]).sum(axis=1), np.inf)
        is_better = error < best
        damping = np.where(is_better, damping / 10, damping * 30 + 1e-9)
        best = np.where(is_better, error, best)
        kept = tuple(np.where(is_better[:, None], new, old) for new, old in zip((physics, actions), kept, strict=True))
        whole = here if whole is None else Stepped(*map(_chosen(is_better), here, whole))
        slopes[is_better] = np.moveaxis((moved[1:] - moved[0]) / difference, 0, 2)[is_better]
        residual[is_better] = moved[0][is_better]
        if (np.sqrt(best) < 1e-9).all():
            break
        change = -_least_change(slopes * scale, residual, damping) * scale
        physics, actions = kept[0].copy(), kept[1]
        physics[:, :free] += np.clip(change[:, :free], -0.5, 0.5)
        actions = np.clip(actions + change[:, free:], low, high)
    assert whole is not None
    return Rest(*kept, whole)


def _chosen(is_new: np.ndarray):
    return lambda new, old: np.where(is_new.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _least_change(slopes: np.ndarray, residual: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Return (J' J + damping |J|^2 I)^-1 J' r of every candidate, (N, Z): the shortest where several do as well."""
    left, values, right = np.linalg.svd(np.nan_to_num(slopes, posinf=0.0, neginf=0.0), full_matrices=False)
    damped = np.square(values) + damping[:, None] * (np.square(values[:, :1]) + 1e-300)
    along = (left.transpose(0, 2, 1) @ residual[..., None])[..., 0] * values / np.maximum(damped, 1e-300)
    return (right.transpose(0, 2, 1) @ along[..., None])[..., 0]


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
        if plan.slots is not None:
            raise UsageError(f"{plan.algorithm} chooses its slots itself: leave slots={plan.slots} out.")
        env = environments.make(plan.task, DRAWN_AT_ONCE, threads, **plan.task_options)
        try:
            return LinearControl(algorithm, plan.seed, env)
        except UsageError:
            if isinstance(env, HostEnv):
                env.close()
            raise

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
            f"lqr found no state in which {self.algorithm.spec.task} can rest, from {len(rest.physics)} candidates: {why}. "
            "Give one as target, or more candidates as num_candidates; or take a planner, which needs none."
        )

    def _checked_target(self, target: Sequence[float]) -> np.ndarray:
        """Return a given target as a row of physics.

        Raises:
            UsageError: it has another number of coordinates, or is no equilibrium.
        """
        step, task = self._drawn(0)[0], self.algorithm.spec.task
        if len(target) != step.size:
            raise UsageError(
                f"LQR.target must have the {step.size} coordinates of {task}, {step.size - step.size // 2} positions and "
                f"then {step.size // 2} velocities: got {len(target)} numbers."
            )
        given = np.array([target], np.float64)
        rest = find_rest(step, given, float(self.algorithm.difference), moves=False)
        if not rest.drift[0] <= GIVEN_AT_REST:
            raise UsageError(
                f"LQR.target must be an equilibrium of {task}, a state that an action can hold, but from {target} it moves "
                f"by {_most_moved(rest, 0)} in one step, whatever the action: leave target out to have one looked for."
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
