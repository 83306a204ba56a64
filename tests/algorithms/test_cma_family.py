"""SNES, sep-CMA-ES, MA-ES, LM-MA-ES and canonical ES against textbook loops in NumPy, and against pycma."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Returns
from workhorse.math import moments, noise
from workhorse.math.fitness import parent_weights, shared_by_rank

SIZE, POPULATION = 5, 12
FAMILY = ("snes", "sep-cma-es", "ma-es", "lm-ma-es", "canonical-es")


def spec_of(size):
    return EnvSpec("objective", Box.unbounded(1), Discrete(size), 1)


def made(name, size=SIZE, population=POPULATION, **settings):
    settings = {"population_size": population, "normalise_observations": False, **settings}
    return registry.make(name, spec_of(size), settings)


def returns(fitness):
    return Returns(jnp.asarray(fitness, jnp.float32), np.float64(1), moments.empty(1, jnp.float64))


@jax.jit
def updated(algorithm, state, fitness):
    return algorithm.update(state, returns(fitness), jax.random.key(0))[0]


@jax.jit
def members_of(algorithm, state):
    actor = algorithm.actor(state)
    return jax.vmap(lambda member: algorithm.displace(actor, member))(jnp.arange(algorithm.num_members))


@jax.jit
def perturbations(key, iteration):
    address = jax.random.fold_in(key, iteration)
    return jax.vmap(lambda index: noise.perturbation(address, index, SIZE))(jnp.arange(POPULATION))


def drawn(state):
    return np.asarray(perturbations(state.noise_key, state.iteration), np.float64)


class Textbook:
    """The loops of the papers in float64: members are sorted, and each is transformed by itself."""

    def __init__(self, name, size, population, step):
        self.name, self.n, self.population, self.step = name, size, population, step
        parents = population // 4 if name == "canonical-es" else population // 2
        raw = [np.log(parents + 0.5) - np.log(rank) for rank in range(1, parents + 1)]
        self.w = np.array(raw) / sum(raw)
        self.mu = 1 / sum(self.w**2)
        n, mu = size, self.mu
        self.c = (0.5 if name == "canonical-es" else 1) * (mu + 2) / (n + mu + 5)
        self.damping = 1 + 2 * max(0, np.sqrt((mu - 1) / (n + 1)) - 1) + self.c
        self.chi = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))
        self.c1 = 2 / ((n + 1.3) ** 2 + mu)
        self.cmu = min(1 - self.c1, 2 * (mu - 2 + 1 / mu) / ((n + 2) ** 2 + mu))
        self.mean, self.path, self.count = np.zeros(n), np.zeros(n), 0
        self.m, self.c_diagonal, self.p_c = np.eye(n), np.ones(n), np.zeros(n)
        self.vectors = np.zeros((6, n))

    def direction(self, z):
        if self.name == "ma-es":
            return self.m @ z
        if self.name == "sep-cma-es":
            return np.sqrt(self.c_diagonal) * z
        if self.name == "lm-ma-es":
            for j in range(min(self.count, len(self.vectors))):
                rate = 1 / (1.5**j * self.n)
                z = (1 - rate) * z + rate * self.vectors[j] * (self.vectors[j] @ z)
        return z

    def tell(self, z, fitness):
        best = np.argsort(-fitness)[: len(self.w)]
        z = z[best]
        d = np.array([self.direction(row) for row in z])
        combined = sum(w * row for w, row in zip(self.w, z, strict=True))
        step = sum(w * row for w, row in zip(self.w, d, strict=True))
        self.mean = self.mean + self.step * step
        c = self.c
        self.path = (1 - c) * self.path + np.sqrt(self.mu * c * (2 - c)) * combined
        self.count += 1
        getattr(self, "shape_" + self.name.replace("-", "_"))(z, d, combined, step)
        length = np.linalg.norm(self.path)
        growth = c / self.damping * (length / self.chi - 1)
        if self.name == "canonical-es":
            growth = c / 2 * (length**2 / self.n - 1)
        self.step *= np.exp(min(1, growth))

    def shape_canonical_es(self, z, d, combined, step):
        pass

    def shape_ma_es(self, z, d, combined, step):
        one = np.eye(self.n)
        rank_mu = sum(w * np.outer(row, row) for w, row in zip(self.w, z, strict=True)) - one
        rank_one = np.outer(self.path, self.path) - one
        self.m = self.m @ (one + self.c1 / 2 * rank_one + self.cmu / 2 * rank_mu)

    def shape_sep_cma_es(self, z, d, combined, step):
        n, mu = self.n, self.mu
        rate = (4 + mu / n) / (n + 4 + 2 * mu / n)
        c1 = min(1, (n + 2) / 3 * self.c1)
        cmu = min(1 - c1, (n + 2) / 3 * 2 * (mu - 2 + 1 / mu) / ((n + 2) ** 2 + mu))
        length = np.linalg.norm(self.path) / np.sqrt(1 - (1 - self.c) ** (2 * self.count))
        h = float(length < (1.4 + 2 / (n + 1)) * self.chi)
        self.p_c = (1 - rate) * self.p_c + h * np.sqrt(rate * (2 - rate) * mu) * step
        old = self.c_diagonal
        rank_mu = sum(w * row**2 for w, row in zip(self.w, d, strict=True))
        kept = (1 - c1 - cmu) * old + c1 * (1 - h) * rate * (2 - rate) * old
        self.c_diagonal = kept + c1 * self.p_c**2 + cmu * rank_mu

    def shape_lm_ma_es(self, z, d, combined, step):
        for j in range(len(self.vectors)):
            rate = min(1, self.population / (4**j * self.n))
            self.vectors[j] = (1 - rate) * self.vectors[j] + np.sqrt(self.mu * rate * (2 - rate)) * combined


@pytest.mark.parametrize("name", FAMILY[1:])
def test_updates_equal_the_textbook(name):
    """The fitness comes in no order: weights that are not sorted with the members, as elsewhere, would show."""
    algorithm = made(name, noise_std=0.5, **({"num_vectors": 6} if name == "lm-ma-es" else {}))
    state, book = algorithm.init(jax.random.key(4)), Textbook(name, SIZE, POPULATION, 0.5)
    rng = np.random.default_rng(1)
    for _ in range(8):
        z, fitness = drawn(state), rng.normal(size=POPULATION)
        expected = book.mean + book.step * np.array([book.direction(row) for row in z])
        np.testing.assert_allclose(members_of(algorithm, state), expected, rtol=2e-4, atol=2e-5)
        fitness = fitness + 3 * (z @ np.arange(SIZE))  # a direction to go, so that paths and steps grow
        state = updated(algorithm, state, fitness)
        book.tell(z, fitness)
    np.testing.assert_allclose(state.noise_std, book.step, rtol=1e-4)
    np.testing.assert_allclose(state.params, book.mean, rtol=1e-3, atol=1e-4)
    assert book.step > 0.6, "the steps grew"


def test_snes_equals_its_equations():
    algorithm = made("snes", noise_std=0.5, learning_rate=0.7)
    state, mean, deviation = algorithm.init(jax.random.key(4)), np.zeros(SIZE), np.full(SIZE, 0.5)
    rng = np.random.default_rng(1)
    for _ in range(4):
        z, fitness = drawn(state), rng.normal(size=POPULATION)
        np.testing.assert_allclose(members_of(algorithm, state), mean + deviation * z, rtol=1e-4, atol=1e-5)
        state = updated(algorithm, state, fitness)
        raw = [max(0.0, np.log(POPULATION / 2 + 1) - np.log(rank)) for rank in range(1, POPULATION + 1)]
        utility = dict(zip(np.argsort(-fitness), np.array(raw) / sum(raw) - 1 / POPULATION, strict=True))
        mean = mean + 0.7 * deviation * sum(utility[i] * z[i] for i in range(POPULATION))
        rate = (3 + np.log(SIZE)) / (5 * np.sqrt(SIZE))
        deviation = deviation * np.exp(rate / 2 * sum(utility[i] * (z[i] ** 2 - 1) for i in range(POPULATION)))
    np.testing.assert_allclose(state.params, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.deviation, deviation, rtol=1e-4)


class TestWeights:
    def test_ties_share_and_the_order_of_members_is_nothing(self):
        ranks = parent_weights(6, 3)
        fitness = np.array([2.0, 5.0, 2.0, np.nan, 1.0, 2.0])
        found = np.asarray(shared_by_rank(jnp.asarray(fitness), ranks))
        np.testing.assert_allclose(found, [(ranks[1] + ranks[2]) / 3, ranks[0], found[0], 0, 0, found[0]], atol=1e-15)
        order = np.array([3, 5, 1, 0, 4, 2])
        np.testing.assert_array_equal(shared_by_rank(jnp.asarray(fitness[order]), ranks), found[order])

    def test_without_ties_the_best_has_the_first_weight(self):
        fitness = np.random.default_rng(0).normal(size=20)
        found = np.asarray(shared_by_rank(jnp.asarray(fitness), parent_weights(20, 10)))
        np.testing.assert_allclose(found[np.argsort(-fitness)], parent_weights(20, 10), atol=1e-15)


@pytest.mark.parametrize("name", FAMILY)
def test_an_iteration_in_which_nobody_differs_changes_nothing_but_the_clock(name):
    algorithm = made(name)
    state, rng = algorithm.init(jax.random.key(0)), np.random.default_rng(0)
    for _ in range(3):
        state = updated(algorithm, state, rng.normal(size=POPULATION))
    for fitness in (np.full(POPULATION, 7.0), np.full(POPULATION, np.nan)):
        after = updated(algorithm, state, fitness)
        assert after.iteration == state.iteration + 1
        for one, other in zip(jax.tree.leaves(after[4:]), jax.tree.leaves(state[4:]), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(after.params, state.params)


def test_ranks_that_mean_nothing_leave_the_step_size_where_it_is():
    """Also where the better half ties: the path's length is judged by the weights as they are."""
    algorithm = made("canonical-es", size=40, population=16)

    def walked(state, key):
        def one(state, key):
            fitness = jnp.minimum(jax.random.normal(key, (16,)), 0.0)
            return algorithm.update(state, returns(fitness), key)[0], None

        return jnp.log(jax.lax.scan(one, state, jax.random.split(key, 60))[0].noise_std)

    state = algorithm.init(jax.random.key(0))
    state = state._replace(path=jax.random.normal(jax.random.key(2), (40,), jnp.float32))  # as long as it should be
    keys = jax.random.split(jax.random.key(1), 64)
    found = jax.jit(jax.vmap(lambda key: walked(state._replace(noise_key=key), jax.random.fold_in(key, 7))))(keys)
    found = found - np.log(0.3)
    assert abs(found.mean()) < 4 * found.std() / 8, "no drift in either direction"


