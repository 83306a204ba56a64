"""Replay of B slots: a ring of steps in which every observation is stored once.

The successor of a step is the observation that its slot acted on next, and that is stored as the next row anyway. Only
where an episode ended is it another one (what is acted on next is then a reset observation): these final observations
lie in a table of their own. So a step costs one observation and not two, and the successor is always the true one.

Time is a number that never starts again: row t lies at t modulo the ring's length. The ring is longer than the replay's
capacity by the steps of an iteration, so that an iteration that is given up halfway has overwritten nothing.

A task whose episodes cannot be taken up again begins new ones in every sitting. The step before is then a truncated
one, whose successor lies in the table too; it is marked in the row after it, because rows on disk are never rewritten.

All functions are pure; the arrays are donated to the programs that write them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from workhorse.core.algorithm import Key
from workhorse.core.spec import ActionSpace, Box, Discrete
from workhorse.core.types import Rollout, Transitions
from workhorse.data.priorities import PriorityTree, leaves_for, stratified, with_leaves

__all__ = [
    "Cursor",
    "ReplayRows",
    "Size",
    "bytes_needed",
    "empty_leaves",
    "empty_rows",
    "prioritised",
    "reprioritised",
    "sampled",
    "transitions",
    "uniform",
    "written",
]

FINALS_SHARE = 8
"""Steps of capacity for each final observation that is kept. Where episodes are shorter, fewer steps can be sampled."""


PRIORITIES = (1e-6, 1e9)
"""Range of the priorities of steps that may be drawn."""


class Size(NamedTuple):
    """Size of a replay, in steps of each of its slots.

    Attributes:
        num_slots: B.
        capacity: steps that may be sampled.
        spare: steps that an iteration takes.
        finals: final observations that may be needed, those of all slots together.
    """

    num_slots: int
    capacity: int
    spare: int
    finals: int

    @staticmethod
    def of(capacity: int, num_slots: int, spare: int) -> "Size":
        """Return the size of a replay of `capacity` steps of all slots together.

        However short the episodes are, the newest rows keep their final observations: a row has at most two a slot.

        Example:
            >>> Size.of(1000, 4, 10)
            Size(num_slots=4, capacity=250, spare=10, finals=133)
        """
        each = max(capacity // num_slots, 1)
        return Size(num_slots, each, spare, each * num_slots // FINALS_SHARE + 2 * num_slots)

    @property
    def rows(self) -> int:
        """Rows of the ring."""
        return self.capacity + self.spare

    @property
    def final_rows(self) -> int:
        """Rows of the table of final observations."""
        return self.finals + (self.spare + 1) * self.num_slots


class ReplayRows(NamedTuple):
    """The arrays of a replay, R rows of B slots.

    Attributes:
        obs: (R + 1, B, ...); time t lies at t modulo R + 1. The row after the newest step is what is acted on next.
        action: (R, B, ...), in the algorithm's own numbers.
        reward: raw, float32 (R, B).
        terminated, truncated: bool (R, B), never merged.
        final: place of the step's final observation among those of its row, where its episode ended, int32 (R, B).
        finals_before: number of final observations before those of the row, int64 (R,).
        broken: the episodes of all slots were broken off before this row; the observations that they had come to are
            the last B before `finals_before`, bool (R,).
        finals: (F, ...); number f lies at f modulo F.
    """

    obs: Array
    action: Array
    reward: Float[Array, "R B"]
    terminated: Bool[Array, "R B"]
    truncated: Bool[Array, "R B"]
    final: Int[Array, "R B"]
    finals_before: Int[Array, "R"]
    broken: Bool[Array, "R"]
    finals: Array


class Cursor(NamedTuple):
    """Place of the steps that may be sampled, int64: times `first` to `count` - 1, and final observations ever seen."""

    first: Int[Array, ""]
    count: Int[Array, ""]
    finals: Int[Array, ""]

    @staticmethod
    def start() -> "Cursor":
        """Return the cursor of an empty replay."""
        return Cursor(*(np.zeros((), np.int64) for _ in range(3)))  # type: ignore[arg-type]


def empty_rows(size: Size, observation: Box, action: ActionSpace) -> ReplayRows:
    """Return the arrays of an empty replay."""
    shape = (size.rows, size.num_slots)
    dtype = jnp.float32 if isinstance(action, Box) else jnp.int32
    each = action.shape if isinstance(action, Box) else () if isinstance(action, Discrete) else (action.size,)
    return ReplayRows(
        jnp.zeros((size.rows + 1, size.num_slots, *observation.shape), jnp.float32),
        jnp.zeros((*shape, *each), dtype),
        jnp.zeros(shape, jnp.float32),
        jnp.zeros(shape, bool),
        jnp.zeros(shape, bool),
        jnp.zeros(shape, jnp.int32),
        jnp.zeros(size.rows, jnp.int64),
        jnp.zeros(size.rows, bool),
        jnp.zeros((size.final_rows, *observation.shape), jnp.float32),
    )


def bytes_needed(size: Size, observation: Box, action: ActionSpace) -> int:
    """Return the bytes of a replay's arrays.

    Example:
        >>> bytes_needed(Size.of(1_000_000, 1, 256), Box.unbounded(348), Box.unbounded(17)) // 10**6
        1653
    """
    shapes = jax.eval_shape(lambda: empty_rows(size, observation, action))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def empty_leaves(size: Size) -> Float[Array, "L"]:
    """Return the priorities of an empty replay."""
    return jnp.zeros(leaves_for(size.rows * size.num_slots), jnp.float32)


def written(
    size: Size,
    rows: ReplayRows,
    cursor: Cursor,
    tree: PriorityTree | None,
    steps: Rollout,
    newest: Array,
    left: tuple[Array, Array] | None = None,
) -> tuple[ReplayRows, Cursor, PriorityTree | None]:
    """Append steps (T, B).

    Args:
        size: of the replay.
        rows, cursor: of the replay.
        tree: priorities; None where sampling is uniform. New steps get the largest priority there is, or 1.
        steps: T at most `size.spare`, in the order of time.
        newest: what is acted on next, (B, ...).
        left: True where every slot began another episode before these steps though its last one had not ended, and
            the observations (B, ...) that the last ones had come to; None where that cannot be.

    Returns:
        The replay after it. Steps beyond the capacity, and steps whose episode's final observation is no longer
        kept, cannot be sampled any more.
    """
    length = steps.reward.shape[0]
    times = cursor.count + jnp.arange(length)
    at, place = times % size.rows, times % (size.rows + 1)
    finals, is_broken, total = rows.finals, jnp.zeros((), bool), cursor.finals
    if left is not None:
        is_broken, came_to = left
        number = jnp.where(is_broken, (total + jnp.arange(size.num_slots)) % size.final_rows, size.final_rows)
        finals = finals.at[number].set(came_to.astype(jnp.float32), mode="drop")
        total = total + is_broken * size.num_slots
    ended = steps.terminated | steps.truncated
    order = jnp.cumsum(ended.reshape(-1)).reshape(ended.shape)  # 1 for the first that ends
    before = jnp.concatenate([jnp.zeros(1, order.dtype), order[:-1, -1]])
    # a row of the table that does not exist drops what is written to it
    number = jnp.where(ended, (total + order - 1) % size.final_rows, size.final_rows).reshape(-1)
    last_obs = steps.next_obs.astype(jnp.float32).reshape(-1, *steps.next_obs.shape[2:])
    rows = ReplayRows(
        rows.obs.at[place].set(steps.obs.astype(jnp.float32))
        .at[(cursor.count + length) % (size.rows + 1)].set(newest.astype(jnp.float32)),
        rows.action.at[at].set(steps.action.astype(rows.action.dtype)),
        rows.reward.at[at].set(steps.reward.astype(jnp.float32)),
        rows.terminated.at[at].set(steps.terminated),
        rows.truncated.at[at].set(steps.truncated),
        rows.final.at[at].set((order - 1 - before[:, None]).astype(jnp.int32)),
        rows.finals_before.at[at].set(total + before),
        rows.broken.at[at].set((jnp.arange(length) == 0) & is_broken),
        finals.at[number].set(last_obs, mode="drop"),
    )  # fmt: skip
    count, total = cursor.count + length, total + order[-1, -1]
    if tree is not None:
        largest = jnp.where(tree.largest > 0, tree.largest, 1.0)
        tree = with_leaves(tree, _leaf(size, tree, times).reshape(-1), jnp.full(length * size.num_slots, largest))

    def too_old(state: tuple[Array, PyTree]) -> Array:
        first, _ = state
        kept = rows.finals_before[first % size.rows] >= total - size.finals
        return (first < count) & ((first < count - size.capacity) | ~kept)

    def forget(state: tuple[Array, PyTree]) -> tuple[Array, PyTree]:
        first, tree = state
        if tree is not None:
            tree = with_leaves(tree, _leaf(size, tree, first).reshape(-1), jnp.zeros(size.num_slots))
        return first + 1, tree

    first, tree = jax.lax.while_loop(too_old, forget, (jnp.asarray(cursor.first), tree))
    return rows, Cursor(first, count, total), tree


def _leaf(size: Size, tree: PriorityTree, time: Int[Array, "..."]) -> Int[Array, "... B"]:
    """Return the leaves of the steps of a time: their numbers modulo the number of leaves, however long the ring is."""
    return (time[..., None] * size.num_slots + jnp.arange(size.num_slots)) % len(tree.leaves)


def uniform(size: Size, cursor: Cursor, key: Key, count: int) -> Int[Array, "N"]:
    """Draw numbers of steps, time * B + slot, uniformly and with replacement."""
    steps = (cursor.count - cursor.first) * size.num_slots
    return cursor.first * size.num_slots + jax.random.randint(key, (count,), 0, steps)


def prioritised(
    size: Size, cursor: Cursor, tree: PriorityTree, exponent: Float[Array, ""], key: Key, count: int
) -> tuple[Int[Array, "N"], Float[Array, "N"]]:
    """Draw numbers of steps with frequencies p_i / sum of p, and their weights (n p_i / sum of p)^-exponent.

    n is the number of steps that may be drawn. The weights are divided by the largest of the batch, so that they only
    make updates smaller.

    Source: Schaul et al. 2016, "Prioritized experience replay" (arXiv 1511.05952), equation 1 and section 3.4.
    """
    (leaf, priority), oldest = stratified(tree, key, count), cursor.first * size.num_slots
    steps = (cursor.count - cursor.first) * size.num_slots
    weight = (steps * priority / tree.total) ** -jnp.asarray(exponent, jnp.float64)
    # there are at least as many leaves as steps, so that a leaf is of one step only
    return oldest + (leaf - oldest) % len(tree.leaves), (weight / weight.max()).astype(jnp.float32)


def reprioritised(tree: PriorityTree, index: Int[Array, "N"], priority: Float[Array, "N"]) -> PriorityTree:
    """Return the tree with new priorities of the steps of these numbers, within `PRIORITIES`.

    *A step of priority 0 would never be drawn again, and one that is not a number would spoil every sum*: it counts
    as the largest.
    """
    least, largest = PRIORITIES
    priority = jnp.clip(jnp.nan_to_num(priority, nan=largest), least, largest)
    return with_leaves(tree, index % len(tree.leaves), priority)


def transitions(
    size: Size,
    rows: ReplayRows,
    cursor: Cursor,
    index: Int[Array, "N"],
    weight: Float[Array, "N"],
    n_steps: int,
    discount: Array,
) -> Transitions:
    """Return the transitions that begin at the steps of these numbers.

    Args:
        size, rows, cursor: of the replay.
        index: time * B + slot, of steps that may be sampled.
        weight: to be passed on.
        n_steps: n, the most steps of a window.
        discount: gamma.
    """
    time, slot = index // size.num_slots, index % size.num_slots
    gamma = jnp.asarray(discount, jnp.float32)
    reward, weight_of_next = jnp.zeros(index.shape, jnp.float32), jnp.ones(index.shape, jnp.float32)
    last, goes_on = time, jnp.ones(index.shape, bool)
    steps = jnp.zeros(index.shape, jnp.int32)

    def is_broken_off(time: Array) -> Array:
        return (time + 1 < cursor.count) & rows.broken[(time + 1) % size.rows]

    for ahead in range(n_steps):
        now = time + ahead
        goes_on = goes_on & (now < cursor.count)
        at = now % size.rows
        reward = reward + jnp.where(goes_on, weight_of_next * rows.reward[at, slot], 0.0)
        weight_of_next = jnp.where(goes_on, weight_of_next * gamma, weight_of_next)
        last, steps = jnp.where(goes_on, now, last), steps + goes_on
        goes_on = goes_on & ~(rows.terminated[at, slot] | rows.truncated[at, slot] | is_broken_off(now))
    at, after = last % size.rows, (last + 1) % size.rows
    terminated, truncated, is_broken = rows.terminated[at, slot], rows.truncated[at, slot], is_broken_off(last)
    number = jnp.where(
        terminated | truncated,
        rows.finals_before[at] + rows.final[at, slot],
        rows.finals_before[after] - size.num_slots + slot,
    )
    truncated = truncated | (is_broken & ~terminated)
    ended = (terminated | truncated).reshape(-1, *[1] * (rows.obs.ndim - 2))
    following = rows.obs[(last + 1) % (size.rows + 1), slot]
    ended_or_newest = terminated | truncated | (last + 1 >= cursor.count)
    return Transitions(
        rows.obs[time % (size.rows + 1), slot],
        rows.action[time % size.rows, slot],
        reward,
        weight_of_next * (1.0 - terminated.astype(jnp.float32)),
        jnp.where(ended, rows.finals[number % size.final_rows], following),
        terminated,
        truncated,
        steps,
        index,
        weight,
        (cursor.count - time) * size.num_slots,
        rows.action[jnp.where(ended_or_newest, last, last + 1) % size.rows, slot],
        jnp.full(index.shape, -jnp.inf, jnp.float32),
    )


def sampled(
    size: Size,
    rows: ReplayRows,
    cursor: Cursor,
    tree: PriorityTree | None,
    key: Key,
    *,
    count: int,
    n_steps: int,
    discount: Array,
    importance_exponent: Array | None = None,
) -> Transitions:
    """Draw transitions, uniformly, or by priority where there is a tree."""
    if tree is None:
        index, weight = uniform(size, cursor, key, count), jnp.ones(count, jnp.float32)
    else:
        assert importance_exponent is not None
        index, weight = prioritised(size, cursor, tree, importance_exponent, key, count)
    return transitions(size, rows, cursor, index, weight, n_steps, discount)
