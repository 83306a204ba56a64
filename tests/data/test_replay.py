"""The replay: every transition is one that happened, whatever wraps around, overflows or is broken off.

What is compared with is a list of dictionaries: no ring, no table, nothing forgotten.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workhorse.core.spec import Box, Discrete, MultiDiscrete
from workhorse.core.types import Rollout
from workhorse.data import replay
from workhorse.data.priorities import grown
from workhorse.data.replay import FINALS_SHARE, Cursor, Size

GAMMA = 0.9


class Chains:
    """B slots that walk: an observation is [slot, episode, steps in it], so that no two of a run are alike.

    `log[t][slot]` is a dictionary of what happened; the successor in it is the true one.
    """

    def __init__(self, num_slots, seed, ends=0.2):
        self.rng, self.num_slots, self.ends = np.random.default_rng(seed), num_slots, ends
        self.obs = [np.array([slot, 0.0, 0.0]) for slot in range(num_slots)]
        self.log = []

    def step(self):
        now = []
        for slot, obs in enumerate(self.obs):
            terminated, truncated = self.rng.random() < self.ends / 2, self.rng.random() < self.ends / 2
            now.append(
                {
                    "obs": obs,
                    "action": self.rng.integers(100),
                    "reward": self.rng.normal(),
                    "terminated": terminated,
                    "truncated": truncated,
                    "next_obs": obs + np.array([0, 0, 1]),
                    "broken": False,
                }
            )
            is_over = terminated or truncated
            self.obs[slot] = np.array([slot, obs[1] + 1, 0.0]) if is_over else obs + np.array([0, 0, 1])
        self.log.append(now)

    def steps(self, count):
        """Take steps and return them as a rollout."""
        for _ in range(count):
            self.step()
        new = self.log[len(self.log) - count :]
        columns = {
            name: np.array([[one[name] for one in row] for row in new])
            for name in ("obs", "action", "reward", "terminated", "truncated", "next_obs")
        }
        return Rollout(**columns, extras=())

    def break_off(self):
        """Begin another episode in every slot; return what the slots had come to."""
        came_to = np.array(self.obs)
        for one in self.log[-1]:
            one["broken"] = True
        self.obs = [np.array([obs[0], obs[1] + 1, 0.0]) for obs in self.obs]
        return came_to

    def transition(self, time, slot, n_steps):
        """The window that begins at a step, straight from its definition."""
        reward, weight, count = 0.0, 1.0, 0
        while True:
            step = self.log[time + count][slot]
            reward, weight, count = reward + weight * step["reward"], weight * GAMMA, count + 1
            truncated = step["truncated"] or (step["broken"] and not step["terminated"])
            if step["terminated"] or truncated or count == n_steps or time + count == len(self.log):
                break
        first = self.log[time][slot]
        return {
            "obs": first["obs"],
            "action": first["action"],
            "reward": reward,
            "discount": 0.0 if step["terminated"] else weight,
            "next_obs": step["next_obs"],
            "terminated": step["terminated"],
            "truncated": truncated,
            "steps": count,
            "age": (len(self.log) - time) * self.num_slots,
        }

    def oldest(self, capacity, finals):
        """The first time that may be sampled: in the capacity, all final observations since among the newest."""
        first = max(len(self.log) - capacity, 0)
        while sum(map(self._finals_after, self.log[first:])) > finals:
            first += 1
        return first

    def _finals_after(self, row):
        return sum(one["terminated"] or one["truncated"] for one in row) + self.num_slots * row[0]["broken"]


OBSERVATION, ACTION = Box.unbounded(3), Discrete(100)
written = jax.jit(replay.written, static_argnums=0)


class Kept:
    """A replay that is written the steps of chains."""

    def __init__(self, size, prioritised=False):
        self.size, self.rows, self.cursor = size, replay.empty_rows(size, OBSERVATION, ACTION), Cursor.start()
        self.tree = grown(replay.empty_leaves(size)) if prioritised else None

    def write(self, chains, count, came_to=None):
        left = (came_to is not None, np.array(chains.obs) if came_to is None else came_to)
        steps = chains.steps(count)
        self.rows, self.cursor, self.tree = written(
            self.size, self.rows, self.cursor, self.tree, steps, np.array(chains.obs), left
        )

    def times(self):
        return np.arange(int(self.cursor.first), int(self.cursor.count))

    def every_transition(self, n_steps):
        numbers = (self.times()[:, None] * self.size.num_slots + np.arange(self.size.num_slots)).reshape(-1)
        padded = np.resize(numbers, self.size.rows * self.size.num_slots)  # one shape, so one program
        found = _transitions(self.size, self.rows, self.cursor, padded, n_steps)
        return numbers, jax.tree.map(lambda leaf: np.asarray(leaf)[: len(numbers)], found)


@partial(jax.jit, static_argnums=(0, 4))
def _transitions(size, rows, cursor, index, n_steps):
    return replay.transitions(size, rows, cursor, index, jnp.ones(len(index), jnp.float32), n_steps, jnp.asarray(GAMMA))


def assert_as_it_happened(kept, chains, n_steps):
    """Compare every transition that may be sampled with the log."""
    numbers, found = kept.every_transition(n_steps)
    assert int(kept.cursor.first) == chains.oldest(kept.size.capacity, kept.size.finals)
    assert len(numbers) == (len(chains.log) - int(kept.cursor.first)) * chains.num_slots > 0
    expected = [chains.transition(*divmod(number, chains.num_slots), n_steps) for number in numbers.tolist()]
    for name in expected[0]:
        wanted = np.array([one[name] for one in expected])
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-5, atol=1e-6, err_msg=name)
    assert (found.index == numbers).all()


SIZES = {
    "one slot": Size.of(24, 1, 4),
    "many slots": Size.of(40, 5, 3),
    "an odd ring": Size.of(21, 3, 2),
    "a short table": Size.of(64, 2, 4),
    "hardly more than an iteration": Size.of(6, 2, 3),
}


@given(
    name=st.sampled_from(sorted(SIZES)),
    n_steps=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**32 - 1),
    ends=st.sampled_from([0.0, 0.1, 0.4, 1.0]),
    rounds=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_every_transition_is_one_that_happened(name, n_steps, seed, ends, rounds):
    size = SIZES[name]
    chains, kept = Chains(size.num_slots, seed, ends), Kept(size)
    for _ in range(rounds):
        kept.write(chains, size.spare)
    assert_as_it_happened(kept, chains, n_steps)


@given(
    name=st.sampled_from(sorted(SIZES)),
    seed=st.integers(0, 2**32 - 1),
    ends=st.sampled_from([0.0, 0.1, 1.0]),
    breaks=st.lists(st.booleans(), min_size=2, max_size=20),
)
@settings(max_examples=40, deadline=None)
def test_an_episode_that_was_broken_off_is_a_truncated_one(name, seed, ends, breaks):
    size = SIZES[name]
    chains, kept = Chains(size.num_slots, seed, ends), Kept(size)
    kept.write(chains, size.spare)
    for breaks_off in breaks:
        kept.write(chains, size.spare, chains.break_off() if breaks_off else None)
    assert_as_it_happened(kept, chains, 3)


@pytest.mark.parametrize("num_slots", [1, 8])
def test_the_table_of_final_observations_overflows_and_nothing_false_is_sampled(num_slots):
    """Episodes of one step: a table for an eighth of the steps keeps an eighth of them."""
    size = Size.of(160, num_slots, 2)
    chains, kept = Chains(num_slots, 0, ends=2.0), Kept(size)
    for _ in range(200):
        kept.write(chains, 2)
    assert len(kept.times()) == size.finals // num_slots < size.capacity == 160 // num_slots
    assert len(kept.times()) * num_slots >= 160 // FINALS_SHARE
    assert_as_it_happened(kept, chains, 1)


def window(rewards, ends_at=None, how="truncated", n_steps=3, time=0):
    """The transition at `time` of one slot whose step `ends_at` ends its episode."""
    size = Size.of(16, 1, len(rewards))
    length = len(rewards)
    ended = (np.arange(length) == (-1 if ends_at is None else ends_at))[:, None]
    no = np.zeros((length, 1), bool)
    obs = np.arange(length, dtype=np.float32)[:, None, None] * np.ones(3, np.float32)
    steps = Rollout(
        obs,
        np.zeros((length, 1), np.int32),
        np.array(rewards, np.float32)[:, None],
        ended if how == "terminated" else no,
        ended if how == "truncated" else no,
        np.where(ended[..., None], 100 + obs, obs + 1),
        (),
    )
    newest = np.full((1, 3), float(length), np.float32)
    rows = replay.empty_rows(size, OBSERVATION, ACTION)
    rows, cursor, _ = written(size, rows, Cursor.start(), None, steps, newest)
    found = _transitions(size, rows, cursor, np.array([time]), n_steps)
    return {
        "reward": pytest.approx(float(found.reward[0])),
        "discount": pytest.approx(float(found.discount[0])),
        "next_obs": float(found.next_obs[0, 0]),
        "steps": int(found.steps[0]),
    }


def test_windows_in_closed_form():
    rewards = [1.0, 2.0, 4.0, 8.0, 16.0]
    whole = {"reward": 1 + 0.9 * 2 + 0.81 * 4, "discount": 0.729, "next_obs": 3.0, "steps": 3}
    assert whole == window(rewards)
    truncated = {"reward": 1 + 0.9 * 2, "discount": 0.81, "next_obs": 101.0, "steps": 2}
    assert truncated == window(rewards, ends_at=1), "bootstrap from the final observation, gamma to the power of 2"
    assert truncated | {"discount": 0.0} == window(rewards, ends_at=1, how="terminated"), "nothing comes after"
    at_its_end = {"reward": 1.0, "discount": 0.9, "next_obs": 100.0, "steps": 1}
    assert at_its_end == window(rewards, ends_at=0)
    newest = {"reward": 16.0, "discount": 0.9, "next_obs": 5.0, "steps": 1}
    assert newest == window(rewards, time=4), "the newest step has a successor: what is acted on next"
    assert newest | {"discount": 0.81, "reward": 8 + 0.9 * 16, "steps": 2} == window(rewards, time=3)
    assert whole == window(rewards, ends_at=2) | {"next_obs": 3.0}, "an end at the window's last step changes no reward"


@pytest.mark.parametrize("num_slots", [1, 4])
def test_uniform_sampling_is_over_exactly_the_steps_that_may_be_sampled(num_slots):
    size = Size.of(20, num_slots, 3)
    chains, kept = Chains(num_slots, 1, ends=0.0), Kept(size)
    for _ in range(13):
        kept.write(chains, 3)
    index = np.asarray(replay.uniform(size, kept.cursor, jax.random.key(0), 40_000))
    numbers, counts = np.unique(index, return_counts=True)
    assert numbers.tolist() == list(range((39 - 20 // num_slots) * num_slots, 39 * num_slots))
    assert stats.chisquare(counts).pvalue > 1e-4


def test_a_draw_is_a_function_of_its_key_alone():
    size = Size.of(50, 2, 5)
    chains, kept = Chains(2, 3), Kept(size)
    for _ in range(12):
        kept.write(chains, 5)
    sampled = partial(replay.sampled, size, kept.rows, kept.cursor, None)
    draw = jax.jit(partial(sampled, count=7, n_steps=1, discount=jnp.asarray(GAMMA)))
    one, again, other = draw(jax.random.key(1)), draw(jax.random.key(1)), draw(jax.random.key(2))
    assert (one.index == again.index).all() and (one.index != other.index).any()
    assert (one.weight == 1).all()


@pytest.mark.parametrize("ends", [0.0, 0.1, 0.8])
def test_what_is_written_next_overwrites_nothing_that_may_be_sampled(ends):
    """An iteration that is given up halfway has written `spare` steps: the replay before it is still whole."""
    size = Size.of(30, 3, 4)
    chains, kept = Chains(3, 5, ends), Kept(size)
    for _ in range(20):
        kept.write(chains, 4)
    before = kept.cursor
    numbers, expected = kept.every_transition(3)
    future = Chains(3, 6, ends=1.5)
    future.obs = list(chains.obs)
    kept.write(future, 4, np.array(chains.obs))  # as many final observations as there can be
    kept.cursor = before
    again, found = kept.every_transition(3)
    assert again.tolist() == numbers.tolist()
    for name in expected._fields:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_actions_are_kept_in_the_algorithms_own_numbers():
    size = Size.of(8, 2, 2)
    for space, dtype, shape in (
        (Box.unbounded(3), np.float32, (3,)),
        (Discrete(4), np.int32, ()),
        (MultiDiscrete((2, 3)), np.int32, (2,)),
    ):
        rows = replay.empty_rows(size, OBSERVATION, space)
        assert rows.action.dtype == dtype and rows.action.shape == (size.rows, 2, *shape)


def test_bytes_are_those_of_one_observation_a_step():
    size = Size.of(10_000, 1, 16)
    rows = replay.empty_rows(size, Box.unbounded(348), Box.unbounded(17))
    there = sum(leaf.nbytes for leaf in jax.tree.leaves(rows))
    assert there == replay.bytes_needed(size, Box.unbounded(348), Box.unbounded(17))
    two_copies = 10_000 * 4 * (2 * 348 + 17)
    assert 10_000 * 4 * (348 + 17) < there < 0.63 * two_copies