def generations_to(name, target, size, population, generations, seeds):
    """Generations to a target on a turned ellipsoid (for ma-es) or one along the axes, for several seeds at once."""
    scale, turn = _ellipsoid(name, size)
    algorithm = made(name, size, population, noise_std=0.5)

    def one(seed):
        start = algorithm.init(jax.random.key(seed))._replace(params=jnp.ones(size, jnp.float32))

        def generation(state, _):
            points = members_of(algorithm, state)
            cost = (scale * jnp.square(points @ turn)).sum(1)
            return updated(algorithm, state, -cost), cost.min()

        return jax.lax.scan(generation, start, None, length=generations)[1]

    cost = np.asarray(jax.jit(jax.vmap(one))(jnp.arange(seeds)))
    assert (cost.min(1) < target).all()
    return (cost < target).argmax(1) + 1


def _ellipsoid(name, size):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0] if name == "ma-es" else np.eye(size)
    return np.logspace(0, 4, size).astype(np.float32), turn.astype(np.float32)


@pytest.mark.parametrize("name", ["ma-es", "sep-cma-es"])
def test_as_many_generations_as_pycma(name):
    cma = pytest.importorskip("cma")
    size, population, target = 6, 10, 1e-6
    scale, turn = _ellipsoid(name, size)
    theirs = []
    for seed in range(1, 6):
        options = {"popsize": population, "seed": seed, "verbose": -9, "CMA_active": False}
        es = cma.CMAEvolutionStrategy(size * [1.0], 0.5, options | {"CMA_diagonal": name == "sep-cma-es"})
        lowest = np.inf
        while lowest >= target:
            points = es.ask()
            cost = [float((scale * np.square(point @ turn)).sum()) for point in points]
            es.tell(points, cost)
            lowest = min(cost)
        theirs.append(es.countiter)
    ours = generations_to(name, target, size, population, 400, 9)
    assert 0.6 < np.median(ours) / np.median(theirs) < 1.6


