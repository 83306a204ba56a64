"""Ask and tell on plain functions: against training on a task, with bounds, compiled and not, and with bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import workhorse.evolution as evolution
from workhorse.core.errors import UsageError
from workhorse.core.types import Returns
from workhorse.math import moments

TARGET = np.array([1.0, -2.0, 0.5], np.float32)


def height(point):
    """Made of JAX or NumPy operations, whatever it is given."""
    return -((point - TARGET) ** 2).sum()


@pytest.mark.parametrize("name", ["snes", "pgpe", "ma-es", "guided-es"])
def test_it_is_the_algorithm_of_the_training_loop(name):
    """The candidates are the loop's members, and a generation moves the centre as an iteration does."""
    es = evolution.make(name, size=3, **({"num_guides": 2} if name == "guided-es" else {}))
    algorithm = es.algorithm
    state, update = es.init(5), jax.jit(algorithm.update)
    members_of = jax.jit(
        lambda actor: jax.vmap(lambda member: algorithm.displace(actor, member))(jnp.arange(es.population_size))
    )
    learner = algorithm.init(jax.random.key(5))
    for _ in range(2):
        state, candidates = es.ask(state)
        members = np.asarray(members_of(algorithm.actor(learner)))
        np.testing.assert_allclose(candidates, members, rtol=1e-4, atol=1e-5)
        fitness = np.array([height(point) for point in members], np.float32)
        state = es.tell(state, fitness)
        told = Returns(fitness, np.float64(1), moments.empty(1, jnp.float64))
        learner, _ = update(learner, told, jax.random.key(0))
    np.testing.assert_allclose(es.mean(state), learner.params, rtol=1e-4, atol=1e-5)
    assert (np.asarray(es.mean(state)) != 0).all()


class TestBounds:
    def test_candidates_and_the_centre_stay_inside_and_reach_the_corner(self):
        es = evolution.make("snes", size=3, bounds=([-1.0, -1.0, 0.0], 0.25), population_size=12)
        state = es.init(0)
        assert es.mean(state).tolist() == [-0.375, -0.375, 0.125], "the middle"
        for _ in range(60):
            state, candidates = es.ask(state)
            assert (candidates >= np.array([-1, -1, 0])).all() and (candidates <= 0.25).all()
            state = es.tell(state, [height(np.asarray(point)) for point in candidates])
        np.testing.assert_allclose(es.mean(state), [0.25, -1.0, 0.25], atol=0.02)
        np.testing.assert_allclose(es.best(state)[0], [0.25, -1.0, 0.25], atol=1e-3)

    def test_half_open_bounds_start_near_zero(self):
        es = evolution.make("snes", size=2, bounds=([0.5, -np.inf], np.inf))
        assert es.mean(es.init(0)).tolist() == [0.5, 0.0]


class TestMaximise:
    def test_compiled_batched_and_plain_find_the_same(self):
        given = {"size": 3, "generations": 25, "seed": 2, "population_size": 10}
        plain = evolution.maximise(height, **given)
        compiled = evolution.maximise(height, **given, jit=True)
        batched = evolution.maximise(
            lambda points: np.array([height(point) for point in points]), **given, batched=True
        )
        as_one = evolution.maximise(jax.vmap(height), **given, batched=True, jit=True)
        for other in (compiled, batched, as_one):
            np.testing.assert_allclose(other.mean, plain.mean, atol=2e-3)
            np.testing.assert_allclose(other.history[:5], plain.history[:5], rtol=1e-3)
        assert plain.fitness == pytest.approx(height(plain.best), rel=1e-4) and plain.fitness > -0.01
        assert plain.fitness == plain.history[:, 0].max().astype(np.float32)
        assert plain.history.shape == (25, 2) and (plain.history[:, 0] >= plain.history[:, 1]).all()

    def test_a_search_goes_on_from_its_state(self):
        es = evolution.make("snes", size=3, population_size=10)
        found = evolution.maximise(height, size=3, generations=30, population_size=10)
        state, candidates = es.ask(found.state)
        after = es.tell(state, [height(np.asarray(point)) for point in candidates])
        again = evolution.maximise(height, size=3, generations=31, population_size=10)
        np.testing.assert_array_equal(es.mean(after), again.mean)

    def test_a_function_that_returns_a_wrong_shape(self):
        for jit in (False, True):
            with pytest.raises(UsageError, match=r"one number for each of 48 candidates: they have shape \(48, 3\)"):
                evolution.maximise(lambda point: point * 1, size=3, generations=1, jit=jit)

    def test_a_function_that_returns_no_number(self):
        with pytest.raises(UsageError, match="every one is NaN"):
            evolution.maximise(lambda point: np.nan, size=3, generations=2)
        with pytest.raises(UsageError, match="NaN for every candidate of generation 0"):
            evolution.maximise(lambda point: point[0] * jnp.nan, size=3, generations=2, jit=True)

    def test_some_are_no_number(self):
        found = evolution.maximise(
            lambda point: jnp.where(point[0] > 0.9, jnp.nan, height(point)), size=3, generations=80, jit=True
        )
        np.testing.assert_allclose(found.best, [0.9, -2.0, 0.5], atol=0.05)
        assert found.best[0] <= 0.9


