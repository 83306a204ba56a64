"""The genetic algorithm: whose children there are, and why nobody becomes the elite by luck."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.algorithms.evolution.population import members_of, returns, started
from workhorse.core.errors import UsageError

SMALL = {"num_children": 5, "num_parents": 3, "num_candidates": 2, "candidate_episodes": 2, "noise_std": 0.5}


def with_herd(state, parents, candidates):
    parents, candidates = jnp.asarray(np.stack(parents)), jnp.asarray(np.stack(candidates))
    return state._replace(params=candidates[0], parents=parents, candidates=candidates)


def test_children_come_from_parents_and_candidates_are_played_as_they_are():
    algorithm, state, _ = started("ga", **SMALL | {"num_children": 300, "noise_std": 0.01})
    rng = np.random.default_rng(0)
    parents = np.arange(3, dtype=np.float32)[:, None] * 5 + rng.normal(size=(3, 6)).astype(np.float32)
    candidates = rng.normal(size=(2, 6)).astype(np.float32)
    members = members_of(algorithm, with_herd(state, parents, candidates))
    np.testing.assert_array_equal(members[300:], np.repeat(candidates, 2, 0))
    away = np.linalg.norm(members[:300, None] - parents[None], axis=2)
    assert (away.min(1) < 0.1).all() and (np.bincount(away.argmin(1), minlength=3) > 60).all()
    assert len(np.unique(members[:300], axis=0)) == 300


def test_the_elite_is_the_candidate_with_the_best_fresh_episodes():
    algorithm, state, update = started("ga", **SMALL)
    one, two = np.full(6, 1, np.float32), np.full(6, 2, np.float32)
    state = with_herd(state, [one, one, one], [one, two])
    children = members_of(algorithm, state)[:5]
    # child 3 has the best single episode of all: it becomes a candidate, not the elite
    after, metrics = update(state, returns([3, 1, 2, 99, 0, 5, 7, 6.5, 5.4]), jax.random.key(0))
    np.testing.assert_array_equal(after.params, one)  # (5 + 7) / 2 > (6.5 + 5.4) / 2
    np.testing.assert_allclose(after.candidates, [one, children[3]], rtol=1e-6)
    np.testing.assert_allclose(after.parents, [one, children[3], children[0]], rtol=1e-6)
    assert float(metrics["best_fitness"]) == 6.0 and float(metrics["improved"]) == 0.0
    after, _ = update(state, returns([3, 1, 2, 99, 0, 5, 7, 6.5, 5.6]), jax.random.key(0))
    np.testing.assert_array_equal(after.params, two)


def test_a_lucky_elite_loses_its_place_when_it_is_judged_again():
    _, state, update = started("ga", **SMALL)
    lucky, steady = np.full(6, 1, np.float32), np.full(6, 2, np.float32)
    state = with_herd(state, [lucky] * 3, [lucky, steady])
    after, _ = update(state, returns([0, 0, 0, 0, 0, 2, 2, 3, 3]), jax.random.key(0))
    np.testing.assert_array_equal(after.params, steady)


def test_what_broke_is_worst():
    algorithm, state, update = started("ga", **SMALL)
    children = members_of(algorithm, state)[:5]
    after, _ = update(state, returns([np.nan, 1, np.nan, -5, 0, np.nan, 9, -8, -8]), jax.random.key(0))
    np.testing.assert_allclose(after.parents[1:], children[[1, 4]], rtol=1e-6)
    assert float(after.params[0]) == float(state.candidates[1, 0])


def test_it_climbs():
    algorithm, state, update = started("ga", noise_std=0.2)
    target = np.linspace(-1, 1, 6)
    for _ in range(60):
        state, _ = update(state, returns(-np.square(members_of(algorithm, state) - target).sum(1)), jax.random.key(0))
    assert np.square(np.asarray(state.params) - target).sum() < 0.1 * np.square(target).sum()


def test_too_few_children_are_named():
    with pytest.raises(
        UsageError, match=r"GA.num_children must be at least 5, one less than the larger one of num_parents, 6"
    ):
        started("ga", num_children=4)
