"""Planners against closed forms, plain loops and exhaustive search."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workhorse.algorithms import registry
from workhorse.algorithms.planning.choices import held_choices
from workhorse.algorithms.planning.icem import coloured_basis
from workhorse.algorithms.planning.mppi import path_weights
from workhorse.algorithms.planning.planner import knot_basis
from workhorse.algorithms.planning.uct import rerooted
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec, MultiDiscrete
from workhorse.core.types import Demonstrations, Tried
from workhorse.environments.probes.linear import LinearQuadraticProbe

BOX = EnvSpec("test", Box.unbounded(3), Box((-1.0, -2.0), (1.0, 2.0)), 20)
CHOICES = EnvSpec("test", Box.unbounded(3), Discrete(2), 20)
OF_BOXES, OF_CHOICES = ("predictive-sampling", "mppi", "icem"), ("categorical-cem", "uct", "iw")


def made(name, spec, **given):
    return registry.make(name, spec, {"copy_updates": 5, **given})


@partial(jax.jit, static_argnums=5)
def proposed(algorithm, actor, carry, key, number, count):
    return algorithm.propose(actor, carry, key, round=number, count=count)


@jax.jit
def refined(algorithm, actor, carry, plans, tried, number):
    return algorithm.refine(actor, carry, plans, tried, round=number)


def searched(algorithm, outcome, key=0, carry=None):
    """The rounds of one action; `outcome` gives the rewards, ends and observations of plans."""
    actor = algorithm.actor(algorithm.init(jax.random.key(0)))
    carry = algorithm.begin(actor, jnp.asarray(0)) if carry is None else carry
    seen = []
    for number, count in enumerate(algorithm.round_sizes):
        round_key = jax.random.fold_in(jax.random.key(key), number)
        plans = np.asarray(proposed(algorithm, actor, carry, round_key, np.int32(number), count))
        assert plans.shape[:2] == (count, algorithm.horizon)
        tried = outcome(plans)
        seen.append((plans, tried))
        carry = refined(algorithm, actor, carry, plans, tried, np.int32(number))
    return carry, seen


def earning(reward, ended=None, obs=None):
    reward = np.asarray(reward, np.float64)
    ended = np.zeros(reward.shape, bool) if ended is None else ended
    return Tried(reward, ended, None, np.zeros((*reward.shape, 3), np.float32) if obs is None else obs)


def near(target):
    return lambda plans: earning(-np.square(plans - target).sum(-1))


@pytest.mark.parametrize("name", OF_BOXES)
def test_the_plan_carried_out_is_one_that_was_tried_and_none_was_better(name):
    algorithm = made(name, BOX, horizon=8)
    carry, seen = searched(algorithm, near(np.array([0.5, -0.7])))
    plan, reward = algorithm.plan(carry)
    every = np.concatenate([plans for plans, _ in seen])
    returns = np.concatenate([tried.reward.sum(-1) for _, tried in seen])
    same = (every == np.asarray(plan)).all(axis=(1, 2))
    assert same.any() and returns[same][0] == np.asarray(reward).sum()
    if name != "mppi":  # a mean is no best one
        assert returns[same][0] == returns.max()
    actor = algorithm.actor(algorithm.init(jax.random.key(0)))
    action, after, _ = algorithm.act(actor, carry, jnp.zeros(3), jax.random.key(1), explore=True)
    np.testing.assert_array_equal(action, plan[0])
    np.testing.assert_array_equal(algorithm.plan(after)[0][:-1], plan[1:])


@pytest.mark.parametrize("name", OF_BOXES)
def test_plans_stay_within_the_bounds_and_reach_them(name):
    algorithm = made(name, BOX, horizon=8, rescale_actions=False)
    _, seen = searched(algorithm, lambda plans: earning(plans.sum(-1)))
    every = np.concatenate([plans for plans, _ in seen]).reshape(-1, 2)
    np.testing.assert_array_equal(every.max(0), [1.0, 2.0])
    assert (every.min(0) >= [-1.0, -2.0]).all()


def riccati_return(probe, start, horizon):
    """The best return of `horizon` steps of the plant, backwards in closed form."""
    a, b, q, r = (np.array(part) for part in (probe.a, probe.b, probe.q, probe.r))
    cost = np.zeros_like(q)
    for _ in range(horizon):
        gain = np.linalg.solve(r + b.T @ cost @ b, b.T @ cost @ a)
        cost = q + a.T @ cost @ (a - b @ gain)
    return -start @ cost @ start


@pytest.mark.parametrize(("name", "least"), [("icem", 0.97), ("mppi", 0.93), ("predictive-sampling", 0.85)])
def test_a_linear_plant_is_planned_to_nearly_the_best_return(name, least):
    """The share of the gap between standing still and the closed form's optimum."""
    probe, horizon, start = LinearQuadraticProbe(), 12, np.array([0.8, -0.5])
    a, b, q, r = (np.array(part) for part in (probe.a, probe.b, probe.q, probe.r))

    def outcome(plans):
        x, reward = np.tile(start, (len(plans), 1)), []
        for time in range(horizon):
            u = plans[:, time].astype(np.float64)
            reward.append(-(np.einsum("ni,ij,nj->n", x, q, x) + np.einsum("ni,ij,nj->n", u, r, u)))
            x = x @ a.T + u @ b.T
        return earning(np.stack(reward, 1), obs=np.zeros((*plans.shape[:2], 2), np.float32))

    extra = {"num_plans": 200, "num_rounds": 12} | (
        {"last_plans": 200, "noise_exponent": 1.0} if name == "icem" else {}
    )
    algorithm = made(name, probe.spec, horizon=horizon, **extra)
    carry, _ = searched(algorithm, outcome)
    found = float(np.asarray(algorithm.plan(carry)[1]).sum())
    still = outcome(np.zeros((1, horizon, 1))).reward.sum()
    best = riccati_return(probe, start, horizon)
    assert still < best and found <= best + 1e-9
    assert (found - still) / (best - still) > least