class TestFitness:
    """One bad number costs its member, and not the search; and differences are those of the numbers given."""

    @pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
    @pytest.mark.parametrize("name", ["ars", "openai-es", "openai-es none", "openai-es standardised", "pgpe", "snes"])
    def test_one_that_is_not_finite(self, name, bad):
        name, _, shaping = name.partition(" ")
        es = evolution.make(name, size=3, **({"fitness_shaping": shaping} if shaping else {}))
        state, candidates = es.ask(es.init(0))
        fitness = np.array([height(np.asarray(point)) for point in candidates])
        worst, best = fitness.argmin(), fitness.argmax()
        fitness[best if bad > 0 else worst] = bad
        mean = np.asarray(es.mean(es.tell(state, fitness)))
        assert np.isfinite(mean).all() and mean @ TARGET > 0, "the others still say where to go"

    def test_an_offset_hides_nothing_that_the_numbers_hold(self):
        found = evolution.maximise(lambda x: 1e8 + float(height(x)), size=3, generations=120, population_size=20)
        np.testing.assert_allclose(found.mean, TARGET, atol=0.01)
        assert found.fitness == found.history[:, 0].max() > 1e8 - 1e-3

    def test_seeds_may_be_mapped_over(self):
        es = evolution.make("snes", size=3, population_size=8)
        together = jax.vmap(lambda seed: es.ask(es.init(seed))[1])(jnp.arange(3))
        np.testing.assert_array_equal(together[2], es.ask(es.init(2))[1])
        np.testing.assert_array_equal(es.ask(es.init(np.array(2)))[1], es.ask(es.init(jax.random.key(2)))[1])

    def test_bounds_that_float32_lacks_are_never_passed(self):
        es = evolution.make("snes", size=2, bounds=(-0.1, 0.1), noise_std=9.0)
        _, candidates = es.ask(es.init(0))
        points = np.asarray(candidates, np.float64)
        assert points.max() <= 0.1 and points.min() >= -0.1 and points.max() > 0.0999999


