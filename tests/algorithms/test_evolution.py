"""Evolution strategies and their relatives against closed forms and independent NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Returns
from workhorse.math import moments, noise
from workhorse.networks.heads import task_action
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.rollouts import actor_of

SPEC = EnvSpec("test", Box.unbounded(3), Box((-9.0, -9.0), (9.0, 9.0)), 100)
TARGET = np.array([0.3, -1.0, 2.0, 0.5, 0.0, -0.7])
CURVATURE = np.array([1.0, 2.0, 0.5, 3.0, 1.5, 1.0])


def smooth(params):
    """A quadratic bowl, its top at TARGET; takes one parameter vector or rows of them."""
    return -(CURVATURE * (params - TARGET) ** 2).sum(-1)


def slope(params):
    return -2 * CURVATURE * (params - TARGET)


@jax.jit  # the algorithm is an argument, so that equal ones share a compilation
def displaced(algorithm, state):
    actor = algorithm.actor(state)
    return jax.vmap(lambda member: algorithm.displace(actor, member))(jnp.arange(algorithm.num_members))


def members_of(algorithm, state):
    return np.asarray(displaced(algorithm, state))


@functools.partial(jax.jit, static_argnums=(1, 2))
def perturbations(key, count, size):
    return jax.vmap(lambda index: noise.perturbation(key, index, size))(jnp.arange(count))


def returns(fitness, mean_length=1.0):
    return Returns(jnp.asarray(fitness, jnp.float32), mean_length, moments.empty(3, jnp.float64))


class TestOpenAIES:
    def test_the_estimate_is_unbiased_on_a_quadratic(self):
        algorithm = registry.make("openai-es", SPEC, {"fitness_shaping": "none", "num_pairs": 64, "noise_std": 0.2})
        state = algorithm.init(jax.random.key(0))._replace(
            params=jnp.asarray([0.1, 0.2, -0.3, 0.0, 1.0, 0.5], jnp.float32)
        )

        @jax.jit
        def estimate(iteration):
            at = state._replace(iteration=iteration)
            weights = algorithm.weights(at, returns(smooth(displaced(algorithm, at))))
            return noise.weighted_sums(algorithm.actor(at).noise_key, weights, 6)[0]

        estimates = np.stack([estimate(jnp.asarray(iteration, jnp.int32)) for iteration in range(60)])
        # the smoothed quadratic has the quadratic's own gradient
        error = estimates.mean(0) - slope(np.asarray(state.params))
        standard_error = estimates.std(0, ddof=1) / np.sqrt(len(estimates))
        assert (np.abs(error) < 4 * standard_error).all()
        assert (standard_error < 0.1 * np.abs(slope(np.asarray(state.params))).max()).all()

    def test_three_updates_equal_an_independent_implementation(self):
        settings = {"num_pairs": 7, "noise_std": 0.1, "learning_rate": 0.05, "weight_decay": 0.3, "alive_bonus": 2.0}
        algorithm = registry.make("openai-es", SPEC, settings)
        state = algorithm.init(jax.random.key(1))._replace(params=jnp.linspace(-1, 1, 6, dtype=jnp.float32))
        theta, mean, second = np.linspace(-1, 1, 6), np.zeros(6), np.zeros(6)
        rng, update = np.random.default_rng(0), jax.jit(algorithm.update)
        for step in range(1, 4):
            fitness, length = rng.normal(size=14) * 50, rng.integers(1, 40, 14)
            key = jax.random.fold_in(state.noise_key, state.iteration)
            eps = np.asarray(perturbations(key, 7, 6), np.float64)
            state, _ = update(state, returns(algorithm.fitness(fitness, length)), jax.random.key(0))

            shaped = fitness - 2.0 * length
            ranks = np.empty(14)
            ranks[np.argsort(shaped)] = np.arange(14) / 13 - 0.5
            gradient = np.zeros(6)
            for pair in range(7):
                gradient += (ranks[2 * pair] - ranks[2 * pair + 1]) * eps[pair]
            gradient /= 2 * 7 * 0.1
            mean = 0.9 * mean + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            adam = mean / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            theta = (1 - 0.05 * 0.3) * theta + 0.05 * adam
            np.testing.assert_allclose(state.params, theta, atol=2e-6)

    def test_a_constant_factor_on_the_reward_changes_no_bit(self):
        algorithm = registry.make("openai-es", SPEC, {})
        start = algorithm.init(jax.random.key(0))
        fitness = np.random.default_rng(3).normal(size=64) * 1000
        update = jax.jit(algorithm.update)
        one, other = (update(start, returns(fitness * factor), jax.random.key(0))[0] for factor in (1.0, 3.7))
        assert (one.params == other.params).all()
        jax.tree.map(np.testing.assert_array_equal, one.optimiser, other.optimiser)

    def test_members_come_in_mirrored_pairs(self):
        algorithm = registry.make("openai-es", SPEC, {"num_pairs": 3, "noise_std": 0.5})
        state = algorithm.init(jax.random.key(0))
        members = members_of(algorithm, state)
        np.testing.assert_allclose(members[0::2] + members[1::2], 2 * np.asarray(state.params)[None].repeat(3, 0))
        assert np.std(members[0::2]) > 0.2

    def test_noise_differs_between_iterations(self):
        algorithm = registry.make("openai-es", SPEC, {})
        state = algorithm.init(jax.random.key(0))
        later = state._replace(iteration=state.iteration + 1)
        assert (members_of(algorithm, state) != members_of(algorithm, later)).all()

    def test_the_episode_cap_follows_the_mean_length(self):
        algorithm = registry.make("openai-es", SPEC, {"adaptive_episode_cap": 2.0})
        state = algorithm.init(jax.random.key(0))
        assert algorithm.episode_steps(state) is None
        state, _ = jax.jit(algorithm.update)(state, returns(np.arange(64.0), 21.2), jax.random.key(0))
        assert algorithm.episode_steps(state) == 43

    def test_of_two_caps_the_least_counts(self):
        settings = {"adaptive_episode_cap": 2.0, "episode_cap": 30}
        algorithm = registry.make("openai-es", SPEC, settings)
        state = algorithm.init(jax.random.key(0))
        assert algorithm.episode_steps(state) == 30
        for length, cap in ((21.2, 30), (9.0, 18)):
            state, _ = jax.jit(algorithm.update)(state, returns(np.arange(64.0), length), jax.random.key(0))
            assert algorithm.episode_steps(state) == cap

    def test_climbs_the_quadratic(self):
        algorithm = registry.make("openai-es", SPEC, {"learning_rate": 0.05})
        state = algorithm.init(jax.random.key(0))
        update = jax.jit(algorithm.update)
        for _ in range(200):
            state, _ = update(state, returns(smooth(members_of(algorithm, state))), jax.random.key(0))
        np.testing.assert_allclose(state.params, TARGET, atol=0.05)


class TestARS:
    def test_an_update_equals_an_independent_implementation(self):
        algorithm = registry.make(
            "ars", SPEC, {"num_directions": 6, "num_top_directions": 2, "noise_std": 0.1, "learning_rate": 0.3}
        )
        state = algorithm.init(jax.random.key(1))
        fitness = np.random.default_rng(0).normal(size=12) * 30
        key = jax.random.fold_in(state.noise_key, state.iteration)
        eps = np.asarray(perturbations(key, 6, 6))
        after, _ = jax.jit(algorithm.update)(state, returns(fitness), jax.random.key(0))
        plus, minus = fitness[0::2], fitness[1::2]
        best = sorted(range(6), key=lambda k: -max(plus[k], minus[k]))[:2]
        sigma = np.std([plus[k] for k in best] + [minus[k] for k in best])
        expected = 0.3 / (2 * sigma) * sum((plus[k] - minus[k]) * eps[k] for k in best)
        np.testing.assert_allclose(after.params, expected, atol=1e-6)

    @pytest.mark.parametrize("variant", ["v1", "v2"])
    def test_variants_without_t_use_every_direction(self, variant):
        algorithm = registry.make("ars", SPEC, {"variant": variant, "num_directions": 5, "num_top_directions": 1})
        assert (algorithm.weights(None, returns(jnp.arange(10.0) ** 2)) != 0).sum() == 5

    def test_v1_reads_raw_observations_and_v2_scaled_ones(self):
        seen = moments.merge_all(
            jax.vmap(lambda row: moments.observe(moments.empty(3, jnp.float64), row))(
                np.random.default_rng(0).normal(5, 2, (50, 3))
            ),
            moments.empty(3, jnp.float64),
        )
        scalings = {}
        for variant in ("v1", "v2-t"):
            algorithm = registry.make("ars", SPEC, {"variant": variant})
            actor = algorithm.actor(algorithm.init(jax.random.key(0))._replace(observations=seen))
            scalings[variant] = np.concatenate([actor.mean, actor.inverse_scale])
        assert scalings["v1"].tolist() == [0, 0, 0, 1, 1, 1]
        np.testing.assert_allclose(scalings["v2-t"][:3], seen.mean, rtol=1e-6)
        assert (scalings["v2-t"][3:] < 1).all()

    def test_equal_returns_move_nothing(self):
        algorithm = registry.make("ars", SPEC, {})
        state = algorithm.init(jax.random.key(0))
        after, _ = jax.jit(algorithm.update)(state, returns(np.full(64, 7.0)), jax.random.key(0))
        assert (after.params == state.params).all()


class TestFiniteDifferences:
    def test_central_differences_equal_the_analytic_gradient(self):
        algorithm = registry.make("finite-differences", SPEC, {"difference": 0.01})
        state = algorithm.init(jax.random.key(0))._replace(params=jnp.linspace(-1, 1, 6, dtype=jnp.float32))
        fitness = smooth(members_of(algorithm, state).astype(np.float64))
        np.testing.assert_allclose(
            jax.jit(algorithm.gradient)(state, jnp.asarray(fitness)), slope(np.asarray(state.params)), rtol=2e-4
        )

    def test_coordinates_take_turns_and_cover_all(self):
        algorithm = registry.make("finite-differences", SPEC, {"coordinates": 4})
        state = algorithm.init(jax.random.key(0))
        assert algorithm.num_members == 8
        moved = []
        for iteration in range(3):
            at = state._replace(iteration=jnp.asarray(iteration, jnp.int32))
            moved.append(np.flatnonzero((members_of(algorithm, at) != np.asarray(state.params)).any(0)).tolist())
        assert moved == [[0, 1, 2, 3], [0, 1, 4, 5], [2, 3, 4, 5]]

    def test_a_step_has_the_length_of_the_learning_rate(self):
        algorithm = registry.make("finite-differences", SPEC, {"learning_rate": 0.25})
        state = algorithm.init(jax.random.key(0))
        after, _ = jax.jit(algorithm.update)(state, returns(smooth(members_of(algorithm, state))), jax.random.key(0))
        np.testing.assert_allclose(np.linalg.norm(after.params - state.params), 0.25, rtol=1e-5)


class TestHillClimb:
    def test_keeps_the_best_change_and_nothing_worse(self):
        algorithm = registry.make("hill-climb", SPEC, {"num_candidates": 3})
        state = algorithm.init(jax.random.key(0))
        members = members_of(algorithm, state)
        assert (members[0] == np.asarray(state.params)).all()
        update = jax.jit(algorithm.update)
        better, _ = update(state, returns([0.0, -1.0, 2.0, 1.0]), jax.random.key(0))
        np.testing.assert_array_equal(better.params, members[2])
        same, metrics = update(state, returns([0.0, -1.0, -2.0, np.nan]), jax.random.key(0))
        np.testing.assert_array_equal(same.params, state.params)
        assert metrics["improved"] == 0

    def test_climbs_the_quadratic(self):
        algorithm = registry.make("hill-climb", SPEC, {"num_candidates": 1})
        state = algorithm.init(jax.random.key(0))
        update = jax.jit(algorithm.update)
        heights = [smooth(np.asarray(state.params))]
        for _ in range(300):
            state, _ = update(state, returns(smooth(members_of(algorithm, state))), jax.random.key(0))
            heights.append(smooth(np.asarray(state.params)))
        assert (np.diff(heights) >= 0).all() and heights[-1] > heights[0] / 20


class TestPolicies:
    def test_a_bias_is_a_constant_part_of_a_linear_policys_action(self):
        algorithm = registry.make("pgpe", SPEC, {"linear_bias": True})
        assert algorithm.num_params == 2 * 3 + 2
        network = algorithm.to_network(jnp.arange(8, dtype=jnp.float32) / 10)
        assert network.weights[0].shape == (2, 3) and network.biases[0].tolist() == pytest.approx([0.6, 0.7])
        actor = algorithm.actor(algorithm.init(jax.random.key(0)))
        actor = actor._replace(params=jnp.asarray([0, 0, 0, 0, 0, 0, 0.5, -0.25], jnp.float32))
        action, _, _ = algorithm.act(
            actor, algorithm.begin(actor, jnp.asarray(-1)), jnp.ones(3), jax.random.key(0), explore=False
        )
        assert action.tolist() == [0.5, -0.25]
        dense = next(layer for layer in algorithm.policy_layers(actor) if hasattr(layer, "bias"))
        assert np.asarray(dense.bias).tolist() == [0.5, -0.25]

    def test_observations_of_little_spread_are_scaled_by_the_floor(self):
        seen = moments.of(np.array([[0.0, 3.0, 7.0], [0.02, 5.0, 7.0]]))  # standard deviations .01, 1 and 0
        for floor, expected in ((0.0, [100, 1, 0]), (0.1, [10, 1, 0]), (2.0, [0.5, 0.5, 0])):
            algorithm = registry.make("pgpe", SPEC, {"observation_floor": floor})
            mean, inverse_scale = algorithm.scaling(seen)
            assert inverse_scale.tolist() == pytest.approx(expected) and mean.tolist() == pytest.approx([0.01, 4, 7])
            state = algorithm.init(jax.random.key(0))._replace(observations=seen)  # a run compiles for any settings
            np.testing.assert_array_equal(actor_of(algorithm, state).inverse_scale, inverse_scale)
        with pytest.raises(UsageError, match="observation_floor must be"):
            registry.make("pgpe", SPEC, {"observation_floor": -1.0})

    def test_a_bias_for_a_perceptron_is_refused(self):
        with pytest.raises(UsageError, match="linear_bias is for a linear policy: an mlp has biases"):
            registry.make("pgpe", SPEC, {"linear_bias": True, "policy": "mlp"})

    def test_action_bins_choose_among_evenly_spaced_values(self):
        algorithm = registry.make("openai-es", SPEC, {"action_bins": 5})
        assert algorithm.num_params == 3 * 10
        params = np.zeros((2, 5, 3), np.float32)
        params[0, 4, 0] = params[1, 1, 0] = 1.0
        actor = algorithm.actor(algorithm.init(jax.random.key(0))._replace(params=jnp.asarray(params.ravel())))
        carry = algorithm.begin(actor, jnp.asarray(-1))
        action, _, _ = algorithm.act(actor, carry, jnp.ones(3), jax.random.key(0), explore=False)
        assert action.tolist() == [1.0, -0.5] and task_action(algorithm.spec, action).tolist() == [9.0, -4.5]

    def test_action_noise_explores_in_training_only(self):
        algorithm = registry.make("openai-es", SPEC, {"action_noise": 0.5})
        actor = algorithm.actor(algorithm.init(jax.random.key(0)))
        carry = algorithm.begin(actor, jnp.asarray(-1))
        keys = jax.random.split(jax.random.key(0), 200)

        def actions(explore):
            return jax.vmap(lambda key: algorithm.act(actor, carry, jnp.ones(3), key, explore=explore)[0])(keys)

        assert 0.4 < np.std(actions(True)) < 0.6 and np.std(actions(False)) == 0

    def test_scaled_observations_are_clipped(self):
        algorithm = registry.make("ars", SPEC, {"observation_clip": 2.0, "variant": "v1"})
        actor = algorithm.actor(algorithm.init(jax.random.key(0))._replace(params=jnp.ones(6, jnp.float32)))
        action, _, _ = algorithm.act(
            actor,
            algorithm.begin(actor, jnp.asarray(-1)),
            jnp.array([1e6, -1e6, 1.0]),
            jax.random.key(0),
            explore=False,
        )
        assert action.tolist() == [1.0, 1.0]


BAD = [
    ("openai-es", {"num_pairs": 0}, SPEC, r"OpenAIES.num_pairs must be a finite number above 0: got 0"),
    ("openai-es", {"noise_std": -1.0}, SPEC, "OpenAIES.noise_std must be a finite number above 0: got -1.0"),
    ("openai-es", {"learning_rate": float("nan")}, SPEC, "OpenAIES.learning_rate must be a finite number"),
    ("openai-es", {"adam_beta1": 1.0}, SPEC, r"adam_beta1 must be in \[0, 1\)"),
    ("openai-es", {"adaptive_episode_cap": 0.5}, SPEC, "adaptive_episode_cap must be at least 1"),
    ("openai-es", {"action_bins": 1}, SPEC, "action_bins must be at least 2"),
    ("openai-es", {"learning_rate": 1.0, "weight_decay": 1.0}, SPEC, "must stay below 1"),
    ("openai-es", {"fitness_shaping": "rank"}, SPEC, "fitness_shaping must be"),
    ("ars", {"num_top_directions": 40}, SPEC, "num_top_directions must not exceed num_directions: got 40 of 32"),
    ("ars", {"variant": "v3"}, SPEC, "ars.variant must be one of v1, v1-t, v2, v2-t: got 'v3'"),
    ("ars", {"policy": "cnn"}, SPEC, "policy must be one of linear, mlp: got 'cnn'"),
    ("ars", {"policy": "mlp", "hidden": (64, 0)}, SPEC, r"hidden\[1\] must be a finite number above 0"),
    ("ars", {"action_noise": 0.1}, EnvSpec("X", Box.unbounded(3), Discrete(2), 9), "X has 2 discrete ones"),
    ("ars", {"action_bins": 5}, EnvSpec("X", Box.unbounded(3), Discrete(2), 9), "X has 2 discrete ones"),
    ("ars", {"action_bins": 5}, EnvSpec("X", Box.unbounded(3), Box.unbounded(2), 9), "needs bounded actions"),
    ("hill-climb", {"num_candidates": -2}, SPEC, "num_candidates must be a finite number above 0: got -2"),
    ("finite-differences", {"difference": 0.0}, SPEC, "difference must be a finite number above 0"),
    ("finite-differences", {"coordinates": 0}, SPEC, "coordinates must be a finite number above 0"),
    ("ars", {"episode_cap": 0}, SPEC, r"ARS.episode_cap must be a finite number above 0: got 0"),
    ("ars", {"episode_cap": 9, "episode_growth": -1}, SPEC, "ARS.episode_growth must be"),
    ("ars", {"episode_growth": 5}, SPEC, "ARS.episode_growth needs an episode_cap that grows: got 5 and no cap"),
    ("ars", {"noise": 0.1}, SPEC, "Unknown option of ars 'noise'. Did you mean noise_std"),
    ("asr", {}, SPEC, "Unknown algorithm 'asr'. Did you mean ars"),
]


@pytest.mark.parametrize(("name", "settings", "spec", "message"), BAD, ids=[f"{n}-{s}" for n, s, _, _ in BAD])
def test_bad_settings_are_refused_in_one_sentence(name, settings, spec, message):
    from workhorse.core.errors import UsageError

    with pytest.raises(UsageError, match=message):
        registry.make(name, spec, settings)


@pytest.mark.parametrize("name", ["ars", "finite-differences", "ga", "hill-climb", "ns-es"])
def test_a_cap_cuts_what_is_learnt_from_and_no_evaluation(name):
    """Pendulum-v1 has no end but its clock."""
    plan = Plan("Pendulum-v1", {"max_episode_steps": 20}, name, {"episode_cap": 7, "episode_growth": 8}, 0, 4)
    loop = make_loop(plan, plan.spec(), 1)
    progress, lengths = loop.start(), []
    for _ in range(3):
        progress, metrics, _ = loop.iterate(progress)
        lengths.append(metrics["episode_length"])
    assert lengths == [7, 15, 20]
    assert loop.evaluate(progress, 5).lengths.tolist() == [20] * 5
    loop.close()


@pytest.mark.parametrize("name", ["ars", "hill-climb", "pgpe"])
def test_members_begin_alike_where_starts_are_shared(name):
    """Members that act alike, but for a billionth, have equal returns where they begin alike, and only there."""
    still = {"radius": 1e-9} if name == "pgpe" else {"noise_std": 1e-9}
    spreads = []
    for shared in (False, True):
        settings = still | {"shared_starts": shared}
        plan = Plan("Pendulum-v1", {"max_episode_steps": 20}, name, settings, 0, 4)
        loop = make_loop(plan, plan.spec(), 1)
        progress, both = loop.start(), []
        for _ in range(2):
            progress, metrics, _ = loop.iterate(progress)
            both.append(metrics)
        loop.close()
        spreads.append(max(each["training_return_max"] - each["training_return_min"] for each in both))
        means = [each["training_return"] for each in both]
        assert abs(means[0] - means[1]) > 1.0, "the next iteration begins elsewhere"
    assert spreads[0] > 10.0
    assert spreads[1] < 1e-3


def test_shared_starts_are_as_many_as_a_member_has_episodes():
    episodes = np.arange(12)
    own, shared = (
        registry.make("ars", SPEC, {"episodes_per_member": 3, "shared_starts": shared}) for shared in (False, True)
    )
    assert own.starts(episodes).tolist() == list(range(12))
    assert shared.starts(episodes).tolist() == [0, 1, 2] * 4


def test_candidates_of_a_genetic_algorithm_share_every_one_of_their_starts():
    herd = {"num_children": 3, "num_parents": 2, "num_candidates": 2, "candidate_episodes": 2}
    settings = herd | {"episodes_per_member": 2, "shared_starts": True}
    starts = registry.make("ga", SPEC, settings).starts(np.arange(14))
    assert starts.tolist() == [0, 1] * 3 + [0, 1, 2, 3] * 2
