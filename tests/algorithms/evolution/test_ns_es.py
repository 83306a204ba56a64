"""Novelty search: distances, whose behaviour is archived, and who is climbed from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.algorithms.evolution.population import SPEC, members_of, ranks_of, returns, started
from workhorse.algorithms import registry
from workhorse.algorithms.evolution.ns_es import novelty
from workhorse.core.errors import UsageError
from workhorse.training.evolve import Evolve
from workhorse.training.plan import Plan

SMALL = {"num_pairs": 4, "centre_episodes": 2, "num_centres": 2, "archive_size": 3, "num_neighbours": 2}


def told(fitness, behaviour):
    return returns(fitness)._replace(behaviour=np.asarray(behaviour, np.float16))


def plain_novelty(rows, archive, neighbours):
    apart = np.sqrt(((rows[:, None] - archive[None]) ** 2).sum(2))
    return np.sort(apart, 1)[:, :neighbours].mean(1)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_novelty_is_the_mean_distance_to_the_nearest_that_there_are(count):
    rng = np.random.default_rng(count)
    rows, archive = rng.normal(size=(5, 2)), rng.normal(size=(7, 2))
    found = novelty(jnp.asarray(rows, jnp.float32), jnp.asarray(archive, jnp.float32), jnp.asarray(count), 3)
    np.testing.assert_allclose(found, plain_novelty(rows, archive[:count], 3), rtol=1e-5)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_an_update_equals_an_independent_implementation(weight):
    algorithm, state, update = started("ns-es", noise_std=0.2, learning_rate=0.1, novelty_weight=weight, **SMALL)
    rng, members = np.random.default_rng(0), members_of(algorithm, state)
    np.testing.assert_array_equal(members[8:], np.asarray(state.centres)[[0, 0]])
    assert np.abs(np.asarray(state.centres)[1]).min() > 0
    fitness, behaviour = rng.normal(size=10), rng.normal(size=(10, 2)).astype(np.float16)
    after, metrics = update(state, told(fitness, behaviour), jax.random.key(0))
    seen = behaviour.astype(np.float64)
    archive = seen[8:].mean(0)[None]
    np.testing.assert_allclose(after.archive[0], archive[0], rtol=1e-3)
    u = weight * ranks_of(plain_novelty(seen[:8], archive, 1)) + (1 - weight) * ranks_of(fitness[:8])
    eps = (members[0:8:2] - members[1:8:2]) / 2 / 0.2
    gradient = ((u[0::2] - u[1::2])[:, None] * eps).sum(0) / (2 * 4 * 0.2)
    np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(gradient), rtol=1e-4)
    np.testing.assert_allclose(after.centres[0], 0.1 * gradient / (np.abs(gradient) + 1e-8), atol=1e-4)
    np.testing.assert_array_equal(after.centres[1], state.centres[1])
    np.testing.assert_allclose(after.fitness, [fitness[8:].mean(), -np.inf], rtol=1e-6)
    np.testing.assert_array_equal(after.params, after.centres[0])
    assert int(after.chosen) == 1  # the one that was never played


def test_the_archive_forgets_the_oldest_and_the_best_centre_is_the_policy():
    _, state, update = started("ns-es", **SMALL)
    for turn in range(4):
        fitness = np.zeros(10)
        fitness[8:] = 9 if int(state.chosen) == 1 else -turn
        state, _ = update(state, told(fitness, np.full((10, 2), turn)), jax.random.key(0))
    np.testing.assert_array_equal(np.asarray(state.archive)[:, 0], [3, 1, 2])
    np.testing.assert_array_equal(state.params, state.centres[1])


def test_centres_are_drawn_in_proportion_to_their_novelty():
    algorithm, state, _ = started("ns-es", **SMALL)
    rare = jnp.asarray([1.0, 3.0], jnp.float32)
    draw = jax.jit(lambda at: algorithm._next(state._replace(iteration=at), rare))
    share = np.mean([int(draw(jnp.int32(at))) for at in range(1, 601)])
    assert abs(share - 0.75) < 0.07


def test_no_centre_is_given_up_because_it_was_the_first_to_be_seen():
    """Novelty is that of a centre's last behaviour by now: once alone in the archive, the first had none then."""
    algorithm, state, update = started("ns-es", num_pairs=4, centre_episodes=1, num_centres=3)
    places = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    played = np.zeros(3, int)
    for _ in range(150):
        played[int(state.chosen)] += 1
        behaviour = np.tile(places[int(state.chosen)], (algorithm.num_members, 1))
        state, _ = update(state, told(np.zeros(algorithm.num_members), behaviour), jax.random.key(0))
    assert played.min() >= 25


def test_a_behaviour_that_is_no_number_is_never_archived():
    _, state, update = started("ns-es", **SMALL)
    rng = np.random.default_rng(0)
    for turn in range(4):
        behaviour = rng.normal(size=(10, 2))
        behaviour[8:] = np.nan if turn in (0, 2) else behaviour[8:]
        state, metrics = update(state, told(rng.normal(size=10), behaviour), jax.random.key(0))
        assert np.isfinite(metrics["novelty"]) and (metrics["gradient_norm"] > 0 or turn == 0)
    assert int(state.archived) == 2 and np.isfinite(state.archive).all()


def test_novelty_leads_away_from_where_the_return_is():
    """The return is highest where the search begins: by return alone it stays, by novelty it leaves."""
    ends = {}
    for name in ("ns-es", "nsr-es"):
        settings = {"novelty_weight": 0.0} if name == "nsr-es" else {}
        algorithm, state, update = started(name, noise_std=0.1, **settings)
        for _ in range(60):
            members = members_of(algorithm, state)
            state, _ = update(state, told(-np.square(members).sum(1), members[:, :2]), jax.random.key(0))
        ends[name] = float(np.linalg.norm(np.asarray(state.centres)[:, :2], axis=1).max())
    assert ends["ns-es"] > 0.4 and ends["nsr-es"] < 0.15


@pytest.mark.parametrize("task", ["CartPole-v1", "InvertedPendulum-v5"])
def test_a_behaviour_is_the_true_last_observation(task):
    plan = Plan(task, {}, "ns-es", {"num_pairs": 3, "behaviour": (0, 2), "noise_std": 0.5}, 0)
    algorithm = plan.make_algorithm(plan.spec())
    loop = Evolve.on_this_machine(plan, algorithm, 1)
    start = loop.start()
    tallies = loop._workforce.play(start.state, 0, range(8))
    rows = np.concatenate([chunk.behaviour for chunk in tallies])
    assert rows.dtype == np.float16 and rows.shape == (8, 2)
    # an episode ends where the cart or the pole left its range; a reset state would be within 0.05 of zero
    cart, pole = (2.4, 0.2095) if task == "CartPole-v1" else (1.0, 0.2)
    beyond = (np.abs(rows[:, 0]) > cart * 0.99) | (np.abs(rows[:, 1]) > pole * 0.99)
    if task == "InvertedPendulum-v5":  # observation 1 is the angle there, 2 a speed that no reset has
        beyond = np.abs(rows[:, 1]) > 0.05
    assert beyond.all()
    loop.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"behaviour": (0, 3)}, r"two components of an observation of test, from 0 to 2: got \(0, 3\)"),
        ({"novelty_weight": 1.5}, "novelty_weight must be in"),
        ({"lag": 1}, "lag must be 0: got 1"),
    ],
)
def test_bad_settings_are_named(options, words):
    with pytest.raises(UsageError, match=words):
        registry.make("ns-es", SPEC, options)