@pytest.mark.parametrize("name", OF_BOXES)
@pytest.mark.parametrize("minds_ends", [False, True])
def test_rewards_after_an_end_count_only_where_ends_are_not_minded(name, minds_ends):
    algorithm = made(name, BOX, horizon=6, minds_ends=minds_ends, num_plans=40)

    def outcome(plans):  # a first action above 0 ends the task, and would earn much later
        bold = plans[:, 0, 0] > 0
        reward = np.where(bold[:, None], [[1.0, 9, 9, 9, 9, 9]], 0.5)
        ended = np.zeros(reward.shape, bool)
        ended[:, 0] = bold
        return earning(reward, ended)

    _, seen = searched(algorithm, outcome)
    _, reward = algorithm.plan(searched(algorithm, outcome)[0])
    assert float(np.asarray(reward).sum()) == pytest.approx(3.0 if minds_ends else 46.0)
    assert any((plans[:, 0, 0] > 0).any() for plans, _ in seen), "it was there to be taken"


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8, unique=True), st.floats(0.05, 5))
@settings(max_examples=50, deadline=None)
def test_weights_of_paths_are_a_softmax_that_no_scale_changes(returns, temperature):
    returns = np.array(returns)
    if returns.std() < 1e-3:
        return
    scaled = (returns - returns.max()) / (temperature * returns.std())
    by_hand = np.exp(scaled) / np.exp(scaled).sum()
    np.testing.assert_allclose(path_weights(jnp.asarray(returns), temperature), by_hand, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(path_weights(jnp.asarray(7 * returns + 3), temperature), by_hand, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(path_weights(jnp.full(4, 2.0), temperature), 0.25)


def test_mppi_moves_to_the_weighted_mean_and_tries_it():
    algorithm = made("mppi", BOX, horizon=5, num_plans=6, temperature=0.7)
    carry, seen = searched(algorithm, near(np.array([0.3, 0.2])))
    (plans, tried), (last, told) = seen
    returns = tried.reward.sum(-1)
    weights = np.exp((returns - returns.max()) / (0.7 * returns.std()))
    mean = np.einsum("n,nha->ha", weights / weights.sum(), plans)
    np.testing.assert_allclose(last[0], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(algorithm.plan(carry)[1], told.reward[0])
    assert algorithm.steps_per_action == 5 * (6 + 1)


@given(st.integers(2, 60), st.floats(0, 4))
@settings(max_examples=30, deadline=None)
def test_coloured_noise_has_unit_variance_and_the_spectrum_it_says(horizon, exponent):
    basis = np.asarray(coloured_basis(horizon, exponent), np.float64)
    covariance = basis @ basis.T
    np.testing.assert_allclose(np.diag(covariance), 1.0, rtol=1e-5)
    # of a stationary process: the same at every distance, and its Fourier transform is the spectrum
    row = covariance[0]
    for step in range(1, horizon):
        np.testing.assert_allclose(np.roll(row, step), covariance[step], atol=1e-5)
    power = np.fft.rfft(row).real
    frequency = np.arange(len(power))
    wanted = np.maximum(frequency, 1.0) ** -exponent
    np.testing.assert_allclose(power / power.sum(), wanted / wanted.sum(), atol=2e-5)


@pytest.mark.parametrize("interpolation", ["constant", "linear", "cubic"])
def test_noise_between_knots(interpolation):
    basis = knot_basis(31, 6, interpolation)
    np.testing.assert_allclose(basis.sum(1), 1.0, atol=1e-12)  # a constant stays one
    if interpolation == "constant":
        assert sorted(np.unique(basis)) == [0, 1] and basis.sum(0).min() >= 5
    else:
        np.testing.assert_allclose(basis[::6], np.eye(6), atol=1e-12)
        line = basis @ np.arange(6.0)
        np.testing.assert_allclose(line, np.arange(31) / 6, atol=1e-12)
    np.testing.assert_array_equal(knot_basis(4, 9, interpolation), np.eye(4))


def icem_by_hand(algorithm, seen):
    """Mean, standard deviation and elites of a loop in NumPy over what was proposed."""
    mean, std, kept = np.zeros((algorithm.horizon, 2)), np.full((algorithm.horizon, 2), 0.5), []
    for plans, tried in seen:
        pool = sorted([*kept, *zip(tried.reward.sum(-1), plans, strict=True)], key=lambda row: -row[0])
        elites = np.stack([plan for _, plan in pool[: algorithm.num_elites]])
        kept = pool[: algorithm.num_kept]
        mean = 0.9 * elites.mean(0) + 0.1 * mean
        std = 0.9 * elites.std(0) + 0.1 * std
    return mean, std, elites


def test_icem_is_a_plain_loop():
    algorithm = made("icem", BOX, horizon=6, num_plans=30, last_plans=12, num_elites=5, num_kept=2)
    assert algorithm.round_sizes == (32, 19, 12)
    carry, seen = searched(algorithm, near(np.array([0.9, -0.4])))
    mean, std, elites = icem_by_hand(algorithm, seen)
    np.testing.assert_allclose(carry.plans, elites, rtol=1e-6)
    np.testing.assert_allclose(carry.mean, mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(carry.std, std, rtol=1e-3, atol=1e-5)
    actor = algorithm.actor(algorithm.init(jax.random.key(0)))
    _, after, _ = algorithm.act(actor, carry, jnp.zeros(3), jax.random.key(5), explore=True)
    _, again = searched(algorithm, near(np.array([0.9, -0.4])), key=1, carry=after)
    np.testing.assert_array_equal(again[0][0][:2, :-1], carry.plans[:2, 1:])  # kept elites, a step later, tried anew
    assert not (again[0][0][2:, :-1] == np.asarray(carry.plans[2, 1:])).all(axis=(1, 2)).any()
    np.testing.assert_allclose(after.std, 0.5)
    np.testing.assert_allclose(again[-1][0][-1], searched_mean(algorithm, again), rtol=1e-4, atol=1e-6)


def searched_mean(algorithm, seen):
    """The mean before the last round, which is one of its plans."""
    before, _ = seen[-1]
    return before[-1]


def test_held_choices_repeat_what_came_out():
    rng = np.random.default_rng(0)
    drawn, holds = rng.integers(0, 4, (5, 30)), rng.random((5, 30)) < 0.6
    expected = drawn.copy()
    for row in range(5):
        for step in range(1, 30):
            if holds[row, step]:
                expected[row, step] = expected[row, step - 1]
    np.testing.assert_array_equal(held_choices(jnp.asarray(drawn), jnp.asarray(holds)), expected)


def tree_reward(horizon, choices, seed):
    """Rewards of every beginning of a plan, at random: a tree without any structure."""
    rng = np.random.default_rng(seed)
    table = [rng.random(choices ** (depth + 1)) for depth in range(horizon)]

    def outcome(plans):
        reward = np.zeros(plans.shape)
        for depth in range(horizon):
            place = np.ravel_multi_index(tuple(plans[:, : depth + 1].T), (choices,) * (depth + 1))
            reward[:, depth] = table[depth][place]
        return earning(reward)

    every = np.array(list(itertools.product(range(choices), repeat=horizon)))
    return outcome, every[np.argmax(outcome(every).reward.sum(-1))], outcome(every).reward.sum(-1).max()


@pytest.mark.parametrize("name", OF_CHOICES)
@pytest.mark.parametrize("seed", [0, 1])
def test_small_trees_are_searched_as_well_as_by_exhaustive_search(name, seed):
    outcome, best, most = tree_reward(5, 2, seed)
    algorithm = made(name, CHOICES, horizon=5, num_plans=16, num_rounds=24, stickiness=0.0)
    carry, _ = searched(algorithm, outcome)
    plan, reward = algorithm.plan(carry)
    np.testing.assert_array_equal(plan, best)
    assert float(np.asarray(reward).sum()) == pytest.approx(most)


def test_uct_counts_and_means_are_those_of_the_plans_through_each_node():
    outcome, _, _ = tree_reward(5, 2, 3)
    algorithm = made("uct", CHOICES, horizon=5, num_plans=8, num_rounds=6, exploration=0.4)
    tree, seen = searched(algorithm, outcome)
    every = np.concatenate([plans for plans, _ in seen])
    onward = np.concatenate([np.cumsum(tried.reward[:, ::-1], 1)[:, ::-1] for _, tried in seen])
    order, size = list(range(len(every))), int(tree.size)
    begun = {0: ()}
    for node in range(size):  # parents come before their children
        for choice in range(2):
            if (child := int(tree.children[node, choice])) >= 0:
                begun[child] = (*begun[node], choice)
                assert int(tree.parent[child]) == node
    assert len(begun) == size > 20
    for node, begin in begun.items():
        if not begin:
            continue
        through = [row for row in order if tuple(every[row, : len(begin)]) == begin]
        # a plan is counted from the moment the node is there: all but those before it
        count = int(tree.visits[node])
        assert 1 <= count <= len(through)
        latest = through[len(through) - count :]
        np.testing.assert_allclose(tree.total[node], onward[latest, len(begin) - 1].sum(), rtol=1e-9)
    assert int(tree.visits[jnp.asarray(tree.children[0])].sum()) == len(every), "all plans go through the root"
    assert (float(tree.lowest), float(tree.highest)) == pytest.approx((onward[:, 0].min(), onward[:, 0].max()))


def test_uct_follows_the_highest_confidence_bound():
    """With all children visited, the next plan begins with the choice of a bound worked out by hand."""
    algorithm = made("uct", CHOICES, horizon=1, num_plans=1, num_rounds=30, exploration=0.7)
    _, seen = searched(algorithm, lambda plans: earning(np.where(plans == 1, 1.0, 0.6)))
    taken = [int(plans[0, 0]) for plans, _ in seen]
    counts = np.zeros(2)
    for number, choice in enumerate(taken):
        if number > 1 and counts.min() > 0:
            score = np.array([0.6, 1.0]) / 0.4 + 0.7 * np.sqrt(np.log(counts.sum()) / counts)
            assert choice == int(np.argmax(score)), number
        counts[choice] += 1
    assert counts.min() >= 2, "the worse choice is looked at again"


def test_a_rerooted_tree_is_the_subtree():
    outcome, _, _ = tree_reward(5, 2, 4)
    algorithm = made("uct", CHOICES, horizon=5, num_plans=8, num_rounds=6)
    tree, _ = searched(algorithm, outcome)

    def listed(tree, node):
        children = [int(child) for child in tree.children[node]]
        return (
            int(tree.visits[node]),
            float(tree.total[node]),
            *(listed(tree, child) if child >= 0 else None for child in children),
        )

    for choice in range(2):
        child = int(tree.children[0, choice])
        assert listed(rerooted(tree, jnp.int32(choice)), 0) == listed(tree, child)
    lone = algorithm.begin(None, jnp.asarray(0))
    empty = rerooted(lone, jnp.int32(1))
    assert int(empty.size) == 1 and (np.asarray(empty.children) == -1).all() and not np.asarray(empty.visits).any()


def test_width_based_search_finds_a_far_goal_that_drawn_plans_miss():
    """A corridor of 24 states: every other choice falls back to the start, and only the end earns anything."""

    def outcome(plans):
        place = np.zeros(len(plans), int)
        reward, obs = np.zeros(plans.shape), np.zeros((*plans.shape, 3), np.float32)
        for time in range(plans.shape[1]):
            place = np.where(plans[:, time] == place % 2, place + 1, 0)
            reward[:, time], obs[:, time, 0] = place == 24, place
        return earning(reward, obs=obs)

    found = {}
    for name in ("iw", "categorical-cem"):
        algorithm = made(name, CHOICES, horizon=24, num_plans=32, num_rounds=40, stickiness=0.0)
        carry, _ = searched(algorithm, outcome)
        found[name] = float(np.asarray(algorithm.plan(carry)[1]).sum())
    assert found == {"iw": 1.0, "categorical-cem": 0.0}


def test_a_plan_reaches_as_far_as_it_was_new_without_a_gap():
    algorithm = made("iw", CHOICES, horizon=4)
    unseen = jnp.full((1, 12), 2**30, jnp.int32)
    bins = jnp.array([[[1], [2], [3], [4]], [[1], [2], [5], [6]], [[2], [3], [7], [8]], [[1], [1], [9], [9]]])
    ended = jnp.zeros((4, 4), bool)
    depth, reach = algorithm._explored(unseen, bins, ended)
    # the second follows the first for two steps and goes on anew; the third comes to 2 and 3 earlier than they did;
    # the fourth falls back to 1 later than the first was there, so that what follows is cut off
    assert reach.tolist() == [4, 4, 4, 0]
    assert depth[0].tolist()[1:10] == [0, 0, 1, 3, 2, 3, 2, 3, 2**30]
    _, cut = algorithm._explored(unseen, bins[:1], jnp.array([[False, True, False, False]]))
    assert cut.tolist() == [2], "beyond an end there is nothing to reach"


@pytest.mark.parametrize("name", OF_CHOICES)
def test_without_any_difference_the_plan_goes_on(name):
    algorithm = made(name, CHOICES, horizon=12)
    first = algorithm.begin(None, jnp.asarray(0))
    carry, _ = searched(algorithm, lambda plans: earning(np.full(plans.shape, -1.0)), carry=first)
    if name != "iw":  # which goes where it is new
        np.testing.assert_array_equal(algorithm.plan(carry)[0], algorithm.plan(first)[0])
    if name == "categorical-cem":
        np.testing.assert_array_equal(carry.probability, first.probability)


def test_the_copys_memory_is_a_ring_of_the_newest_pairs():
    algorithm = made("icem", BOX, memory_size=7, rescale_actions=False)
    state, rng, kept = algorithm.init(jax.random.key(0)), np.random.default_rng(0), []
    seen = []
    for count in (3, 5, 20, 1):
        obs, action = rng.normal(size=(count, 3)).astype(np.float32), rng.normal(size=(count, 2)).astype(np.float32)
        there = rng.random(count) < 0.7
        state = jax.jit(algorithm.remembered)(state, Demonstrations(obs, action, there))
        kept = [*kept, *zip(obs[there], action[there], strict=True)]
        seen.append(obs[there])
        held = np.asarray(state.memory.is_there)
        assert held.sum() == min(len(kept), 7) and int(state.seen) == len(kept)
        newest = {tuple(row) + tuple(act) for row, act in kept[-7:]}
        rows = np.concatenate([state.memory.obs, state.memory.action], axis=1)[held]
        assert {tuple(row) for row in rows} == newest
    flat = np.concatenate(seen).astype(np.float64)
    np.testing.assert_allclose(state.observations.mean, flat.mean(0), rtol=1e-9)
    np.testing.assert_allclose(state.observations.deviation, np.square(flat - flat.mean(0)).sum(0), rtol=1e-9)


def test_the_copy_learns_what_it_is_shown():
    rng = np.random.default_rng(0)
    obs = rng.normal(5.0, 3.0, size=(400, 3)).astype(np.float32)
    algorithm = made("icem", BOX, copy_updates=600, learning_rate=3e-3)
    action = np.tanh((obs - 5) @ rng.normal(size=(3, 2)) / 3).astype(np.float32)
    state = algorithm.init(jax.random.key(0))
    state, metrics = jax.jit(algorithm.update)(
        state, Demonstrations(obs, action, np.ones(400, bool)), jax.random.key(1)
    )
    assert float(metrics["copy_loss"]) < 0.01 * action.var()
    choosing = made("uct", CHOICES, copy_updates=600, learning_rate=3e-3)
    choice = (obs[:, 0] > 5).astype(np.int32)
    state, _ = jax.jit(choosing.update)(
        choosing.init(jax.random.key(0)), Demonstrations(obs, choice, np.ones(400, bool)), jax.random.key(1)
    )
    actor = choosing.actor(state)
    told = [int(choosing.act(actor, (), row, jax.random.key(0), explore=False)[0]) for row in obs[:50]]
    assert np.mean(told == choice[:50]) > 0.95


SEVERAL = EnvSpec("test", Box.unbounded(3), MultiDiscrete((2, 3)), 20)


@pytest.mark.parametrize(
    ("name", "spec", "given", "words"),
    [
        ("icem", CHOICES, {}, "those of test are choices: choose categorical-cem, uct or iw"),
        ("mppi", SEVERAL, {}, "there is no planner: choose random-search, cem or ppo"),
        ("uct", BOX, {}, "UCT plans one choice of several, but test has continuous actions: choose icem, mppi or"),
        ("iw", SEVERAL, {}, "IW plans one choice of several, but test has several choices at once: choose"),
        ("icem", BOX, {"num_elites": 50}, "ICEM.num_plans must be at least num_elites, which are chosen among"),
        ("icem", BOX, {"last_plans": 3}, "ICEM.last_plans must be between num_elites - num_kept, 7, and num_plans, 40"),
        ("icem", BOX, {"num_kept": 11}, "ICEM.num_kept must not exceed num_elites: got 11 and 10"),
        ("icem", BOX, {"momentum": 1.0}, r"ICEM.momentum must be in \[0, 1\): got 1.0"),
        ("mppi", BOX, {"num_plans": 2}, "MPPI.num_plans must be at least 3, for one plan is the former one"),
        ("mppi", BOX, {"temperature": 0.0}, "MPPI.temperature must be a finite number above 0"),
        ("mppi", BOX, {"horizon": 0}, "MPPI.horizon must be a finite number above 0: got 0"),
        ("categorical-cem", CHOICES, {"num_plans": 8}, "CategoricalCEM.num_plans must exceed num_elites"),
        ("categorical-cem", CHOICES, {"forgetting": 1.5}, r"CategoricalCEM.forgetting must be in \[0, 1\]"),
        ("uct", CHOICES, {"stickiness": -0.1}, r"UCT.stickiness must be in \[0, 1\]: got -0.1"),
        ("uct", CHOICES, {"exploration": -1.0}, "UCT.exploration must be a finite number of at least 0"),
        ("iw", CHOICES, {"num_bins": 0}, "IW.num_bins must be a finite number above 0"),
    ],
)  # fmt: skip
def test_settings_and_spaces_that_cannot_be_used(name, spec, given, words):
    with pytest.raises(UsageError, match=words):
        made(name, spec, **given)


def test_plans_of_a_round_part():
    """Beginnings of one round are spread over the choices, for those under way are counted."""
    algorithm = made("uct", CHOICES, horizon=4, num_plans=12, num_rounds=1)
    fresh = algorithm.begin(None, jnp.asarray(0))
    plans = proposed(algorithm, None, fresh, jax.random.key(0), np.int32(1), 12)
    assert np.bincount(plans[:, 0], minlength=2).tolist() == [6, 6]
