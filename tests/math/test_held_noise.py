"""Noise that is held: how long, how strongly it is drawn, and that it does not change meanwhile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from workhorse.math.held_noise import HeldNoise, held_steps


@pytest.mark.parametrize("longest", [1, 4, 16])
def test_lengths_are_distributed_as_one_over_their_square(longest):
    keys = jax.random.split(jax.random.key(3), 20_000)
    found = np.bincount(jax.vmap(lambda key: held_steps(key, longest))(keys), minlength=longest + 1)
    share = np.arange(1, longest + 1) ** -2.0
    assert found[0] == 0 and len(found) == longest + 1
    if longest > 1:
        assert stats.chisquare(found[1:], 20_000 * share / share.sum()).pvalue > 1e-3


def chain(longest, steps, slots):
    """Noise of slots over an episode, (T, B, 2), and how many steps were left after each."""

    def step(held, key):
        held = jax.vmap(lambda one, key: one.next(key, longest))(held, jax.random.split(key, slots))
        return held, held

    start = jax.vmap(lambda _: HeldNoise.start(2))(jnp.arange(slots))
    return jax.jit(lambda: jax.lax.scan(step, start, jax.random.split(jax.random.key(0), steps))[1])()


def test_noise_is_constant_within_a_hold_and_drawn_anew_after_it():
    found = chain(16, 400, 30)
    value, left = np.asarray(found.value), np.asarray(found.left)
    held = left[:-1] > 0
    assert (value[1:][held] == value[:-1][held]).all()
    assert (value[1:][~held] != value[:-1][~held]).all()
    assert (left[1:][held] == left[:-1][held] - 1).all() and left.min() == 0 and left.max() == 15
    runs = []
    for slot in range(30):
        begins = np.flatnonzero(np.concatenate([[True], ~held[:, slot]]))
        runs += np.diff(begins).tolist()
    counts = np.bincount(runs, minlength=17)[1:]
    share = np.arange(1, 17) ** -2.0
    groups = [slice(0, 1), slice(1, 2), slice(2, 4), slice(4, 8), slice(8, 16)]
    observed = [counts[group].sum() for group in groups]
    expected = [share[group].sum() / share.sum() * counts.sum() for group in groups]
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_fresh_noise_is_standard_normal_and_independent_of_its_length_and_of_other_slots():
    found = chain(16, 200, 200)
    fresh = np.asarray(found.left) == 0
    value = np.asarray(found.value)
    first = value[0]
    assert stats.kstest(first.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(first[:, 0], first[:, 1])[0, 1]) < 0.25
    assert len(np.unique(first)) == first.size
    assert abs(np.corrcoef(np.abs(first[:, 0]), fresh[0])[0, 1]) < 0.25


def test_at_the_start_nothing_is_held():
    start = HeldNoise.start(3)
    assert start.left == 0 and (start.value == 0).all()
    assert (start.next(jax.random.key(0), 16).value != 0).all()


def test_with_one_step_at_most_noise_is_drawn_at_every_step():
    value = np.asarray(chain(1, 50, 3).value)
    assert (value[1:] != value[:-1]).all()
