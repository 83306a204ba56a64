"""Measures of an iteration on held-out episodes of a log: what values claim beside what the log shows.

All of them are computed in one program after the updates of an iteration, on rows that nothing is learnt from. What
does not change during a run is found once, by `probe_of`: the rows, what followed them, and the actions that the log
holds in similar states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from workhorse.core.algorithm import Key, OffPolicy, State
from workhorse.core.randomness import draw, permutation, root_key
from workhorse.core.spec import Box, Discrete
from workhorse.data.dataset import Dataset, LogRows
from workhorse.environments.bounds import value_bounds
from workhorse.training.log_share import as_transitions
from workhorse.training.replay_measures import MOST_TAIL, gives_values, highest_entropy
from workhorse.training.rollouts import actor_of

__all__ = [
    "Followed",
    "Neighbours",
    "Probe",
    "ProbeValues",
    "action_distance",
    "log_measures",
    "probe_of",
    "probe_values",
]

PLACES = 1024
"""Held-out steps at which values are asked, at most."""

NEIGHBOURS = 10
"""Steps of the log whose states are nearest: their actions are what the log supports there."""

KNOWN_STEPS = 4096
"""Steps of the log among which the nearest are looked for, at most."""

INSIDE = 0.95
"""Share of the log's own actions that count as supported by its other ones."""

LEAST_DISTANCE = 0.05
"""Distance, in half the range of an action, that is supported in any log: one without noise holds a single action in a
state, which no network meets to a hundredth."""

WIDEST_OBSERVATION = 4096
"""Components of an observation up to which states are compared."""


class Followed(NamedTuple):
    """What the log shows after each held-out step: return = reward + weight * value at the cut, leading axis K.

    Attributes:
        reward: discounted rewards to the end of the episode; where it did not terminate, to before its last step.
        weight: of the value of that last step, which stands for what is not known; 0 where the episode terminated.
            A value above what rewards allow counts as what they allow.
        later: sum of gamma^j over the steps after this one, to the last: weight of what entropy adds to a soft value.
        obs, action: at the episode's last step.
    """

    reward: Any
    weight: Any
    later: Any
    obs: Any
    action: Any


class Neighbours(NamedTuple):
    """Actions of the log in states like those of the held-out steps, (K, J, A); choices are one-hot.

    Attributes:
        actions: in the J nearest states.
        threshold: distance to them up to which an action counts as supported.
    """

    actions: Any
    threshold: Any


class Probe(NamedTuple):
    """What an iteration is measured on.

    Attributes:
        rows: held-out steps, leading axis K.
        trained: as many steps that are learnt from.
        followed: what the log shows after the held-out steps.
        neighbours: None where observations are too wide to compare, or actions are no box and no single choice.
        value_bound: the highest value that the task's rewards allow at all, undisturbed by what was seen; NaN where
            the task sets no bound that is known.
        seen_value_bound: the highest value that no reward above the log's largest allows.
        value_floor: the lowest value, by the task's rewards where they are known, else by the log's.
        later: weight of all later steps together, gamma / (1 - gamma); NaN for a discount of 1.
    """

    rows: LogRows
    trained: LogRows
    followed: Followed
    neighbours: Neighbours | None
    value_bound: Any
    seen_value_bound: Any
    value_floor: Any
    later: Any


def probe_of(
    log: Dataset, train: np.ndarray, held_out: np.ndarray, read: Callable[[np.ndarray], LogRows], seed: int,
    discount: float,
) -> Probe:  # fmt: skip
    """Return what every iteration of a run is measured on, drawn once.

    Args:
        log: the whole log.
        train, held_out: numbers of its steps.
        read: returns rows by the numbers of steps, in the algorithm's own numbers.
        seed: of the run.
        discount: gamma.
    """
    places = _some(held_out, PLACES, seed, 1)
    known = _some(train, KNOWN_STEPS, seed, 2)
    rows, trained = read(places), read(known)
    task, seen = value_bounds(log.card.task, log.card.task_options, discount), _seen_bounds(log, discount)
    later = discount / (1 - discount) if discount < 1 else np.inf
    floor = seen[0] if task[0] is None else task[0]
    numbers = [
        np.float32(value) if value is not None and np.isfinite(value) else np.float32(np.nan)
        for value in (task[1], seen[1], floor, later)
    ]
    spread = np.linspace(0, len(known) - 1, min(len(places), len(known))).astype(int)
    few = jax.tree.map(lambda column: column[spread], trained)
    followed, neighbours = _followed(log, places, read, discount), _neighbours(log, rows, trained)
    return jax.tree.map(jnp.asarray, Probe(rows, few, followed, neighbours, *numbers))


