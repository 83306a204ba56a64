"""Low-rank perturbations: their law, the member that acts with them, the update, and bits that depend on nothing."""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from tests.distributed.in_process import InProcess
from workhorse.algorithms import registry
from workhorse.core.digest import digest
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete
from workhorse.core.types import Returns
from workhorse.distributed.cluster import Cluster
from workhorse.math import moments
from workhorse.math.low_rank_noise import Matrices, factors, weighted_matrices
from workhorse.networks.heads import action_of
from workhorse.training.evolve import Evolve
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.population import PopulationPrograms

pytestmark = pytest.mark.as_users_compile

KEY = jax.random.key(5)


def spec_of(size, action):
    return EnvSpec("test", Box.unbounded(size), action, 100)


def es(size, action, hidden=None, rank=1, **settings):
    """An openai-es with a perturbation rank, and a learner of it whose parameters are all different."""
    network = {"policy": "linear"} if hidden is None else {"policy": "mlp", "hidden": hidden}
    algorithm = registry.make(
        "openai-es",
        spec_of(size, action),
        {"perturbation_rank": rank, "rescale_actions": False, **network, **settings},
    )
    state = algorithm.init(jax.random.key(0))
    return algorithm, state._replace(params=0.3 * jax.random.normal(jax.random.key(1), state.params.shape, jnp.float32))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def drawn(key, count, matrices, rank):
    """Factors of the first perturbations, stacked."""
    return jax.vmap(lambda index: factors(key, index, matrices, rank))(jnp.arange(count))


def dense(layer):
    return np.einsum("pmr,pnr->pmn", np.asarray(layer.left, np.float64), np.asarray(layer.right, np.float64))


class TestLaw:
    @pytest.mark.parametrize("rank", [1, 2, 5])
    def test_entries_have_mean_0_and_variance_1_and_are_uncorrelated(self, rank):
        count = 40_000
        (layer,) = drawn(KEY, count, Matrices(((3, 4),), biases=True), rank)
        rows = np.concatenate([dense(layer).reshape(count, 12), np.asarray(layer.bias, np.float64)], axis=1)
        noise = np.sqrt(8 / count)  # of an entry of the covariance: Var(E_ij^2) = 8 at rank 1, less above and elsewhere
        assert np.abs(rows.mean(0)).max() < 4.5 / np.sqrt(count)
        assert np.abs(rows.T @ rows / count - np.eye(15)).max() < 4.5 * noise

    def test_factors_and_biases_are_standard_normal(self):
        (layer,) = drawn(KEY, 20_000, Matrices(((3, 4),), biases=True), 4)
        for part in (2 * np.asarray(layer.left), np.asarray(layer.right), np.asarray(layer.bias)):
            assert kstest(part.ravel(), "norm").pvalue > 1e-3 and 4 < np.abs(part).max() < 6
        together = np.concatenate([2 * layer.left.reshape(-1, 12), layer.right.reshape(-1, 16), layer.bias], axis=1)
        assert np.abs(np.corrcoef(together.T) - np.eye(31)).max() < 4.5 / np.sqrt(20_000)

    @pytest.mark.parametrize("rank", [1, 2, 4, 50])
    def test_kurtosis_falls_to_the_gaussian_one_as_3_and_6_over_the_rank(self, rank):
        (layer,) = drawn(KEY, 4_000, Matrices(((6, 8),), biases=False), rank)
        entries = dense(layer).reshape(50, -1)
        found = (entries**4).mean(1) / (entries**2).mean(1) ** 2
        error = found.std(ddof=1) / np.sqrt(len(found))
        assert abs(found.mean() - (3 + 6 / rank)) < 4 * error + 0.05 and error < 0.4

    def test_a_matrix_has_its_rank(self):
        for rank in (1, 2, 3):
            first, second = drawn(KEY, 5, Matrices(((6, 9), (2, 3)), biases=False), rank)
            assert (np.linalg.matrix_rank(dense(first), tol=1e-5) == rank).all()
            assert (np.linalg.matrix_rank(dense(second), tol=1e-5) == min(rank, 2)).all()

    def test_every_iteration_pair_and_layer_has_noise_of_its_own(self):
        algorithm, state = es(3, Box.unbounded(3), (3,))
        seen, begin = [], jax.jit(algorithm.begin)
        for iteration in range(3):
            actor = algorithm.actor(state._replace(iteration=jnp.asarray(iteration, jnp.int32)))
            for pair in range(4):
                for layer in begin(actor, jnp.asarray(2 * pair)):
                    assert layer.bias is not None
                    seen += [np.asarray(layer.left).ravel() / 0.03, layer.right.ravel(), np.asarray(layer.bias) / 0.03]
        rows = np.stack(seen)
        assert len(rows) == 3 * 4 * 2 * 3
        apart = np.abs(rows[:, None] - rows[None]).max(2) + np.eye(len(rows))
        assert apart.min() > 1e-3


