"""Values of actions of an off-policy run: by how much they are too high, and in which states.

States are those that the frozen policy visits in fresh episodes, at all times of an episode. In each, the action is the
one that the policy takes there. The truth about it is the discounted return of taking it and following the policy from
then on, played from that very state of the simulator, to which it is put back to the bit:

    truth = E[ sum_t gamma^t r_t ],                               a_0 given, a_t by the noiseless policy
    truth = E[ r_0 + sum_{t > 0} gamma^t (r_t - alpha log pi(a_t | s_t)) ],   a_t drawn, where values are soft

*A soft value is compared with the soft return of the stochastic policy*, which is what it is trained to be; without the
entropy it would look too high or too low by an amount that is no error. Of a deterministic policy on a deterministic
task one return is the truth; else it is a mean with an error, which is taken off again where it adds up.

Source: van Hasselt et al. 2016 (arXiv 1509.06461), figure 3, and Fujimoto et al. 2018 (arXiv 1802.09477), figure 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core.algorithm import Action, Key, OffPolicy, State
from workhorse.core.errors import UsageError
from workhorse.core.machine import threads_or_cores
from workhorse.core.randomness import draw, root_key
from workhorse.diagnostics.experience import ToldSteps
from workhorse.diagnostics.plane import NoStep
from workhorse.diagnostics.value_errors import AgainstTruth
from workhorse.diagnostics.values import MOST_AGED, TAIL
from workhorse.environments import registry as environments
from workhorse.environments.batch import JaxBatch, as_batch, episode_keys
from workhorse.environments.protocol import HostEnv
from workhorse.networks.heads import task_action
from workhorse.runs.history import History
from workhorse.runs.train import plan_of
from workhorse.training.off_policy import OffPolicyLoop
from workhorse.training.replay_measures import gives_values

__all__ = ["ActionValueStudy", "WorstState", "check_action_values", "measure_action_values", "study_action_values"]

MOST_STATES, LEAST_STATES = 128, 16
LEAST_RETURNS, MOST_RETURNS = 4, 16
"""Returns from each state. Where the first two are equal in all states, nothing is random and two are enough."""

NUM_WORST = 5
OTHER_ROOT = 2**31 + 2**30 + 2**29
"""Added to the run's seed for the addresses."""


class WorstState(NamedTuple):
    """A state in which the value is far too high.

    Attributes:
        slot: number of the state in the study.
        step: steps of its episode before it.
        value, truth: of the action.
        observation: of the state, as the task gave it, flat.
    """

    slot: int
    step: int
    value: float
    truth: float
    observation: list[float]


@dataclass(frozen=True)
class ActionValueStudy:
    """Errors of the values of actions at one iteration, in raw rewards.

    Attributes:
        iteration: whose policy and values were frozen.
        states: number of states; `returns` from each, at most `horizon` steps long.
        env_steps: steps taken for all of it.
        soft: 1 where values and returns hold the policy's entropy, else 0.
        value_mean, truth_mean: means over states.
        over_estimate, over_estimate_error: mean of value - truth, and its standard error over states.
        share_of_spread: the same as a share of the truth's standard deviation over states; NaN where that is 0.
        share_too_high: share of the states in which the value is above the truth.
        truth_explained: 1 - E[(value - truth)^2] / Var(truth); NaN where the truth does not spread.
        truth_spread: standard deviation of the truth over states.
        return_spread: standard deviation of the returns from one state, a mean over states.
        worst: the states with the highest value - truth, the first the worst: see `WorstState`.
        value, truth, step: of every state.
    """

    iteration: int
    states: int
    returns: int
    horizon: int
    env_steps: int
    soft: int
    value_mean: float
    truth_mean: float
    over_estimate: float
    over_estimate_error: float
    share_of_spread: float
    share_too_high: float
    truth_explained: float
    truth_spread: float
    return_spread: float
    worst: list[dict[str, object]]
    value: list[float]
    truth: list[float]
    step: list[int]


class StatesPlan(NamedTuple):
    """Numbers of a study: states, steps in which they are visited, and steps of a return; the most returns of each."""

    states: int
    visited: int
    horizon: int
    returns: int


