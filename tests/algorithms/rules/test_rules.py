"""Rules, guesses and PID loops: what they do, what they say, and what their artefacts do."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.algorithms.rules.signed_rules import GAINS, SLOPES
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete
from workhorse.core.types import Returns
from workhorse.math import moments, noise
from workhorse.networks.heads import task_action
from workhorse.runs.policy import Policy

D = 4
BOX, WIDE = Box((-1.0, -1.0), (1.0, 1.0)), Box((0.0, -4.0), (2.0, 1.0))
SPACES = {
    "box": BOX,
    "wide": WIDE,
    "half-open": Box((0.0,), (float("inf"),)),
    "matrix": Box((-1.0,) * 4, (1.0,) * 4, (2, 2)),
    "two": Discrete(2),
    "three": Discrete(3),
    "choices": MultiDiscrete((2, 4, 1)),
    "switches": MultiBinary(2),
}
NAMES = ("zero", "random", "constant", "signed-rules", "random-search", "cem", "pid")
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def spec_of(space, observation=None):
    return EnvSpec("test", observation or Box.unbounded(D), space, 100)


def made(name, space, observation=None, **settings):
    return registry.make(name, spec_of(space, observation), {"rescale_actions": False} | settings)


def returns(fitness, size=D):
    return Returns(jnp.asarray(fitness, jnp.float32), 1.0, moments.empty(size, jnp.float64))


def searched(algorithm, quality, rounds=6, seed=0):
    """The state after some iterations in which a member earns what `quality` says of its parameters."""
    state = algorithm.init(jax.random.key(seed))
    update, actor = jax.jit(algorithm.update), jax.jit(algorithm.actor)
    for _ in range(rounds):
        fitness = [quality(params) for params in np.asarray(actor(state).members)]
        state, metrics = update(state, returns(fitness, algorithm.spec.observation.size), jax.random.key(1))
    return state, metrics


def acts(algorithm, actor, rows):
    """Actions along an episode of these observations, memory and all."""

    def step(carry, row):
        action, carry, _ = algorithm.act(actor, carry, row, jax.random.key(0), explore=False)
        return carry, action

    start = algorithm.begin(actor, jnp.asarray(-1))
    return np.asarray(jax.lax.scan(step, start, jnp.asarray(rows, jnp.float32))[1])


# --- what it says is what it does, and the artefact does it too ---


@every_space
@pytest.mark.parametrize("name", ["zero", "constant", "signed-rules", "random-search", "cem", "pid"])
def test_the_artefact_acts_as_the_algorithm(name, space):
    algorithm = made(name, space)
    rng = np.random.default_rng(0)
    state = algorithm.init(jax.random.key(3))
    update = jax.jit(algorithm.update)
    rows = rng.normal(size=(12, D)).astype(np.float32)
    rows[5] = 0.0
    for _ in range(3):
        fitness = rng.normal(size=algorithm.num_members)
        state, _ = update(state, returns(fitness), jax.random.key(0))
        actor = algorithm.actor(state)
        policy = Policy(algorithm.policy_layers(actor), observation=Box.unbounded(D), action=space, task="test")
        memory, found = None, []
        for row in rows:
            action, memory = policy.predict(row, memory)
            found.append(action)
        np.testing.assert_allclose(np.stack(found), acts(algorithm, actor, rows), rtol=1e-4, atol=1e-5)


def test_a_random_artefact_draws_choices_and_holds_the_middle_of_a_box():
    for space, expected in ((BOX, [0, 0]), (WIDE, [1, -1.5])):
        random = made("random", space)
        policy = Policy(random.policy_layers(()), observation=Box.unbounded(D), action=space, task="test")
        assert policy.predict(np.ones(D))[0].tolist() == expected and not policy.is_stochastic
    random = made("random", Discrete(3))
    policy = Policy(random.policy_layers(()), observation=Box.unbounded(D), action=Discrete(3), task="test")
    drawn = policy.predict(np.zeros((3000, D)), deterministic=False, rng=np.random.default_rng(0))[0]
    assert np.bincount(drawn).min() > 900 and policy.is_stochastic


@every_space
@pytest.mark.parametrize("explore", [True, False])
def test_random_actions_are_uniform_also_in_an_evaluation(space, explore):
    random = made("random", space)
    keys = jax.random.split(jax.random.key(0), 3000)
    act = jax.jit(jax.vmap(lambda key: random.act((), (), jnp.zeros(D), key, explore=explore)[0]))
    drawn = np.asarray(act(keys)).reshape(3000, -1)
    again = np.asarray(act(keys)).reshape(3000, -1)
    assert (drawn == again).all(), "by address"
    for component, column in enumerate(drawn.T):
        match space:
            case Box(low, high) if np.isfinite(high[component]):
                quarters = np.histogram(column, 4, (low[component], high[component]))[0]
            case Box():
                assert column.min() == 0 and 0.4 < np.mean(column == 0) < 0.6, "clipped normal noise"
                continue
            case Discrete(count):
                quarters = np.bincount(column, minlength=count)
            case MultiDiscrete(counts):
                quarters = np.bincount(column, minlength=counts[component])
            case _:
                quarters = np.bincount(column, minlength=2)
        assert quarters.sum() == 3000 and quarters.min() > 0.85 * 3000 / len(quarters)


def test_zero_is_zero_of_the_task_and_not_the_middle_of_its_range():
    spec = spec_of(WIDE).rescaled()
    zero = registry.make("zero", spec, {})
    action = zero.act((), (), jnp.ones(D), jax.random.key(0), explore=True)[0]
    assert task_action(spec, action).tolist() == [0.0, 0.0] and action.tolist() == pytest.approx([-1.0, 0.6])
    asleep = spec_of(Box((0.5,), (2.0,))).rescaled()
    assert task_action(asleep, registry.make("zero", asleep, {}).act((), (), jnp.ones(D), None, explore=True)[0]) == 0.5


# --- constant ---


def test_the_best_constant_action_is_found_to_a_thousandth():
    goal = np.array([0.37, -0.81])
    algorithm = made("constant", BOX)
    state, metrics = searched(algorithm, lambda action: -np.square(action - goal).sum(), rounds=14)
    np.testing.assert_allclose(state.best, goal, atol=0.02)
    assert float(metrics["best_fitness"]) > -1e-3 and float(metrics["candidates"]) == 64 + 13 * 48
    assert "0.3" in algorithm.in_words(state)


def test_the_first_constants_are_the_idle_action_the_corners_and_points_within_the_bounds():
    algorithm = made("constant", WIDE)
    first = np.asarray(algorithm.actor(algorithm.init(jax.random.key(0))).members)
    assert first[0].tolist() == [0.0, 0.0]
    assert {tuple(row) for row in first[1:5].tolist()} == set(itertools.product((0.0, 2.0), (-4.0, 1.0)))
    assert len(np.unique(first, axis=0)) == 64
    assert (first >= [0, -4]).all() and (first <= [2, 1]).all()
    open_ended = made("constant", Box((0.0,), (float("inf"),)))
    points = np.asarray(open_ended.actor(open_ended.init(jax.random.key(0))).members)
    assert points.min() == 0 and points.max() <= 1, "without an upper bound, one unit up"


@pytest.mark.parametrize(
    ("space", "best"), [(Discrete(5), [3]), (MultiDiscrete((2, 4, 1)), [1, 2, 0]), (MultiBinary(2), [0, 1])]
)
def test_every_choice_is_tried_and_the_best_one_is_kept(space, best):
    algorithm = made("constant", space)
    first = np.asarray(algorithm.actor(algorithm.init(jax.random.key(0))).members)
    assert len(np.unique(first, axis=0)) == algorithm.family_size
    state, _ = searched(algorithm, lambda params: float(params.tolist() == best))
    assert np.ravel(algorithm.action_of(state.best)).tolist() == best


# --- signed rules ---


def numbered(algorithm, wanted):
    """The number of the rule of which `in_words` says this."""
    state = algorithm.init(jax.random.key(0))
    words = [algorithm.in_words(state._replace(best=jnp.array([n]))) for n in range(algorithm.family_size)]
    assert len(set(words)) == len(words), "every rule is told apart"
    return jnp.array([words.index(wanted)]), state


CAR = {
    "push with 0.4 of the range along x1": lambda x: 0.4 * np.sign(x[1]),
    "push with 1 of the range against x1 - x0": lambda x: -np.sign(x[1] - x[0]),
    "push 4 of the range per unit against x1 + x0": lambda x: np.clip(-4.0 * (x[1] + x[0]), -1, 1),
}


@pytest.mark.parametrize("words", CAR)
def test_a_rule_does_what_it_says(words):
    algorithm = made("signed-rules", Box((-1.0,), (1.0,)), Box.unbounded(2))
    number, state = numbered(algorithm, words)
    rows = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    rows[0] = 0.0
    found = acts(algorithm, algorithm.actor(state._replace(best=number)), rows)[:, 0]
    np.testing.assert_allclose(found, [CAR[words](row) for row in rows], atol=1e-6)


def test_a_rule_for_choices_takes_the_ends_and_the_middle():
    algorithm = made("signed-rules", Discrete(3), Box.unbounded(2))
    number, state = numbered(algorithm, "take the first choice where x1 - x0 > 0, and the last where it is below")
    rows = np.array([[0, 1], [1, 0], [2, 2]])
    assert acts(algorithm, algorithm.actor(state._replace(best=number)), rows).tolist() == [0, 2, 1]


def test_a_rule_may_drive_one_component_alone():
    algorithm = made("signed-rules", BOX, Box.unbounded(2))
    number, state = numbered(algorithm, "push with 1 of the range in component 1 along x0")
    assert acts(algorithm, algorithm.actor(state._replace(best=number)), [[3, 0]]).tolist() == [[0.0, 1.0]]


def test_the_family_has_the_size_it_should_have():
    forms = len(GAINS) + len(SLOPES)
    assert made("signed-rules", Box((-1.0,), (1.0,)), Box.unbounded(2)).family_size == (2 + 2) * 2 * forms
    assert made("signed-rules", BOX, Box.unbounded(17)).family_size == 17 * 2 * forms * 3, "no pairs of many"
    assert made("signed-rules", Discrete(3), Box.unbounded(6)).family_size == (6 + 30) * 2, "a choice has no size"


def test_members_go_through_the_family_before_they_judge_again():
    algorithm = made("signed-rules", BOX, Box.unbounded(3), num_candidates=12, num_finalists=4)
    size = algorithm.family_size
    assert size == (3 + 6) * 2 * 8 * 3
    state, seen = algorithm.init(jax.random.key(5)), []
    for _ in range((size - 16) // 12 + 2):
        members = np.asarray(algorithm.actor(state).members)[:, 0].tolist()
        seen += members if not seen else members[4:]
        state, _ = jax.jit(algorithm.update)(state, returns(np.zeros(16), 3), jax.random.key(0))
    assert sorted(set(seen)) == list(range(size))
    members = np.asarray(algorithm.actor(state).members)[:, 0]
    assert len(np.unique(members)) == 4, "the family is through: all members judge the finalists"


# --- guessing ---


def test_a_lucky_guess_does_not_replace_a_policy_that_was_judged_often():
    algorithm = made("random-search", Discrete(2), trials=3)
    state, update = algorithm.init(jax.random.key(0)), jax.jit(algorithm.update)
    good = np.asarray(algorithm.actor(state).spread)[7]

    def play(state, lucky=None):
        """One iteration in which the good guess earns 10, a fresh one once 25 by luck, and all others nothing."""
        members = np.asarray(algorithm.actor(state).spread)
        fitness = 10.0 * (members == good).all(1)
        if lucky is not None:
            fitness[lucky] = 25.0
        return update(state, returns(fitness), jax.random.key(0))

    for _ in range(3):
        state, metrics = play(state)
    assert float(metrics["best_episodes"]) == 3 and float(metrics["candidates"]) == 20 + 2 * 16
    state, metrics = play(state, lucky=15)
    assert float(metrics["best_fitness"]) == 10.0
    assert float(state.standing.total[0]) == 25.0, "it goes on as the first of those that are judged again"
    for _ in range(3):  # the lucky one is judged again, and its mean falls below the good one's
        np.testing.assert_array_equal(state.params, good)
        state, _ = play(state)
    np.testing.assert_array_equal(state.standing.candidates[0], good)


def test_guesses_are_standard_normal_and_new_in_every_iteration():
    algorithm = made("random-search", BOX, num_candidates=400, weight_std=2.0)
    state = algorithm.init(jax.random.key(0))
    first = np.asarray(algorithm.actor(state).spread)
    assert first.shape == (404, 8)
    assert first.std() == pytest.approx(2.0, rel=0.03) and abs(first.mean()) < 0.1
    state, _ = jax.jit(algorithm.update)(state, returns(np.arange(404.0)), jax.random.key(0))
    second = np.asarray(algorithm.actor(state).spread)
    np.testing.assert_array_equal(second[:4], first[:-5:-1])
    assert not set(second[4:, 0].tolist()) & set(first[:, 0].tolist())


# --- cross-entropy ---


def numpy_cem(perturbations, quality, start_std, elites, extra, over):
    """The method as a loop, with the perturbations of each round given."""
    mean, std = np.zeros(perturbations.shape[-1]), np.full(perturbations.shape[-1], start_std)
    for round, eps in enumerate(perturbations):
        members = mean + std * eps
        best = members[np.argsort([-quality(member) for member in members])[:elites]]
        mean = best.sum(0) / elites
        std = np.sqrt(((best - mean) ** 2).sum(0) / elites + (extra * max(1 - round / over, 0)) ** 2)
    return mean, std


def cem_on(quality, rounds, **settings):
    algorithm = made("cem", BOX, **settings)
    state, drawn = algorithm.init(jax.random.key(0)), []
    update = jax.jit(algorithm.update)
    members = jax.jit(jax.vmap(algorithm.displace, in_axes=(None, 0)))
    numbers = jnp.arange(algorithm.num_members)
    for _ in range(rounds):
        actor = algorithm.actor(state)
        drawn.append(jax.vmap(lambda n, key=actor.noise_key: noise.perturbation(key, n, 8))(numbers))
        state, _ = update(state, returns([quality(one) for one in np.asarray(members(actor, numbers))]), None)
    return state, np.stack(drawn)


GOAL = np.linspace(-1.5, 2.0, 8)
CURVATURE = np.geomspace(1, 10, 8)


def quadratic(params):
    return -(CURVATURE * (params - GOAL) ** 2).sum()


def test_cem_is_the_loop_over_rounds():
    state, drawn = cem_on(quadratic, 7, initial_std=0.8, extra_std=0.3, extra_iterations=4)
    mean, std = numpy_cem(drawn.astype(np.float64), quadratic, 0.8, 4, 0.3, 4)
    np.testing.assert_allclose(state.params, mean, atol=1e-4)
    np.testing.assert_allclose(state.std, std, rtol=1e-3, atol=1e-5)


def test_cem_finds_the_top_of_a_quadratic():
    state, _ = cem_on(quadratic, 40, num_candidates=80, num_elites=16)
    assert quadratic(np.asarray(state.params)) > -0.02
    narrow, _ = cem_on(quadratic, 40, num_candidates=80, num_elites=16, initial_std=0.05, extra_std=0.0)
    assert quadratic(np.asarray(narrow.params)) < -1, "without extra variance it shrinks before it is there"


# --- PID ---


def pid_loop(gains, set_point, observed, limit=np.inf):
    """Drives of one loop, written as a loop over time."""
    p, i, d = gains
    total, before, found = 0.0, None, []
    for value in observed:
        error = set_point - value
        total = min(max(total + error, -limit), limit)
        found.append(p * error + i * total + d * (0.0 if before is None else error - before))
        before = error
    return np.array(found)


def test_pid_is_the_loop_over_time():
    algorithm = made("pid", Box((-float("inf"),) * 2, (float("inf"),) * 2), set_point=0.5)
    best = jnp.array([2, 0, 1.5, -0.7, 0.2, 0.0, 3.0, 0.4], jnp.float32)  # observations, then P, I and D of each
    state = algorithm.init(jax.random.key(0))._replace(best=best)
    rows = np.random.default_rng(0).normal(size=(40, D)).astype(np.float32)
    found = acts(algorithm, algorithm.actor(state), rows)
    np.testing.assert_allclose(found[:, 0], pid_loop((1.5, 0.2, 3.0), 0.5, rows[:, 2], 5.0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[:, 1], pid_loop((-0.7, 0.0, 0.4), 0.5, rows[:, 0]), rtol=1e-4, atol=1e-4)
    assert "action 0 holds x2 at 0.5 with P 1.5, I 0.2, D 3; action 1 holds x0" in algorithm.in_words(state)


def test_the_sum_of_errors_stops_where_it_alone_drives_to_the_bound():
    algorithm = made("pid", Box((-1.0,), (1.0,)))
    state = algorithm.init(jax.random.key(0))._replace(best=jnp.array([0, 0.001, 0.1, 0.0], jnp.float32))
    rows = np.zeros((65, D))
    rows[:50, 0], rows[50:, 0] = -1.0, 1.0
    found = acts(algorithm, algorithm.actor(state), rows)[:, 0]
    assert found[49] == pytest.approx(1.0, abs=2e-3)
    assert np.flatnonzero(found < 0)[0] == 59, "ten steps back for ten steps' worth of sum, and not fifty"


def test_candidates_of_pid_pair_every_observation_and_refine_the_best():
    algorithm = made("pid", BOX, num_candidates=400)
    state = algorithm.init(jax.random.key(0))
    first = np.asarray(algorithm.actor(state).members).reshape(-1, 4, 2)
    assert np.bincount(first[:, 0].ravel().astype(int), minlength=D).min() > 150
    assert 0.6 < (first[:, 2] != 0).mean() < 0.73 and (first[:, 1] != 0).all()
    assert 0.4 < (first[:, 1] > 0).mean() < 0.6
    state, _ = jax.jit(algorithm.update)(state, returns(-np.arange(410.0)), jax.random.key(0))
    later = np.asarray(algorithm.actor(state).members).reshape(-1, 4, 2)[10:]
    near = (later[:, 0] == first[0, 0]).all(1) & (np.abs(later[:, 1] / first[0, 1] - 1.5) < 1.5).all(1)
    assert 150 < near.sum() < 260, "half of the fresh ones keep the best one's pairing"


# --- settings ---


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("constant", {"num_candidates": 0}, "ConstantAction.num_candidates must be a finite number above 0: got 0"),
        ("signed-rules", {"num_finalists": 0}, "SignedRules.num_finalists must be a finite number above 0"),
        ("signed-rules", {"most_paired": -1}, "SignedRules.most_paired must be a finite number of at least 0: got -1"),
        ("zero", {"episodes_per_member": 0}, "ZeroAction.episodes_per_member must be a finite number above 0"),
        ("random-search", {"weight_std": 0.0}, "RandomSearch.weight_std must be a finite number above 0: got 0"),
        ("random-search", {"trials": 0}, "RandomSearch.trials must be a finite number above 0"),
        ("cem", {"num_elites": 30}, "CEM.num_elites must not exceed num_candidates: got 30 of 20"),
        ("cem", {"extra_std": -1.0}, "CEM.extra_std must be a finite number of at least 0"),
        ("pid", {"set_point": float("nan")}, "PIDControl.set_point must be a finite number: got nan"),
    ],
)
def test_settings_out_of_range(name, settings, message):
    with pytest.raises(UsageError, match=message):
        made(name, BOX, **settings)


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_can_be_told_in_words(name):
    for space in SPACES.values():
        algorithm = made(name, space)
        assert len(algorithm.in_words(algorithm.init(jax.random.key(0)))) > 8


@pytest.mark.parametrize("name", ["constant", "signed-rules", "random-search", "cem", "pid"])
def test_a_policy_is_flat_over_images(name):
    image = Box((0.0,) * 8, (1.0,) * 8, (2, 2, 2))
    algorithm = made(name, BOX, image)
    state = algorithm.init(jax.random.key(1))
    actor = algorithm.actor(state)
    rows = np.random.default_rng(0).uniform(size=(5, 2, 2, 2)).astype(np.float32)
    layers = algorithm.policy_layers(actor)
    policy = Policy(layers, observation=image, action=BOX, task="test")
    np.testing.assert_allclose(policy.predict(rows[0])[0], acts(algorithm, actor, rows[:1])[0], atol=1e-5)


def test_float_settings_can_be_swept():
    algorithm = made("cem", BOX)
    state, earned = algorithm.init(jax.random.key(0)), returns(np.arange(20.0))

    def spread(extra):
        return dataclasses.replace(algorithm, extra_std=extra).update(state, earned, None)[1]["mean_std"]

    small, large = jax.jit(jax.vmap(spread))(jnp.array([0.0, 2.0]))
    assert large > small