ACTIONS = {
    "box": Box.unbounded(3),
    "bins": Box((-1.0, -2.0), (1.0, 2.0)),
    "discrete": Discrete(4),
    "choices": MultiDiscrete((2, 3)),
    "switches": MultiBinary(3),
}


class TestMembers:
    @pytest.mark.parametrize(
        ("kind", "hidden", "rank"),
        [("box", None, 1), ("bins", (7,), 3), ("discrete", None, 3), ("choices", None, 1), ("switches", (7, 5), 1)],
    )
    def test_acting_with_factors_is_acting_with_the_displaced_parameters(self, kind, hidden, rank):
        bins = {"action_bins": 4} if kind == "bins" else {}
        algorithm, state = es(6, ACTIONS[kind], hidden, rank, noise_std=0.5, **bins)
        actor, obs = algorithm.actor(state), jax.random.normal(jax.random.key(2), (10, 6), jnp.float32)

        @jax.jit
        def both(members, obs):
            def one(member, obs):
                carry = algorithm.begin(actor, member)
                network = algorithm.to_network(algorithm.displace(actor, member))
                expected = action_of(algorithm.spec.action, algorithm.action_bins, network(obs))
                acted, _, _ = algorithm.act(actor, carry, obs, KEY, explore=True)
                return acted, expected, algorithm.output(actor, carry, obs), network(obs)

            return jax.vmap(one)(members, obs)

        acted, expected, output, by_hand = map(np.asarray, both(jnp.arange(10), obs))
        np.testing.assert_allclose(output, by_hand, atol=3e-6)
        np.testing.assert_allclose(acted, expected, atol=3e-6)
        assert np.ptp(output, axis=0).min() > 0.1

    def test_pairs_are_mirrored_and_of_the_noises_size(self):
        algorithm, state = es(5, Box.unbounded(3), (4,), noise_std=0.2, num_pairs=200)
        actor = algorithm.actor(state)
        members = np.asarray(jax.jit(jax.vmap(lambda member: algorithm.displace(actor, member)))(jnp.arange(400)))
        away = members.astype(np.float64) - np.asarray(state.params)
        np.testing.assert_allclose(away[0::2], -away[1::2], atol=1e-6)
        assert 0.18 < away.std() < 0.22

    def test_a_negative_slot_is_the_policy_itself(self):
        algorithm, state = es(5, Box.unbounded(3), (4,), noise_std=50.0)
        actor, obs = algorithm.actor(state), jnp.linspace(-1, 1, 5, dtype=jnp.float32)
        found = algorithm.output(actor, algorithm.begin(actor, jnp.asarray(-1)), obs)
        np.testing.assert_allclose(found, algorithm.to_network(state.params)(obs), atol=1e-6)

    def test_a_member_carries_its_factors_only(self):
        algorithm, state = es(348, Box.unbounded(17), (64, 64))
        carry = jax.eval_shape(algorithm.begin, algorithm.actor(state), jnp.asarray(0))
        assert sum(leaf.size for leaf in jax.tree.leaves(carry)) == 348 + 2 * 64 + 2 * 64 + 2 * 64 + 17 + 17
        assert algorithm.num_params == 27_601