class _Stand(NamedTuple):
    """States of the simulator, one a slot, their observations (N, ...) and the steps of their episodes before them."""

    snapshot: dict[str, np.ndarray]
    obs: np.ndarray
    step: np.ndarray


def check_action_values(history: History, env_steps: int) -> StatesPlan:
    """Return the numbers of a study within these steps.

    Raises:
        UsageError: the algorithm does not tell values, the task cannot be put back, or the steps do not suffice.
    """
    algorithm = history.loop.algorithm
    if not isinstance(history.loop, OffPolicyLoop) or not isinstance(algorithm, OffPolicy):
        raise UsageError(f"{history.manifest.algorithm} of {history.folder.path} learns no values of actions.")
    if not gives_values(algorithm):
        raise UsageError(
            f"{history.manifest.algorithm} of {history.folder.path} does not tell the value of an action: implement "
            f"{type(algorithm).__name__}.action_value for `diagnose --only values`."
        )
    if history.spec.resume != "exact":
        raise UsageError(
            f"{history.spec.task} cannot be put back into a state, which the truth about a value takes: "
            "`diagnose --only values` reads runs on MuJoCo and JAX tasks."
        )
    return plan_within(env_steps, float(algorithm.discount), history.spec.max_episode_steps)


def plan_within(env_steps: int, discount: float, clock: int | None) -> StatesPlan:
    """Return the numbers of a study: states first, up to 128, then returns.

    Example:
        >>> plan_within(1_000_000, 0.99, 200)
        StatesPlan(states=128, visited=200, horizon=688, returns=11)

    Raises:
        UsageError: the steps do not suffice for 16 states and 4 returns.
    """
    visited = min(clock or MOST_AGED, MOST_AGED)
    steps = np.log(TAIL) / np.log(discount) if 0 < discount < 1 else (1.0 if discount == 0 else 100_000)
    horizon = int(np.ceil(min(steps, 100_000)))
    each = visited + LEAST_RETURNS * horizon
    states = min(env_steps // each, MOST_STATES)
    if states < LEAST_STATES:
        raise UsageError(
            f"--budget must be at least {LEAST_STATES * each:,} steps for the values, {LEAST_RETURNS} returns of "
            f"{horizon:,} steps from each of {LEAST_STATES} states: got {env_steps:,}."
        )
    return StatesPlan(states, visited, horizon, min((env_steps // states - visited) // horizon, MOST_RETURNS))


def study_action_values(
    history: History,
    iteration: int,
    *,
    env_steps: int = 1_000_000,
    threads: int = 0,
    progress: ToldSteps = lambda env_steps: None,
) -> ActionValueStudy:
    """Measure the values of actions of a run at one iteration.

    Args:
        history: the run.
        iteration: whose networks are frozen; its state must have been kept.
        env_steps: to be taken at most.
        threads: simulation threads.
        progress: is told how many steps were just taken.

    Raises:
        UsageError: see `check_action_values`; or the state was not kept.
        NoStep: nothing was learnt yet.
    """
    numbers = check_action_values(history, env_steps)
    algorithm, there = history.loop.algorithm, history.measurable(iteration)
    assert isinstance(algorithm, OffPolicy)
    if int(there.env_steps) <= algorithm.warmup_env_steps:
        raise NoStep(
            f"Iteration {iteration} is within the warm-up of {history.folder.path}, {algorithm.warmup_env_steps:,} "
            "steps: no value has been learnt."
        )
    plan = plan_of(history.manifest)
    env = as_batch(
        environments.make(plan.task, numbers.states, threads_or_cores(threads), **plan.task_options), numbers.states
    )
    try:
        root = (plan.seed + OTHER_ROOT) % 2**32
        return measure_action_values(env, algorithm, there.state, root, iteration, numbers, progress)
    finally:
        env.close()


def measure_action_values(
    env: HostEnv,
    algorithm: OffPolicy,
    state: State,
    root: int,
    iteration: int,
    numbers: StatesPlan,
    progress: ToldSteps = lambda env_steps: None,
) -> ActionValueStudy:
    """Visit states with the policy of a state, and compare values with returns from there.

    Args:
        env: of as many slots as there are states, which can be put back to the bit.
        algorithm, state: whose policy and values are looked at.
        root: of all that is drawn.
        iteration: for the record.
        numbers: of states, steps and returns.
        progress: is told how many steps were just taken.
    """
    play = _Reroll(env, algorithm, state, root)
    stand = play.visited(numbers.visited, progress)
    first, value, _ = play.chosen(stand.obs, 0, 0)
    returns: list[np.ndarray] = []
    for number in range(numbers.returns):
        returns.append(play.returned(stand, first, number, numbers.horizon, progress))
        if number == 1 and (returns[0] == returns[1]).all():  # neither the policy nor the task draws anything
            break
    found, soft = np.stack(returns), int(_is_soft(algorithm))
    return _summary(iteration, np.asarray(value, np.float64), found, stand, numbers, play.steps, soft)


def _is_soft(algorithm: OffPolicy) -> bool:
    return type(algorithm).entropy_bonus is not OffPolicy.entropy_bonus


def _summary(
    iteration: int,
    value: np.ndarray,
    returns: np.ndarray,
    stand: _Stand,
    numbers: StatesPlan,
    env_steps: int,
    soft: int,
) -> ActionValueStudy:
    """Compare values (N,) with returns (R, N)."""
    errors, truth = AgainstTruth.of(value, returns), returns.mean(0)
    over = value - truth
    order = np.argsort(-over, kind="stable")[:NUM_WORST].tolist()
    worst = [
        WorstState(
            slot, int(stand.step[slot]), float(value[slot]), float(truth[slot]), np.ravel(stand.obs[slot]).tolist()
        )._asdict()
        for slot in order
    ]
    spread = errors.truth_spread
    return ActionValueStudy(
        iteration,
        len(value),
        len(returns),
        numbers.horizon,
        env_steps,
        soft,
        float(value.mean()),
        float(truth.mean()),
        errors.bias,
        errors.bias_error,
        errors.bias / spread if spread > 0 else float("nan"),
        float((over > 0).mean()),
        errors.explained if spread > 0 else float("nan"),
        spread,
        errors.return_spread,
        worst,
        value.tolist(),
        truth.tolist(),
        stand.step.tolist(),
    )


class _Reroll:
    """The frozen policy in an environment of a slot a state.

    Attributes:
        steps: environment steps taken so far.
    """

    def __init__(self, env: HostEnv, algorithm: OffPolicy, state: State, root: int) -> None:
        self._env, self._algorithm, self._state, self._root = env, algorithm, state, root
        self._soft = _is_soft(algorithm)
        self._whole = (env.spec.max_episode_steps or 0) - 2  # steps that a clock put back to 1 surely allows
        self.steps = 0

    def chosen(self, obs: np.ndarray, number: int, time: int) -> tuple[Action, jax.Array, jax.Array]:
        """Return actions (N, ...) in the algorithm's numbers, their values, and what entropy adds in these states."""
        key = draw(root_key(self._root), "act", number)
        return _chosen(self._algorithm, self._soft, self._state, obs, key, np.uint32(time))

    def visited(self, length: int, progress: ToldSteps) -> _Stand:
        """Play episodes; return a state of each slot, slots at evenly spread times of these steps."""
        env, count = self._env, self._env.num_slots
        every = np.arange(count)
        wanted = (every * length) // count
        obs = env.reset(self._keys(0, 0))
        age, snapshot, seen, step = np.zeros(count, np.int64), {}, np.array(obs), np.zeros(count, np.int64)
        for time in range(int(wanted.max()) + 1):
            rows = np.flatnonzero(wanted == time)
            if len(rows):
                now = env.snapshot()
                snapshot = {name: _with_rows(snapshot.get(name, part), part, rows) for name, part in now.items()}
                seen[rows], step[rows] = obs[rows], age[rows]
            action, _, _ = self.chosen(obs, 1, time)
            taken = env.step(self._sent(action))
            obs, age, ended = np.array(taken.next_obs), age + 1, np.flatnonzero(taken.terminated | taken.truncated)
            if len(ended):
                obs[ended], age[ended] = env.reset(self._keys(1, time)[ended], ended), 0
            self.steps += count
            progress(count)
        return _Stand(snapshot, seen, step)

    def returned(self, stand: _Stand, first: Action, number: int, horizon: int, progress: ToldSteps) -> np.ndarray:
        """Return a discounted return of taking `first` in each state and following the policy, (N,)."""
        env, gamma = self._env, float(self._algorithm.discount)
        count = env.num_slots
        env.restore(self._renewed(stand.snapshot, number))
        obs, total, weight, running = np.array(stand.obs), np.zeros(count), np.ones(count), np.ones(count, bool)
        for time in range(horizon):
            if time and self._whole > 0 and time % self._whole == 0:  # no clock cuts what follows
                env.restore(_with_a_whole_clock(env.snapshot()))
            action, _, bonus = (first, None, None) if time == 0 else self.chosen(obs, 2 + number, time)
            if bonus is not None and self._soft:
                total += np.where(running, weight * np.asarray(bonus, np.float64), 0.0)
            rows = np.flatnonzero(running)
            step = env.step(self._sent(action)[rows], rows)
            total[rows] += weight[rows] * step.reward
            obs[rows], weight[rows] = step.next_obs, weight[rows] * gamma
            cut = rows[step.truncated & ~step.terminated]
            if len(cut):
                total[cut] += weight[cut] * self._values(obs, number, time)[cut]
            running[rows[step.terminated | step.truncated]] = False
            self.steps += len(rows)
            progress(len(rows))
            if not running.any():
                return total
        total[running] += weight[running] * self._values(obs, number, horizon)[running]
        return total

    def _values(self, obs: np.ndarray, number: int, time: int) -> np.ndarray:
        """Return the values of states: of the policy's action, with what entropy adds."""
        _, value, bonus = self.chosen(obs, 2 + number, time + 1)
        return np.asarray(value, np.float64) + np.asarray(bonus, np.float64)

    def _sent(self, action: Action) -> np.ndarray:
        return np.asarray(_sent(self._algorithm, action))

    def _keys(self, kind: int, time: int) -> np.ndarray:
        return episode_keys(self._env, self._root, "reset", kind, time, np.arange(self._env.num_slots))

    def _renewed(self, snapshot: dict[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
        """Return the states with a whole clock, and of a pure task with randomness of their own for every return."""
        renewed = _with_a_whole_clock(snapshot)
        return {**renewed, "keys": self._keys(2 + number, 0)} if isinstance(self._env, JaxBatch) else renewed


def _with_rows(into: np.ndarray, part: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return an array with the rows of slots from another; what has no row a slot is the same in both."""
    if part.ndim and len(part) > rows.max():
        into = into.copy()
        into[rows] = part[rows]
    return into


def _with_a_whole_clock(snapshot: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a snapshot whose clocks stand at step 1 at most, of either kind of task."""
    return {
        name: np.minimum(part, 1) if name.rpartition("/")[2] in ("elapsed", "clock") else part
        for name, part in snapshot.items()
    }


@partial(jax.jit, static_argnums=1)
def _chosen(
    algorithm: OffPolicy, soft: bool, state: State, obs: jax.Array, key: Key, time: jax.Array
) -> tuple[Action, jax.Array, jax.Array]:
    """Return the action, its value and the entropy's bonus in every slot."""
    actor, seen = algorithm.actor(state), obs.astype(jnp.float32)
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, time)))(jnp.arange(len(obs)))

    def one(obs: jax.Array, key: Key, slot: jax.Array) -> tuple[Action, jax.Array, jax.Array]:
        act_key, bonus_key = jax.random.split(key)
        # what a slot remembers is begun anew at every step, so that held noise is drawn for each
        action, _, _ = algorithm.act(actor, algorithm.begin(actor, slot), obs, act_key, explore=soft)
        return action, algorithm.action_value(state, obs, action), algorithm.entropy_bonus(state, obs, bonus_key)

    return jax.vmap(one)(seen, keys, jnp.arange(len(obs), dtype=jnp.int32))


@jax.jit
def _sent(algorithm: OffPolicy, action: Action) -> Action:
    return jax.vmap(partial(task_action, algorithm.spec))(action)
