"""Sum tree and prioritised sampling, compared with a dictionary of priorities."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workhorse.core.spec import Box, Discrete
from workhorse.core.types import Rollout
from workhorse.data import replay
from workhorse.data.priorities import WIDTH, grown, leaves_for, stratified, with_leaves
from workhorse.data.replay import Cursor, Size

LEAVES = leaves_for(WIDTH**2 + 5)
"""A tree of three levels, the last of which has little in it."""

changed = jax.jit(with_leaves)
drawn = jax.jit(stratified, static_argnums=2)


def assert_same(tree, other):
    for one, two in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(one, two)


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, LEAVES - 1), st.floats(0, 1e6, width=32, allow_subnormal=False)),
            min_size=4,
            max_size=4,
        ),
        min_size=1,
        max_size=10,
    )
)
@settings(max_examples=40, deadline=None)
def test_a_tree_is_a_dictionary_with_sums(batches):
    tree, expected = grown(jnp.zeros(LEAVES, jnp.float32)), np.zeros(LEAVES, np.float32)
    for batch in batches:
        numbers, priorities = map(np.array, zip(*batch, strict=True))
        tree = changed(tree, numbers, priorities.astype(np.float32))
        for number in set(numbers.tolist()):
            expected[number] = priorities[numbers == number].max()
    np.testing.assert_array_equal(tree.leaves, expected)
    assert float(tree.largest) == expected.max()
    assert float(tree.total) == pytest.approx(expected.sum(dtype=np.float64), rel=1e-12)
    assert_same(tree, grown(jnp.asarray(expected)))  # to the bit: a checkpoint holds the leaves alone


@pytest.mark.parametrize("count", [3, WIDTH, WIDTH + 1, WIDTH**2, WIDTH**2 + 1, 2 * WIDTH**3])
def test_every_leaf_is_drawn_as_often_as_its_priority_says(count):
    """One draw from each of N equal parts of the sum: a leaf of share s is drawn s N times, give or take one."""
    priorities = np.random.default_rng(count).gamma(0.3, size=count).astype(np.float32)
    priorities[1::3] = 0
    tree = grown(jnp.zeros(leaves_for(count), jnp.float32).at[:count].set(priorities))
    number, priority = drawn(tree, jax.random.key(0), 50_000)
    share = priorities.astype(np.float64) / priorities.sum(dtype=np.float64)
    often = np.bincount(number, minlength=count)
    assert len(often) == count, "nothing beyond the leaves that were set"
    assert (often[priorities == 0] == 0).all()
    assert (np.abs(often - 50_000 * share) < 2).all()
    np.testing.assert_array_equal(np.asarray(priority), priorities[np.asarray(number)])


def test_a_place_at_the_very_end_is_a_leaf_that_may_be_drawn(monkeypatch):
    """Rounding may carry a place to the end of the sum, where leaves of priority 0 follow."""
    tree = grown(jnp.zeros(LEAVES, jnp.float32).at[jnp.array([3, 20])].set(jnp.float32(0.1)))
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.ones(shape, dtype))
    assert stratified(tree, jax.random.key(0), 4)[0].tolist() == [3, 20, 20, 20]


# --- the replay with priorities ---

ALPHA, BETA = 0.6, 0.4


class Dictionary:
    """Priorities of steps by their numbers; forgets nothing that may be sampled."""

    def __init__(self):
        self.of = {}

    def add(self, numbers):
        largest = max(self.of.values(), default=1.0)
        self.of |= dict.fromkeys(numbers, largest)

    def forget(self, oldest):
        self.of = {number: priority for number, priority in self.of.items() if number >= oldest}


def rollout(length, num_slots, ended):
    one = np.zeros((length, num_slots, 1), np.float32)
    no = np.zeros((length, num_slots), bool)
    return Rollout(one, no.astype(np.int32), one[..., 0], no, ended, one, ())


written = jax.jit(replay.written, static_argnums=0)
reprioritised = jax.jit(replay.reprioritised)
prioritised = jax.jit(replay.prioritised, static_argnums=(0, 5))
SIZES = [Size.of(24, 1, 4), Size.of(40, 5, 2), Size.of(700, 2, 30)]


@given(size=st.sampled_from(SIZES), seed=st.integers(0, 2**32 - 1), rounds=st.integers(1, 40))
@settings(max_examples=15, deadline=None)
def test_priorities_of_a_replay_are_those_of_a_dictionary(size, seed, rounds):
    """New steps get the largest priority of now, forgotten ones are never drawn, wherever the ring wraps."""
    rng, expected = np.random.default_rng(seed), Dictionary()
    rows, cursor = replay.empty_rows(size, Box.unbounded(1), Discrete(2)), Cursor.start()
    tree = grown(replay.empty_leaves(size))
    newest = np.zeros((size.num_slots, 1), np.float32)
    for _ in range(rounds):
        before = int(cursor.count) * size.num_slots
        ended = rng.random((size.spare, size.num_slots)) < rng.choice([0.0, 0.05, 0.8])
        rows, cursor, tree = written(size, rows, cursor, tree, rollout(size.spare, size.num_slots, ended), newest)
        expected.add(range(before, int(cursor.count) * size.num_slots))
        expected.forget(int(cursor.first) * size.num_slots)
        number, weight = prioritised(size, cursor, tree, jnp.asarray(BETA), jax.random.key(int(rng.integers(99))), 16)
        assert set(np.asarray(number).tolist()) <= expected.of.keys()
        shares = np.array([expected.of[one] for one in np.asarray(number).tolist()]) / sum(expected.of.values())
        wanted = (len(expected.of) * shares) ** -BETA
        np.testing.assert_allclose(weight, wanted / wanted.max(), rtol=1e-5)
        priority = (rng.gamma(0.5, size=16) + 0.01).astype(np.float32)
        tree = reprioritised(tree, number, priority)
        for one in set(np.asarray(number).tolist()):
            expected.of[one] = float(priority[np.asarray(number) == one].max())
    there = {number: float(tree.leaves[number % len(tree.leaves)]) for number in expected.of}
    assert there == pytest.approx(expected.of)
    assert int((tree.leaves > 0).sum()) == len(expected.of), "nothing else has a priority"


@pytest.mark.parametrize("num_slots", [1, 8])
def test_the_largest_priority_falls_when_the_step_that_had_it_does(num_slots):
    size = Size.of(16 * num_slots, num_slots, 4)
    rows, cursor = replay.empty_rows(size, Box.unbounded(1), Discrete(2)), Cursor.start()
    tree, newest, largest = grown(replay.empty_leaves(size)), np.zeros((num_slots, 1), np.float32), []
    steps = rollout(4, num_slots, np.zeros((4, num_slots), bool))
    for _ in range(4):
        rows, cursor, tree = written(size, rows, cursor, tree, steps, newest)
        largest.append(float(tree.largest))
        numbers = np.arange(int(cursor.first) * num_slots, int(cursor.count) * num_slots)
        numbers = np.resize(numbers, 16 * num_slots)
        tree = reprioritised(tree, numbers, np.where(numbers == 0, 9.0, 0.5).astype(np.float32))
    for _ in range(2):
        rows, cursor, tree = written(size, rows, cursor, tree, steps, newest)
        numbers = np.resize(np.arange(int(cursor.first) * num_slots, int(cursor.count) * num_slots), 16 * num_slots)
        tree = reprioritised(tree, numbers, np.full(len(numbers), 0.5, np.float32))
    assert largest == [1.0, 9.0, 9.0, 9.0]
    assert float(tree.largest) == 0.5, "not the largest that there ever was"
    rows, cursor, tree = written(size, rows, cursor, tree, steps, newest)
    newest_leaf = (int(cursor.count) * num_slots - 1) % len(tree.leaves)
    assert float(tree.leaves[newest_leaf]) == 0.5


def test_frequencies_are_proportional_to_priority_to_the_power_of_alpha():
    """Drawn with keys of their own, one at a time: the frequencies pass a chi-square test."""
    size = Size.of(12, 2, 3)
    rows, cursor = replay.empty_rows(size, Box.unbounded(1), Discrete(2)), Cursor.start()
    tree, newest = grown(replay.empty_leaves(size)), np.zeros((2, 1), np.float32)
    for _ in range(7):
        rows, cursor, tree = written(size, rows, cursor, tree, rollout(3, 2, np.zeros((3, 2), bool)), newest)
    numbers = np.arange(30, 42)
    error = np.linspace(0.1, 5, 12)
    tree = reprioritised(tree, numbers, (error**ALPHA).astype(np.float32))
    draw = jax.jit(jax.vmap(partial(replay.prioritised, size, cursor, tree, jnp.asarray(BETA), count=1)))
    found, _ = draw(jax.random.split(jax.random.key(3), 30_000))
    often = np.bincount(np.asarray(found).reshape(-1) - 30, minlength=12)
    expected = error**ALPHA / (error**ALPHA).sum()
    assert stats.chisquare(often, 30_000 * expected).pvalue > 1e-4
    assert stats.chisquare(often, 30_000 * error / error.sum()).pvalue < 1e-12, "alpha counts"


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, -1.0])
def test_a_priority_that_would_spoil_the_tree_is_bounded(bad):
    tree = grown(jnp.ones(LEAVES, jnp.float32))
    tree = reprioritised(tree, np.array([5]), np.array([bad], np.float32))
    assert 0 < float(tree.leaves[5]) < np.inf and np.isfinite(float(tree.total))
    number, _ = drawn(tree, jax.random.key(0), 64)
    assert (np.asarray(number) < LEAVES).all()
