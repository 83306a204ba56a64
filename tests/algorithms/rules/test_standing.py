"""Judging and keeping candidates, against plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workhorse.algorithms.rules.contest import scattered, uniform_points
from workhorse.algorithms.rules.standing import leader, means, opened, replaced, scored


def standing_of(plays, trials=4):
    """The candidate that leads after lists of fitness, one a candidate."""
    count = len(plays)
    standing = opened(jnp.arange(count, dtype=jnp.float32)[:, None], count)
    total = jnp.array([float(sum(each)) for each in plays])
    return standing._replace(total=total, count=jnp.array([len(each) for each in plays], jnp.int32))


@pytest.mark.parametrize(
    ("plays", "expected"),
    [
        ([[1], [5], [2]], 1),  # one play each: the highest
        ([[1, 1, 1, 1], [9], [2, 2, 2, 2]], 2),  # a lucky first play does not win
        ([[1, 1], [9], [2, 2]], 2),  # ... nor before anybody has had all trials
        ([[3] * 4, [2] * 50], 0),  # more plays than the trials are no merit
        ([[np.nan] * 4, [-1e30] * 4], 1),  # no number is worse than the worst one
    ],
)
def test_who_leads(plays, expected):
    assert int(leader(standing_of(plays), 4)) == expected


class Ledger:
    """The same contest in plain Python: every candidate by its number, with the list of what it earned."""

    def __init__(self, kept, fresh, family):
        self.kept, self.fresh, self.family = kept, fresh, family
        self.earned, self.next = {}, 0
        self.finalists, self.playing = [], self._new(kept + fresh)

    def _new(self, count):
        found = [number for number in range(self.next, self.next + count) if number < self.family]
        self.next += count
        return found

    def members(self):
        """Candidates that play, one a member."""
        if not self.finalists:
            return [self.playing[m] if m < len(self.playing) else self.playing[m % len(self.playing)] for m in range(8)]
        turns = self.finalists
        row = [turns[m] if m < len(turns) else turns[m % len(turns)] for m in range(self.kept)]
        for member in range(self.kept, self.kept + self.fresh):
            place = member - self.kept
            row.append(self.playing[place] if place < len(self.playing) else turns[member % len(turns)])
        return row

    def play(self, fitness):
        for number, value in zip(self.members(), fitness, strict=True):
            self.earned.setdefault(number, []).append(value)
        standing = self.finalists + [number for number in self.playing if number not in self.finalists]
        order = sorted(standing, key=lambda number: -np.mean(self.earned[number]))
        self.finalists, self.playing = order[: self.kept], self._new(self.fresh)


@settings(max_examples=20, deadline=None)
@given(family=st.integers(1, 30), seed=st.integers(0, 10**6))
def test_a_contest_is_that_of_a_ledger(family, seed):
    rng, kept, fresh = np.random.default_rng(seed), 3, 5
    quality, plain = rng.normal(size=64), Ledger(kept, fresh, family)
    standing = opened(jnp.arange(8, dtype=jnp.float32)[:, None], family)
    for round in range(5):
        members = np.asarray(standing.candidates[standing.place])[:, 0].astype(int).tolist()
        assert members == plain.members()
        fitness = quality[members] + rng.normal(size=8)
        standing = scored(standing, jnp.asarray(fitness))
        for row, number in enumerate(np.asarray(standing.candidates)[:, 0].astype(int).tolist()):
            if int(standing.count[row]):
                earned = plain.earned.get(number, []) + [
                    value for member, value in zip(members, fitness, strict=True) if member == number
                ]
                assert int(standing.count[row]) == len(earned)
                assert float(means(standing)[row]) == pytest.approx(np.mean(earned))
        plain.play(fitness)
        numbers = 8 + round * fresh + jnp.arange(fresh)
        standing = replaced(standing, numbers[:, None].astype(jnp.float32), numbers < family, family)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 12, 100, 1428])
def test_a_family_is_gone_through_once(size):
    assert sorted(np.asarray(scattered(jnp.arange(size), size)).tolist()) == list(range(size))


def test_points_fill_the_space_evenly():
    for size in (1, 2, 6):
        points = np.asarray(uniform_points(jax.random.key(0), jnp.arange(64), size))
        assert points.shape == (64, size) and points.min() >= 0 and points.max() < 1
        quarters = np.stack([np.histogram(column, 4, (0, 1))[0] for column in points.T])
        assert quarters.min() >= 12 and quarters.max() <= 20, "16 in each quarter of every component"
    other = np.asarray(uniform_points(jax.random.key(1), jnp.arange(64), 2))
    assert np.abs(other - np.asarray(uniform_points(jax.random.key(0), jnp.arange(64), 2))).max() > 0.01