class TestErrors:
    def test_what_cannot_be_made(self):
        with pytest.raises(UsageError, match="number of parameters, must be a whole number of at least 1: got 0"):
            evolution.make("snes", size=0)
        with pytest.raises(UsageError, match=r"must be a whole number of at least 1: got 3\.0"):
            evolution.make("snes", size=3.0)
        with pytest.raises(UsageError, match=r"minimize is no option: .* To minimise, return its negative"):
            evolution.make("snes", size=3, minimize=True)
        with pytest.raises(UsageError, match="in Workhorse it is num_pairs, which counts pairs, two members each"):
            evolution.make("openai-es", size=3, population_size=20)
        for name in ("guided-es", "lm-ma-es"):
            with pytest.raises(UsageError, match=f"{name} needs at least 2 parameters"):
                evolution.make(name, size=1)
        with pytest.raises(UsageError, match=r"searches around a centre: got ppo. Take ars, canonical-es"):
            evolution.make("ppo", size=3)
        with pytest.raises(UsageError, match="hidden is for policies and their episodes"):
            evolution.make("snes", size=3, hidden=(8,))
        with pytest.raises(UsageError, match="lag is for policies and their episodes"):
            evolution.make("pgpe", size=3, lag=1)
        with pytest.raises(UsageError, match="population_size must be at least 4 for ma-es: got 3"):
            evolution.make("ma-es", size=3, population_size=3)
        with pytest.raises(UsageError, match="Take lm-ma-es"):
            evolution.make("ma-es", size=3_000)
        with pytest.raises(
            UsageError, match=r"generations of evolution.maximise must be a whole number of at least 1: got 0"
        ):
            evolution.maximise(height, size=3, generations=0)

    def test_bounds_and_starts(self):
        with pytest.raises(UsageError, match=r"the lower one first, .*: parameter 1 has 2.0 and 1.0"):
            evolution.make("snes", size=2, bounds=([0.0, 2.0], 1.0))
        with pytest.raises(UsageError, match=r"each a number or 2 of them: got shapes \(3,\) and \(\)"):
            evolution.make("snes", size=2, bounds=([0.0, 2.0, 1.0], 1.0))
        for bounds in (5, "ab", (0,), {0: 1, 1: 2}, [(0, 1), (0, 1), (0, 1)]):
            with pytest.raises(UsageError, match="bounds must be a lower and an upper one, each a number or 2 of them"):
                evolution.make("snes", size=2, bounds=bounds)
        es = evolution.make("snes", size=2, bounds=(0, 1))
        with pytest.raises(UsageError, match="start must lie within the bounds"):
            es.init(start=2.0)
        with pytest.raises(UsageError, match=r"start must be 2 finite numbers or one: got shape \(3,\)"):
            es.init(start=[0.0, 0.0, 0.0])
        with pytest.raises(UsageError, match=r"got shape .*, 1 of them not finite"):
            es.init(start=np.inf)
        for seed in (-1, 1.5, None, "a", 2**70):
            with pytest.raises(UsageError, match="seed must be a whole number from 0 to"):
                es.init(seed)

    def test_what_is_told(self):
        es = evolution.make("snes", size=2, population_size=4)
        with pytest.raises(UsageError, match="needs a state from ask"):
            es.tell(es.init(), np.arange(4.0))
        state, _ = es.ask(es.init())
        with pytest.raises(UsageError, match=r"of shape \(4,\): got shape \(4, 1\)"):
            es.tell(state, np.ones((4, 1)))
        with pytest.raises(UsageError, match="every one is NaN"):
            es.tell(state, np.full(4, np.nan))
        for words in (["a", "b", "c", "d"], [1j, 2j, 3j, 4j]):
            with pytest.raises(UsageError, match="tell needs real numbers: got "):
                es.tell(state, words)
        with pytest.raises(UsageError, match="from ask that was not told of yet"):
            es.tell(es.tell(state, np.arange(4.0)), np.arange(4.0))

    def test_states_of_other_searches(self):
        es, state = evolution.make("snes", size=2, population_size=4), None
        for other in (("snes", 3, 4), ("snes", 2, 6), ("ma-es", 2, 4)):
            state, _ = (one := evolution.make(other[0], size=other[1], population_size=other[2])).ask(one.init(0))
            for use in (es.ask, lambda state: es.tell(state, np.arange(4.0))):
                with pytest.raises(UsageError, match=r"none of this search \(snes, 2 parameters, 4 candidates\)"):
                    use(state)
        with pytest.raises(UsageError, match="none of this search"):
            es.ask(None)

    def test_functions_that_return_something_else(self):
        given = {"size": 3, "generations": 1}
        for jit, function, words in (
            (True, lambda points: list(points[:, 0]), "as an array: got list"),
            (True, lambda points: None, "as an array: got NoneType"),
            (True, lambda points: points[:, 0] + 1j, "real numbers: got complex"),
            (False, lambda points: points[:, 0] + 1j, "real numbers: got complex"),
            (False, lambda points: [[1.0], [1.0, 2.0]], "one number for each candidate: got"),
        ):
            with pytest.raises(UsageError, match=words):
                evolution.maximise(function, batched=True, jit=jit, **given)