def test_how_many_vectors_are_remembered():
    assert [made("lm-ma-es", size=size).memory for size in (2, 8, 40, 200, 100_000)] == [1, 1, 5, 19, 38]


class TestErrors:
    @pytest.mark.parametrize(("name", "least"), [("snes", 2), ("canonical-es", 2), ("ma-es", 4), ("lm-ma-es", 4)])
    def test_a_population_too_small(self, name, least):
        made(name, population=least)
        with pytest.raises(UsageError, match=rf"population_size must be at least {least} for {name}: got {least - 1}"):
            made(name, population=least - 1)

    def test_a_policy_too_large_for_a_matrix(self):
        made("ma-es", size=2048)
        message = r"at most 2,048 parameters, .* 50,000: .* 9.3 GiB, .* Take lm-ma-es"
        with pytest.raises(UsageError, match=message):
            made("ma-es", size=50_000)

    def test_settings_out_of_range(self):
        with pytest.raises(UsageError, match=r"SNES.noise_std must be a finite number above 0"):
            made("snes", noise_std=0.0)
        with pytest.raises(UsageError, match=r"SNES.deviation_learning_rate must be"):
            made("snes", deviation_learning_rate=-1.0)
        with pytest.raises(UsageError, match=r"CanonicalES.parents must be at least 1 and fewer .* 12: got 12"):
            made("canonical-es", parents=12)
        with pytest.raises(UsageError, match=r"CanonicalES.path_factor must be above 0 and at most 1: got 2"):
            made("canonical-es", path_factor=2.0)
        with pytest.raises(UsageError, match=r"LMMAES.num_vectors must be"):
            made("lm-ma-es", num_vectors=0)
        with pytest.raises(UsageError, match=r"SepCMAES.lag must be 0"):
            made("sep-cma-es", lag=1)