class TestUpdate:
    @pytest.mark.parametrize(("count", "rank", "biases"), [(3, 1, True), (64, 2, False), (150, 3, True)])
    def test_the_sums_are_those_of_a_loop_over_perturbations(self, count, rank, biases):
        matrices = Matrices(((4, 6), (2, 4)), biases)
        weights = np.random.default_rng(0).normal(size=count).astype(np.float32)
        sums, vectors = jax.jit(weighted_matrices, static_argnums=(2, 3))(KEY, weights, matrices, rank)
        layers = drawn(KEY, count, matrices, rank)
        for total, layer in zip(sums, layers, strict=True):
            expected = sum(weight * matrix for weight, matrix in zip(weights, dense(layer), strict=True))
            np.testing.assert_allclose(total, expected, atol=2e-4)
        assert len(vectors) == (2 if biases else 0)
        for total, layer in zip(vectors, layers, strict=False):
            expected = sum(weight * vector for weight, vector in zip(weights, np.asarray(layer.bias), strict=True))
            np.testing.assert_allclose(total, expected, atol=2e-4)

    @pytest.mark.parametrize(("name", "count"), [("openai-es", "num_pairs"), ("ars", "num_directions")])
    def test_a_step_is_the_weighted_sum_of_what_the_members_were_displaced_by(self, name, count):
        settings = {"policy": "mlp", "hidden": (4,), count: 40, "perturbation_rank": 2, "noise_std": 0.5}
        algorithm = registry.make(name, spec_of(3, Box.unbounded(2)), settings)
        state = algorithm.init(jax.random.key(0))
        actor = algorithm.actor(state)
        members = np.asarray(jax.jit(jax.vmap(lambda member: algorithm.displace(actor, member)))(2 * jnp.arange(40)))
        eps = (members.astype(np.float64) - np.asarray(state.params)) / 0.5
        experience = Returns(np.arange(80, dtype=np.float32) ** 2, 1.0, moments.empty(3, jnp.float64))
        weights = algorithm.weights(state, experience)
        assert algorithm.num_blocks == 1
        block = jax.jit(algorithm.block)(algorithm.noise_key(state), weights, 0)
        np.testing.assert_allclose(block[0], np.asarray(weights[0], np.float64) @ eps, rtol=1e-3, atol=1e-4)
        moved, _ = jax.jit(algorithm.step)(state, experience, [block])
        whole, _ = jax.jit(algorithm.update)(state, experience, KEY)
        np.testing.assert_allclose(moved.params, whole.params, atol=1e-6)
        assert np.abs(np.asarray(moved.params) - np.asarray(state.params)).max() > 1e-4

    def test_the_estimate_is_unbiased_on_a_quadratic(self):
        algorithm, state = es(3, Box.unbounded(2), (2,), fitness_shaping="none", num_pairs=64, noise_std=0.2)
        rng = np.random.default_rng(1)
        top, curvature = rng.normal(size=14).astype(np.float32), rng.uniform(0.5, 2.0, 14).astype(np.float32)

        @jax.jit
        def estimate(iteration):
            at = state._replace(iteration=iteration)
            actor = algorithm.actor(at)
            members = jax.vmap(lambda member: algorithm.displace(actor, member))(jnp.arange(128))
            fitness = -(curvature * (members - top) ** 2).sum(1)
            weights = algorithm.weights(at, Returns(fitness, 1.0, moments.empty(3, jnp.float64)))
            return algorithm.block(algorithm.noise_key(at), weights, 0)[0]

        found = np.stack([estimate(jnp.asarray(iteration, jnp.int32)) for iteration in range(80)])
        slope = -2 * curvature * (np.asarray(state.params) - top)
        error = found.std(0, ddof=1) / np.sqrt(len(found))
        assert (np.abs(found.mean(0) - slope) < 4 * error).all()
        assert (error < 0.1 * np.abs(slope).max()).all()


WIDTHS = (1, 3, 8, 33)


@pytest.mark.parametrize(
    ("size", "actions", "hidden", "rank", "widths"),
    [
        (17, 6, (64,), 1, WIDTHS),
        (1, 1, None, 2, WIDTHS),
        pytest.param(348, 17, (256, 256), 1, WIDTHS, marks=pytest.mark.slow),
        pytest.param(17, 6, None, 3, WIDTHS, marks=pytest.mark.slow),
        pytest.param(3, 2, (5,), 3, range(1, 65), marks=pytest.mark.slow),
        pytest.param(348, 17, (64, 64), 1, range(1, 65), marks=pytest.mark.slow),
    ],
)
def test_a_member_acts_with_the_same_bits_whoever_acts_beside_it(size, actions, hidden, rank, widths):
    algorithm, state = es(size, Box.unbounded(actions), hidden, rank)
    actor = algorithm.actor(state)
    carry = jax.jit(jax.vmap(lambda member: algorithm.begin(actor, member)))(jnp.arange(64))
    obs = jax.random.normal(jax.random.key(1), (64, size), jnp.float32)

    @jax.jit
    def act(actor, carry, obs):
        return jax.vmap(lambda c, o: algorithm.act(actor, c, o, KEY, explore=True)[0])(carry, obs)

    whole = np.asarray(act(actor, carry, obs))
    for width in widths:
        rows = np.random.default_rng(width).permutation(64)[:width]
        mine = jax.tree.map(lambda leaf, rows=rows: leaf[rows], carry)
        np.testing.assert_array_equal(act(actor, mine, obs[rows]), whole[rows], err_msg=f"width {width}")
    alone = jax.jit(lambda actor, c, o: algorithm.act(actor, c, o, KEY, explore=True)[0])
    np.testing.assert_array_equal(alone(actor, jax.tree.map(lambda leaf: leaf[7], carry), obs[7]), whole[7])


def test_a_member_whose_observation_is_broken_spoils_no_other():
    algorithm, state = es(4, Box.unbounded(2), (3,))
    actor, obs = algorithm.actor(state), np.ones((5, 4), np.float32)
    carry = jax.vmap(lambda member: algorithm.begin(actor, member))(jnp.arange(5))
    output = jax.jit(jax.vmap(lambda c, o: algorithm.output(actor, c, o)))
    sound, obs[2] = np.asarray(output(carry, obs)), np.nan
    broken = np.asarray(output(carry, obs))
    assert np.isnan(broken[2]).all()
    np.testing.assert_array_equal(np.delete(broken, 2, 0), np.delete(sound, 2, 0))