def _some(steps: np.ndarray, most: int, seed: int, number: int) -> np.ndarray:
    """Return some of these steps, drawn without replacement, ascending."""
    order = np.asarray(permutation(draw(root_key(seed), "held-out", 0, number), len(steps)))
    return steps[np.sort(order[:most])]


def _seen_bounds(log: Dataset, discount: float) -> tuple[float, float]:
    """Return the lowest and the highest value that the rewards of a log allow: an end may come at once, or never."""
    least = min(float(np.min(log.reward[part])) for part in log.chunks())
    most = max(float(np.max(log.reward[part])) for part in log.chunks())
    later = discount / (1 - discount) if discount < 1 else np.inf
    return least + (later * least if least < 0 else 0.0), most + (later * most if most > 0 else 0.0)


def _followed(log: Dataset, steps: np.ndarray, read: Callable[[np.ndarray], LogRows], discount: float) -> Followed:
    """Return what followed these steps."""
    last = log.ends[log.episode_of(steps)] - 1
    ended = np.asarray(log.terminated[last])
    ahead = last - steps
    weight = np.where(ended, 0.0, discount**ahead)
    reward = log.returns_to_go(discount)[steps] - weight * np.asarray(log.reward[last], np.float64)
    powers = np.append(0.0, np.cumsum(discount ** np.arange(1, ahead.max(initial=0) + 1)))
    cut = read(last)
    reward, weight, later = (one.astype(np.float32) for one in (reward, weight, powers[ahead]))
    return Followed(reward, weight, later, cut.obs, cut.action)


# --- support ---


def _neighbours(log: Dataset, rows: LogRows, known: LogRows) -> Neighbours | None:
    """Return the log's actions near each row's state, and the distance within which its own actions lie."""
    space = log.action_space
    if not isinstance(space, Box | Discrete) or log.observation.size > WIDEST_OBSERVATION or len(known.reward) < 3:
        return None
    mean, scale = _moments(known.obs)
    states = [((_flat(part) - mean) / scale).astype(np.float32) for part in (rows.obs, known.obs)]
    actions = _as_vectors(known.action, space)
    count = min(NEIGHBOURS, len(actions) - 1)
    own = _nearest(states[1], states[1], count + 1)
    # Without the step itself, which is nearest to itself: or, where states are equal, without the last of the nearest.
    is_self = own == np.arange(len(own))[:, None]
    is_self[~is_self.any(1), -1] = True
    others = own[~is_self].reshape(len(own), count)
    distance = _distance(np, actions, actions[others], isinstance(space, Discrete))
    threshold = np.float32(max(np.quantile(distance, INSIDE), LEAST_DISTANCE))
    return Neighbours(actions[_nearest(states[0], states[1], count)], np.asarray(threshold))


def _flat(column: np.ndarray) -> np.ndarray:
    return np.asarray(column, np.float64).reshape(len(column), -1)


