"""PGPE and ClipUp against independent NumPy; a population that adapts; a lag."""

import jax
import numpy as np
import pytest

from tests.algorithms.evolution.population import SPEC, members_of, ranks_of, returns, started
from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.math import noise
from workhorse.training.evolve import Evolve
from workhorse.training.plan import Plan


def test_three_updates_equal_an_independent_implementation():
    settings = {"num_pairs": 5, "max_speed": 0.21, "learning_rate": 0.2, "radius": 1.5, "max_change": 0.05}
    algorithm, state, update = started(**settings)
    mean, velocity, deviation = np.zeros(6), np.zeros(6), np.full(6, 1.5 / np.sqrt(6))
    rng = np.random.default_rng(0)
    for _ in range(3):
        members, fitness = members_of(algorithm, state), rng.normal(size=10) * 30
        shift = (members[0::2] - members[1::2]) / 2
        np.testing.assert_allclose((members[0::2] + members[1::2]) / 2, np.tile(mean, (5, 1)), atol=1e-6)
        state, metrics = update(state, returns(fitness), jax.random.key(0))
        u = ranks_of(fitness)
        gradient = ((u[0::2] - u[1::2])[:, None] / 2 * shift).mean(0)
        slope = ((u[0::2] + u[1::2])[:, None] / 2 * (shift**2 - deviation**2) / deviation).mean(0)
        velocity = 0.9 * velocity + 0.2 * gradient / np.linalg.norm(gradient)
        velocity *= min(1.0, 0.21 / np.linalg.norm(velocity))
        mean = mean + velocity
        deviation = np.clip(deviation + 0.1 * slope, 0.95 * deviation, 1.05 * deviation)
        np.testing.assert_allclose(state.params, mean, atol=2e-6)
        np.testing.assert_allclose(state.deviation, deviation, rtol=2e-6)
        np.testing.assert_allclose(metrics["step_norm"], np.linalg.norm(velocity), rtol=1e-5)
    assert np.ptp(deviation) > 0.01


def test_a_tie_of_all_changes_only_by_what_is_left_of_the_last_step():
    _, state, update = started()
    state, _ = update(state, returns(np.full(32, 7.0)), jax.random.key(0))
    assert not np.asarray(state.params).any() and np.ptp(state.deviation) == 0
    moved, _ = update(state, returns(np.arange(32.0)), jax.random.key(0))
    after, _ = update(moved, returns(np.full(32, -2.0)), jax.random.key(0))
    np.testing.assert_allclose(after.velocity, 0.9 * np.asarray(moved.velocity), rtol=1e-6)
    np.testing.assert_array_equal(after.deviation, moved.deviation)


def test_deviations_grow_along_a_slope_and_shrink_across_a_ridge():
    algorithm, state, update = started(num_pairs=200, radius=1.0)
    for _ in range(15):
        members = members_of(algorithm, state)
        away = members - np.asarray(state.params)
        # an outlier pays in coordinate 0 and costs in coordinate 1
        state, _ = update(state, returns(away[:, 0] ** 2 - away[:, 1] ** 2), jax.random.key(0))
    deviation = np.asarray(state.deviation)
    assert deviation[0] > 1.2 * deviation[2:].max() and deviation[1] < 0.8 * deviation[2:].min()


class TestQuota:
    def test_the_first_batch_alone_says_how_many_join(self):
        algorithm, *_ = started(num_pairs=10, steps_per_iteration=1_000)
        assert [algorithm.more_members(steps) for steps in (1_000, 999, 500, 499, 124, 1, 0)] == [
            *(0, 20, 20, 40, 140, 140, 140)
        ]
        few, *_ = started(num_pairs=10, steps_per_iteration=1_000, max_pairs=29)
        assert few.more_members(10) == 20

    def test_members_that_join_are_played_and_learnt_from(self):
        plan = Plan("CartPole-v1", {}, "pgpe", {"num_pairs": 4, "steps_per_iteration": 500, "max_pairs": 16}, 0)
        algorithm = plan.make_algorithm(plan.spec())
        loop = Evolve.on_this_machine(plan, algorithm, 1)
        start = loop.start()
        after, metrics, _ = loop.iterate(start)
        loop.close()
        pairs = round(metrics["steps"] / metrics["episode_length"]) // 2
        assert pairs in (8, 12, 16)  # eight untrained episodes of a pole last some 180 steps
        assert float(after.state.observations.count) == metrics["steps"]
        # the gradient is that of every pair: no subset of them has its direction
        eps = np.stack([noise.perturbation(algorithm.actor(start.state).noise_key, pair, 8) for pair in range(pairs)])
        on, *_ = np.linalg.lstsq(eps[:4].T, np.asarray(after.state.velocity / start.state.deviation), rcond=None)
        rest = eps[:4].T @ on - np.asarray(after.state.velocity / start.state.deviation)
        assert np.linalg.norm(rest) > 0.01 * np.linalg.norm(after.state.velocity)


class TestLag:
    @pytest.mark.parametrize("name", ["openai-es", "ars", "pgpe"])
    def test_an_iteration_learns_from_the_population_before(self, name):
        size = {"num_directions": 4, "num_top_directions": 4} if name == "ars" else {"num_pairs": 4}
        _, state, update = started(name, lag=1, **size)
        _, plain, update_now = started(name, **size)
        rng = np.random.default_rng(0)
        seen = [returns(rng.normal(size=8) * 9, length) for length in (3.0, 5.0, 7.0)]
        first, _ = update(state, seen[0], jax.random.key(0))
        np.testing.assert_array_equal(first.params, state.params)  # there was nothing to learn from
        second, _ = update(first, seen[1], jax.random.key(0))
        np.testing.assert_array_equal(second.pending.fitness, seen[1].fitness)
        # population 0 was drawn at iteration 0, and its step is taken in iteration 1
        expected, _ = update_now(plain, seen[0], jax.random.key(0))
        np.testing.assert_allclose(second.params, expected.params, atol=1e-7)
        assert int(second.iteration) == 2 and float(second.observations.count) == 0.0

    def test_what_cannot_lag_says_so(self):
        with pytest.raises(UsageError, match=r"GuidedES.lag must be 0: got 1\. guided-es learns from where its"):
            registry.make("guided-es", SPEC, {"lag": 1})
        with pytest.raises(UsageError, match=r"PGPE.lag must be 0 with steps_per_iteration"):
            registry.make("pgpe", SPEC, {"lag": 1, "steps_per_iteration": 9})
        with pytest.raises(UsageError, match=r"OpenAIES.lag must be 0 or 1: got 2"):
            registry.make("openai-es", SPEC, {"lag": 2})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_pairs": 0}, "num_pairs"),
        ({"radius": 0.0}, "radius"),
        ({"momentum": 1.0}, r"PGPE.momentum must be in \[0, 1\): got 1.0"),
        ({"max_change": 1.0}, "or deviations reach 0: got 1.0"),
        ({"max_pairs": 9}, "max_pairs is for steps_per_iteration"),
        ({"max_pairs": 9, "steps_per_iteration": 5}, "must be at least num_pairs: got 9 of 16"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(UsageError, match=words):
        started(**settings)