def test_networks_of_their_own_act_alike():
    """Mapped over learners, as in a sweep, nothing is shared and nothing changes."""
    algorithm, state = es(4, Box.unbounded(2), (3,))
    params = jnp.stack([state.params, 2 * state.params, -state.params])
    obs = jnp.linspace(-1, 1, 4, dtype=jnp.float32)

    def output(params):
        actor = algorithm.actor(state._replace(params=params))
        return algorithm.output(actor, algorithm.begin(actor, jnp.asarray(3)), obs)

    np.testing.assert_allclose(jax.vmap(output)(params), np.stack([output(row) for row in params]), atol=1e-6)


def bits():
    """Digests of an update, and of members that act, for networks wide enough to be shared out among threads."""
    algorithm, state = es(348, Box.unbounded(17), (128, 64), num_pairs=300)
    experience = Returns(np.arange(600, dtype=np.float32) ** 2, 1.0, moments.empty(348, jnp.float64))
    after, _ = jax.jit(algorithm.update)(state, experience, KEY)
    actor = algorithm.actor(state)
    carry = jax.vmap(lambda member: algorithm.begin(actor, member))(jnp.arange(64))
    obs = jax.random.normal(jax.random.key(1), (64, 348), jnp.float32)
    act = jax.jit(lambda a, c, o: jax.vmap(lambda c, o: algorithm.act(a, c, o, KEY, explore=True)[0])(c, o))
    return [digest(after), digest(act(actor, carry, obs))]


@pytest.mark.slow
@pytest.mark.parametrize(("threads", "cores"), [(1, 1), (2, 1), (2, 2), (4, 2)])
def test_the_number_of_threads_changes_no_bit(threads, cores, tmp_path):
    surroundings = {**os.environ, "PJRT_NPROC": str(threads), "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    free = sorted(os.sched_getaffinity(0))[:cores]
    program = (
        f"import os; os.sched_setaffinity(0, {free})\n"
        "import json\nfrom tests.algorithms.test_low_rank import bits\nprint(json.dumps(bits()))"
    )
    done = subprocess.run([sys.executable, "-c", program], env=surroundings, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == bits()


PLAN = Plan(
    "CartPole-v1", {"max_episode_steps": 30}, "openai-es",
    {"num_pairs": 6, "policy": "mlp", "hidden": (4,), "perturbation_rank": 1, "noise_std": 0.5}, 3, 3,
)  # fmt: skip


def digests(loop, progress, iterations):
    found = []
    for _ in range(iterations):
        progress, _, _ = loop.iterate(progress, lambda env_steps: True)
        found.append(digest(progress.state))
    return found, progress


def test_a_run_is_the_same_when_resumed_and_on_a_cluster():
    programs = PopulationPrograms(PLAN.make_algorithm(PLAN.spec()), PLAN.seed)
    loop = make_loop(PLAN, programs.algorithm.spec, 1)
    expected, _ = digests(loop, loop.start(), 4)
    first, halfway = digests(loop, loop.start(), 2)
    kept = jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf), halfway)
    back = jax.tree.map(
        lambda leaf, was: jax.random.wrap_key_data(leaf) if _is_key(was) else jnp.asarray(leaf), kept, halfway
    )
    loop.close()
    fresh = make_loop(PLAN, programs.algorithm.spec, 1)
    assert first + digests(fresh, back, 2)[0] == expected
    fresh.close()
    cluster = Cluster(PLAN, programs, InProcess(2), "scalars", lambda note: None, patience_floor_s=0.2)
    team = Evolve(programs, cluster)
    assert digests(team, team.start(), 4)[0] == expected and len(set(expected)) == 4
    cluster.close()


def _is_key(leaf):
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


class TestErrors:
    @pytest.mark.parametrize("rank", [0, -2])
    def test_a_rank_below_1_is_refused(self, rank):
        message = f"OpenAIES.perturbation_rank must be at least 1: got {rank}. Leave it out for noise of full rank."
        with pytest.raises(UsageError, match=message):
            es(3, Discrete(2), rank=rank)

    def test_a_rank_that_is_no_whole_number_is_refused(self):
        with pytest.raises(UsageError, match=r"openai-es.perturbation_rank must be a whole number or None: got 1.5"):
            es(3, Discrete(2), rank=1.5)

    @pytest.mark.parametrize("name", ["pgpe", "snes", "sep-cma-es"])
    def test_an_algorithm_with_a_deviation_for_each_parameter_says_who_has_a_rank(self, name, capsys):
        from workhorse.cli.main import main

        assert main(["train", "CartPole-v1", "--algorithm", name, "--perturbation-rank", "1"]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "Unknown option --perturbation-rank: it is an option of ars and openai-es" in said