def _moments(obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of each component, 1 where it is constant."""
    flat = _flat(obs)
    deviation = flat.std(0)
    return flat.mean(0), np.where(deviation > 1e-8, deviation, 1.0)


def _as_vectors(action: np.ndarray, space: Box | Discrete) -> np.ndarray:
    """Return actions as vectors (N, A), float32; choices one-hot."""
    if isinstance(space, Discrete):
        return np.eye(space.count, dtype=np.float32)[action]
    return np.asarray(action, np.float32).reshape(len(action), -1)


def _nearest(states: np.ndarray, known: np.ndarray, count: int) -> np.ndarray:
    """Return the numbers of the `count` nearest known states of each, (K, count), the nearest first."""
    size, found = np.square(known).sum(1), []
    for begin in range(0, len(states), 512):
        far = size - 2 * states[begin : begin + 512] @ known.T
        near = np.argpartition(far, count - 1, axis=1)[:, :count]
        found.append(np.take_along_axis(near, np.argsort(np.take_along_axis(far, near, 1), axis=1, kind="stable"), 1))
    return np.concatenate(found)


def action_distance(action: Array, neighbours: Array, *, is_choice: bool) -> Array:
    """Return how far actions are from those of the log in similar states, (K,).

    For vectors the distance to the nearest of them, in half the range of an action, root mean square over components;
    for choices one less the share of neighbours that took it.

    Args:
        action: (K, A); choices one-hot.
        neighbours: (K, J, A).

    Example:
        >>> near = jnp.array([[[0.0], [0.5]]])
        >>> action_distance(jnp.array([[0.75]]), near, is_choice=False).tolist()
        [0.25]
    """
    return _distance(jnp, action, neighbours, is_choice)


def _distance(xp: ModuleType, action: Array | np.ndarray, neighbours: Array | np.ndarray, is_choice: bool) -> Any:
    if is_choice:
        return 1 - (action[:, None] * neighbours).sum(2).mean(1)
    return xp.sqrt(xp.square(action[:, None] - neighbours).mean(2).min(1))


# --- the program ---


def log_measures(
    algorithm: OffPolicy, state: State, probe: Probe, key: Key, updates: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """Return measures on the probe; means over its rows.

    `data_value` is the value of the log's own actions, `policy_value` that of the policy's in the same states,
    `action_gap` the second less the first. `return_gap` is the value of the log's actions less what followed them,
    where enough of it is known, and `data_return` the latter, with its spread. `value_bound` and `seen_value_bound`
    are the highest values that the task's and the log's rewards allow, with the most that entropy may add to a soft
    value; `above_bound` is the share of rows whose policy value is above the first, or, where that is not known, the
    second, and `below_floor` those below the lowest.
    `outside_support` is the share of the policy's actions that the log does not support: 5 % of its own would be.
    `held_out_error` and `trained_error` are squared errors to the targets, on rows that were and were not learnt from.

    Args:
        algorithm, state: after the iteration.
        probe: from `probe_of`.
        key: of the iteration.
        updates: metrics of its updates, of which `temperature` and `reward_factor` are read.
    """
    read = {name: value for name, value in (updates or {}).items() if name in ("temperature", "reward_factor")}
    return _measured(algorithm, state, probe, key, read)


@jax.jit
def _measured(
    algorithm: OffPolicy, state: State, probe: Probe, key: Key, updates: Mapping[str, Array]
) -> dict[str, Array]:
    value_key, error_key = jax.random.split(key)
    if gives_values(algorithm):
        found = _values(algorithm, state, probe, value_key, updates)
        return found | _errors(algorithm, state, probe, error_key)
    if probe.neighbours is None:
        return {}
    action = _actions(algorithm, state, probe, value_key)
    return {"outside_support": _outside(algorithm, action, probe.neighbours).mean()}


def _actions(algorithm: OffPolicy, state: State, probe: Probe, key: Key) -> Array:
    """Return the policy's actions on the held-out steps, without exploration."""
    actor = actor_of(algorithm, state)
    carry = algorithm.begin(actor, jnp.int32(-1))
    act = jax.vmap(lambda obs, key: algorithm.act(actor, carry, obs, key, explore=False)[0])
    return act(probe.rows.obs, jax.random.split(key, len(probe.rows.reward)))


def _outside(algorithm: OffPolicy, action: Array, neighbours: Neighbours) -> Bool[Array, "K"]:
    is_choice = isinstance(algorithm.spec.action, Discrete)
    vectors = jax.nn.one_hot(action, algorithm.spec.action.count) if is_choice else action.reshape(len(action), -1)  # type: ignore[union-attr]
    distance = action_distance(vectors, neighbours.actions, is_choice=is_choice)
    return distance > neighbours.threshold + 1e-6


class ProbeValues(NamedTuple):
    """Values on the held-out steps of a probe, leading axis K.

    Attributes:
        data, policy: of the log's own actions, and of the policy's.
        returns: what followed the log's actions, with the policy's entropy where values are soft.
        is_known: enough of it was seen.
        is_outside: the policy's action has no support in the log; None where that is not measured.
        bonus: mean that entropy adds to a soft value in one step.
    """

    data: Any
    policy: Any
    returns: Any
    is_known: Any
    is_outside: Any
    bonus: Any


@jax.jit
def probe_values(algorithm: OffPolicy, state: State, probe: Probe, key: Key) -> ProbeValues:
    """Return the values that an algorithm gives to the log's actions and to its own, and what followed the former."""
    act_key, bonus_key = jax.random.split(key)
    action = _actions(algorithm, state, probe, act_key)
    rows, followed = probe.rows, probe.followed
    value: Any = jax.vmap(partial(algorithm.action_value, state))
    added: Any = jax.vmap(partial(algorithm.entropy_bonus, state))
    bonus = added(rows.obs, jax.random.split(bonus_key, len(rows.reward))).mean()
    # A value that rewards do not allow must not make its own witness: it stands for what was cut within the bounds.
    highest = jnp.where(jnp.isnan(probe.value_bound), probe.seen_value_bound, probe.value_bound)
    highest = jnp.nan_to_num(highest + jnp.maximum(bonus, 0.0) * probe.later, nan=jnp.inf)
    cut = jnp.minimum(value(followed.obs, followed.action), highest)
    returns = followed.reward + followed.later * bonus + followed.weight * cut
    is_known = followed.weight <= MOST_TAIL
    outside = None if probe.neighbours is None else _outside(algorithm, action, probe.neighbours)
    return ProbeValues(value(rows.obs, rows.action), value(rows.obs, action), returns, is_known, outside, bonus)


def _values(
    algorithm: OffPolicy, state: State, probe: Probe, key: Key, updates: Mapping[str, Array]
) -> dict[str, Array]:
    there = probe_values(algorithm, state, probe, key)
    known, count = there.is_known, there.is_known.sum()
    mean = jnp.where(known, there.returns, 0.0).sum() / count
    found = {
        "data_value": there.data.mean(),
        "policy_value": there.policy.mean(),
        "action_gap": (there.policy - there.data).mean(),
        "return_gap": jnp.where(known, there.data - there.returns, 0.0).sum() / count,
        "data_return": mean,
        "data_return_spread": jnp.sqrt(jnp.where(known, jnp.square(there.returns - mean), 0.0).sum() / count),
    }
    is_soft = type(algorithm).entropy_bonus is not OffPolicy.entropy_bonus
    if is_soft:
        found["entropy_bonus"] = there.bonus
    if there.is_outside is not None:
        found["outside_support"] = there.is_outside.mean()
    return found | _bounds(algorithm, probe, there.policy, updates, is_soft=is_soft)


def _bounds(
    algorithm: OffPolicy, probe: Probe, value: Float[Array, "K"], updates: Mapping[str, Array], *, is_soft: bool
) -> dict[str, Array]:
    """Return the bounds of values, and how many are beyond them."""
    more = jnp.float32(0.0)
    if is_soft and "temperature" in updates:
        factor = updates.get("reward_factor", jnp.asarray(getattr(algorithm, "reward_scale", 1.0)))
        most = max(highest_entropy(algorithm.spec.action), 0.0)
        more = (updates["temperature"] / factor * most * probe.later).astype(jnp.float32)
    of_task, seen = probe.value_bound + more, probe.seen_value_bound + more
    highest = jnp.where(jnp.isnan(of_task), seen, of_task)
    # Rounding of a sum of 1 / (1 - gamma) rewards is no proof of anything.
    above = value > highest + 1e-4 * jnp.maximum(jnp.abs(highest), jnp.nan_to_num(jnp.abs(probe.value_floor)))
    found = {"value_bound": of_task, "seen_value_bound": seen, "above_bound": above.mean(dtype=jnp.float32)}
    if is_soft and isinstance(algorithm.spec.action, Box):
        return found  # the entropy of a narrow density has no lower bound
    return found | {
        "value_floor": probe.value_floor,
        "below_floor": (value < probe.value_floor - 1e-4 * jnp.abs(probe.value_floor)).mean(dtype=jnp.float32),
    }


def _errors(algorithm: OffPolicy, state: State, probe: Probe, key: Key) -> dict[str, Array]:
    """Return mean squared errors to targets, in whole batches: what `learn` would change is never computed."""

    def error(rows: LogRows) -> Array:
        size = min(algorithm.batch_size, len(rows.reward))
        batches = len(rows.reward) // size
        shaped = jax.tree.map(lambda column: column[: batches * size].reshape(batches, size, *column.shape[1:]), rows)
        total = rows.index.max() + 1
        errors = jax.lax.map(lambda one: algorithm.learn(state, as_transitions(one, total), key)[1], shaped)
        return jnp.square(errors).mean()

    return {"held_out_error": error(probe.rows), "trained_error": error(probe.trained)}