@pytest.mark.parametrize("population", [5, 7, 12, 13])
def test_weights_are_pycmas_for_odd_populations_too(population):
    cma = pytest.importorskip("cma")
    theirs = np.array(cma.recombination_weights.RecombinationWeights(population))
    expected = theirs[theirs > 0] / theirs[theirs > 0].sum()
    for name in ("sep-cma-es", "ma-es", "lm-ma-es"):
        algorithm = made(name, population=population)
        state = algorithm.init(jax.random.key(0))
        weights = np.asarray(algorithm.weights(state, returns(-np.arange(population)))[0])
        np.testing.assert_allclose(weights[: len(expected)], expected, rtol=1e-5)
        assert not weights[len(expected) :].any()
        assert abs(algorithm.effective_parents - 1 / np.square(expected).sum()) < 1e-6


@pytest.mark.parametrize("name", FAMILY)
def test_the_deviation_that_is_reported_is_that_of_the_state(name):
    algorithm = made(name, noise_std=0.4)
    state = algorithm.init(jax.random.key(0))
    rising, metrics = algorithm.update(state, returns(np.arange(POPULATION)), jax.random.key(0))
    deviation = rising.deviation.mean() if name == "snes" else rising.noise_std
    assert float(metrics["noise_std"]) == float(deviation)
    _, metrics = algorithm.update(state, returns(np.zeros(POPULATION)), jax.random.key(0))
    assert float(metrics["noise_std"]) == pytest.approx(0.4), "nobody differs, and nothing moves"
